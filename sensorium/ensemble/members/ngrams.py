"""Linear member on the terms of texts: words, pairs of words and runs of letters, weighed by how rare they are.

A row's terms of each column have length 1 (TF-IDF; Salton and Buckley 1988); logistic or ridge regression answers.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from sensorium.data.order import evenly_spaced
from sensorium.ensemble.features import FeatureRows
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.members._regression import answers, class_weights, fit_score

if TYPE_CHECKING:
    from scipy import sparse

MAX_ROWS, MAX_TERMS, MAX_WEIGHTS = 8000, 30_000, 2_000_000
"""Training rows, terms of all columns, and weights of all classes, at most."""
MIN_ROWS = 2
"""Training rows that have a term, at least."""
PENALTIES = (0.1, 0.01, 1.0)
"""Strengths of the L2 penalty that are tried, in this order, while time is left."""
STEPS = 25
"""Iterations of the regression, at most."""


class NGrams(Member):
    """Linear model of the terms of texts, which answers from any of them.

    Args:
        terms: places of the terms of each column, ascending; rarity: of these [d]. weights: [d, outputs]; bias:
            [outputs].
    """

    def __init__(
        self,
        terms: Mapping[str, np.ndarray],
        rarity: np.ndarray,
        weights: np.ndarray,
        bias: np.ndarray,
        classes: int,
    ) -> None:
        self.columns, self.terms, self.rarity = tuple(terms), dict(terms), rarity
        self.weights, self.bias, self.classes = weights, bias, classes

    @classmethod
    def fit(cls, data: FitData, columns: Sequence[str]) -> NGrams | None:
        started, columns = time.monotonic(), [c for c in columns if c in data.rows.terms]
        rows = evenly_spaced(np.arange(len(data.target)), MAX_ROWS)
        y = data.target[rows]
        if len(np.unique(y)) < 2 or not columns:
            return None
        x, valid = data.rows.columns(columns).rows(rows), data.valid.columns(columns)
        if len(columns) > 1:
            x, y = FeatureRows.joined([x, x.masked(data.seed)]), np.concatenate([y, y])
            valid = FeatureRows.joined([valid, valid.masked(data.seed + 1)])
        most = min(MAX_TERMS, MAX_WEIGHTS // max(data.classes, 1))
        found = {c: frequent_terms(x, c, most // len(columns)) for c in columns}
        found = {c: both for c, both in found.items() if len(both[0])}
        if not found:
            return None
        rarity = np.concatenate([rare for _, rare in found.values()])
        self = cls({c: terms for c, (terms, _) in found.items()}, rarity, np.zeros(0), np.zeros(0), data.classes)
        design, checked = self.design(x), self.design(valid)
        checks = np.tile(data.valid_target, len(valid) // max(len(data.valid_target), 1))
        best, solved = -np.inf, None
        for number, penalty in enumerate(PENALTIES):
            passed = time.monotonic() - started
            if number and passed * (number + 1) / number > data.seconds:
                break
            self.weights, self.bias = solve(design, y, data.classes, penalty)
            score = fit_score(self.output(checked), checks, data.classes)
            if score > best:
                best, solved = score, (self.weights, self.bias)
        assert solved is not None
        self.weights, self.bias = solved
        return self

    def design(self, rows: FeatureRows) -> sparse.csr_matrix:
        """Weighed terms [n, d], those of a column that isn't seen 0."""
        from scipy import sparse

        parts, start = [], 0
        for column, terms in self.terms.items():
            counts = rows.terms[column][:, terms].astype(np.float32)
            counts.data = np.log1p(counts.data)
            counts = counts @ sparse.diags(self.rarity[start : start + len(terms)].astype(np.float32))
            length = np.sqrt(np.asarray(counts.multiply(counts).sum(1)).ravel())
            parts.append(sparse.diags((rows.shows(column) / np.maximum(length, 1e-6)).astype(np.float32)) @ counts)
            start += len(terms)
        return sparse.hstack(parts, "csr")

    def output(self, design: sparse.csr_matrix) -> np.ndarray:
        """Probabilities [n, classes], or values [n]."""
        return answers(np.asarray(design @ self.weights) + self.bias, self.classes)

    def predict(self, rows: FeatureRows) -> np.ndarray:
        return self.output(self.design(rows))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        places = np.concatenate(list(self.terms.values())).astype(np.int32)
        sizes = {c: len(terms) for c, terms in self.terms.items()}
        arrays = {"places": places, "rarity": self.rarity, "weights": self.weights, "bias": self.bias}
        return {"sizes": sizes, "classes": self.classes}, arrays

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> NGrams:
        ends = np.cumsum(list(described["sizes"].values()))[:-1]
        terms = dict(zip(described["sizes"], np.split(arrays["places"], ends), strict=True))
        return cls(terms, arrays["rarity"], arrays["weights"], arrays["bias"], described["classes"])


def frequent_terms(rows: FeatureRows, column: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of a column's terms that several rows have, the most frequent ones, ascending; and how rare each is."""
    counts = rows.terms[column][np.flatnonzero(rows.shows(column))]
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    places = np.flatnonzero(frequency >= MIN_ROWS)
    if len(places) > most:
        places = np.sort(places[np.argsort(-frequency[places], kind="stable")[:most]])
    return places, (np.log((1 + counts.shape[0]) / (1 + frequency[places])) + 1).astype(np.float32)


def solve(x: sparse.csr_matrix, y: np.ndarray, classes: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [d, outputs] and biases [outputs] of penalised regression."""
    from sklearn.linear_model import LogisticRegression, Ridge

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it isn't fully converged is no fault here
        if not classes:
            ridge = Ridge(alpha=10 * penalty, solver="sparse_cg", max_iter=STEPS).fit(x, y)
            return ridge.coef_.reshape(-1, 1).astype(np.float32), np.atleast_1d(ridge.intercept_).astype(np.float32)
        return class_weights(LogisticRegression(C=1 / penalty, max_iter=STEPS).fit(x, y.astype(np.int64)), classes)
