"""Nearest rows of one part of an index: all are compared, or those that its finder proposes."""

from __future__ import annotations

import numpy as np

from sensorium.search.exact import nearest
from sensorium.search.store import StorePart

PROPOSED_PER_ROW, EXTRA_PROPOSED = 4, 32
"""Rows that a finder proposes: so many times those that are wanted, and so many more."""
MIN_ALLOWED_SHARE = 0.5
"""Share of the rows that may be found below which all are compared."""


def near(part: StorePart, kind: str, vectors: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and rows [n, k] of a part's allowed rows nearest to some vectors.

    Candidates are the rows that the part's finder proposes, where it has one, most rows may be found, and the proposals
    are enough; else all rows.
    """
    open_to_all, finder = bool(allowed.all()), part.finders.get(kind)
    if finder is None or allowed.sum() < MIN_ALLOWED_SHARE * part.has[kind].sum():
        return nearest(vectors, part.vectors[kind], k, None if open_to_all else allowed, part.rough[kind])
    row = finder.propose(vectors, min(len(allowed), PROPOSED_PER_ROW * k + EXTRA_PROPOSED))
    at = row.clip(0)
    score = np.where(
        (row >= 0) & allowed[at], np.einsum("qkd,qd->qk", part.vectors[kind][at], vectors), -np.inf
    ).astype(np.float32)
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    score, row = np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)
    row = np.where(np.isfinite(score), row, -1)
    few = (row >= 0).sum(1) < min(k, int(allowed.sum()))
    score, row = (
        np.pad(each, ((0, 0), (0, k - each.shape[1])), constant_values=fill)
        for each, fill in ((score, -np.inf), (row, -1))
    )
    if few.any():
        score[few], row[few] = nearest(
            vectors[few], part.vectors[kind], k, None if open_to_all else allowed, part.rough[kind]
        )
    return score, row
