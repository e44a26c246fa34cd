"""Feature blocks: for each column a matrix of plain features of some rows, NaN where a cell isn't seen.

It knows arrays, no cell and no table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Blocks = Mapping[str, np.ndarray]
"""For each column float [n, d]; a row's numbers are all NaN where the column isn't seen."""

MAX_COLUMN_FEATURES = 256
"""The most features of a column, those of the largest variance. Measured on drawings with names in six languages
(2,048 features, nine classes): 32 features 0.88 right, 128 0.99, 256 and more 0.99 to 1.00 at a cost in proportion."""


def bounded_features(array: np.ndarray) -> np.ndarray:
    """Features without infinities; wide ones in half the memory."""
    narrow = array.shape[1] <= 4
    limit = 1e300 if narrow else 3e38
    return np.clip(array, -limit, limit).astype(np.float64 if narrow else np.float32)


def widest_features(array: np.ndarray) -> list[int]:
    """Indices of the ``MAX_COLUMN_FEATURES`` features of the largest variance, in order."""
    if array.shape[1] <= MAX_COLUMN_FEATURES:
        return list(range(array.shape[1]))
    values = array.astype(np.float64)
    known = np.isfinite(values)
    counts = np.maximum(known.sum(0), 1)
    values = np.where(known, values, 0.0)
    variance = (values**2).sum(0) / counts - (values.sum(0) / counts) ** 2
    return np.sort(np.argsort(-variance, kind="stable")[:MAX_COLUMN_FEATURES]).tolist()


def relevance(x: np.ndarray, y: np.ndarray, sort: bool) -> np.ndarray:
    """Share of each feature's variance that the target explains, 0 to 1: [d] (eta² or r²; missing: at its mean).

    Args:
        sort: the target is a code of a class, not a value.
    """
    x = x.astype(np.float64)
    known = np.isfinite(x)
    counts = np.maximum(known.sum(0), 1)
    scale = np.maximum(np.where(known, np.abs(x), 0).max(0, initial=0.0), 1e-300)
    x = np.where(known, x / scale, 0.0)
    x = np.where(known, x - x.sum(0) / counts, 0.0)
    total = (x**2).sum(0)
    total = np.where(total > 1e-12 * len(x), total, np.inf)  # a constant explains nothing
    if sort:
        classes = np.eye(int(y.max()) + 1)[y.astype(np.int64)]
        sizes = np.maximum(classes.sum(0), 1)
        return ((classes.T @ x) ** 2 / sizes[:, None]).sum(0) / total
    y = y / (np.abs(y).max() or 1.0)
    y = y - y.mean()
    return (y @ x) ** 2 / (total * ((y**2).sum() or 1.0))


def select_features(x: np.ndarray, y: np.ndarray, sort: bool, widths: Sequence[int], width: int) -> np.ndarray:
    """Indices of the features that a model is given: none that are constant, and at most ``width``.

    Half of the places go in equal parts to each column's most relevant features, since what tells only together with
    others looks irrelevant alone; the rest to the most relevant of all.
    """
    score = relevance(x, y, sort)
    usable = np.flatnonzero(score > 0)
    if len(usable) <= width:
        return usable
    rank = np.empty(len(score))
    start = 0
    for size in widths:
        part = slice(start, start + size)
        rank[part] = np.argsort(np.argsort(-score[part], kind="stable"), kind="stable")
        start += size
    first = rank < width // (2 * len(widths))
    order = np.lexsort((-score, ~first, score <= 0))
    return np.sort(order[:width])


def pick_features(blocks: Blocks, y: np.ndarray, sort: bool, most: int) -> dict[str, list[int]]:
    """Indices of the features of each column that a model is given: those that vary, the most relevant ones."""
    wide = {c: widest_features(block) for c, block in blocks.items()}
    x = matrix({c: block[:, wide[c]] for c, block in blocks.items()}, list(blocks))
    picked, start, result = set(select_features(x, y, sort, [len(w) for w in wide.values()], most).tolist()), 0, {}
    for column, indices in wide.items():
        result[column] = [index for place, index in enumerate(indices, start) if place in picked]
        start += len(indices)
    return result


def matrix(blocks: Blocks, columns: Sequence[str]) -> np.ndarray:
    """Features of some columns side by side, float32 [n, d]."""
    return np.concatenate([bounded_features(blocks[c]).clip(-3e38, 3e38).astype(np.float32) for c in columns], axis=1)


def masked(blocks: Blocks, seed: int) -> dict[str, np.ndarray]:
    """Copy of the rows in which each shows a random share of its columns: a model that has seen such rows answers from
    any columns."""
    rng, rows = np.random.default_rng(seed), len(next(iter(blocks.values())))
    rate = rng.random(rows)
    return {c: np.where((rng.random(rows) < rate)[:, None], np.nan, block) for c, block in blocks.items()}
