"""In-memory tables: pandas, polars, Arrow, a list of dicts, a dict of lists, one row as a dict of cells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import as_normal, common_type, scrub
from sensorium.data.blocks import MemoryBlocks, check_distinct_names, rows_without_columns
from sensorium.data.options import ReadOptions
from sensorium.data.pycells import to_array
from sensorium.data.sources import Opened, Source, converted
from sensorium.data.spool import spooling


class InMemory(Source):
    """In-memory tables, recognised by the class's name, so that no library is imported for it."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for one of the objects above."""
        if isinstance(given, (pa.Table, pa.RecordBatch, pa.RecordBatchReader, Mapping)) or _library(given):
            return True
        rows = isinstance(given, (list, tuple)) and all(row is None or isinstance(row, Mapping) for row in given)
        return rows and (not given or any(row is not None for row in given))

    @classmethod
    def open(cls, given: Any, options: ReadOptions) -> Opened:
        """Open a table; Arrow data isn't copied, and a reader is streamed to a file, for it can be read once only."""
        if isinstance(given, pa.RecordBatchReader):
            return _reader(given)
        opened = Opened.empty("table")
        if isinstance(given, pa.RecordBatch):
            given = pa.Table.from_batches([given])
        elif isinstance(given, Mapping) and not is_row(given):
            given = _columns({str(name): cells for name, cells in given.items()}, opened)
        elif isinstance(given, (Mapping, list, tuple)):
            rows = [given] if isinstance(given, Mapping) else [{} if row is None else row for row in given]
            names = {str(key): key for row in rows for key in row}
            if not names and rows:
                opened.blocks = MemoryBlocks(pa.Table.from_batches([rows_without_columns(len(rows))]), "The table")
                return opened
            given = _columns({name: [row.get(key) for row in rows] for name, key in names.items()}, opened)
        elif _library(given) == "pandas":
            given = _pandas(given, opened)
        elif _library(given) == "polars":
            given = (given.collect() if type(given).__name__ == "LazyFrame" else given).to_arrow()
        opened.blocks = MemoryBlocks(given, "The table")
        return opened


def is_row(given: Mapping[Any, Any]) -> bool:
    """True for a mapping that is one row by columns: some value is a cell (a text, a number, bytes, a file), no column
    of cells."""
    return any(
        value is None or isinstance(value, (str, bytes, bytearray, memoryview, Mapping))
        or not hasattr(value, "__len__")
        or (isinstance(value, np.ndarray) and not value.ndim)
        for value in given.values()
    )  # fmt: skip


def _library(given: Any) -> str | None:
    library = type(given).__module__.partition(".")[0]
    return library if library in ("pandas", "polars") and type(given).__name__ in ("DataFrame", "LazyFrame") else None


def _columns(columns: Mapping[str, Any], opened: Opened) -> pa.Table:
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"The columns are of different lengths: {', '.join(f'{n} {k}' for n, k in lengths.items())}.")
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {}
    for key, cells in columns.items():
        name = scrub(key)
        if isinstance(cells, (pa.Array, pa.ChunkedArray)):
            arrays[name] = cells
        elif isinstance(cells, np.ndarray) and cells.ndim == 1 and cells.dtype.kind in "biufM":
            arrays[name] = pa.array(_known(cells), from_pandas=True)
        else:
            arrays[name] = _chunks(list(cells), name, opened)
    return pa.table(arrays)


def _known(cells: np.ndarray) -> np.ndarray:
    """Numbers and dates of NumPy in a type that Arrow has."""
    if cells.dtype.kind == "M" and np.datetime_data(cells.dtype)[0] not in ("D", "s", "ms", "us", "ns"):
        return cells.astype(
            "datetime64[ns]" if np.datetime_data(cells.dtype)[0] in ("ps", "fs", "as") else "datetime64[s]"
        )
    return cells.astype(np.float64) if cells.dtype.kind == "f" and cells.dtype.itemsize > 8 else cells


CHUNK_BYTES = 1 << 30
"""Bytes of files and texts of a column that go into one array, whose offsets end at 2 GiB."""


def _chunks(cells: list[Any], name: str, opened: Opened) -> pa.ChunkedArray:
    """Chunked array of a column's cells, in as many chunks as they need."""
    sizes = np.cumsum([len(cell) if isinstance(cell, (bytes, str, bytearray)) else _file_bytes(cell) for cell in cells])
    parts, start = [], 0
    while start < len(cells) or not parts:
        before = int(sizes[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(sizes, before + CHUNK_BYTES, side="right"))) if len(cells) else 0
        array, mended = to_array(cells[start:end], name)
        opened.mended(name, len(mended))
        parts.append(array)
        start = end
    kind = functools.reduce(common_type, [part.type for part in parts])
    return pa.chunked_array([as_normal(part, kind) for part in parts], kind)


def _file_bytes(cell: Any) -> int:
    """Number of a file's bytes in ``{bytes, path}``; 0 for any other cell."""
    data = cell.get("bytes") if isinstance(cell, Mapping) else None
    return len(data) if isinstance(data, bytes) else 0


def _pandas(frame: Any, opened: Opened) -> pa.Table:
    if frame.columns.nlevels > 1:
        frame = frame.copy(deep=False)
        frame.columns = [".".join(str(part) for part in name if str(part) != "") for name in frame.columns]
        opened.remark("the levels of the columns' names were joined by dots: " + ", ".join(map(str, frame.columns[:4])))
    names = [scrub(str(name)) for name in frame.columns]
    if (
        frame.index.nlevels == 1
        and frame.index.name is None
        and frame.index.dtype.kind not in "iu"
        and "index" not in names
    ):
        frame = frame.rename_axis("index")
        opened.remark("the frame's index became the column 'index'")
    named_levels = [name for name in frame.index.names if name is not None and str(name) not in names]
    if named_levels:
        frame = frame.reset_index(level=named_levels)
        names = [scrub(str(name)) for name in frame.columns]
    check_distinct_names(names, "The DataFrame")
    arrays = {}
    for i, name in enumerate(names):
        series = frame.iloc[:, i]
        try:
            if series.dtype.name == "category" and series.cat.categories.dtype.name.startswith(("interval", "period")):
                series = series.cat.rename_categories(series.cat.categories.astype(str))  # "(0, 1]"
            if series.dtype == object:
                raise TypeError("cells of any kind")
            arrays[name] = pa.array(series, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays[name] = _chunks(series.tolist(), name, opened)
    return pa.table(arrays) if arrays else pa.Table.from_batches([rows_without_columns(len(frame))])


def _reader(reader: pa.RecordBatchReader) -> Opened:
    names = reader.schema.names
    check_distinct_names(names, "The reader")
    opened = Opened.empty("table")
    with spooling("The reader's table") as spool:
        for batch in reader:
            blocks = MemoryBlocks(pa.Table.from_batches([batch]), "The reader's table")
            spool.add_blocks(blocks)
            for name, cells in blocks.repairs().items():
                opened.mended(name, cells)
        opened.blocks = converted(spool, empty=names)
        return opened
