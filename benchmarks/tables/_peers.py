"""Plain models on the same plain features as ours: boosted trees, a linear model, nearest neighbours, each of which is
tuned on validation rows. They know arrays, no column and no cell."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Part = tuple[np.ndarray, np.ndarray]
"""Features [n, d], NaN where missing, and targets [n]: codes, or values."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Probabilities [n, classes], or values [n], of features."""

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
NEIGHBOURS = (1, 3, 5, 10, 20, 40)
ROUNDS, PATIENCE = 600, 50


def trees(train: Part, valid: Part, classes: int, seed: int) -> Predict:
    """LightGBM with its defaults but for a smaller step, stopped by validation rows."""
    import lightgbm

    options: dict[str, Any] = {
        "objective": "multiclass" if classes else "regression",
        "learning_rate": 0.05,
        "min_data_in_leaf": int(np.clip(len(train[1]) // 40, 2, 20)),
        "num_threads": 2,
        "verbosity": -1,
        "seed": seed,
    }
    if classes:
        options["num_class"] = classes
    data = lightgbm.Dataset(*train, params=options)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    grown = lightgbm.train(options, data, ROUNDS, valid_sets=[data.create_valid(*valid)], callbacks=[stop])
    return lambda x: np.asarray(grown.predict(x))


def linear(train: Part, valid: Part, classes: int, seed: int) -> Predict:
    """Logistic or ridge regression on standardised features, its penalty chosen by validation rows."""
    from sklearn.linear_model import LogisticRegression, Ridge

    prepare = standardise(train[0])
    x, checked, found = prepare(train[0]), prepare(valid[0]), []
    for penalty in PENALTIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if classes:
                model: Any = LogisticRegression(C=1 / penalty, max_iter=200).fit(x, train[1].astype(int))
                score = (model.predict(checked) == valid[1]).mean()
            else:
                model = Ridge(alpha=penalty * x.shape[1] / 10).fit(x, train[1])
                score = -((model.predict(checked) - valid[1]) ** 2).mean()
        found.append((score, model))
    return best_of(found, prepare, classes)


def neighbours(train: Part, valid: Part, classes: int, seed: int) -> Predict:
    """Nearest neighbours by distance of standardised features, as many as are best on validation rows."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    prepare = standardise(train[0])
    x, checked, found = prepare(train[0]), prepare(valid[0]), []
    for count in (k for k in NEIGHBOURS if k <= len(x)):
        if classes:
            model: Any = KNeighborsClassifier(count, weights="distance").fit(x, train[1].astype(int))
            score = (model.predict(checked) == valid[1]).mean()
        else:
            model = KNeighborsRegressor(count, weights="distance").fit(x, train[1])
            score = -((model.predict(checked) - valid[1]) ** 2).mean()
        found.append((score, model))
    return best_of(found, prepare, classes)


def best_of(found: list[tuple[float, Any]], prepare: Callable[[np.ndarray], np.ndarray], classes: int) -> Predict:
    """Predictions of the model with the best score, on prepared features."""
    best = max(found, key=lambda one: one[0])[1]
    if not classes:
        return lambda x: best.predict(prepare(x))
    return lambda x: spread(best.predict_proba(prepare(x)), best.classes_, classes)


PEERS = {"trees": trees, "linear": linear, "neighbours": neighbours}


def standardise(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Function that standardises features by those given; missing ones stand at the mean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, std = np.nan_to_num(np.nanmean(x, 0)), np.nan_to_num(np.nanstd(x, 0))
    std = np.where(std > 1e-9, std, 1.0)
    return lambda rows: np.nan_to_num(((rows - mean) / std).clip(-8, 8))


def spread(chances: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of all classes, of which some weren't among the training rows."""
    whole = np.zeros((len(chances), classes))
    whole[:, present] = chances
    return whole
