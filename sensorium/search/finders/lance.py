"""IVF-PQ (Jégou et al. 2011) by LanceDB: coarsely coded vectors in cells around means, on disk, read by the cell."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.search.finders import Finder

MIN_INDEXED_ROWS = 4096
"""Vectors below which there are no cells: all are looked at."""
PROBED = 24
"""Cells that a query looks into."""
AT_ONCE = 65_536
"""Vectors that are written at once."""


class Lance(Finder):
    """LanceDB folder, which LanceDB itself can open as well: table ``vectors``, columns ``row`` and ``vector``."""

    @classmethod
    def write(cls, path: Path, vectors: np.ndarray, rows: np.ndarray) -> None:
        size = vectors.shape[1]
        schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), size))])

        def parts() -> pa.RecordBatchReader:
            def each() -> object:
                for start in range(0, len(rows), AT_ONCE):
                    some = rows[start : start + AT_ONCE]
                    flat = pa.array(np.ascontiguousarray(vectors[some]).ravel())
                    yield pa.record_batch(
                        [pa.array(some), pa.FixedSizeListArray.from_arrays(flat, size)], schema=schema
                    )

            return pa.RecordBatchReader.from_batches(schema, each())

        table = lancedb.connect(str(path)).create_table("vectors", data=parts(), schema=schema)
        if len(rows) >= MIN_INDEXED_ROWS:
            table.create_index(
                metric="dot",
                vector_column_name="vector",
                index_type="IVF_PQ",
                num_partitions=round(len(rows) ** 0.5),
                num_sub_vectors=next(parts for parts in (size // 4, size // 2, size) if not size % parts),
            )

    def __init__(self, path: Path, rows: int, size: int) -> None:
        try:
            table = lancedb.connect(str(path)).open_table("vectors")
            kind, count = table.schema.field("vector").type, table.count_rows()
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"'{path}' is no Lance table: {str(error).splitlines()[0]}") from error
        if kind != pa.list_(pa.float32(), size) or count > rows:
            raise ValueError(f"'{path}' holds {count} vectors of {kind}, not up to {rows} of {size} numbers")
        self.table = table

    def propose(self, queries: np.ndarray, count: int) -> np.ndarray:
        result = np.full((len(queries), count), -1, np.int64)
        for line, query in enumerate(queries):
            try:
                found = (
                    self.table.search(query)
                    .distance_type("dot")
                    .nprobes(PROBED)
                    .select(["row"])
                    .limit(count)
                    .to_arrow()
                    .column("row")
                    .to_numpy()
                )
            except (RuntimeError, OSError, ValueError) as error:  # its files are read when they are needed
                raise UserError(
                    f"The Lance table of the index can't be read: {str(error).splitlines()[0][:200]}. "
                    "Make the index again."
                ) from error
            result[line, : len(found)] = found
        return result
