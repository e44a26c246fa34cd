"""Gradient-boosted trees within a time: which features they are given, how many rounds help, and what a round costs.

It knows arrays of features and of codes or values, no column and no table.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from typing import TypeAlias

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

Trees: TypeAlias = HistGradientBoostingClassifier | HistGradientBoostingRegressor

MAX_FEATURES = 512
"""The most features given to trees."""
MAX_ROUNDS, WANTED_ROUNDS, FIRST_ROUNDS = 200, 8, 2
"""The most rounds of boosting; with time for less than ``WANTED_ROUNDS`` fewer features are used; and the
rounds that are timed first.
"""
MIN_FEATURES, MIN_ROWS = 96, 500
"""Time may reduce features and rows to these, not further."""


def grow_trees(
    x: np.ndarray, y: np.ndarray, validation: np.ndarray, answers: np.ndarray, sort: bool, seconds: float, seed: int
) -> tuple[Trees, float, int]:
    """Grow trees while they help and time allows, by validation rows: (trees, best score, rounds at the best).

    Rounds are added in stages, each of which doubles them; a stage that isn't better than those before is the last.
    """
    with one_thread():
        started = time.perf_counter()
        model, rounds, best, score = new_trees(sort, FIRST_ROUNDS, len(y), seed), FIRST_ROUNDS, 0, -math.inf
        while True:
            fit_quietly(model.set_params(max_iter=rounds), x, y)
            scores = [score_predictions(answers, predicted, sort) for predicted in model.staged_predict(validation)]
            best, score = int(np.argmax(scores)) + 1, max(scores)
            took = time.perf_counter() - started
            affordable = int((seconds - took) / (took / rounds)) + rounds
            wanted = min(max(2 * rounds, 8), affordable, MAX_ROUNDS)
            if wanted <= rounds or (rounds >= 16 and best <= rounds // 2):
                return model, float(score), best
            rounds = wanted


def fit_trees(x: np.ndarray, y: np.ndarray, sort: bool, rounds: int, seed: int) -> Trees:
    """Fit so many rounds of trees."""
    with one_thread():
        return fit_quietly(new_trees(sort, rounds, len(y), seed), x, y)


def fit_quietly(model: Trees, x: np.ndarray, y: np.ndarray) -> Trees:
    """Fit ``model``. That nearly every row may be a class of its own is no news here: what is asked was chosen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return model.fit(x, y)


def last_round(model: Trees, x: np.ndarray, rounds: int) -> np.ndarray:
    """Predictions of the first ``rounds`` rounds of trees, float64 [n]."""
    with one_thread():
        return np.asarray(next(itertools.islice(model.staged_predict(x), rounds - 1, None)), np.float64)


def one_thread() -> threadpool_limits:
    """A context in which trees use one thread.

    Where another program uses a core, two threads that wait for each other were measured 10 times slower than one.
    """
    return threadpool_limits(1, user_api="openmp")


def new_trees(sort: bool, rounds: int, rows: int, seed: int) -> Trees:
    """Histogram gradient boosting (Ke et al. 2017, LightGBM).

    Smaller trees and larger steps than scikit-learn's defaults: measured, as right in a fifth of the time.
    """
    make = HistGradientBoostingClassifier if sort else HistGradientBoostingRegressor
    return make(
        max_iter=rounds,
        learning_rate=0.2,
        max_leaf_nodes=15,
        early_stopping=False,
        warm_start=True,
        random_state=seed,
        min_samples_leaf=int(np.clip(rows // 20, 1, 20)),
    )


def score_predictions(truth: np.ndarray, predicted: np.ndarray, sort: bool) -> float:
    """Accuracy, or minus the squared error in units of the truth's variance."""
    if sort:
        return float((truth == predicted).mean())
    unit = float(np.abs(truth).max()) or 1.0
    return -float((((truth - predicted) / unit) ** 2).mean()) / (float((truth / unit).var()) or 1.0)


class TreeCost:
    """Cost of a tree on this machine, measured on random numbers: seconds = fixed + rate × rows × features."""

    def __init__(self, seed: int) -> None:
        rng, took = np.random.default_rng(seed), []
        with one_thread():
            for width in (8, 128, 8, 128, 8, 128):  # the quicker of each, since the first warms up and others may work
                x = rng.standard_normal((1500, width))
                y = x[:, :4].sum(1)
                started = time.perf_counter()
                new_trees(False, 4, 1500, seed).fit(x, y)
                took.append((time.perf_counter() - started) / 4)
        narrow, wide = min(took[0::2]), min(took[1::2])
        self.rate = max((wide - narrow) / (1500 * 120), 1e-9)
        self.fixed = max(narrow - self.rate * 1500 * 8, 1e-4)

    def width(self, rows: int, trees: int, seconds: float) -> int:
        """Number of features that leaves time for ``WANTED_ROUNDS`` rounds of so many trees."""
        each = seconds / (WANTED_ROUNDS * trees) - self.fixed
        return max(int(each / (self.rate * rows)), MIN_FEATURES)

    def rows(self, rows: int, width: int, trees: int, seconds: float) -> int:
        """Number of rows that leaves time for a quarter of ``WANTED_ROUNDS`` rounds."""
        each = seconds / (WANTED_ROUNDS / 4 * trees) - self.fixed
        return int(np.clip(each / (self.rate * max(width, 1)), min(MIN_ROWS, rows), rows))
