"""Out-of-distribution detection: distance of a vector to those of training rows.

The distance is that to the nearest known vectors ("Out-of-distribution detection with deep nearest neighbors", Sun et
al. 2022, arXiv 2204.06507), relative to the distances of validation rows. It knows vectors, nothing of rows and
columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

NEIGHBOURS = 5
"""Known vectors over which the distance is averaged."""
USUAL_PERCENTILE, HIGH_PERCENTILE = 50, 90
"""Percentiles of usual distances that become 0 and 1."""


class OutOfDistribution:
    """Nearest-neighbour detector over known vectors of several kinds.

    Args:
        known: for each kind unit vectors [rows, size].
        levels: for each kind percentiles 0 to 100 of the distances of validation rows.
    """

    def __init__(self, known: Mapping[str, torch.Tensor], levels: Mapping[str, Sequence[float]]) -> None:
        self.known, self.levels = (
            {kind: vectors.half() for kind, vectors in known.items()},
            {kind: list(values) for kind, values in levels.items()},
        )

    def away(self, kind: str, vectors: torch.Tensor) -> torch.Tensor:
        """Relative distance [n] of vectors [n, size] from the known ones: 0 is usual, 1 as far as one of ten validation
        rows."""
        return relative(distance(vectors, self.known[kind].to(vectors)), self.levels[kind])


def relative(values: Any, levels: Sequence[float]) -> Any:
    """Values (a tensor or an array) relative to the percentiles of usual ones: 0 is the median, 1 as high as one of
    ten."""
    low, high = levels[USUAL_PERCENTILE], levels[HIGH_PERCENTILE]
    return (values - low) / max(high - low, 1e-6)


def distance(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 minus the mean cosine of vectors [n, size] with the nearest of known ones [rows, size], all of length 1."""
    return 1 - (vectors @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1).values.mean(1)
