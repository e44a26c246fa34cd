"""Quantile transform to normal scores, fitted to a sample: values in any unit, with any tails, become standard normal.

Piecewise linear between the sample's quantiles, each at the normal score of its middle rank, so that half of the
values lie below 0 and two thirds within ±1. A value that much of the sample shares (an atom, such as the zeros of
"rain in mm") gets a stretch of scores that all mean it. Outside the sample's range scores grow with the logarithm, so
that one absurd value can't blow up a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

MAX_KNOTS = 192
"""Distinct values kept at most, next to the atoms."""
MIN_ATOM_SHARE = 1 / 64
"""Share of the sample from which a single value is an atom; there are at most 64 of them."""
PLATEAU_SHARE = 0.8
"""Share of an atom's probability whose scores all decode to it; the rest leads over to the neighbouring values."""
MAX_DISTANCE = 30.0
"""Scores stay within this distance of the sample's range: e^30 times the spread of a tail."""


class Quantiles:
    """Quantile transform: monotone, invertible, and finite for every finite value."""

    def __init__(self) -> None:
        self._set(np.zeros(1), np.full(1, 0.5), np.full(1, 0.5))

    @classmethod
    def fit(cls, values: np.ndarray) -> Quantiles:
        """Fit to a sample [n]; non-finite values are left out, an empty sample counts as one zero."""
        self, values = cls(), np.asarray(values, np.float64).ravel()
        values = values[np.isfinite(values)]
        if len(values):
            distinct, counts = np.unique(values, return_counts=True)
            share, high = counts / len(values), np.cumsum(counts) / len(values)
            middle = high - share / 2
            knots = _choose(middle, share)
            atom = np.where(share[knots] > MIN_ATOM_SHARE, share[knots], 0.0)
            self._set(
                distinct[knots], middle[knots] - PLATEAU_SHARE / 2 * atom, middle[knots] + PLATEAU_SHARE / 2 * atom
            )
        return self

    def _set(self, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Set distinct rising values and the probabilities where each begins and ends."""
        largest = float(np.abs(values).max())
        self.unit = 2.0 ** int(np.clip(np.frexp(largest)[1], -1000, 1023))  # a power of two rounds nothing
        self.values, self.low, self.high = values / self.unit, low, high
        normal = NormalDist()
        self.left, self.right = (np.array([normal.inv_cdf(p) for p in ends]) for ends in (low, high))
        self.middle = np.array([normal.inv_cdf(p) for p in (low + high) / 2])
        scores, knots = np.stack([self.left, self.right], 1).ravel(), np.repeat(self.values, 2)
        own = np.append(True, np.diff(scores) > 0)
        self._scores, self._knots = scores[own], knots[own]
        self.scale_low = self._tail(self.values, self.middle)
        self.scale_high = self._tail(-self.values[::-1], -self.middle[::-1])
        quarter = self._inner(np.array([-0.6745, 0.0, 0.6745]))
        self.centre, self.spread = quarter[1], (quarter[2] - quarter[0]) / 1.349 or self.scale_high

    @staticmethod
    def _tail(values: np.ndarray, scores: np.ndarray) -> float:
        """Change in value per score in the lowest unit of score."""
        if len(values) == 1:
            return float(np.abs(values[0])) or 1.0
        inside = min(int(np.searchsorted(scores, scores[0] + 1.0)), len(values) - 1)
        return max(float((values[inside] - values[0]) / (scores[inside] - scores[0])), 1e-300)

    def _inner(self, scores: np.ndarray) -> np.ndarray:
        return np.interp(scores, self._scores, self._knots)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Normal scores of finite values, float64 of the same shape."""
        v = self._in_units(values)
        at = np.clip(np.searchsorted(self.values, v, "right") - 1, 0, len(self.values) - 1)
        after = np.minimum(at + 1, len(self.values) - 1)
        gap = np.maximum(self.values[after] - self.values[at], 1e-300)
        with np.errstate(over="ignore"):
            share = np.clip((v - self.values[at]) / gap, 0.0, 1.0)
        z = np.where(
            v == self.values[at], self.middle[at], self.right[at] + share * (self.left[after] - self.right[at])
        )
        below, above = np.maximum(self.values[0] - v, 0), np.maximum(v - self.values[-1], 0)
        z = np.where(below > 0, self.left[0] - self._outside(below, self.scale_low), z)
        return np.where(above > 0, self.right[-1] + self._outside(above, self.scale_high), z)

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.clip(np.asarray(values, np.float64) / self.unit, -1e300, 1e300)

    @staticmethod
    def _outside(distance: np.ndarray, scale: float) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.minimum(np.log1p(distance / scale), MAX_DISTANCE)

    def decode(self, scores: np.ndarray) -> np.ndarray:
        """Values of normal scores, float64 of the same shape; the inverse of ``encode``."""
        z = np.nan_to_num(np.asarray(scores, np.float64))
        below, above = np.clip(self.left[0] - z, 0, MAX_DISTANCE), np.clip(z - self.right[-1], 0, MAX_DISTANCE)
        with np.errstate(over="ignore"):
            v = self._inner(z) - self.scale_low * np.expm1(below) + self.scale_high * np.expm1(above)
            return np.clip(v * self.unit, -np.finfo(np.float64).max, np.finfo(np.float64).max)

    def robust_scale(self, values: np.ndarray) -> np.ndarray:
        """Values in robust units, compressed: asinh of the distance from the median in standard deviations."""
        with np.errstate(over="ignore"):
            return np.arcsinh(np.clip((self._in_units(values) - self.centre) / self.spread, -1e13, 1e13))

    def state(self) -> dict[str, Any]:
        """State as plain JSON."""
        return {"values": (self.values * self.unit).tolist(), "low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Sequence[float]]) -> Quantiles:
        """Restore from what ``state`` gave."""
        self = cls()
        self._set(*(np.asarray(state[key], np.float64) for key in ("values", "low", "high")))
        return self


def _choose(middle: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Indices of the knots among distinct values: all if few, else atoms and even steps in probability and score."""
    if len(middle) <= MAX_KNOTS:
        return np.arange(len(middle))
    normal = NormalDist()
    even = np.linspace(middle[0], middle[-1], MAX_KNOTS // 2)
    tails = [normal.cdf(z) for z in np.linspace(normal.inv_cdf(middle[0]), normal.inv_cdf(middle[-1]), MAX_KNOTS // 2)]
    near = np.clip(np.searchsorted(middle, np.concatenate([even, tails])), 0, len(middle) - 1)
    return np.unique(np.concatenate([[0, len(middle) - 1], near, np.flatnonzero(share > MIN_ATOM_SHARE)]))
