"""Moments of a column of dates, as numbers."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa

from sensorium.data.table import Table


def cells_of(table: Table, column: str) -> pa.ChunkedArray:
    """All cells of a column."""
    parts = [batch.column(0) for _, batch in table.batches(65_536, [column])]
    return pa.chunked_array(parts) if parts else pa.chunked_array([pa.array([])])


def moments(cells: pa.ChunkedArray) -> np.ndarray:
    """Dates as seconds, NaN where there is none, or it isn't written as one."""
    return np.array([seconds(cell) for cell in cells.to_pylist()], np.float64)


def seconds(cell: object) -> float:
    """Date, datetime or ISO 8601 text in seconds; NaN for anything else."""
    try:
        if isinstance(cell, str):
            cell = datetime.datetime.fromisoformat(cell.strip())
        if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
            cell = datetime.datetime(cell.year, cell.month, cell.day, tzinfo=datetime.UTC)
        if isinstance(cell, datetime.datetime):
            cell = cell if cell.tzinfo else cell.replace(tzinfo=datetime.UTC)
            return (cell - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)).total_seconds()
    except (ValueError, OverflowError):
        pass
    return float("nan")
