"""Table view: the rows of the table that a server shows, some at a time, and their files, without a model."""

from __future__ import annotations

import decimal
import io
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.errors import BadCell
from sensorium.data.cells import plain_cells
from sensorium.data.media import HEAD_BYTES, sniff
from sensorium.data.table import Table
from sensorium.search.where import where

MEDIA_TYPES = (
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/bmp",
    "image/avif",
    "audio/wav",
    "audio/flac",
    "audio/mpeg",
    "audio/ogg",
    "audio/mp4",
    "video/mp4",
    "video/webm",
    "video/ogg",
)
"""Types of files that a browser shows and that hold no script."""
MAX_CHARS = 2000
"""Characters of a cell in a list of rows."""
MAX_NUMBERS = 400
"""Numbers of a series in a list of rows."""


class TableView:
    """View of a table's rows for the page.

    Args:
        table: whose rows.
        columns: those of the model, and what is known of each; the others are shown as words where they are plain.
    """

    def __init__(self, table: Table, columns: Mapping[str, Mapping[str, Any]]) -> None:
        self.table, self.known = table, columns
        self.columns = sorted(
            table.columns, key=lambda c: (c not in columns, not columns.get(c, {}).get("media"))
        )  # what is to be looked at first
        self.plain = [
            c
            for c in table.columns
            if not columns.get(c, {}).get("media") and not holds_bytes(table.schema.field(c).type)
        ]
        self.cached: pa.Table | None = None
        self.query_engine: Any = None
        self.query_lock = threading.Lock()

    def cells(self) -> pa.Table:
        """Plain cells of all rows, read once."""
        if self.cached is None:
            self.cached = self.table.take(np.arange(self.table.rows), self.plain)
        return self.cached

    def numbers(self, condition: str | None) -> list[int]:
        """Numbers of the rows for which a condition holds.

        Raises:
            UserError: it isn't one.
        """
        if not condition:
            return list(range(self.table.rows))
        return np.flatnonzero(where(condition, self.cells()).to_numpy()).tolist()

    def lines(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Rows as JSON: plain cells as they are, cut where long; of files whether there is one."""
        media = [c for c in self.columns if c not in self.plain]
        plain = self.cells().take(pa.array(rows, pa.int64()))
        lines: list[dict[str, Any]] = [{"row": row, "cells": {}} for row in rows]
        for column in self.plain:
            for line, cell in zip(lines, listed(plain.column(column)), strict=True):
                line["cells"][column] = cell
        if media:
            for column, there in ((c, self.there(rows, c)) for c in media):
                for line, one in zip(lines, there, strict=True):
                    line["cells"][column] = bool(one)
        return lines

    def there(self, rows: Sequence[int], column: str) -> list[bool]:
        """Presence of a file, a bool a row."""
        return self.table.take(rows, [column]).column(column).is_valid().to_pylist()

    def file(self, row: int, column: str) -> tuple[bytes, str]:
        """File of a cell and its type, "application/octet-stream" for those that a browser isn't to open.

        Raises:
            KeyError: there is no such cell, or it never holds files.
        """
        if column not in self.columns or column in self.plain or not 0 <= row < self.table.rows:
            raise KeyError(column)
        cell = next(iter(self.table.cells(self.table.take([row], [column]), column, True)))
        if not isinstance(cell, bytes):
            return b"", ""
        kind = (sniff(cell[:HEAD_BYTES]) or "").replace("video/webp-animated", "image/webp")
        return cell, kind if kind in MEDIA_TYPES else "application/octet-stream"

    def answer(self, question: str) -> dict[str, Any]:
        """Answer to a question about many rows, or to one SELECT over ``rows``.

        It holds the query that was asked, its rows, and other queries that might have been meant.

        Raises:
            UserError: it isn't clear, can't be answered, or DuckDB isn't installed.
        """
        from sensorium.query import QueryEngine

        with self.query_lock:  # one at a time: each may take a core and 2 GB
            if self.query_engine is None:
                self.query_engine = QueryEngine.knowing(
                    self.table, {name: about["kind"] for name, about in self.known.items()}
                )
            found = self.query_engine.answer(question)
        columns = [listed(column) for column in found.rows.columns]
        return {
            "sql": found.sql,
            "rows": [dict(zip(found.rows.column_names, cells, strict=True)) for cells in zip(*columns, strict=True)],
            "others": found.others,
        }

    def values(self, column: str) -> list[Any]:
        """All rows' cells of a plain column, cut where long.

        Raises:
            KeyError: it isn't one.
        """
        if column not in self.plain or pa.types.is_nested(self.table.schema.field(column).type):
            raise KeyError(column)
        return listed(self.cells().column(column))

    def corrected(self, column: str, cells: Mapping[int, str]) -> bytes:
        """Rows with other cells of a column, as a Parquet file.

        Raises:
            KeyError: no such column or row. ValueError: cells that the column can't hold.
        """
        if column not in self.plain or not all(0 <= row < self.table.rows for row in cells):
            raise KeyError(column)
        taken, out = self.table.take(list(cells)), io.BytesIO()
        place = taken.column_names.index(column)
        values = pa.array(list(cells.values()), pa.string()).cast(taken.schema.field(column).type)
        pq.write_table(taken.set_column(place, taken.schema.field(column), values), out)
        return out.getvalue()

    def rows(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Cells of rows as the model may see them: files as bytes.

        Raises:
            UserError: the table can't be read.
        """
        names = [c for c in self.known if c in self.table.columns and c in columns]
        taken, found = self.table.take(rows, names), [{} for _ in rows]
        for name in names:
            for row, cell in zip(found, self.table.cells(taken, name, bool(self.known[name]["media"])), strict=True):
                if cell is not None and not isinstance(cell, BadCell):
                    row[name] = cell
        return found


def holds_bytes(kind: pa.DataType) -> bool:
    """True if cells of a type have bytes in them, which can't be shown as words."""
    if pa.types.is_dictionary(kind):
        return holds_bytes(kind.value_type)
    binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
    return binary or any(holds_bytes(kind.field(number).type) for number in range(kind.num_fields))


def listed(column: pa.ChunkedArray) -> list[Any]:
    """Cells of a column as JSON can have them, cut where they are long; what can't be read is missing."""
    return [
        None if isinstance(cell, BadCell) else brief(cell) for chunk in column.chunks for cell in plain_cells(chunk)
    ]


def brief(cell: Any) -> Any:
    """Cell, cut where it is long."""
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, str):
        return cell if len(cell) <= MAX_CHARS else cell[:MAX_CHARS] + "…"
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    if isinstance(cell, list):
        return [brief(one) for one in cell[:MAX_NUMBERS]]
    if isinstance(cell, dict):
        return {str(name): brief(one) for name, one in cell.items()}
    if isinstance(cell, decimal.Decimal):
        return float(cell)
    return (
        cell.isoformat()
        if hasattr(cell, "isoformat")
        else cell
        if isinstance(cell, bool | int | float | None)
        else str(cell)
    )
