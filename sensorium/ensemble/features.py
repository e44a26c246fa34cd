"""Plain features of some rows: for each column a matrix, NaN where a cell isn't seen, and of texts also their terms.

It knows arrays, no cell and no table.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sensorium.modalities._text_tokens import TERMS

if TYPE_CHECKING:
    from scipy import sparse

Blocks = Mapping[str, np.ndarray]
"""For each column float [n, d]; a row's numbers are all NaN where the column isn't seen."""

Terms: TypeAlias = "Mapping[str, sparse.csr_matrix]"
"""For each column of texts the counts of its terms [n, ``TERMS``]: words, pairs of words, runs of letters, hashed."""

MAX_COLUMN_FEATURES = 256
"""The most features of a column, those of the largest variance. Measured on drawings with names in six languages
(2,048 features, nine classes): 32 features 0.88 right, 128 0.99, 256 and more 0.99 to 1.00 at a cost in proportion."""
NOTHING = np.zeros(0, np.int64)
MAX_LINEAR = 48
"""Features by which it is told how much a column tells."""
MAX_PAIRS = 6
"""Pairs of columns of texts that are compared, at most."""


def count_terms(cells: Sequence[np.ndarray | None]) -> sparse.csr_matrix:
    """Counts of the terms of cells [n, ``TERMS``], none where a cell is missing.

    Args:
        cells: places of each cell's terms, again for each time that one occurs.
    """
    from scipy import sparse

    found = [np.unique(cell, return_counts=True) if cell is not None else (NOTHING, NOTHING) for cell in cells]
    starts = np.concatenate([[0], np.cumsum([len(places) for places, _ in found], dtype=np.int64)])
    places = np.concatenate([places for places, _ in found] or [NOTHING]).astype(np.int32)
    counts = np.concatenate([counts for _, counts in found] or [NOTHING]).astype(np.float32)
    return sparse.csr_matrix((counts, places, starts), shape=(len(found), TERMS))


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Features of rows.

    Attributes:
        blocks: of each column. terms: of columns of texts, as they are whether seen or not: ``blocks`` says which are.
    """

    blocks: Blocks
    terms: Terms = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.blocks.values()))) if self.blocks else 0

    def rows(self, which: np.ndarray) -> FeatureRows:
        """Some of the rows."""
        blocks = {c: block[which] for c, block in self.blocks.items()}
        return FeatureRows(blocks, {c: counts[which] for c, counts in self.terms.items()})

    def columns(self, names: Sequence[str]) -> FeatureRows:
        """Some of the columns."""
        return FeatureRows({c: self.blocks[c] for c in names}, {c: self.terms[c] for c in names if c in self.terms})

    def shows(self, column: str) -> np.ndarray:
        """Rows in which a column is seen, bool [n]."""
        return np.asarray(np.isfinite(self.blocks[column]).any(axis=1))

    def hidden(self, visible: Mapping[str, np.ndarray]) -> FeatureRows:
        """Copy in which each row shows only some of its columns: bool [n] for each."""
        blocks = {c: np.where(visible[c][:, None], block, np.nan) for c, block in self.blocks.items()}
        return FeatureRows(blocks, self.terms)

    def masked(self, seed: int) -> FeatureRows:
        """Copy in which each row shows a random share of its columns: a model that has seen such rows answers from any
        columns."""
        rng = np.random.default_rng(seed)
        rate = rng.random(len(self))
        return self.hidden({c: rng.random(len(self)) >= rate for c in self.blocks})

    @classmethod
    def joined(cls, parts: Sequence[FeatureRows]) -> FeatureRows:
        """Rows of several, one after the other."""
        from scipy import sparse

        blocks = {c: np.concatenate([part.blocks[c] for part in parts]) for c in parts[0].blocks}
        return cls(blocks, {c: sparse.vstack([part.terms[c] for part in parts], "csr") for c in parts[0].terms})


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


def column_relevance(block: np.ndarray, y: np.ndarray, sort: bool) -> float:
    """Share of the target's variance that a column's most relevant features explain linearly, cross-validated."""
    usable = np.flatnonzero(relevance(block, y, sort) > 0)
    if not len(usable) or len(y) < 6:
        return 0.0
    best = usable[np.argsort(-relevance(block[:, usable], y, sort), kind="stable")[:MAX_LINEAR]]
    x = bounded_features(block[:, best]).astype(np.float64)
    with np.errstate(all="ignore"):
        x = x / np.maximum(np.nanmax(np.abs(x), 0, initial=0.0), 1e-300)
        x = np.nan_to_num(x - np.nanmean(x, 0))
    seen = np.asarray(np.isfinite(block).any(axis=1))
    x = np.concatenate([x / (x.std(0) + 1e-9), seen[:, None]], 1)
    target = np.eye(int(y.max()) + 1)[y.astype(np.int64)] if sort else y[:, None]
    error = spread = 0.0
    for fold in range(3):
        left = np.arange(len(y)) % 3 == fold
        mean = target[~left].mean(0)
        gram = x[~left].T @ x[~left] + 0.03 * len(y) * np.eye(x.shape[1])
        off = target[left] - mean - x[left] @ np.linalg.solve(gram, x[~left].T @ (target[~left] - mean))
        error, spread = error + float((off**2).sum()), spread + float(((target[left] - mean) ** 2).sum())
    return 1.0 - error / max(spread, 1e-12)


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


def overlaps(rows: FeatureRows, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Overlaps of two texts of a row, for each pair of columns: float32 [n, 3 · pairs], NaN where one isn't seen.

    They are the cosine of their terms, and the share of the terms of each that is in the other.
    """
    found = np.full((len(rows), 3 * len(pairs)), np.nan, np.float32)
    for number, (a, b) in enumerate(pairs):
        left, right = (rows.terms[c] > 0 for c in (a, b))
        both = np.asarray(left.multiply(right).sum(1)).ravel()
        sizes = [np.maximum(np.asarray(one.sum(1)).ravel(), 1) for one in (left, right)]
        part = np.stack([both / np.sqrt(sizes[0] * sizes[1]), both / sizes[0], both / sizes[1]], 1)
        visible = rows.shows(a) & rows.shows(b)
        found[:, 3 * number : 3 * number + 3] = np.where(visible[:, None], part, np.nan)
    return found


def text_pairs(rows: FeatureRows, columns: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of columns of texts, at most ``MAX_PAIRS``."""
    texts = [c for c in columns if c in rows.terms]
    return list(itertools.combinations(texts, 2))[:MAX_PAIRS]
