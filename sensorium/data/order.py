"""The order of rows: a pure function of (seed, epoch, step), so that any run can stop anywhere and go on the same.

Rows are shuffled in blocks, then inside windows of blocks: a full shuffle for small tables, near-sequential reading for
large ones, and never more than a window of numbers in memory.
"""

from __future__ import annotations

import functools

import numpy as np

BLOCK, WINDOW = 4096, 16


class Order:
    """Batches of row numbers.

    Args:
        rows: the rows to draw from (ascending), int64 [n].
        batch: rows a step. The last, smaller batch of an epoch is filled from the beginning of the same epoch.
        seed: of the shuffle.
    """

    def __init__(self, rows: np.ndarray, batch: int, seed: int) -> None:
        if not len(rows):
            raise ValueError("no rows to order")
        self.rows, self.batch, self.seed = rows, batch, seed
        self.steps = -(-len(rows) // batch)
        """Steps an epoch."""

    def at(self, step: int) -> np.ndarray:
        """The row numbers of step ``step`` (counted over all epochs), int64 [batch] (fewer where the table has fewer)."""
        epoch, step = divmod(step, self.steps)
        start, size = step * self.batch, min(self.batch, len(self.rows))
        places = np.arange(start, start + size) % len(self.rows)
        ends = self.ends(epoch)
        windows = np.searchsorted(ends, places, side="right")
        result = np.empty(size, dtype=np.int64)
        for number in np.unique(windows).tolist():
            inside = windows == number
            first = ends[number - 1] if number else 0
            result[inside] = self.window(epoch, number)[places[inside] - first]
        return self.rows[result]

    @functools.lru_cache(maxsize=2)  # noqa: B019 (an Order lives as long as its run)
    def blocks(self, epoch: int) -> np.ndarray:
        """The shuffled blocks of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(-(-len(self.rows) // BLOCK))

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def ends(self, epoch: int) -> np.ndarray:
        """Where in an epoch each window ends."""
        blocks = self.blocks(epoch)
        sizes = np.minimum((blocks + 1) * BLOCK, len(self.rows)) - blocks * BLOCK
        return np.cumsum(np.add.reduceat(sizes, np.arange(0, len(blocks), WINDOW)))

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def window(self, epoch: int, number: int) -> np.ndarray:
        """The shuffled positions of one window of blocks."""
        blocks = self.blocks(epoch)[number * WINDOW : (number + 1) * WINDOW]
        places = np.concatenate([np.arange(b * BLOCK, min((b + 1) * BLOCK, len(self.rows))) for b in blocks])
        return places[np.random.default_rng([self.seed, epoch, number]).permutation(len(places))]


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the rows, evenly spread."""
    return rows if count >= len(rows) else rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
