"""Nearest neighbours among training rows, by the distance of standardised features, each as relevant as it was found.

Distances are along the columns that a row shows. The less of what is relevant these are, the more it is answered by
class frequencies, or the mean.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.data.order import evenly_spaced
from sensorium.ensemble.features import FeatureRows, matrix, pick_features, relevance
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.members._regression import fit_score

MAX_ROWS, MAX_FEATURES, MAX_OUTPUTS = 4000, 128, 2000
"""Rows that are remembered, features and classes, at most."""
NEIGHBOURS = (1, 2, 4, 8, 16, 32)
"""Numbers of neighbours that are tried."""
POWERS = (0.5, 0.0, 1.0)
"""Powers of a feature's relevance, as the scales of the distance, that are tried."""
PRIOR = 0.5
"""Neighbours that class frequencies, or the mean, are worth."""


class Neighbours(Member):
    """Nearest training rows, which answer from any columns.

    Args:
        picked: features of each column. mean, scale: of these [d]. rows: scaled features [rows, d]; target: [rows];
            prior: class frequencies, or the mean. count: of neighbours.
    """

    def __init__(
        self,
        columns: Sequence[str],
        picked: Mapping[str, Sequence[int]],
        mean: np.ndarray,
        scale: np.ndarray,
        rows: np.ndarray,
        target: np.ndarray,
        prior: np.ndarray,
        classes: int,
        count: int,
    ) -> None:
        self.columns, self.picked, self.classes, self.count = tuple(columns), picked, classes, count
        self.mean, self.scale, self.rows, self.target, self.prior = mean, scale, rows, target, prior

    @classmethod
    def fit(cls, data: FitData, columns: Sequence[str]) -> Neighbours | None:
        started = time.monotonic()
        rows = evenly_spaced(np.arange(len(data.target)), MAX_ROWS)
        blocks, y = {c: data.rows.blocks[c][rows] for c in columns}, data.target[rows]
        if len(np.unique(y)) < 2 or data.classes > MAX_OUTPUTS:
            return None
        picked = {c: w for c, w in pick_features(blocks, y, bool(data.classes), MAX_FEATURES).items() if len(w)}
        if not picked:
            return None
        x = matrix({c: blocks[c][:, picked[c]] for c in picked}, list(picked))
        mean, std = np.nan_to_num(np.nanmean(x, 0)), np.nan_to_num(np.nanstd(x, 0)) + 1e-6
        telling = relevance(x, y, bool(data.classes))
        frequent = np.bincount(y.astype(np.int64), minlength=data.classes) if data.classes else np.array([y.sum()])
        best, found = -np.inf, None
        for number, power in enumerate(POWERS):
            passed = time.monotonic() - started
            if number and passed * (number + 1) / number > data.seconds:
                break
            scale = (telling / max(telling.max(), 1e-12)) ** power / std
            self = cls(tuple(picked), picked, mean, scale, x[:0], y, frequent / len(y), data.classes, 1)
            self.rows = np.nan_to_num(self.scaled(data.rows.rows(rows))).astype(np.float16)
            order = self.nearest(data.valid)
            for count in (k for k in NEIGHBOURS if k <= len(y)):
                self.count = count
                score = fit_score(self.vote(*order), data.valid_target, data.classes)
                if score > best:
                    best, found = score, (scale, self.rows, count)
        assert found is not None
        self.scale, self.rows, self.count = found
        return self

    def scaled(self, rows: FeatureRows) -> np.ndarray:
        """Scaled features [n, d], NaN where one isn't seen."""
        x = matrix({c: rows.blocks[c][:, self.picked[c]] for c in self.columns}, self.columns)
        return ((x - self.mean) * self.scale).clip(-60, 60)

    def nearest(self, rows: FeatureRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nearest remembered rows, and their squared distances [n, at most ``NEIGHBOURS[-1]``], nearest first; and the
        share of what is relevant that is seen [n]."""
        x, y = self.scaled(rows).astype(np.float64), self.rows.astype(np.float64)
        known = np.isfinite(x).astype(np.float64)
        x, weight = np.nan_to_num(x), y.var(0)
        seen = known @ weight / max(float(weight.sum()), 1e-12)
        distance = (x**2).sum(1)[:, None] - 2 * x @ y.T + known @ (y**2).T
        most = min(NEIGHBOURS[-1], len(y))
        found = np.argpartition(distance, most - 1, 1)[:, :most]
        near = np.take_along_axis(distance, found, 1)
        order = np.argsort(near, 1, kind="stable")
        return np.take_along_axis(found, order, 1), np.take_along_axis(near, order, 1).clip(0), seen

    def vote(self, found: np.ndarray, distance: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Probabilities [n, classes], or values [n]: nearer rows count more."""
        prior = (PRIOR + self.count * (1 - seen) / np.maximum(seen, 0.05))[:, None]
        found, distance = found[:, : self.count], distance[:, : self.count]
        weight = 1 / (np.sqrt(distance) / (np.sqrt(distance).mean(1, keepdims=True) + 1e-9) + 0.1)
        weight *= self.count / weight.sum(1, keepdims=True)
        if not self.classes:
            return ((weight * self.target[found]).sum(1) + prior[:, 0] * self.prior[0]) / (self.count + prior[:, 0])
        votes = prior * self.prior
        np.add.at(votes, (np.arange(len(found))[:, None], self.target[found].astype(np.int64)), weight)
        return votes / votes.sum(1, keepdims=True)

    def predict(self, rows: FeatureRows) -> np.ndarray:
        return self.vote(*self.nearest(rows))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        described = {"columns": self.columns, "picked": dict(self.picked), "classes": self.classes, "count": self.count}
        arrays = {name: getattr(self, name) for name in ("mean", "scale", "rows", "target", "prior")}
        return described, arrays

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Neighbours:
        return cls(**described, **arrays)
