"""Answers: predictions of one column, with scores, intervals and sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


@dataclasses.dataclass
class Answers:
    """Predictions of one column.

    Attributes:
        cells: the predicted cells, in the kind of the column; scores: log-probabilities [n].
        confidence: how sure, 0 to 1: the class's probability, for text exp(score), for numbers 1 minus the relative
            width of the interval. probabilities: [n, classes] for categories. interval: lower and upper cell values.
        sets: for categories, where a coverage was asked, the cells that each row's set holds, the likeliest first.
        bad: the rows that can't be read, which have no answer, and why.
    """

    cells: list[Any]
    scores: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None
    interval: list[tuple[Any, Any]] | None = None
    sets: list[list[Any]] | None = None
    bad: dict[int, str] = dataclasses.field(default_factory=dict)

    def without(self, bad: dict[int, str]) -> Answers:
        """Answers with none for rows that can't be read."""
        self.bad = bad
        for row in bad:
            self.cells[row] = None
            self.scores[row] = self.confidence[row] = np.nan
            if self.probabilities is not None:
                self.probabilities[row] = np.nan
            if self.interval is not None:
                self.interval[row] = None, None
            if self.sets is not None:
                self.sets[row] = []
        return self

    @classmethod
    def concat(cls, parts: Sequence[Answers]) -> Answers:
        """Answers of several windows of rows, one after the other."""
        if len(parts) == 1:
            return parts[0]
        chances = [part.probabilities for part in parts if part.probabilities is not None]
        starts = np.cumsum([0, *(len(part.cells) for part in parts)]).tolist()
        return cls(
            [cell for part in parts for cell in part.cells],
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate(chances) if chances else None,
            [ends for part in parts for ends in part.interval or ()] or None,
            [some for part in parts for some in part.sets or ()] or None,
            {start + row: why for start, part in zip(starts, parts, strict=False) for row, why in part.bad.items()},
        )


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Tensor as NumPy, bf16 as float32."""
    return (x.float() if x.is_floating_point() else x).cpu().numpy()
