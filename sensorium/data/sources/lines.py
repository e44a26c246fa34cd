"""JSON lines: one object a line, its keys the columns. A ``.json`` file may be one document instead.

Documents: an array of objects; objects one after another, written over several lines; one object that holds an array of
objects under one of its keys, whose items then are the rows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from sensorium.core.errors import UserError
from sensorium.data.contents import UNREADABLE
from sensorium.data.encodings import CHUNK, detect, open_text
from sensorium.data.objects import BadObject, parse, parse_next, skip, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files, suffix_of
from sensorium.data.spool import spooling

DOCUMENT = 4
"""A document may be so many times as long as a cell."""
_SPACE = re.compile(r"[\s,]*")
_SPEECH = ({"role", "content"}, {"from", "value"})
"""Keys of a message: an array of them is a conversation, not the table's rows."""

Object = tuple[dict[str, Any] | BadObject, int]


class Lines(Source):
    """One file of JSON lines or several."""

    suffixes = (".jsonl", ".ndjson", ".json")
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Converted to Parquet; a line that is no JSON object is a bad row."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} JSON files"
        opened = Opened(None, name_of_files(given), folder_of(given))  # type: ignore[arg-type]
        with spooling(where) as spool:
            for path in given:
                try:
                    spool_objects(_objects(path, opened, options), spool, opened, options)
                except UNREADABLE as error:
                    raise UserError(f"'{path}' can't be read: {error}") from error
            opened.blocks = converted(spool)
        return opened


def _objects(path: Path, opened: Opened, options: ReadOptions) -> Iterator[Object]:
    encoding = options.encoding
    if not encoding:
        found = detect(path)
        encoding = found.name
        told = f"read as {found.words}" if found.name not in ("utf-8", "utf-8-sig") else ""
        opened.remark(told, path.name, encoding=found.name, undecodable_bytes=found.damaged)
    with open_text(path, encoding) as file:
        lines = _numbered(file, path, options)
        first, second = next(lines, None), next(lines, None)
        if first is None:
            return
        if _is_document(first[1], second[1] if second else "", suffix_of(path)):
            begun = first[1] + (second[1] if second else "")
            yield from _document(path, begun + _rest(file, options.longest * DOCUMENT + 1 - len(begun)), first[0], opened, options)
            return
        for number, line in itertools.chain([first], [second] if second else [], lines):
            yield _row(line, f"{path.name}, line {number:,}"), len(line)


def _rest(file: TextIO, size: int) -> str:
    """Up to ``size`` characters; asked for at once, Python would make room for all of them."""
    parts: list[str] = []
    while size > 0 and (part := file.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return "".join(parts)


def _numbered(file: TextIO, path: Path, options: ReadOptions) -> Iterator[tuple[int, str]]:
    """The lines of a text that aren't blank, and their numbers from 1."""
    for number in itertools.count(1):
        line = file.readline(options.longest + 1)
        if not line:
            return
        if len(line) > options.longest:
            raise options.too_long(f"Line {number:,} of '{path}'")
        if line.strip():
            yield number, line


def _is_document(first: str, second: str, suffix: str) -> bool:
    """Whether a file is one value over several lines, or one that holds the rows; not one object a line."""
    if second and _is_object(second.strip()):
        return first.strip() == "["
    if first.lstrip()[:1] == "[":
        return suffix == ".json" or not second or not first.rstrip().endswith("]")
    if not second:
        return suffix == ".json" and _is_object(first)
    return first.lstrip()[:1] == "{" and not _is_object(first)


def _is_object(text: str) -> bool:
    try:
        return text[:1] == "{" and isinstance(parse(text), dict)
    except ValueError:
        return False


def _row(text: str, where: str) -> dict[str, Any] | BadObject:
    try:
        row = parse(text)
    except ValueError as error:
        return BadObject(where, str(error), text[:200])
    if isinstance(row, dict):
        return row
    return BadObject(where, f"a JSON {type(row).__name__} where an object with a key a column is needed", text[:200])


def _document(path: Path, text: str, number: int, opened: Opened, options: ReadOptions) -> Iterator[Object]:
    """The rows of a file that is one document, or several one after another."""
    if len(text) > options.longest * DOCUMENT:
        raise UserError(
            f"'{path}' is one JSON document of over {options.longest * DOCUMENT:,} characters. Write it as JSON lines, one "
            f"object a line, or raise data.max_cell_mb={options.max_cell_mb:g}."
        )
    array = text.lstrip()[:1] == "["
    at = text.index("[") + 1 if array else 0
    rows: list[Object] = []
    while True:
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
        if at >= len(text) or (array and text[at] == "]"):
            break
        where = f"{path.name}, line {number + text.count(chr(10), 0, at):,}"
        try:
            value, end = parse_next(text, at)
        except ValueError as error:
            end = skip(text, at)
            lost = "" if end else "; what follows can't be read"
            rows.append((BadObject(where, f"{error}{lost}", text[at : at + 200]), 0))
            if not end:
                break
            at = end
            continue
        if isinstance(value, dict):
            rows.append((value, end - at))
        else:
            reason = f"a JSON {type(value).__name__} where an object with a key a column is needed"
            rows.append((BadObject(where, reason, text[at : at + 200]), 0))
        at = end
    alone = rows[0][0] if len(rows) == 1 else None
    if isinstance(alone, dict) and len(keys := _arrays(alone)) == 1:
        others = [key for key in alone if key != keys[0]]
        opened.remark(
            f"the rows were taken from '{keys[0]}'" + (f"; {', '.join(map(repr, others))} left out" if others else ""),
            path.name,
        )
        yield from ((row, len(text) // len(alone[keys[0]])) for row in alone[keys[0]])
        return
    yield from rows


def _arrays(row: dict[str, Any]) -> list[str]:
    """The keys under which an object holds arrays of objects that aren't messages of a conversation."""
    return [
        key for key, value in row.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        and not any(speech <= value[0].keys() for speech in _SPEECH)
    ]  # fmt: skip
