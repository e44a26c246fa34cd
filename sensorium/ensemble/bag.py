"""Bag of members of one kind, each of which learned without one fold of the rows ("Bagging predictors", Breiman 1996).

What they answer is averaged. Answers to a fold's rows by the part that didn't learn from them are out-of-fold answers,
by which weights are chosen where validation rows are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.core.registry import find, name_of
from sensorium.ensemble.features import FeatureRows
from sensorium.ensemble.members import Member


class Bag:
    """Members of one kind; one alone where nothing was cross-fitted.

    Attributes:
        parts: the members, in the order of the folds that they didn't learn from.
        columns: those of any of them. whole: as of the kind; needed: as of any of them.
    """

    def __init__(self, parts: Sequence[Member]) -> None:
        self.parts = list(parts)
        self.columns = tuple(dict.fromkeys(c for part in self.parts for c in part.columns))
        self.needed = tuple(dict.fromkeys(c for part in self.parts for c in part.needed))
        self.whole = self.parts[0].whole

    @property
    def name(self) -> str:
        """Name of the kind for people."""
        return name_of(type(self.parts[0])).replace("_", " ")

    def predict(self, rows: FeatureRows, fold: int | None = None) -> np.ndarray:
        """Probabilities [n, classes], or standardised values [n].

        Args:
            fold: that of the rows: the answer is that of the part that didn't learn from it.
        """
        if fold is not None and len(self.parts) > 1:
            return self.parts[fold].predict(rows)
        return np.mean([part.predict(rows) for part in self.parts], axis=0)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Description as JSON, and arrays by name."""
        described, arrays = [], {}
        for number, part in enumerate(self.parts):
            own, numbers = part.state()
            described.append(own)
            arrays |= {f"{number}.{name}": array for name, array in numbers.items()}
        return {"kind": name_of(type(self.parts[0])), "parts": described}, arrays

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Bag:
        """The inverse of ``state``; and of a lone member's, as older models have it."""
        kind = find(Member, described["kind"])
        if "parts" not in described:
            return cls([kind.load({key: value for key, value in described.items() if key != "kind"}, arrays)])
        parts = []
        for number, own in enumerate(described["parts"]):
            mine = {n.partition(".")[2]: array for n, array in arrays.items() if n.partition(".")[0] == str(number)}
            parts.append(kind.load(own, mine))
        return cls(parts)
