"""Evaluation of a trained model on the rows of a table, and the report page that shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.deadline import Deadline
from sensorium.core.errors import UserError
from sensorium.core.files import write_json
from sensorium.core.progress import ProgressReporter
from sensorium.data.order import evenly_spaced
from sensorium.data.split import ROWWISE, Splits
from sensorium.data.table import Table
from sensorium.evaluation.baselines import Baselines
from sensorium.evaluation.evaluate import EvaluationOptions, evaluate
from sensorium.evaluation.report_data import N_KNOWN_ROWS, report_run
from sensorium.inference.generate import GenerationMixin
from sensorium.inference.trained import keep_split
from sensorium.report.types import Evaluation
from sensorium.training.run_folder import trained_on, trained_row_count

MAX_EVALUATED_ROWS, MIN_EVALUATED_ROWS = 4000, 64
"""Rows of each part that a report looks at, evenly spaced: at most, and however short the time is."""
READING_SHARE, EVALUATION_SHARE = 0.2, 0.75
"""Parts of a report's time in which rows are read, and in which all is measured; samples have the rest."""


def evaluation_of(
    trained: GenerationMixin,
    table: Any,
    options: EvaluationOptions,
    *,
    split: str | None = None,
    entity_key: str | None = None,
    limit: int = 0,
    deadline: Deadline | None = None,
    note: Callable[[str], None] = lambda words: None,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluation with every prediction and every search: see ``Model.evaluation``."""
    opened = keep_split(trained.open(table), split, trained.schema.split)
    if limit and opened.rows > limit:
        opened = opened.select(evenly_spaced(np.arange(opened.rows), limit))
    trained.report_reading(opened, trained.network.columns, tell or note)
    folder = trained.folder / "baselines" if trained.folder else None
    baselines = Baselines.load(folder) if folder and folder.is_dir() else None
    result = evaluate(
        trained.network,
        opened,
        dataclasses.replace(options, baselines=baselines),
        entity_key=entity_key,
        deadline=deadline,
        note=note,
    )
    result.results["trained_on"] = trained_row_count(trained.folder, opened, trained.columns)
    return result


def write_report_of(
    trained: GenerationMixin,
    table: Any,
    out: Path,
    split: str | None,
    entity_key: str | None,
    note: Callable[[str], None],
) -> Path:
    """Write the report page of a model, measured on rows of a table: see ``Model.report``."""
    if trained.folder is None:
        raise UserError(
            "This model is in no folder yet, and the report shows what its run wrote there. "
            "Save it first: model.save(FOLDER)."
        )
    whole = trained.open(table)
    opened = keep_split(whole, split, trained.schema.split)
    if not opened.rows:
        raise UserError(f"'{opened.name}' has no rows to report on.")
    part = opened.select(evenly_spaced(np.arange(opened.rows), MAX_EVALUATED_ROWS))
    notes = [
        f"Measured on {part.rows:,} of {opened.rows:,} rows of '{opened.name}'" + (f", '{split}'." if split else ".")
    ]
    mask = trained_on(trained.folder, whole, trained.columns)
    known = None if mask is None or not mask.any() else (whole, evenly_spaced(np.flatnonzero(mask), N_KNOWN_ROWS))
    measured = evaluation_of(trained, part, EvaluationOptions(curves=True), entity_key=entity_key, note=note)
    report_run(out, trained, part, measured, notes, trained.folder, known)
    return out


def report(
    trained: GenerationMixin,
    table: Table,
    splits: Splits,
    folder: Path,
    entity_key: str | None,
    progress: ProgressReporter,
    deadline: Deadline,
    seconds_a_row: float,
) -> None:
    """Evaluate a fit on its held-out rows: ``results-PART.json`` for each part, and ``report.html`` for the first.

    Args:
        deadline: of all of it: as many rows are looked at as fit. seconds_a_row: what reading a row took.
    """
    parts = [name for name in splits.names if name not in ("train", "validation", ROWWISE) and len(splits.rows(name))]
    parts = parts or [name for name in ("validation",) if name in splits.names and len(splits.rows(name))]
    if not parts:
        progress.log("There are no validation or test rows, so there is nothing to report on.")
        return
    for number, name in enumerate(sorted(parts, key=lambda name: -len(splits.rows(name)) if name == "test" else 0)):
        progress.log(f"Evaluating on '{name}'")
        rows, mine = splits.rows(name), deadline.part(1.0 if number == len(parts) - 1 else 0.8)
        affordable = READING_SHARE * mine.left / max(seconds_a_row, 1e-9)
        part = table.select(evenly_spaced(rows, int(min(MAX_EVALUATED_ROWS, max(affordable, MIN_EVALUATED_ROWS)))))
        notes = [f"Measured on '{name}', {part.rows:,} of {len(rows):,} rows."]
        asking = mine.part(EVALUATION_SHARE if number == 0 else 1.0)
        options = EvaluationOptions(curves=number == 0)
        measured = evaluation_of(trained, part, options, entity_key=entity_key, deadline=asking)
        notes += measured.notes
        write_json(folder / f"results-{name}.json", measured.results)
        if number == 0:
            known = (table, evenly_spaced(splits.rows("train"), N_KNOWN_ROWS))
            report_run(folder / "report.html", trained, part, measured, notes, known=known, deadline=mine)
    progress.log(f"Report: {folder / 'report.html'}")
