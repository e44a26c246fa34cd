"""Tables that are in memory: pandas, polars, Arrow, a list of dicts, a dict of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import normal, normal_type, scrub, to_array
from sensorium.data.blocks import Memory, distinct
from sensorium.data.sources import Opened, Source, converted
from sensorium.data.spool import ROWS, spooling


class InMemory(Source):
    """Objects, told by their class's name so that no library is imported to look."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """Whether it is one of the objects above."""
        if isinstance(given, (pa.Table, pa.RecordBatch, pa.RecordBatchReader, Mapping)) or _library(given):
            return True
        return isinstance(given, (list, tuple)) and all(isinstance(row, Mapping) for row in given)

    @classmethod
    def open(cls, given: Any) -> Opened:
        """Arrow's own data isn't copied; a reader is streamed to a file, for it can be read once only."""
        if isinstance(given, pa.RecordBatchReader):
            return _reader(given)
        opened = Opened(None, "table")  # type: ignore[arg-type]
        if isinstance(given, pa.RecordBatch):
            given = pa.Table.from_batches([given])
        elif isinstance(given, Mapping):
            given = _columns({str(name): cells for name, cells in given.items()}, opened)
        elif isinstance(given, (list, tuple)):
            names = dict.fromkeys(str(key) for row in given for key in row)
            given = _columns({name: [row.get(name) for row in given] for name in names}, opened)
        elif _library(given) == "pandas":
            given = _pandas(given, opened)
        elif _library(given) == "polars":
            given = (given.collect() if type(given).__name__ == "LazyFrame" else given).to_arrow()
        opened.blocks = Memory(given, "The table")
        return opened


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
            arrays[name] = pa.array(cells, from_pandas=True)
        else:
            arrays[name], mended = to_array(list(cells), name)
            opened.mended(name, len(mended))
    return pa.table(arrays)


def _pandas(frame: Any, opened: Opened) -> pa.Table:
    names = [scrub(str(name)) for name in frame.columns]
    kept = [name for name in frame.index.names if name is not None and str(name) not in names]
    if kept:
        frame = frame.reset_index(level=kept)
        names = [scrub(str(name)) for name in frame.columns]
    distinct(names, "The DataFrame")
    arrays = {}
    for i, name in enumerate(names):
        series = frame.iloc[:, i]
        try:
            if series.dtype == object:
                raise TypeError("cells of any kind")
            arrays[name] = pa.array(series, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays[name], mended = to_array(series.tolist(), name)
            opened.mended(name, len(mended))
    return pa.table(arrays)


def _reader(reader: pa.RecordBatchReader) -> Opened:
    names = reader.schema.names
    distinct(names, "The reader")
    with spooling("The reader's table") as spool:
        for batch in reader:
            for at in range(0, batch.num_rows, ROWS):
                piece = batch.slice(at, ROWS)
                arrays = [normal(column, normal_type(column.type)) for column in piece.columns]
                spool.add(dict(zip(names, arrays, strict=True)), piece.num_rows)
        return Opened(converted(spool, empty=names), "table")
