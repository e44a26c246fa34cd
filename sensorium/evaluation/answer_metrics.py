"""Metrics of one column's answers, by its kind; their intervals; and slices of the rows in which they are worst."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.evaluation.metrics import (
    LESS_IS_BETTER,
    ClassMetrics,
    TextMetrics,
    ValueMetrics,
    WeightedMetrics,
    percentile_interval,
)
from sensorium.inference.answers import Answers
from sensorium.modalities._capabilities import Generable, Scalar

MIN_SLICE, MAX_SLICES, PARTS = 10, 50, 4
"""Rows of a slice at least; slices at most; and parts of equal size into which numbers and dates are cut."""


def metrics_of(modality: Generable, truth: Sequence[Any], answers: Answers, level: float) -> WeightedMetrics | None:
    """Metrics of answers; None for kinds that have no more than ``Modality.score``."""
    if modality.is_categorical:
        codes = [np.array([code(modality, cell) for cell in cells], np.int64) for cells in (truth, answers.cells)]
        chances = None if answers.probabilities is None else answers.probabilities[:, 1:]  # without what is no class
        return ClassMetrics(codes[0], codes[1], chances)
    if isinstance(modality, Scalar):
        unit = modality.error_unit
        values = [
            np.array([float(modality.read(cell)[0]) / unit for cell in cells]) for cells in (truth, answers.cells)
        ]
        ends = None
        if answers.interval is not None:
            ends = np.array([[float(modality.read(end)[0]) / unit for end in both] for both in answers.interval])
        return ValueMetrics(values[0], values[1], ends.reshape(-1, 2) if ends is not None else None, level)
    if modality.is_text:
        return TextMetrics(*([modality.read(cell).tobytes().decode() for cell in c] for c in (truth, answers.cells)))
    return None


def code(modality: Generable, cell: Any) -> int:
    """Code of a class from 0; of one that the model doesn't know -1."""
    return int(modality.prepare(modality.read(cell))[0]) - 1


def slices_of(cells: Sequence[Any]) -> dict[str, np.ndarray]:
    """Slices of rows by a column's cells: the rows of each value, or of each quarter of numbers and dates.

    Args:
        cells: of the rows; missing ones are a slice of their own.
    """
    missing = np.array([cell is None for cell in cells])
    known = [cell for cell in cells if cell is not None]
    if len({str(cell) for cell in known}) > PARTS and all(is_ordered(cell) for cell in known):
        names = quarters(cells)
    else:
        names = [None if cell is None else str(cell) for cell in cells]
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            found.setdefault(name, []).append(row)
    slices = {name: np.array(rows) for name, rows in found.items() if len(rows) >= MIN_SLICE}
    slices = dict(sorted(slices.items(), key=lambda one: -len(one[1]))[:MAX_SLICES])
    if missing.sum() >= MIN_SLICE:
        slices["(missing)"] = np.flatnonzero(missing)
    return slices


def is_ordered(cell: Any) -> bool:
    """True for a number or a date."""
    return (isinstance(cell, (int, float)) and not isinstance(cell, bool)) or hasattr(cell, "isoformat")


def quarters(cells: Sequence[Any]) -> list[str | None]:
    """Name of the quarter that each number or date is in."""
    known = sorted(cell for cell in cells if cell is not None)
    edges = [known[round(part * (len(known) - 1) / PARTS)] for part in range(PARTS + 1)]
    names = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    return [None if cell is None else names[min(sum(cell > edge for edge in edges[1:-1]), PARTS - 1)] for cell in cells]


def slice_scores(
    metrics: WeightedMetrics, name: str, slices: Mapping[str, np.ndarray], weights: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Metric in each slice with its interval, worst first.

    Args:
        slices: rows of each, of those that the metrics are of. weights: bootstrap weights.
    """
    found: dict[str, dict[str, Any]] = {}
    for title, rows in slices.items():
        inside = np.zeros(metrics.rows)
        inside[rows] = 1.0
        point = float(metrics.scores(inside[None])[name][0])
        if np.isfinite(point):
            ends = percentile_interval(metrics.samples(weights * inside)[name]) or [point, point]
            found[title] = {"n": len(rows), name: point, "interval": ends}
    sign = -1 if name in LESS_IS_BETTER else 1
    return dict(sorted(found.items(), key=lambda one: sign * one[1][name]))
