"""Files that stand under their name only when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to become ``path``: it takes the name, in place of what had it, when the block ends well.

    The name keeps its ending, as some writers go by that. Nothing is left of a block that fails.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        sync(part)
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # gone where all went well; its folder may be a file where not
            part.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole(path) as part:
        part.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON to be read by people as well; what JSON doesn't know becomes text."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
