"""Shuffled row order: a pure function of (seed, epoch, step), so that any run can stop anywhere and resume the same.

Rows are shuffled in blocks, then inside windows of blocks: a full shuffle for small tables, near-sequential reading for
large ones, and never more than a window of numbers in memory.
"""

from __future__ import annotations

import functools

import numpy as np

BLOCK_ROWS, WINDOW_BLOCKS = 4096, 16


class Order:
    """Batch sampler: the row numbers of each training step.

    Args:
        rows: the rows to draw from (ascending), int64 [n].
        batch: rows a step. The last, smaller batch of an epoch is filled from the beginning of the same epoch.
        seed: of the shuffle.
        entities: for each row number its entity, int64. Two rows of one entity then come one after the other
            wherever they are in one window: they can be compared, and no step is full of one entity.
    """

    def __init__(self, rows: np.ndarray, batch: int, seed: int, entities: np.ndarray | None = None) -> None:
        if not len(rows):
            raise ValueError("no rows to order")
        self.rows, self.batch, self.seed, self.entities = rows, batch, seed, entities
        self.steps = -(-len(rows) // batch)
        """Steps an epoch."""

    def at(self, step: int) -> np.ndarray:
        """Row numbers of step ``step``, counted over all epochs, int64 [batch] (fewer where the table has fewer)."""
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
        """Shuffled blocks of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(-(-len(self.rows) // BLOCK_ROWS))

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def ends(self, epoch: int) -> np.ndarray:
        """End of each window in an epoch."""
        blocks = self.blocks(epoch)
        sizes = np.minimum((blocks + 1) * BLOCK_ROWS, len(self.rows)) - blocks * BLOCK_ROWS
        return np.cumsum(np.add.reduceat(sizes, np.arange(0, len(blocks), WINDOW_BLOCKS)))

    @functools.lru_cache(maxsize=4)  # noqa: B019
    def window(self, epoch: int, number: int) -> np.ndarray:
        """Shuffled positions of one window of blocks."""
        blocks = self.blocks(epoch)[number * WINDOW_BLOCKS : (number + 1) * WINDOW_BLOCKS]
        places = np.concatenate([np.arange(b * BLOCK_ROWS, min((b + 1) * BLOCK_ROWS, len(self.rows))) for b in blocks])
        rng = np.random.default_rng([self.seed, epoch, number])
        shuffled = places[rng.permutation(len(places))]
        return shuffled if self.entities is None else shuffled[paired_order(self.entities[self.rows[shuffled]], rng)]


def paired_order(entities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order of shuffled rows [n] in pairs of one entity, pairs and single rows shuffled."""
    together = np.argsort(entities, kind="stable")
    _, first, count = np.unique(entities[together], return_index=True, return_counts=True)
    place = np.arange(len(entities)) - np.repeat(first, count)
    couple = np.cumsum(place % 2 == 0) - 1
    return together[np.argsort(rng.permutation(couple[-1] + 1)[couple], kind="stable")]


def evenly_spaced(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the rows, evenly spread."""
    return rows if count >= len(rows) else rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
