"""JSON lines: one object a line, whose keys are columns. A ``.json`` file may be one document instead.

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
from sensorium.data.contents import READ_ERRORS
from sensorium.data.encodings import CHUNK_BYTES, open_text
from sensorium.data.objects import BadObject, parse_json, parse_json_at, skip_json, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import (
    SPLIT_NAME,
    Opened,
    Source,
    converted,
    encoding_of,
    folder_of,
    name_of_files,
    suffix_of,
)
from sensorium.data.spool import spooling

MAX_DOCUMENT_CELLS = 16
"""Largest ratio of a document's length to that of a cell."""
_SPACE = re.compile(r"[\s,]*")
_SPEECH = ({"role", "content"}, {"from", "value"})
"""Keys of a message: an array of them is a conversation, not the table's rows."""

Object = tuple[dict[str, Any] | BadObject, int]


class JsonLines(Source):
    """One file of JSON lines or several."""

    suffixes = (".jsonl", ".ndjson", ".json")
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet; a line that is no JSON object is a bad row."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} JSON files"
        opened = Opened.empty(name_of_files(given), folder_of(given))
        with spooling(where) as spool:
            for path in given:
                try:
                    spool_objects(_objects(path, opened, options), spool, opened, options)
                except READ_ERRORS as error:
                    raise UserError(f"'{path}' can't be read: {error}") from error
            opened.blocks = converted(spool)
        return opened


def _objects(path: Path, opened: Opened, options: ReadOptions) -> Iterator[Object]:
    with open_text(path, encoding_of(path, options, opened)) as file:
        lines = _numbered(file, path, options)
        first, second = next(lines, None), next(lines, None)
        if first is None:
            return
        if _is_document(first[1], second[1] if second else "", suffix_of(path)):
            prefix = first[1] + (second[1] if second else "")
            yield from _document(
                path,
                prefix + _rest(file, options.max_cell_size * MAX_DOCUMENT_CELLS + 1 - len(prefix)),
                first[0],
                opened,
                options,
            )
            return
        for number, line in itertools.chain([first], [second] if second else [], lines):
            yield _row(line, f"{path.name}, line {number:,}"), len(line)


def _rest(file: TextIO, size: int) -> str:
    """Read up to ``size`` characters piece by piece: asked for at once, Python would allocate all of them."""
    parts: list[str] = []
    while size > 0 and (part := file.read(min(size, CHUNK_BYTES))):
        parts.append(part)
        size -= len(part)
    return "".join(parts)


def _numbered(file: TextIO, path: Path, options: ReadOptions) -> Iterator[tuple[int, str]]:
    """Non-blank lines of a text, with their numbers from 1."""
    for number in itertools.count(1):
        line = file.readline(options.max_cell_size + 1)
        if not line:
            return
        if len(line) > options.max_cell_size:
            raise options.too_long(f"Line {number:,} of '{path}'")
        if line.strip():
            yield number, line


def _is_document(first: str, second: str, suffix: str) -> bool:
    """True for a file that is one value over several lines, or one that has the rows; not one object a line."""
    if second and _is_object(second.strip()):
        return first.strip() == "["
    if first.lstrip()[:1] == "[":
        return suffix == ".json" or not second or not first.rstrip().endswith("]")
    if not second:
        return suffix == ".json" and _is_object(first)
    return first.lstrip()[:1] == "{" and not _is_object(first)


def _is_object(text: str) -> bool:
    try:
        return text[:1] == "{" and isinstance(parse_json(text), dict)
    except ValueError:
        return False


def _row(text: str, where: str) -> dict[str, Any] | BadObject:
    try:
        row = parse_json(text)
    except ValueError as error:
        return BadObject(where, str(error), text[:200])
    if isinstance(row, dict):
        return row
    return BadObject(where, f"a JSON {type(row).__name__} where an object with a key a column is needed", text[:200])


