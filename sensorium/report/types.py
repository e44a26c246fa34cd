"""Report data: plain values from which a report page is rendered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.report.why import ExplainedCell

Show = Callable[[int, str], str]
"""``show(row, column)``: the table's cell as a small piece of HTML that is safe as it is (``Modality.show``); "" where
it is missing. Asked for a few thousand cells at most, each once."""


@dataclasses.dataclass(kw_only=True)
class RunInfo:
    """Facts of a training run.

    Attributes:
        name: the run's name. rows: rows of each part of the split. parameters: learned numbers.
        seconds, steps, rows_per_second: of training; waited_share: part of it spent waiting for data, 0 to 1.
        settings, environment: nested mappings, shown as they are.
        columns: for each column {"name", "kind", "why", "display_rank", "display_cost", "is_spatial"}, the last three
            as of its modality; left_out: column to the reason it isn't used.
        quarantine: column to (rows put aside, first reasons).
        metrics: ``metrics.jsonl``, one object a step with "step", "seconds", "rows" and losses; None: not there.
        notes: remarks on the run in plain words, such as what a limit of time cut.
    """

    name: str
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.0
    steps: int = 0
    rows_per_second: float = 0.0
    waited_share: float = 0.0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: Sequence[Mapping[str, Any]] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    quarantine: Mapping[str, tuple[int, Sequence[str]]] = dataclasses.field(default_factory=dict)
    metrics: Path | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(kw_only=True)
class Predictions:
    """Predictions of one column, beside the truth.

    Attributes:
        kind: the column's modality. rows: row numbers in the table [n].
        truth, predicted: n cells each. confidence: 0 to 1 [n], NaN where unknown.
        classes: all classes of a category, in the order to show them; None: by how frequent they are.
        interval: lower and upper cells [n, 2] of numbers and dates.
    """

    kind: str
    rows: np.ndarray
    truth: Sequence[Any]
    predicted: Sequence[Any]
    confidence: np.ndarray | None = None
    classes: Sequence[Any] | None = None
    interval: np.ndarray | None = None


@dataclasses.dataclass(kw_only=True)
class Retrieval:
    """Retrieval results in one direction.

    Attributes:
        query_rows: row numbers of the queries [q]. found_rows: of what was found, best first [q, k].
        hit: which of these are right, bool [q, k]. rank: place of the first right one, counted from 1 [q].
        relevant: how many right ones the gallery holds [q]. gallery: how many were searched.
    """

    query_rows: np.ndarray
    found_rows: np.ndarray
    hit: np.ndarray
    rank: np.ndarray
    relevant: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    gallery: int = 0


@dataclasses.dataclass(kw_only=True)
class GeneratedSamples:
    """Generated samples of one column.

    Attributes:
        rows: row numbers in the table [n].
        samples: for each row some cells as HTML that is safe as it is (``Modality.show``).
        steps: for the first rows the estimates of the cell at each step from noise to it, as such HTML.
        whys: explanations of some cells.
    """

    rows: Sequence[int]
    samples: Sequence[Sequence[str]]
    steps: Sequence[Sequence[str]] = ()
    whys: Sequence[ExplainedCell] = ()


@dataclasses.dataclass(kw_only=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        results: what ``evaluate --json`` writes: "rows", "columns" (kind, metrics, "chance", "baseline", "alone",
            "members"), "retrieval", "seconds", and "trained_on", how many of the rows were trained on.
        predictions, generated: for each column; retrieval: for each direction "a>b".
        missing: for each column [(share of the other columns removed, metric)].
        metrics: for each column the metric that decides; by default accuracy, r2 or exact, by its kind.
        notes: in words, what the time cut.
        groups: number of each row's entity, which bootstrap samples draw as a whole; None: each row is one.
        slices: rows of each slice. row_metrics: for each column the metric that it is judged by, and all of them.
    """

    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    predictions: dict[str, Predictions] = dataclasses.field(default_factory=dict)
    generated: dict[str, GeneratedSamples] = dataclasses.field(default_factory=dict)
    retrieval: dict[str, Retrieval] = dataclasses.field(default_factory=dict)
    missing: dict[str, list[tuple[float, float]]] = dataclasses.field(default_factory=dict)
    metrics: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    groups: np.ndarray | None = None
    slices: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    row_metrics: dict[str, tuple[str, Any]] = dataclasses.field(default_factory=dict)
