"""Conversion of Python cells to Arrow: any mix of texts, numbers, dates, bytes and lists in one array of a normal type.

It knows values, nothing of files, tables or modalities.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import (
    MAX_DEPTH,
    MEDIA_TYPE,
    TEXT_CLASSES,
    as_normal,
    as_text,
    nesting_depth,
    normal_type,
    scrub,
    strings,
)


def plain(value: Any) -> Any:
    """Plain Python cell without NumPy containers, paths or lone surrogates, so that Arrow can take it."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if type(value).__name__ == "Period" and hasattr(value, "start_time"):  # pandas'
        return value.start_time.to_pydatetime()
    if type(value).__name__ == "Interval" and hasattr(value, "closed"):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {scrub(str(key)): plain(item) for key, item in value.items()}
    return value


def _readable(value: Any) -> bool:
    if value is None or isinstance(value, (str, bytes, bool, int, float, np.generic, *TEXT_CLASSES)):
        return True
    if isinstance(value, dict):
        return all(map(_readable, value.values()))
    return isinstance(value, (list, tuple)) and all(map(_readable, value))


def to_array(values: Sequence[Any], column: str) -> tuple[pa.Array, np.ndarray]:
    """Arrow array, of a normal type, of one column's Python cells, and the positions of scrubbed cells.

    Cells of several kinds join: whole numbers and fractions to floats, bytes and paths to ``{bytes, path}``, anything
    else to text. None, NaN and the missing values of pandas become null.

    Raises:
        UserError: a cell is a Python object that is no data (an open image, a model).
    """
    none = np.empty(0, np.int64)
    kinds = set(map(type, values))
    if kinds & {list, tuple, dict} and max(map(nesting_depth, values)) > MAX_DEPTH:
        return pa.array([as_text(value) for value in values], pa.string()), none
    if {datetime.date, datetime.datetime} <= kinds:  # Arrow would cut the times off
        values = [datetime.datetime.combine(v, datetime.time()) if type(v) is datetime.date else v for v in values]
    if not {str, bytes} <= kinds and not (dict in kinds and kinds & {str, bytes}):
        try:
            array = pa.array(values, from_pandas=True)
            if isinstance(array, pa.ChunkedArray):
                array = array.combine_chunks()
            return as_normal(array, normal_type(array.type)), none
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
    read, bad = [], []
    for i, value in enumerate(values):
        cell = plain(value)
        if not _readable(cell) and not _missing(cell):
            raise UserError(
                f"Column '{column}' holds a {type(value).__module__}.{type(value).__name__}, which is no plain data. "
                "A cell can be a text, a number, a boolean, a date, bytes, a path, {bytes, path} or a list of numbers: "
                "turn it into one of these first (an image or a sound into the bytes of its file)."
            )
        read.append(None if _missing(cell) else cell)
        if "\ufffd" in strings(cell) and cell != value:
            bad.append(i)
    kinds = set(map(type, read)) - {type(None)}
    if kinds == {bytes, str} or (
        dict in kinds
        and kinds <= {bytes, str, dict}
        and all(set(v) <= {"bytes", "path"} for v in read if isinstance(v, dict))
    ):
        cells = [_as_media(value) for value in read]
        return pa.array(cells, MEDIA_TYPE), np.array(bad, np.int64)
    try:
        array = pa.array(read, from_pandas=True)
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        return as_normal(array, normal_type(array.type)), np.array(bad, np.int64)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([as_text(value) for value in read], pa.string()), np.array(bad, np.int64)


def _missing(value: Any) -> bool:
    """True for a missing scalar: None, NaN, pandas' NA and NaT."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")


def _as_media(value: Any) -> dict[str, Any] | None:
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    return {"bytes": None, "path": value} if isinstance(value, str) else value