def _document(path: Path, text: str, number: int, opened: Opened, options: ReadOptions) -> Iterator[Object]:
    """Rows of a file that is one document, or several one after another."""
    if len(text) > options.max_cell_size * MAX_DOCUMENT_CELLS:
        raise UserError(
            f"'{path}' is one JSON document of over {options.max_cell_size * MAX_DOCUMENT_CELLS:,} characters. "
            f"Write it as JSON lines, one object a line, or raise data.max_cell_mb={options.max_cell_mb:g}."
        )
    rows = list(_values(path, text, number))
    if rows and isinstance(rows[0][0], BadObject) and len(rows) == 1 and text.lstrip()[:1] == "{":
        # Broken from its very beginning: lines of which the first ones are torn, unless no line is an object.
        lines = [
            (_row(line, f"{path.name}, line {number + at:,}"), len(line))
            for at, line in enumerate(text.split("\n"))
            if line.strip()
        ]
        if any(isinstance(row, dict) for row, _ in lines):
            rows = lines
    found = unwrap(rows[0][0]) if len(rows) == 1 and isinstance(rows[0][0], dict) else None
    if found is None:
        yield from rows
        return
    inner, remark = found
    opened.remark(remark, path.name)
    yield from ((row, len(text) // max(len(inner), 1)) for row in inner)


def _values(path: Path, text: str, number: int) -> Iterator[Object]:
    """Objects of a text: in arrays, and one after another."""
    at = line = 0
    depth, end = 0, len(text)
    while True:
        space = _SPACE.match(text, at)
        assert space is not None  # the pattern fits nothing, too
        at = space.end()
        if at >= end:
            return
        if text[at] == ("[" if depth == 0 else "]"):
            depth, at = 1 - depth, at + 1
            continue
        number, line = number + text.count("\n", line, at), at
        where = f"{path.name}, line {number:,}"
        try:
            value, after = parse_json_at(text, at)
        except ValueError as error:
            after = skip_json(text, at)
            lost = "" if after else "; what follows can't be read"
            yield BadObject(where, f"{error}{lost}", text[at : at + 200]), 0
            if not after:
                return
            at = after
            continue
        if isinstance(value, dict):
            yield value, after - at
        else:
            reason = f"a JSON {type(value).__name__} where an object with a key a column is needed"
            yield BadObject(where, reason, text[at : at + 200]), 0
        at = after


def unwrap(row: dict[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """Rows inside one object, and a remark on how; None where it is a row itself.

    Rows under a key, or under keys that name parts of a split; pandas' orients "split", "columns" and "index"; a
    list of cells for each column.
    """
    values = list(row.values())
    if (
        isinstance(row.get("columns"), list)
        and isinstance(row.get("data"), list)
        and set(row) <= {"columns", "index", "data"}
    ):
        names = [str(name) for name in row["columns"]]
        if all(isinstance(cells, list) and len(cells) == len(names) for cells in row["data"]):
            return [dict(zip(names, cells, strict=True)) for cells in row["data"]], "read as pandas' orient=split"
    keys = _arrays(row)
    if len(keys) == 1:
        others = [key for key in row if key != keys[0]]
        left = f"; {', '.join(map(repr, others))} left out" if others else ""
        return row[keys[0]], f"the rows were taken from '{keys[0]}'{left}"
    if len(keys) > 1 and len(keys) == len(row) and all(SPLIT_NAME.fullmatch(key) for key in keys):
        return [
            {"split": key, **item} for key in keys for item in row[key]
        ], f"the rows were taken from {', '.join(map(repr, keys))}"
    if len(row) == 1 and isinstance(values[0], dict) and (found := unwrap(values[0])):
        return found[0], f"in '{next(iter(row))}' {found[1]}"
    if values and all(isinstance(value, dict) and value for value in values):
        inner = list(values[0])
        if all(list(value) == inner for value in values) and _numbers(inner):
            return [
                {key: value[place] for key, value in row.items()} for place in inner
            ], "read as pandas' orient=columns"
        if _numbers(list(row)):
            return values, "read as pandas' orient=index"
    lists = len(values) > 1 and all(isinstance(value, list) and value for value in values)
    alike = lists and len({len(value) for value in values}) == 1
    if alike and not any(isinstance(item, (list, dict)) for value in values for item in value):
        return [
            dict(zip(row, cells, strict=True)) for cells in zip(*values, strict=True)
        ], "each key's list was taken for a column"
    return None


def _numbers(keys: Sequence[str]) -> bool:
    """True where keys are the numbers of rows, from 0 on."""
    return keys == [str(number) for number in range(len(keys))]


def _arrays(row: dict[str, Any]) -> list[str]:
    """Keys of an object whose values are arrays of objects that aren't messages of a conversation."""
    return [
        key for key, value in row.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        and not any(speech <= value[0].keys() for speech in _SPEECH)
    ]  # fmt: skip
