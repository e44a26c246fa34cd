"""Search results of every direction: each row's cell of one column, searched among the others' cells."""

from __future__ import annotations

import numpy as np

from sensorium.core.errors import unknown
from sensorium.data.table import Table
from sensorium.inference.rows import Rows
from sensorium.report.types import Retrieval


def search_all(rows: Rows, table: Table, entity_key: str | None) -> dict[str, Retrieval]:
    """Every ordered pair of matched columns: each row's cell of one, searched among the others' cells.

    The gallery is the distinct rows that have the column; with ``entity_key`` any row of equal key is a hit.
    """
    key = np.arange(table.rows) if entity_key is None else entity_numbers(table, entity_key)
    gists = {}
    for column in rows.network.columns:
        if rows.network.modalities[column].matched and rows.has(column).any():
            gists[column] = rows.column_gists(column)
    found = {}
    for a, (from_rows, left) in gists.items():
        for b, (to_rows, right) in gists.items():
            if a != b:
                # Only rows whose thing is in the gallery can be found.
                able = np.isin(key[from_rows], key[to_rows])
                if able.any():
                    found[f"{a}>{b}"] = rank(
                        left[able], right, key[from_rows[able]], key[to_rows], from_rows[able], to_rows
                    )
    return found


def entity_numbers(table: Table, entity_key: str) -> np.ndarray:
    """Number of each row's entity; rows without a key are each their own, below 0.

    Raises:
        UserError: there is no such column.
    """
    if entity_key not in table.columns:
        raise unknown("column for --entity-key:", entity_key, table.columns)
    number: dict[str, int] = {}
    values = table.take(np.arange(table.rows), [entity_key]).column(entity_key).to_pylist()
    return np.array([number.setdefault(str(v), len(number)) if v is not None else -1 - i for i, v in enumerate(values)])


def rank(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_key: np.ndarray,
    gallery_key: np.ndarray,
    query_rows: np.ndarray,
    gallery_rows: np.ndarray,
    k: int = 10,
    block: int = 1024,
) -> Retrieval:
    """Rank a gallery for each query by the product of gists; ties count against us."""
    found, hits, ranks, counts = [], [], [], []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ gallery.T
        right = query_key[start : start + block, None] == gallery_key[None]
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        ranks.append(1 + ((scores >= best) & ~right).sum(1))
        counts.append(right.sum(1))
        top = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), 1, kind="stable"), 1)
        found.append(gallery_rows[top])
        hits.append(np.take_along_axis(right, top, 1))
    return Retrieval(
        query_rows=query_rows,
        found_rows=np.concatenate(found),
        hit=np.concatenate(hits),
        rank=np.concatenate(ranks),
        relevant=np.concatenate(counts),
        gallery=len(gallery_rows),
    )
