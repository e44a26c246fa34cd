"""JSON objects: strict parsing, and rows of them written to a spool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.data.arrow import scrub
from sensorium.data.options import ReadOptions
from sensorium.data.pycells import to_array
from sensorium.data.sources import Opened
from sensorium.data.spool import PIECE_BYTES, PIECE_ROWS, Spool

MIN_SPARSE_COLUMNS = 64
"""Columns from which on a piece's cells are gathered sparsely, as few rows may have each."""


class BadObject(Exception):
    """Unreadable row in the place of its object: its location, the reason, and a preview."""

    def __init__(self, where: str, reason: str, preview: str = "") -> None:
        super().__init__(reason)
        self.where, self.reason, self.preview = where, reason, preview


def spool_objects(
    objects: Iterable[tuple[dict[str, Any] | BadObject, int]], spool: Spool, opened: Opened, options: ReadOptions
) -> None:
    """Write objects piece by piece; their keys are the columns, and a bad one is a row without cells.

    Args:
        objects: each with about how many bytes it has.
        spool: where they are written.
        opened: hears of bad rows and of text that had to be mended.

    Raises:
        UserError: more columns than allowed.
    """
    piece: list[dict[str, Any]] = []
    size = 0
    known: dict[str, None] = {}

    def write() -> None:
        arrays = {}
        for name, (cells, rows) in _columns(piece).items():
            array, bad = to_array(cells, name)
            opened.mended(name, len(bad))
            arrays[name] = array if rows is None else array.take(rows)
        spool.add(arrays, len(piece))

    for row, weight in objects:
        if isinstance(row, BadObject):
            opened.bad_row(spool.rows + len(piece), row.where, row.reason, row.preview)
            row = {}
        new = row.keys() - known.keys()
        if any(scrub(name) != name for name in new):  # keys may be names of files, which can have any bytes
            row = {scrub(name): cell for name, cell in row.items()}
            new = row.keys() - known.keys()
        for name in new:
            known[name] = None
            options.check_columns(len(known), spool.where)
        piece.append(row)
        size += weight
        if len(piece) == PIECE_ROWS or size > PIECE_BYTES:
            write()
            piece, size = [], 0
    if piece:
        write()


def _columns(piece: list[dict[str, Any]]) -> dict[str, tuple[list[Any], pa.Array | None]]:
    """Cells by column; where columns are many, only the present ones and each row's index among them."""
    names = dict.fromkeys(key for row in piece for key in row)
    if len(names) < MIN_SPARSE_COLUMNS:
        return {name: ([row.get(name) for row in piece], None) for name in names}
    cells: dict[str, list[Any]] = {name: [] for name in names}
    places: dict[str, list[int]] = {name: [] for name in names}
    for number, row in enumerate(piece):
        for name, cell in row.items():
            cells[name].append(cell)
            places[name].append(number)
    result = {}
    for name, here in places.items():
        index = np.zeros(len(piece), np.int64)
        absent = np.ones(len(piece), bool)
        index[here], absent[here] = np.arange(len(here)), False
        result[name] = (cells[name], pa.array(index, mask=absent))
    return result


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; bad bytes come through as surrogates, which are mended and counted later.

    Raises:
        ValueError: it is no JSON, or an object has a key twice; the text is what the user is told.
    """
    try:
        return _decoder.decode(text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("no JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from error


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """Parse the JSON value that begins at ``start``; gives it and its end. Raises as ``parse_json`` does."""
    try:
        return _decoder.raw_decode(text, start)
    except RecursionError:
        raise ValueError("no JSON that can be read: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from error


def skip_json(text: str, start: int) -> int:
    """End of the JSON value that begins at ``start`` if its only fault is a duplicate key; 0 where it is broken."""
    try:
        return json.JSONDecoder().raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return 0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = ", ".join(repr(key) for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice} stands twice in one object")
    return row if all(map(str.isprintable, row)) else {scrub(key): value for key, value in row.items()}


_decoder = json.JSONDecoder(object_pairs_hook=_object)
