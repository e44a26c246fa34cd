"""Boosting: what members of boosted trees share (LightGBM; Ke et al. 2017)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from sensorium.core.errors import UserError
from sensorium.ensemble.features import FeatureRows, matrix, overlaps, pick_features, text_pairs
from sensorium.ensemble.members import FitData, Member
from sensorium.ensemble.members._forest import Forest

MAX_FEATURES, MAX_CLASSES = 384, 64
"""Features and classes, at most."""
MAX_ROUNDS, PATIENCE, MIN_ROWS = 400, 30, 10
"""Rounds of boosting at most, and without which being better on validation rows it ends; fewest training rows."""


MIN_GAIN = 0.02
"""Share of the gain below which trees do without a column."""


class Boosted(Member):
    """Boosted trees on some columns.

    Args:
        picked: features of each column. pairs: columns of texts that are compared. used: columns that count.
    """

    forest: Forest

    def __init__(
        self,
        columns: Sequence[str],
        picked: Mapping[str, Sequence[int]],
        classes: int,
        pairs: Sequence[Sequence[str]] = (),
        used: Sequence[str] | None = None,
    ) -> None:
        self.columns, self.picked, self.classes = tuple(columns), picked, classes
        self.pairs = [(a, b) for a, b in pairs]
        self.used = self.columns if used is None else tuple(used)

    @classmethod
    def fit(cls, data: FitData, columns: Sequence[str]) -> Self | None:
        if data.classes > MAX_CLASSES or len(data.target) < MIN_ROWS or len(np.unique(data.target)) < 2:
            return None
        picked = pick_features({c: data.rows.blocks[c] for c in columns}, data.target, bool(data.classes), MAX_FEATURES)
        columns = [c for c in columns if picked[c]]
        if not columns:
            return None
        self = cls(columns, {c: picked[c] for c in columns}, data.classes, text_pairs(data.rows, columns))
        x, y = self.examples(data.rows, data.target, data.seed)
        booster = boost(x, y, *self.examples(data.valid, data.valid_target, data.seed + 1), data)
        self.forest = Forest.of(booster.dump_model(), data.classes)
        self.used = self.used_columns(booster.feature_importance("gain"))
        return self

    @property
    def needed(self) -> tuple[str, ...]:
        return self.used

    def used_columns(self, gain: np.ndarray) -> tuple[str, ...]:
        """Columns whose features had more than ``MIN_GAIN`` of the gain; those of a pair count for both."""
        owners = [(c,) for c in self.columns for _ in self.picked[c]] + [pair for pair in self.pairs for _ in range(3)]
        share = {c: sum(float(g) for g, owner in zip(gain, owners, strict=True) if c in owner) for c in self.columns}
        least = MIN_GAIN * max(float(gain.sum()), 1e-12)
        return tuple(c for c in self.columns if share[c] > least) or self.columns

    def examples(self, rows: FeatureRows, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and targets of the rows to learn from, or to stop by: those that are given, as they are."""
        return self.design(rows), target

    def design(self, rows: FeatureRows) -> np.ndarray:
        """Features of rows, and what pairs of texts have in common, float32 [n, d]."""
        x = matrix({c: rows.blocks[c][:, self.picked[c]] for c in self.columns}, self.columns)
        return np.concatenate([x, overlaps(rows, self.pairs)], 1) if self.pairs else x

    def predict(self, rows: FeatureRows) -> np.ndarray:
        return self.forest.predict(self.design(rows))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        described = {"columns": self.columns, "picked": dict(self.picked), "classes": self.classes, "pairs": self.pairs}
        described["used"] = self.used
        return described, self.forest.arrays

    @classmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        self = cls(**described)
        self.forest = Forest(arrays, self.classes)
        return self


def lightgbm() -> Any:
    """The package.

    Raises:
        UserError: it isn't installed, or the system lacks a library that it needs.
    """
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        raise UserError(
            f"Trees in an answer need LightGBM, which can't be loaded ({error}). Install it with: pip install lightgbm "
            "(on Linux also libgomp: apt-get install libgomp1), or leave trees out: answer.members=network,linear"
        ) from error
    return lightgbm


def boost(x: np.ndarray, y: np.ndarray, valid: np.ndarray, answers: np.ndarray, data: FitData) -> Any:
    """Booster of as many rounds as help on validation rows, within the time.

    One thread: where another program uses a core, two threads that wait for each other were measured 10 times slower.
    """
    package, classes = lightgbm(), data.classes
    known = answers >= 0 if classes else np.isfinite(answers)
    options = {
        "objective": "regression" if not classes else "binary" if classes == 2 else "multiclass",
        "num_class": classes if classes > 2 else 1,
        "num_leaves": 15 if len(y) < 2000 else 31,
        "min_data_in_leaf": int(np.clip(len(y) // 50, 2, 20)),
        "learning_rate": 0.1 if len(y) > 500 else 0.05,
        "feature_fraction": 0.6 if x.shape[1] > 8 else 1.0,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "max_bin": 127,
        "num_threads": 1,
        "seed": data.seed % (1 << 31),
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    training = package.Dataset(x, y, params=options, free_raw_data=True)
    deadline, callbacks = time.monotonic() + data.seconds, []

    def stop_in_time(env: Any) -> None:
        if time.monotonic() > deadline and env.iteration >= 4:
            raise package.callback.EarlyStopException(env.iteration, env.evaluation_result_list or [])

    callbacks.append(stop_in_time)
    if known.sum() < 20:
        return package.train(options, training, num_boost_round=60, callbacks=callbacks)
    checked = training.create_valid(valid[known], answers[known])
    callbacks.append(package.early_stopping(PATIENCE, verbose=False))
    return package.train(options, training, MAX_ROUNDS, valid_sets=[checked], callbacks=callbacks)
