"""Weights of an ensemble's members, for rows that show certain columns.

Validation rows were answered by every member from all columns, from each alone and from random ones. A bank holds how
well. The weights for a set of columns are those that combine the answers best on the rows of the bank, of which each
counts the more the fewer columns it shows otherwise. They shrink to a prior where such rows are few: half of it on the
best member, the rest on those near it. Of probabilities the mixture's likelihood is maximised (EM, Dempster et al.
1977); of values the squared error is minimised ("Stacked regressions", Breiman 1996). It knows arrays, no member and no
column.
"""

from __future__ import annotations

import functools

import numpy as np

UNLIKE, ENOUGH_ROWS = (0.1, 0.2, 0.4, 0.6, 0.8), 100
"""How much less a row of the bank counts for each column that it shows otherwise: the first that leaves as many rows.
"""
PRIOR_ROWS = 20.0
"""Rows that the prior is worth."""
SHARPNESS = 8.0
"""Of the prior: how much lower it is for each nat of log-likelihood, or of the squared error's logarithm."""
MIN_WEIGHT = 0.03
"""A member with less is left out: each costs a pass."""
EM_STEPS, GRADIENT_STEPS = 60, 300
"""Iterations of the two algorithms."""


class WeightBank:
    """Bank of answers to validation rows.

    Args:
        visible: which columns each row shows, bool [rows, columns].
        answers: likelihood of the truth, or the value, by each member [rows, members]; NaN where it has no answer. For
            it stands the first member's, or chance where that has none either: the last member, which is class
            frequencies, or the mean, 0.
        truth: values [rows]; None for likelihoods.
        spread: of a value, ends of the network's intervals, as distances from its median in normal scores
            [rows, coverages, 2].
    """

    def __init__(
        self,
        visible: np.ndarray,
        answers: np.ndarray,
        truth: np.ndarray | None = None,
        spread: np.ndarray | None = None,
    ) -> None:
        self.visible, self.truth, self.spread = visible.astype(bool), truth, spread
        self.answers = answers.astype(np.float32)
        chance = self.answers[:, -1:] if truth is None else 0.0
        stand_in = np.where(np.isnan(self.answers[:, :1]), chance, self.answers[:, :1])
        self.filled = np.where(np.isnan(self.answers), stand_in, self.answers).astype(np.float64)
        self.has = ~np.isnan(answers)
        self.weights = functools.lru_cache(maxsize=4096)(self._weights)

    def part(self, rows: np.ndarray) -> WeightBank:
        """Bank of some of the rows."""
        rest = (None if some is None else some[rows] for some in (self.truth, self.spread))
        return WeightBank(self.visible[rows], self.answers[rows], *rest)

    def count(self, pattern: bytes) -> np.ndarray:
        """Counts of each row for rows that show certain columns [rows]; those that are most like them count 1."""
        unlike = (self.visible != np.frombuffer(pattern, bool)).sum(1)
        counts = [base ** (unlike - unlike.min()).astype(np.float64) for base in UNLIKE]
        return next((count for count in counts if count.sum() >= ENOUGH_ROWS), counts[-1])

    def _weights(self, pattern: bytes, able: bytes, last: bytes = b"") -> np.ndarray:
        """Weights [members] for rows that show certain columns.

        Args:
            pattern: the columns, bool [columns], as bytes. able: the members that can answer such rows, bool [members],
                as bytes. last: weights of the last members among themselves, float64, as bytes, where they were chosen
                by other rows: they count as one.
        """
        among = np.frombuffer(last, np.float64)
        if not len(self.answers):
            return np.eye(self.answers.shape[1])[0]
        count, first = self.count(pattern), self.answers.shape[1] - len(among)
        some = np.frombuffer(able, bool) & ((count @ self.has) > 0.05 * count.sum())
        some[0] = True
        filled = self.filled
        if len(among):
            filled = np.concatenate([filled[:, :first], filled[:, first:] @ among[:, None]], 1)
            some = np.append(some[:first], True)
        solved, weights = self.solve(filled[:, some], count), np.zeros(len(some))
        solved[solved < MIN_WEIGHT] = 0.0
        weights[some] = solved / solved.sum()
        return np.concatenate([weights[:first], weights[first] * among]) if len(among) else weights

    def solve(self, filled: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Weights of members by what they answered to the rows [rows, members], each of which counts so much."""
        return mixture_weights(filled, count) if self.truth is None else value_weights(filled, self.truth, count)


def conformal_quantile(scores: np.ndarray, count: np.ndarray, share: float) -> float:
    """Quantile of conformity scores below which so many of further rows lie; infinite where the rows are too few.

    Weighted split conformal prediction (Tibshirani et al. 2019, arXiv 1904.06019): a further row counts as one.

    Args:
        scores: [rows]. count: how much each row counts [rows].
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(count[order])
    at = int(np.searchsorted(reached, share * (reached[-1] + 1) - 1e-9)) if len(reached) else 0
    return float(scores[order[at]]) if at < len(order) else float("inf")


def prior(scores: np.ndarray) -> np.ndarray:
    """Prior weights: half on the member of the highest score, the rest on those near it, each by its distance.

    Args:
        scores: one that is 1 lower than the best has 1/e of its part.
    """
    near = np.exp(scores - scores.max())
    weights = 0.5 * near / near.sum()
    weights[int(np.argmax(scores))] += 0.5
    return weights


def sharpness(count: np.ndarray) -> float:
    """Sharpness of the prior: how much it believes of a difference that so many rows show."""
    return float(SHARPNESS * count.sum() / (count.sum() + PRIOR_ROWS))


def mixture_weights(likelihoods: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Weights [members] of the mixture with the highest posterior, under a Dirichlet prior around ``prior``.

    Args:
        likelihoods: of the truth [rows, members]. count: how much each row counts [rows].
    """
    likelihoods = likelihoods.clip(1e-6)
    start = prior(sharpness(count) * (count @ np.log(likelihoods)) / count.sum())
    weights = start.copy()
    for _ in range(EM_STEPS):
        parts = likelihoods * weights
        parts /= parts.sum(1, keepdims=True)
        weights = (PRIOR_ROWS * start + count @ parts) / (PRIOR_ROWS + count.sum())
    return weights


def value_weights(values: np.ndarray, truth: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Weights [members] on the simplex with the least squared error, ridge-penalised towards ``prior``.

    Args:
        values: [rows, members]. truth: [rows]. count: how much each row counts [rows].
    """
    off = values - truth[:, None]
    total = count.sum()
    errors = count @ off**2 / total
    start = prior(-sharpness(count) * np.log(errors + 1e-9 * float(errors.max()) + 1e-12))
    gram = (off * count[:, None]).T @ off / total  # w' gram w is the squared error, as the weights' sum is 1
    penalty = float(errors.min()) * PRIOR_ROWS / total
    weights, step = start.copy(), 1 / (np.linalg.eigvalsh(gram)[-1] + penalty + 1e-12)
    for _ in range(GRADIENT_STEPS):
        weights = onto_simplex(weights - step * (gram @ weights + penalty * (weights - start)))
    return weights


def onto_simplex(x: np.ndarray) -> np.ndarray:
    """Nearest point with entries from 0 on whose sum is 1 (Duchi et al. 2008)."""
    ordered = np.sort(x)[::-1]
    reached = np.cumsum(ordered) - 1
    last = np.flatnonzero(ordered - reached / np.arange(1, len(x) + 1) > 0)[-1]
    return np.maximum(x - reached[last] / (last + 1), 0.0)
