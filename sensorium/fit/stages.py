"""Stages of a fit: infer columns, split, prepare, build, initialise, train, calibrate, save. Each fills in its
state."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.core.files import write_json
from sensorium.core.settings import build as build_part
from sensorium.core.settings import plain
from sensorium.data.columns import make_modalities
from sensorium.data.natural_split import natural_split
from sensorium.data.prepare import prepare as prepare_cells
from sensorium.data.quarantine import Quarantine
from sensorium.data.schema import Schema, infer
from sensorium.data.split import ROWWISE, entity_ids
from sensorium.data.table import Table
from sensorium.dialogue.calibrate import calibrate_answers
from sensorium.evaluation.fit_baselines import BaselineSettings, plain_models
from sensorium.evaluation.run_report import report
from sensorium.export import hub
from sensorium.fit.generation import MINUTES_TO_GENERATE, enough_to_generate, rows_with, with_generated
from sensorium.fit.run import Run, Splitter, State
from sensorium.inference.generate import GenerationMixin
from sensorium.modalities._capabilities import Dialogue
from sensorium.network.build import able_to_generate, check_conversations, check_followed, check_referred, make_network
from sensorium.network.pretrained import tuned_of
from sensorium.nn.precision import idle_gpu
from sensorium.objectives.match import Match
from sensorium.training.build import make_objectives, make_sampler, plain_list, settings_of
from sensorium.training.build_memory import MemorySettings, build_memory
from sensorium.training.calibrate import calibrate_network
from sensorium.training.data_init import initialise_stems
from sensorium.training.fit_ensembles import AnswerSettings, fit_ensembles
from sensorium.training.fit_vocoder import VocoderSettings, fit_vocoder
from sensorium.training.metrics_log import MetricsLog
from sensorium.training.run_folder import describe_environment, write_row_hashes
from sensorium.training.table_trainer import TableTrainer, TableTrainerSettings
from sensorium.training.trackers import Tracker, make_trackers
from sensorium.training.trainer import Progress

MEMORY_SHARE, JUDGING_SHARE, ENSEMBLE_SHARE, BASELINE_SHARE = 0.1, 0.12, 0.6, 0.15
"""Parts of the time that is left, at most, for the row memory, then for finding columns that mislead, for an answer's
members, and for the plain models beside it."""
BLOCKS = 24
"""Blocks of time that cross-fitting keeps together."""
MAX_COLUMNS_NAMED = 20
"""Columns left out that a fit names."""


def infer_columns(run: Run, state: State) -> None:
    """Schema and modalities of the table's columns, and which of them will be generated.

    Raises:
        UserError: no column can be used, or a setting doesn't fit the columns.
    """
    table, progress = run.table, run.progress
    progress.log(f"Looking at the columns of '{table.name}' ({table.rows:,} rows)")
    if gpu := idle_gpu(run.device):
        progress.log(f"A GPU is there and isn't used ({gpu}): --device cuda learns on it")
    overrides = {
        column: {k: v for k, v in part.items() if k} if isinstance(part, dict) else {"kind": part}
        for column, part in state.settings.get("column", {}).items()
    }
    state.schema = infer(table, overrides=overrides, targets=run.target)
    if not state.schema.columns:
        reasons = "; ".join(f"{name}: {why}" for name, why in state.schema.left_out.items())
        raise UserError(f"No column of '{table.name}' can be used: {reasons}.")
    for words in column_notes(table, state.schema):
        progress.log(words)
    state.modalities = make_modalities(state.schema, state.settings)
    for column, modality in state.modalities.items():
        for words in modality.clamped:
            progress.log(f"column '{column}': {words}")
    check_conversations(state.modalities, state.settings)
    check_followed(state.modalities)
    state.settings = with_generated(state.settings, state.modalities, run.minutes, run.device)
    able = able_to_generate(state.modalities)
    if not generation_was_asked(run) and not state.settings["questions"]["generate"] and able:
        progress.log(
            f"{', '.join(able)} will not be learned to be generated: that is on from {MINUTES_TO_GENERATE[1]:g} "
            "minutes "
            f"(on a GPU {MINUTES_TO_GENERATE[0]:g}), or with --generate {','.join(able)}"
        )
    write_json(run.folder / "schema.json", state.schema.to_json())


def split(run: Run, state: State) -> None:
    """Splitter of the table's rows; it splits when it is known which rows can't be read."""
    data, by = run.data, run.data.split
    if by == "auto" and not data.entity_key and (found := natural_split(run.table, state.schema, run.target)):
        by, state.natural = found.by, found.by
        run.progress.log(f"The split is by {found.by.replace(':', ' ')}: {found.why}; data.split=hash is a random one")
    dialogue = [column for column, modality in state.modalities.items() if isinstance(modality, Dialogue)]
    state.split = Splitter(
        run.table,
        state.schema,
        by=by,
        seed=run.seed,
        carved=data.validation,
        entity=data.entity_key,
        rowwise=data.dialogue_validation if dialogue and data.entity_key else 0.0,
        but=dialogue,
    )


def prepare(run: Run, state: State) -> None:
    """Prepared cells in the store: every cell read, statistics learned from training rows, bad cells in quarantine.

    Raises:
        UserError: no row is left for training, or too many can't be read.
    """
    table, progress = run.table, run.progress
    state.quarantine = Quarantine(run.folder / "quarantine.jsonl", run.data.max_bad)
    started = time.monotonic()
    with progress.bar("Reading cells", table.rows) as done:
        state.prepared = prepare_cells(
            table,
            state.modalities,
            state.split,
            run.folder / "store",
            state.quarantine,
            stored=("train", "validation", ROWWISE),
            workers=run.data.workers,
            done=done,
        )
    state.seconds_a_row = (time.monotonic() - started) / table.rows
    check_referred(state.modalities)
    for column, modality in state.modalities.items():
        if words := modality.truncation_note():
            progress.log(f"column '{column}': {words.replace('NAME', column)}")
    splits = state.split.splits
    splits.save(run.folder / "splits.parquet")
    if not len(state.prepared.rows.get("train", ())):
        raise UserError(
            f"No row of '{table.name}' is left for training. Rows by part of the split: {splits.counts()}; "
            f"{len(state.quarantine)} of them can't be read."
        )
    state.settings = enough_to_generate(
        state.settings,
        state.modalities,
        state.prepared,
        table=table,
        asked=generation_was_asked(run),
        progress=progress,
    )
    train_rows = state.prepared.source[state.prepared.rows["train"]]
    write_row_hashes(run.folder, table, list(state.schema.columns), train_rows, run.resume)


def build(run: Run, state: State) -> None:
    """Network with fresh weights, and what of pretrained models in it is tuned."""
    state.network = make_network(state.modalities, state.settings, run.seed).to(run.device)
    state.network.targets = tuple(run.target)
    state.tuned = tuned_of(state.network)
    for name, one in state.tuned.items():
        bits = f", in {one['bits']} bits" if "bits" in one else ""
        expert = f", and {one['expert_parameters']:,} of its own for generation" if "expert_parameters" in one else ""
        run.progress.log(
            f"{name}: {one['tuned_parameters']:,} of {one['all_parameters']:,} parameters are tuned "
            f"({one['tuned_share']:.1%}, {one['tune']}; {one['bytes'] / 2**20:,.0f} MiB{bits}){expert}"
        )


def initialise(run: Run, state: State) -> None:
    """Data-dependent initialisation of stems, and the trainer, at its beginning or where a stopped run left it."""
    data, prepared, folder = run.data, state.prepared, run.folder / "checkpoints"
    if data.entity_key:
        state.entities = entity_ids(run.table, state.schema, data.entity_key, prepared.source)
    if not run.resume:
        initialise_stems(state.network, prepared, state.entities)
    state.objectives = {name: o.to(run.device) for name, o in make_objectives(state.settings).items()}
    state.trainer = TableTrainer(
        network=state.network,
        objectives=state.objectives,
        store=prepared.ready,
        rows=prepared.rows["train"],
        sampler=make_sampler(state.network, run.target, state.settings),
        folder=folder,
        seed=run.seed,
        minutes=run.plan.training_minutes(),
        epochs=run.epochs,
        entities=state.entities if any(o.couples for o in state.objectives.values()) else None,
        source=prepared.source,
        settings=settings_of(TableTrainerSettings, state.settings, "train"),
    )
    if run.resume and any(folder.glob("step-*")):
        for wrong in state.trainer.resume():
            run.progress.log(f"Warning: {wrong}")
        run.progress.log(f"Going on from step {state.trainer.at.step}")
    write_json(run.folder / "environment.json", describe_environment())


def train(run: Run, state: State) -> None:
    """Training loop, with a log of metrics, trackers and a progress bar; its facts."""
    trainer, network = state.trainer, state.network
    log = MetricsLog(run.folder / "metrics.jsonl", trainer.at.step)
    trackers: list[Tracker] = make_trackers(plain_list(state.settings, "trackers"), run.folder, state.settings)
    total = trainer.steps or round(60 * (trainer.minutes or 0))
    try:
        with run.progress.bar("Training", total) as done:
            before = [trainer.at.step if trainer.steps else trainer.at.seconds]
            done(before[0])

            def write(at: Progress, values: dict[str, float]) -> None:
                log.write(at, values)
                for tracker in trackers:
                    tracker.log(at.step, values)
                now = at.step if trainer.steps else at.seconds
                done(now - before[0], f"loss {values['loss']:.3f}" if values else "skipped")
                before[0] = now

            at = trainer.run(write)
    finally:
        log.close()
        for tracker in trackers:
            tracker.close()
    state.facts = {
        "rows": {name: len(rows) for name, rows in state.prepared.rows.items()},
        "seconds": round(at.seconds, 2),
        "steps": at.step,
        "rows_per_second": round(at.rows / max(at.seconds, 1e-9), 1),
        "waited_share": round(at.waited / max(at.seconds, 1e-9), 4),
        "skipped_steps": at.skipped,
        "parameters": sum(p.numel() for p in network.parameters()),
        "precision": trainer.precision,
        "batch": trainer.batch,
        "seed": run.seed,
        "targets": run.target,
        "table": run.table.name,
        "stopped": at.stopped,
        "bad_rows": len(state.quarantine),
        "bad_cells": dict(state.quarantine.columns),
        **network.trunk.facts(),
        **({"tuned": state.tuned} if state.tuned else {}),
    }
    if network.generative_columns and not at.stopped:
        state.facts["generating_share"] = round(trainer.generation_share(), 3)


def calibrate(run: Run, state: State) -> None:
    """Memory of rows, ignored columns, calibrated probabilities and a vocoder, from training and validation rows."""
    network, prepared, trainer = state.network.eval(), state.prepared, state.trainer
    match = state.objectives.get("match")
    if match is not None and not state.stopped:
        assert isinstance(match, Match)
        memory = build_part(MemorySettings, plain(state.settings, "memory"), "memory")
        deadline = run.plan.deadline().part(MEMORY_SHARE)
        build_memory(network, prepared, memory, match.scale().item(), run.seed, deadline)
    calibrate_network(network, prepared, not state.stopped, run.plan.deadline().part(JUDGING_SHARE))
    if state.stopped:
        return
    answer = build_part(AnswerSettings, plain(state.settings, "answer"), "answer")
    seconds = min(answer.share * trainer.at.seconds, ENSEMBLE_SHARE * run.plan.deadline().left)
    if answer.kinds and seconds > 0:
        run.progress.log(f"Fitting the other members of answers (at most {seconds:.0f} s)")
        groups = fold_groups(run, state)
        compare = bool(state.natural)
        compared = fit_ensembles(network, prepared, answer, seconds, run.seed, groups=groups, compare=compare)
        for column, (here, random) in compared.items():
            run.progress.log(
                f"'{column}': trees score {here:.2f} on rows held out by {state.natural.replace(':', ' ')}; a random "
                f"split would have said {random:.2f}"
            )
        if compared:
            scores = {column: list(both) for column, both in compared.items()}
            state.facts["random_split"] = {"by": state.natural, "scores": scores}
    calibrate_answers(network, prepared, trainer.precision)
    finished: Mapping[str, Any] = fit_vocoder(
        network,
        run.table,
        lambda column, part: rows_with(prepared, column, part),
        run.folder / "checkpoints",
        run.seed,
        trainer.at.step,
        trainer.precision,
        settings_of(VocoderSettings, state.settings, "finish"),
        run.progress.bar,
    )
    if finished:
        state.facts["finished"] = finished
        trainer.at.stopped = state.facts["stopped"] = any(each.get("stopped") for each in finished.values())


def save(run: Run, state: State) -> GenerationMixin:
    """Write the model to its folder; then fit plain models for comparison, and write the report on held-out rows."""
    trained = GenerationMixin(state.network, state.schema, state.settings, state.facts, run.folder)
    hub.save(trained, run.folder)
    if state.stopped:
        run.progress.log(f"Stopped and saved. Go on with: --resume --out {run.folder}")
        return trained
    baselines = build_part(BaselineSettings, plain(state.settings, "baselines"), "baselines")
    left = run.plan.deadline().left
    seconds = min(baselines.most, baselines.share * state.trainer.at.seconds, BASELINE_SHARE * left)
    if seconds > 0:
        run.progress.log(f"Fitting plain models for comparison (at most {seconds:.0f} s)")
        plain_models(run.table, state.prepared, state.modalities, state.schema, run.folder, seconds, run.seed)
    with contextlib.suppress(OSError):
        shutil.rmtree(run.folder / "store")
    report(
        trained,
        run.table,
        state.split.splits,
        run.folder,
        run.data.entity_key,
        run.progress,
        run.plan.deadline(),
        state.seconds_a_row,
    )
    return trained


def fold_groups(run: Run, state: State) -> np.ndarray | None:
    """Groups of the store's rows that cross-fitting keeps together: entities, or what the table is split by."""
    if state.entities is not None or not state.natural:
        return state.entities
    method, _, column = state.natural.partition(":")
    if method == "group":
        return entity_ids(run.table, state.schema, column, state.prepared.source)
    return state.prepared.source * BLOCKS // run.table.rows


def generation_was_asked(run: Run) -> bool:
    """True where the user has named the columns that are to be generated."""
    return run.settings.get("questions", {}).get("generate", "auto") != "auto"


def column_notes(table: Table, schema: Schema) -> list[str]:
    """Notes for the user before training: how the source was read, how columns are, and which are left out."""
    notes = list(table.notes)
    for name, column in schema.columns.items():
        if (
            name in table.remarks
            or "infinite" in column.why
            or column.why.startswith(("numbers written", "dates written"))
        ):
            notes.append(f"column '{name}' ({column.kind}): {column.why}")
    left = [(name, why) for name, why in schema.left_out.items() if why != "you said so"]
    notes += [f"column '{name}' is left out: {why}" for name, why in left[:MAX_COLUMNS_NAMED]]
    if len(left) > MAX_COLUMNS_NAMED:
        more = len(left) - MAX_COLUMNS_NAMED
        notes.append(f"{more:,} more columns are left out; sensorium columns TABLE says why")
    return notes
