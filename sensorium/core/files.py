"""Atomic writes: files that stand under their name only when they are complete and on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Context of an atomic write: gives a temporary path, which replaces ``path`` when the block ends well.

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
    """Write JSON atomically."""
    with atomic_write(path) as part:
        part.write_text(json_text(value), encoding="utf-8")


def json_text(value: Any) -> str:
    """Indented JSON, to be read by people as well; values that JSON doesn't know become text."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def digest(path: Path) -> str:
    """SHA-256 digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk (``fsync``)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
