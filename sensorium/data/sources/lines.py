"""JSON lines: one object a line, its keys the columns. A ``.json`` file may also be one array of objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.data.objects import parse, spool_objects
from sensorium.data.sources import UNREADABLE, Opened, Source, converted, folder_of, name_of_files, read_stream
from sensorium.data.spool import spooling

LINE = 256 << 20
"""Bytes of the longest line, and of the longest file that is one array."""


class Lines(Source):
    """One file of JSON lines or several."""

    suffixes = (".jsonl", ".ndjson", ".json")
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path]) -> Opened:
        """Converted to Parquet; a line that is no JSON object is left out and counted."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} JSON files"
        opened = Opened(None, name_of_files(given), folder_of(given))  # type: ignore[arg-type]
        with spooling(where) as spool:
            for path in given:
                try:
                    spool_objects(_objects(path, opened), spool, opened.mended)
                except UNREADABLE as error:
                    raise UserError(f"'{path}' can't be read: {error}") from error
            opened.blocks = converted(spool)
        return opened


def _objects(path: Path, opened: Opened) -> Iterator[tuple[dict[str, Any], int]]:
    with read_stream(path) as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            if number == 1 and line.lstrip()[:1] == b"[":
                yield from _array(path, line + file.read(LINE + 1 - len(line)), opened)
                return
            if len(line) > LINE:
                raise UserError(f"Line {number:,} of '{path}' is longer than {LINE:,} bytes. Is it JSON lines?")
            if not line.strip():
                continue
            try:
                row = parse(line)
            except (ValueError, RecursionError) as error:
                row, reason = None, f"no JSON: {error}"
            else:
                reason = f"a JSON {type(row).__name__} where an object with a key a column is needed"
            if isinstance(row, dict):
                yield row, len(line)
            else:
                opened.bad(f"{path.name}, line {number:,}", reason, line[:200].decode("utf-8", "replace"))


def _array(path: Path, data: bytes, opened: Opened) -> Iterator[tuple[dict[str, Any], int]]:
    if len(data) > LINE:
        raise UserError(f"'{path}' is one array of over {LINE:,} bytes. Write it as JSON lines: one object a line.")
    try:
        rows = parse(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' can't be read as JSON: {error}") from error
    for i, row in enumerate(rows):
        if isinstance(row, dict):
            yield row, len(data) // len(rows)
        else:
            reason = f"a JSON {type(row).__name__} where an object is needed"
            opened.bad(f"{path.name}, item {i + 1:,}", reason, str(row))
