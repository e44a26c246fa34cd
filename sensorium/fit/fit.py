"""Fit: from a table to a trained model in a run folder, in stages.

RUN/ settings.json schema.json splits.parquet rows.npy environment.json quarantine.jsonl metrics.jsonl
     checkpoints/ baselines/ model.json model.safetensors memory.safetensors results.json report.html tensorboard/
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError, unknown
from sensorium.core.progress import ProgressReporter
from sensorium.core.registry import find
from sensorium.core.settings import build, parse, plain, sections
from sensorium.data.columns import columns_read_as_written
from sensorium.data.quarantine import parse_max_bad
from sensorium.data.settings import DataSettings
from sensorium.evaluation.fit_baselines import BaselineSettings
from sensorium.fit import stages
from sensorium.fit.run import Run, State
from sensorium.fit.time_plan import TimePlan
from sensorium.inference.trained import Trained
from sensorium.nn.precision import usable
from sensorium.training.build import check_settings, plain_list
from sensorium.training.build_memory import MemorySettings
from sensorium.training.fit_ensembles import AnswerSettings
from sensorium.training.run_folder import open_run_folder
from sensorium.training.trackers import Tracker
from sensorium.training.trainer import asked_length

DEFAULT_MINUTES = 5.0


def fit(
    table: Any,
    *,
    out: str | Path | None,
    target: Sequence[str],
    minutes: float | None,
    epochs: float | None,
    seed: int,
    resume: bool,
    settings: Mapping[str, Any] | Sequence[str],
    device: str | None,
    quiet: bool,
) -> Trained:
    """Train a model on a table: see ``Model.fit``. What can be refused is refused before any long work."""
    started = time.monotonic()
    given = parse(settings) if not isinstance(settings, Mapping) else sections(settings)
    check_settings(given)
    build(BaselineSettings, plain(given, "baselines"), "baselines")
    build(MemorySettings, plain(given, "memory"), "memory")
    build(AnswerSettings, plain(given, "answer"), "answer")
    for name in plain_list(given, "trackers"):
        find(Tracker, name)
    minutes, epochs = asked_length(seed, minutes, epochs, DEFAULT_MINUTES)
    plan = TimePlan(minutes, started)
    data = build(DataSettings, plain(given, "data"), "data")
    parse_max_bad(data.max_bad)
    wanted = usable(device)
    opened = data.open(table, columns_read_as_written(given.get("column", {})))
    if not opened.rows:
        raise UserError(f"'{opened.name}' has no rows, so there is nothing to learn from.")
    # On the command line columns are joined by commas elsewhere, so here too; a name may hold one.
    target = [name.strip() for one in target for name in ([one] if one in opened.columns else one.split(","))]
    for words, columns in (
        ("target:", target),
        ("column in data.entity_key:", [data.entity_key] if data.entity_key else []),
    ):
        for column in columns:
            if column not in opened.columns:
                raise unknown(words, column, opened.columns)
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="sensorium-"))
    open_run_folder(folder, resume, given, seed, target, opened)
    with ProgressReporter(quiet) as progress:
        return run_stages(
            Run(opened, folder, given, data, list(target), minutes, plan, epochs, seed, resume, wanted, progress)
        )


def run_stages(run: Run) -> Trained:
    """Run the stages of a fit, in order."""
    state = State(run.settings)
    stages.infer_columns(run, state)
    stages.split(run, state)
    stages.prepare(run, state)
    stages.build(run, state)
    stages.initialise(run, state)
    stages.train(run, state)
    stages.calibrate(run, state)
    return stages.save(run, state)
