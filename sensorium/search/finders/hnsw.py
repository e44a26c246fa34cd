"""HNSW: a graph whose edges lead from vector to nearer vector, built by usearch and mapped from its file.

Malkov & Yashunin 2016, arXiv 1603.09320.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from usearch.index import BatchMatches, Index

from sensorium.search.finders import Finder

EDGES, BUILT, SOUGHT = 16, 128, 64
"""Edges of a vector; vectors looked at for them when it is added; and at least looked at by a search."""
AT_ONCE = 65_536
"""Vectors that are added at once."""
SEQUENTIAL_VECTORS = 10_000
"""Vectors that are added one after the other.

Where many are added together, those that are added first may miss one another, which a large graph gets over and a
small one may not.
"""


class HNSW(Finder):
    """HNSW graph in bf16, which halves what is read."""

    @classmethod
    def write(cls, path: Path, vectors: np.ndarray, rows: np.ndarray) -> None:
        graph = Index(ndim=vectors.shape[1], metric="ip", dtype="bf16", connectivity=EDGES, expansion_add=BUILT)
        few = rows[:SEQUENTIAL_VECTORS]
        graph.add(few.astype(np.uint64), np.ascontiguousarray(vectors[few]), threads=1)
        for start in range(SEQUENTIAL_VECTORS, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            graph.add(some.astype(np.uint64), np.ascontiguousarray(vectors[some]))
        graph.save(str(path))

    def __init__(self, path: Path, rows: int, size: int) -> None:
        try:
            graph = Index.restore(str(path), view=True)
        except RuntimeError as error:
            raise ValueError(f"'{path}' is no graph: {error}") from error
        if graph is None or graph.ndim != size or len(graph) > rows:
            raise ValueError(f"'{path}' is no graph of up to {rows} vectors of {size} numbers")
        self.graph, self.rows = graph, rows

    def propose(self, queries: np.ndarray, count: int) -> np.ndarray:
        result = np.full((len(queries), count), -1, np.int64)
        if len(queries) and len(self.graph):
            self.graph.expansion_search = max(SOUGHT, count)
            found = self.graph.search(np.ascontiguousarray(queries, np.float32).reshape(len(queries), -1), count)
            keys, counts = (
                np.asarray(found.keys).reshape(len(queries), -1),
                np.asarray(found.counts if isinstance(found, BatchMatches) else [len(found)]).reshape(-1),
            )
            for line, (near, many) in enumerate(zip(keys, counts, strict=True)):
                known = near[:many][near[:many] < self.rows]
                result[line, : len(known)] = known.astype(np.int64)
        return result
