"""Linear member: multinomial logistic regression, or ridge regression, on standardised features.

A feature that isn't seen stands at its mean, and a column that isn't seen has an indicator.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sensorium.data.order import evenly_spaced
from sensorium.ensemble.features import FeatureRows, matrix, overlaps, pick_features, text_pairs
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.members._regression import answers, class_weights, fit_score

MAX_ROWS, MAX_FEATURES = 4000, 512
"""Training rows and features, at most."""
PENALTIES = (1.0, 0.01, 0.1, 10.0)
"""Strengths of the L2 penalty that are tried, in this order, while time is left; each for a standardised feature."""


class Linear(Member):
    """Linear model of plain features, which answers from any columns.

    Args:
        picked: features of each column. pairs: columns of texts that are compared. mean, std: of all these numbers
            [d]. weights: [d + columns, outputs]; bias: [outputs].
    """

    def __init__(
        self,
        columns: Sequence[str],
        picked: Mapping[str, Sequence[int]],
        mean: np.ndarray,
        std: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray,
        classes: int,
        pairs: Sequence[Sequence[str]] = (),
    ) -> None:
        self.pairs = [(a, b) for a, b in pairs]
        self.columns, self.picked, self.classes = tuple(columns), picked, classes
        self.mean, self.std, self.weights, self.bias = mean, std, weights, bias

    @classmethod
    def fit(cls, data: FitData, columns: Sequence[str]) -> Linear | None:
        started = time.monotonic()
        some = evenly_spaced(np.arange(len(data.target)), MAX_ROWS)
        rows, y = data.rows.columns(columns).rows(some), data.target[some]
        if len(np.unique(y)) < 2:
            return None
        picked = pick_features(rows.blocks, y, bool(data.classes), MAX_FEATURES)
        columns = [c for c in columns if len(picked[c])]
        if not columns:
            return None
        pairs = text_pairs(data.rows, columns)
        self = cls(columns, picked, np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), data.classes, pairs)
        x = self.numbers(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a feature that no row has stands at 0
            self.mean, self.std = np.nan_to_num(np.nanmean(x, 0)), np.nan_to_num(np.nanstd(x, 0)) + 1e-6
        design = np.concatenate([self.design(rows), self.design(rows.masked(data.seed))])
        twice, best, found = np.concatenate([y, y]), -np.inf, None
        valid = data.valid.columns(columns)
        checked = np.concatenate([self.design(valid), self.design(valid.masked(data.seed + 1))])
        checks = np.concatenate([data.valid_target] * 2)
        for number, penalty in enumerate(PENALTIES):
            passed = time.monotonic() - started
            if number and passed * (number + 1) / number > data.seconds:
                break
            self.weights, self.bias = solve(design, twice, data.classes, penalty)
            score = fit_score(self.output(checked), checks, data.classes)
            if score > best:
                best, found = score, (self.weights, self.bias)
        if found is None:
            return None
        self.weights, self.bias = found
        return self

    def numbers(self, rows: FeatureRows) -> np.ndarray:
        """Features of rows, and what pairs of texts have in common, float32 [n, d]."""
        x = matrix({c: rows.blocks[c][:, self.picked[c]] for c in self.columns}, self.columns)
        return np.concatenate([x, overlaps(rows, self.pairs)], 1) if self.pairs else x

    def design(self, rows: FeatureRows) -> np.ndarray:
        """Standardised features with indicators of columns that are seen, float32 [n, d + columns]."""
        x = (self.numbers(rows) - self.mean) / self.std
        seen = np.stack([rows.shows(c) for c in self.columns], 1)
        return np.concatenate([np.nan_to_num(x.clip(-8, 8)), seen], 1).astype(np.float32)

    def output(self, design: np.ndarray) -> np.ndarray:
        """Probabilities [n, classes], or values [n]."""
        # In doubles, so that an answer doesn't depend on the rows beside it.
        return answers(design.astype(np.float64) @ self.weights + self.bias, self.classes)

    def predict(self, rows: FeatureRows) -> np.ndarray:
        return self.output(self.design(rows))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        described = {"columns": self.columns, "picked": dict(self.picked), "classes": self.classes, "pairs": self.pairs}
        return described, {"mean": self.mean, "std": self.std, "weights": self.weights, "bias": self.bias}

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Linear:
        return cls(**described, **arrays)


def solve(x: np.ndarray, y: np.ndarray, classes: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [d, outputs] and biases [outputs] of penalised regression; a class that no row has gets no weight."""
    from sklearn.linear_model import LogisticRegression, Ridge

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it isn't fully converged is no fault here
        if not classes:
            model = Ridge(alpha=penalty * x.shape[1] / 10).fit(x, y)
            return model.coef_.reshape(-1, 1).astype(np.float32), np.atleast_1d(model.intercept_).astype(np.float32)
        return class_weights(LogisticRegression(C=1 / penalty / 10, max_iter=60).fit(x, y.astype(np.int64)), classes)
