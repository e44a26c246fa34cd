"""Comparison of two models on the same rows: whether a difference is more than chance, by the paired bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensorium.evaluation.metrics import SAMPLES, bootstrap_weights, difference
from sensorium.report.types import Evaluation

SURE = 0.05
"""p-value below which a difference is said to be more than chance."""


def compare(ours: Evaluation, other: Evaluation) -> dict[str, dict[str, Any]]:
    """Differences of two evaluations of the same rows, for each column that both have answered.

    Only rows that both were asked of count. Rows of one entity are drawn together.

    Returns:
        for each column ``metric``, ``n``, ``ours``, ``other``, ``better`` (how much better ours is), its ``interval``,
        ``p``, and ``verdict``: "better", "worse" or "no difference that is more than chance".
    """
    found: dict[str, dict[str, Any]] = {}
    for column, (name, mine) in ours.row_metrics.items():
        if column not in other.row_metrics:
            continue
        theirs, rows = other.row_metrics[column][1], ours.predictions[column].rows
        if not np.array_equal(rows, other.predictions[column].rows):
            continue
        if name not in theirs.point() or name not in mine.point():
            continue
        groups = None if ours.groups is None else ours.groups[rows]
        better, interval, p = difference(mine, theirs, name, bootstrap_weights(len(rows), groups, samples=5 * SAMPLES))
        verdict = "no difference that is more than chance" if p > SURE else "better" if better > 0 else "worse"
        found[column] = {
            "metric": name,
            "n": len(rows),
            "ours": mine.point()[name],
            "other": theirs.point()[name],
            "better": better,
            "interval": list(interval),
            "p": p,
            "verdict": verdict,
        }
    return found
