"""How far a vector lies from those that training rows have: what is far from all of them is of another kind than what was learned.

The distance is that to the nearest known vectors ("Out-of-distribution detection with deep nearest neighbors", Sun et al. 2022, arXiv 2204.06507); rows held out say
what is usual. It knows vectors, nothing of rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

NEIGHBOURS = 5
"""Known vectors to which the mean distance is taken."""
USUAL_PERCENTILE, HIGH_PERCENTILE = 50, 90
"""Percentiles of what is usual that are 0 and 1."""


class OutOfDistribution:
    """Known vectors of several kinds.

    Args:
        known: for each kind unit vectors [rows, size]. levels: for each kind percentiles 0 to 100 of the distances of rows held out.
    """

    def __init__(self, known: Mapping[str, torch.Tensor], levels: Mapping[str, Sequence[float]]) -> None:
        self.known, self.levels = (
            {kind: vectors.half() for kind, vectors in known.items()},
            {kind: list(values) for kind, values in levels.items()},
        )

    def away(self, kind: str, vectors: torch.Tensor) -> torch.Tensor:
        """How far vectors [n, size] lie from the known ones: 0 is usual, 1 as far as one of ten rows held out, [n]."""
        return relative(distance(vectors, self.known[kind].to(vectors)), self.levels[kind])


def relative(values: Any, levels: Sequence[float]) -> Any:
    """Values (a tensor or an array) beside the percentiles of usual ones: 0 is the middle, 1 as high as one of ten."""
    low, high = levels[USUAL_PERCENTILE], levels[HIGH_PERCENTILE]
    return (values - low) / max(high - low, 1e-6)


def distance(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """1 minus the mean cosine of vectors [n, size] with the nearest of known ones [rows, size], all of length 1."""
    return 1 - (vectors @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1).values.mean(1)
