"""Platt scaling (1999): calibrated probability that a short answer is right, by several confidence signs.

It knows numbers only, and needn't know what the signs are (``dialogue.reply.confidence_features``).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

MAX_ANSWER_TOKENS = 24
"""Tokens of an answer that is right or wrong as a whole, at most."""
MIN_ANSWERS = 20
"""Answers that a fit takes, at least."""
SLOPE_PENALTY = 1.0
"""L2 penalty of each slope, in answers."""


@dataclasses.dataclass(frozen=True)
class PlattScaler:
    """Probability that an answer is right: 1 / (1 + exp(-(level + slopes · x))), x being its signs less their
    ``middle``, by their ``spread``."""

    level: float
    slopes: tuple[float, ...]
    middle: tuple[float, ...]
    spread: tuple[float, ...]

    def right(self, signs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities [n] of answers by their signs [n, k]; NaN where a sign is missing."""
        x = np.nan_to_num((np.asarray(signs, np.float64) - self.middle) / self.spread)
        return 1 / (1 + np.exp(-(self.level + x @ self.slopes).clip(-30, 30)))

    @classmethod
    def fit(cls, signs: NDArray[np.floating], right: NDArray[np.bool_]) -> PlattScaler | None:
        """Scaler fitted to answers' signs [n, k] and whether they were right [n]; None where they are too few.

        Newton's method on the penalised likelihood; targets as Platt has them, so that answers that were all right are
        no promise.
        """
        if len(right) < MIN_ANSWERS:
            return None
        given, count = np.asarray(signs, np.float64), right.sum()
        known = np.isfinite(given)
        middle = np.where(known, given, 0).sum(0) / known.sum(0).clip(1)
        spread = np.sqrt((np.where(known, given - middle, 0) ** 2).sum(0) / known.sum(0).clip(1))
        spread[spread < 1e-9] = 1.0
        x = np.concatenate([np.ones((len(right), 1)), np.nan_to_num((given - middle) / spread)], 1)
        target = np.where(right, (count + 1) / (count + 2), 1 / (len(right) - count + 2))
        penalty, weights = np.diag([1e-6, *[SLOPE_PENALTY] * (x.shape[1] - 1)]), np.zeros(x.shape[1])
        for _ in range(50):
            chance = 1 / (1 + np.exp(-(x @ weights).clip(-30, 30)))
            slope = x.T @ (chance - target) + penalty @ weights
            step = np.linalg.solve(
                (x * (chance * (1 - chance))[:, None]).T @ x + penalty + 1e-9 * np.eye(len(weights)), slope
            )
            weights = weights - step.clip(-5, 5)
            if np.abs(step).max() < 1e-8:
                break
        return cls(
            float(weights[0]), *(tuple(float(value) for value in values) for values in (weights[1:], middle, spread))
        )


def expected_error(chance: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean distance of probabilities and shares that were right,
    over bins of as many answers each."""
    order = np.array_split(np.argsort(chance, kind="stable"), bins)
    return float(
        sum(abs(chance[some].mean() - right[some].mean()) * len(some) for some in order if len(some))
        / max(len(chance), 1)
    )
