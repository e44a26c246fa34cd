"""The cells of one column as Python objects: text, numbers, dates, bytes, and NumPy arrays for lists of numbers.

What can't be had becomes a ``BadCell`` in its place, so that one cell never stops the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from sensorium.core.errors import BadCell
from sensorium.data.arrow import is_list, is_media, is_number
from sensorium.data.media import media_bytes


def media_cells(array: pa.Array, folder: Path | None, allow_outside: bool) -> Iterator[bytes | BadCell | None]:
    """The files of a media column: bytes where they can be read, BadCell where they can't, None where missing."""
    for cell in plain_cells(array):
        if cell is None or isinstance(cell, BadCell):
            yield cell
            continue
        try:
            yield media_bytes(cell, folder, allow_outside)
        except BadCell as bad:
            yield bad


def plain_cells(array: pa.Array) -> Iterator[Any]:
    """Any other column's cells; an empty text, a NaN and a ``{bytes, path}`` of two nulls are missing too."""
    kind = array.type
    if is_list(kind):
        yield from list_cells(array)
        return
    values = _values(array)
    if pt.is_string(kind):
        yield from (value if value != "" else None for value in values)
    elif pt.is_floating(kind):
        yield from (None if value is None or math.isnan(value) else value for value in values)
    elif is_media(kind):
        yield from (
            None if value is None or (value["bytes"] is None and not value["path"]) else value for value in values
        )
    else:
        yield from values


def qualified_names(own: Iterable[str], table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Names of a table's columns that don't collide with ``own``: ``table.row`` where one is called ``row`` itself."""
    taken = {*own, *table.column_names}
    result = {}
    for name in table.column_names:
        other = name
        while other in own or (other != name and other in taken):
            other = f"table.{other}"
        result[other] = table.column(name)
    return result


def row_dicts(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of a table as dicts of Python objects; a cell that Python can't have (a year 10,000) is None."""
    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        columns = [
            [None if isinstance(cell, BadCell) else cell for chunk in column.chunks for cell in _values(chunk)]
            for column in table.columns
        ]
        return [dict(zip(table.column_names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _values(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values: list[Any] = []
        for scalar in array:
            try:
                values.append(scalar.as_py())
            except (ValueError, OverflowError, pa.ArrowException) as error:
                values.append(BadCell(f"{array.type} out of range: {error}"))
        return values


def list_cells(array: pa.Array) -> Iterator[Any]:
    """Lists of numbers as arrays [length], lists of such lists as arrays [length, channels].

    Where inner lists are ragged the cell is a list of arrays. Whole numbers become float64; a null inside is NaN. Lists
    of     anything else stay Python lists.
    """
    depth, inner = 0, array.type
    while is_list(inner):
        depth, inner = depth + 1, inner.value_type
    if not (is_number(inner) or pt.is_null(inner) or pt.is_boolean(inner)):
        yield from _values(array)
        return
    levels = []
    for _ in range(depth):
        starts, ends = list_bounds(array)
        levels.append((starts, ends, _valid(array)))
        array = list_items(array)
    numbers = _numbers(array)
    starts, ends, valid = levels[0]
    for i in range(len(starts)):
        yield _nested(levels, numbers, 0, i) if valid[i] else None


def list_bounds(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each cell's items among ``list_items(array)``, [rows] each; a null list has none."""
    if pt.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = np.arange(len(array), dtype=np.int64) * size
        return starts, starts + size
    offsets = array.offsets.to_numpy().astype(np.int64)
    offsets = offsets - (offsets[0] if len(offsets) else 0)
    starts, ends = offsets[:-1], offsets[1:].copy()
    valid = _valid(array)
    ends[~valid] = starts[~valid]
    return starts, ends


def list_items(array: pa.Array) -> pa.Array:
    """The items of all lists, those behind null lists included."""
    if pt.is_fixed_size_list(array.type):
        return array.values.slice(array.offset * array.type.list_size, len(array) * array.type.list_size)
    offsets = array.offsets
    first, last = (offsets[0].as_py(), offsets[-1].as_py()) if len(offsets) else (0, 0)
    return array.values.slice(first, last - first)


def _valid(array: pa.Array) -> np.ndarray:
    return array.is_valid().to_numpy(zero_copy_only=False)


def _numbers(array: pa.Array) -> np.ndarray:
    if pt.is_null(array.type):
        return np.full(len(array), np.nan)
    if not pt.is_floating(array.type):
        array = (
            array.cast(pa.float64(), safe=False)
            if not pt.is_boolean(array.type)
            else array.cast(pa.int8()).cast(pa.float64())
        )
    return array.to_numpy(zero_copy_only=False)


def _nested(levels: list[Any], numbers: np.ndarray, level: int, i: int) -> Any:
    starts, ends, _ = levels[level]
    a, b = int(starts[i]), int(ends[i])
    if level == len(levels) - 1:
        return numbers[a:b]
    below_starts, below_ends, below_valid = levels[level + 1]
    if level == len(levels) - 2 and b > a:
        lengths = below_ends[a:b] - below_starts[a:b]
        if below_valid[a:b].all() and (lengths == lengths[0]).all():
            return numbers[below_starts[a] : below_ends[b - 1]].reshape(b - a, int(lengths[0]))
    parts = [_nested(levels, numbers, level + 1, j) for j in range(a, b)]
    return _square(parts, below_valid[a:b])


def _square(parts: list[Any], valid: np.ndarray) -> Any:
    """Inner arrays as one where all are of one shape, a null one as NaNs; else as they are."""
    shapes = {part.shape if isinstance(part, np.ndarray) else None for part, ok in zip(parts, valid, strict=True) if ok}
    if len(shapes) != 1 or None in shapes:
        return parts if parts else np.empty((0, 0))
    shape = shapes.pop()
    assert shape is not None
    return np.stack([part if ok else np.full(shape, np.nan) for part, ok in zip(parts, valid, strict=True)])
