"""Regression: what members that choose by validation rows share."""

from __future__ import annotations

from typing import Any

import numpy as np


def answers(out: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities [n, classes] (softmax), or values [n], of a linear model's outputs [n, outputs]."""
    if not classes:
        return out[:, 0].astype(np.float64)
    out = np.exp(out - out.max(1, keepdims=True), dtype=np.float64)
    return out / out.sum(1, keepdims=True)


def class_weights(model: Any, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [d, classes] and biases [classes] of scikit-learn's logistic regression."""
    present = model.classes_.astype(np.int64)
    weights = np.zeros((model.coef_.shape[1], classes), np.float32)
    bias = np.full(classes, -30.0, np.float32)
    if len(present) == 2:  # scikit-learn gives the second class's distance from the first
        weights[:, present[1]], bias[present[0]], bias[present[1]] = model.coef_[0], 0.0, model.intercept_[0]
    else:
        weights[:, present], bias[present] = model.coef_.T, model.intercept_
    return weights, bias


def fit_score(output: np.ndarray, target: np.ndarray, classes: int) -> float:
    """Mean log-likelihood of codes, or minus the mean squared error; of rows whose class is known."""
    if not classes:
        return -float(np.mean((output - target) ** 2)) if len(target) else 0.0
    known = target >= 0
    picked = output[known, target[known].astype(np.int64)]
    return float(np.log(picked.clip(1e-6)).mean()) if len(picked) else 0.0
