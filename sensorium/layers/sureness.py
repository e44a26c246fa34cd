"""How often an answer that is as sure as this one is right: log-probabilities of short answers, calibrated on some of which it is known.

It knows numbers only. Platt scaling (1999) by two numbers: the log-probability of all of an answer, and its mean over tokens, for a name of many tokens is less likely than "Yes."
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

SHORT = 24
"""Tokens of an answer that is right or wrong as a whole, at most."""
FEWEST = 20
"""Answers that can say how sure others are, at least."""
HELD = 1.0
"""How much the two slopes are held to zero, in answers."""


@dataclasses.dataclass(frozen=True)
class Sureness:
    """The chance that an answer is right: 1 / (1 + exp(-(level + whole · score + each · score / tokens)))."""

    level: float
    whole: float
    each: float

    def right(self, score: NDArray[np.floating], tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """Chances [n] of answers of log-probability ``score`` [n] and length ``tokens`` [n]."""
        return 1 / (1 + np.exp(-(looked_at(score, tokens) @ [self.level, self.whole, self.each]).clip(-30, 30)))

    @classmethod
    def of(cls, score: NDArray[np.floating], tokens: NDArray[np.integer], right: NDArray[np.bool_]) -> Sureness | None:
        """From answers of which it is known whether they were right; None where they are too few. Newton's method on the penalised likelihood; targets as Platt has them, so that
        answers that were all right are no promise."""
        if len(right) < FEWEST:
            return None
        x, count = looked_at(score, tokens), right.sum()
        target = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))
        held, weights = np.diag([1e-6, HELD, HELD]), np.zeros(3)
        for _ in range(50):
            chance = 1 / (1 + np.exp(-(x @ weights).clip(-30, 30)))
            slope = x.T @ (chance - target) + held @ weights
            step = np.linalg.solve((x * (chance * (1 - chance))[:, None]).T @ x + held + 1e-9 * np.eye(3), slope)
            weights = weights - step.clip(-5, 5)
            if np.abs(step).max() < 1e-8:
                break
        return cls(*(float(weight) for weight in weights))


def looked_at(score: NDArray[np.floating], tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """What tells an answer's chance: [n, 3]."""
    score = np.asarray(score, np.float64)
    return np.stack([np.ones(len(score)), score, score / np.maximum(tokens, 1)], 1)


def expected_error(chance: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean distance of chances and shares that were right, over bins of as many answers each."""
    order = np.array_split(np.argsort(chance, kind="stable"), bins)
    return float(sum(abs(chance[some].mean() - right[some].mean()) * len(some) for some in order if len(some)) / max(len(chance), 1))
