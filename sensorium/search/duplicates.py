"""Near-duplicate detection: connected components of rows whose vectors have a cosine above a bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sensorium.core.errors import UserError
from sensorium.search.store import VectorStore

FIRST_NEIGHBOURS, MAX_NEIGHBOURS = 8, 4096
"""Neighbours that a row is compared with at first, beside itself, and at most, where all of these are alike."""
BATCH = 512
"""Rows that are compared at once."""
TOLERANCE = 1e-6
"""Rounding error of a cosine."""


Nearest = Callable[[np.ndarray, str, int, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Scores and rows [n, k] of the rows nearest to some vectors: ``Index.best``."""


def near_duplicates(
    store: VectorStore, best: Nearest, kind: str, above: float, done: Callable[[int], None] | None
) -> list[list[int]]:
    """Groups of near duplicates: see ``Index.duplicates``."""
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components

    if not 0 < above <= 1:
        raise UserError(f"above={above}: a cosine of 0 to 1 is the bound of what is nearly alike, for instance 0.98.")
    allowed, one, other, start = ~store.gone, [], [], 0
    for part in store.parts:
        rows = np.flatnonzero(allowed[start : start + len(part.cells)] & part.has[kind])
        for at in range(0, len(rows), BATCH):
            some = rows[at : at + BATCH]
            asked, many = some, FIRST_NEIGHBOURS + 1
            while len(asked):  # who has more neighbours that are alike than were looked at is asked for more
                score, row = best(np.array(part.vectors[kind][asked]), kind, many, allowed)
                near = (score > above - TOLERANCE) & (row != (asked + start)[:, None]) & (row >= 0)
                more = (score[:, -1] > above - TOLERANCE) & (many < min(len(allowed), MAX_NEIGHBOURS))
                one.append(np.repeat(asked[~more] + start, near[~more].sum(1)))
                other.append(row[~more][near[~more]])
                asked, many = asked[more], min(8 * many, len(allowed), MAX_NEIGHBOURS)
            if done:
                done(len(some))
        start += len(part.cells)
    pairs = np.concatenate([np.zeros(0, np.int64), *one]), np.concatenate([np.zeros(0, np.int64), *other])
    _, label = connected_components(
        scipy.sparse.coo_array((np.ones(len(pairs[0]), bool), pairs), (store.rows, store.rows)),
        directed=False,
    )
    alike = np.unique(np.concatenate(pairs))
    groups = [alike[label[alike] == number].tolist() for number in np.unique(label[alike])]
    return sorted(groups, key=lambda group: (-len(group), group[0]))
