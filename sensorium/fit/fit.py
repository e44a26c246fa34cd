"""Fit: from a table to a model in a run folder. The order of things, and what is kept of them.

RUN/ settings.json schema.json splits.parquet rows.npy environment.json quarantine.jsonl metrics.jsonl
     checkpoints/ baselines/ model.json model.safetensors memory.safetensors results.json report.html tensorboard/
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sensorium.core.errors import UserError, unknown
from sensorium.core.files import write_json
from sensorium.core.progress import ProgressReporter
from sensorium.core.registry import find, name_of
from sensorium.core.settings import build, parse, sections
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared, prepare
from sensorium.data.quarantine import Quarantine, parse_max_bad
from sensorium.data.schema import Schema, infer
from sensorium.data.settings import DataSettings
from sensorium.data.split import ROWWISE, Splits, split_rows, things_of
from sensorium.data.table import Table
from sensorium.dialogue.calibrate import sure
from sensorium.evaluation.baselines import ROWS as BASELINE_ROWS
from sensorium.evaluation.baselines import fit_baselines
from sensorium.modalities import Stem
from sensorium.network.batch import hash_of
from sensorium.network.build import (
    able_to_generate,
    check_conversations,
    check_referred,
    generated,
    make_modalities,
    make_network,
    plain,
    said_as_written,
)
from sensorium.network.network import Network
from sensorium.nn.external import ExternalModel
from sensorium.nn.precision import idle_gpu, usable
from sensorium.training.build import check_settings, make_objectives, make_sampler
from sensorium.training.build_memory import MemorySettings, memorise
from sensorium.training.calibrate import settle
from sensorium.training.fit_vocoder import VocoderSettings, finish
from sensorium.training.run_folder import begin, environment, remember
from sensorium.training.table_trainer import TableTrainer
from sensorium.training.trackers import Tracker, make_trackers
from sensorium.training.trainer import MetricsLog, Progress, asked_length

if TYPE_CHECKING:
    from sensorium.model import Model

MINUTES = 5.0
GENERATED = 5.0, 30.0
"""Minutes from which on a run learns to generate pictures, videos, sounds, series and points unasked: on a GPU, and on a CPU."""
LOOKED, FEW = 4096, 64
"""Training cells that a stem looks at before the first step, and those of which it looks at all patches."""
LEAST_DRAWN = 16
"""Training rows that a column must have to be learned to be generated."""
MOST_EVALUATED = 4000
"""Rows of each part that a run's own evaluation looks at, evenly spread."""
MOST_TOLD = 20
"""Columns left out that a fit names."""
SHORT = {"category", "number", "date"}


class BaselineSettings:
    """What is done beside training (section ``baselines``).

    Args:
        share: part of the training time that the plain models get; 0 leaves them out.
        most: seconds they get at most.
    """

    def __init__(self, *, share: float = 0.15, most: float = 60.0) -> None:
        self.share, self.most = share, most


def fit(
    make: type[Model],
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
) -> Model:
    """Train a model and make it; see ``Model.fit``."""
    given = parse(settings) if not isinstance(settings, Mapping) else sections(settings)
    check_settings(given)
    build(BaselineSettings, plain(given, "baselines"), "baselines")
    build(MemorySettings, plain(given, "memory"), "memory")
    for name in plain_list(given, "trackers"):
        find(Tracker, name)
    minutes, epochs = asked_length(seed, minutes, epochs, MINUTES)
    data = build(DataSettings, plain(given, "data"), "data")
    parse_max_bad(data.max_bad)
    wanted = usable(device)
    opened = data.open(table, said_as_written(given.get("column", {})))
    if not opened.rows:
        raise UserError(f"'{opened.name}' has no rows, so there is nothing to learn from.")
    for what, columns in (
        ("target:", target),
        ("column in data.entity_key:", [data.entity_key] if data.entity_key else []),
    ):
        for column in columns:
            if column not in opened.columns:
                raise unknown(what, column, opened.columns)
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="sensorium-"))
    begin(folder, resume, given, seed, target, opened)
    with ProgressReporter(quiet) as shown:
        return run(make, opened, folder, list(target), minutes, epochs, seed, resume, given, data, wanted, shown)


def run(
    make: type[Model],
    opened: Table,
    folder: Path,
    target: list[str],
    minutes: float | None,
    epochs: float | None,
    seed: int,
    resume: bool,
    given: dict[str, Any],
    data: DataSettings,
    device: torch.device,
    shown: ProgressReporter,
) -> Model:
    """The steps of a fit, in order."""
    shown.log(f"Looking at the columns of '{opened.name}' ({opened.rows:,} rows)")
    if gpu := idle_gpu(device):
        shown.log(f"A GPU is there and isn't used ({gpu}): --device cuda learns on it")
    overrides = {
        column: {k: v for k, v in part.items() if k} if isinstance(part, dict) else {"kind": part}
        for column, part in given.get("column", {}).items()
    }
    schema = infer(opened, overrides=overrides, targets=target)
    if not schema.columns:
        raise UserError(
            f"No column of '{opened.name}' can be used: "
            + "; ".join(f"{name}: {why}" for name, why in schema.left_out.items())
            + "."
        )
    for words in told_of_columns(opened, schema):
        shown.log(words)
    modalities = make_modalities(schema, given)
    for column, modality in modalities.items():
        for words in modality.clamped:
            shown.log(f"column '{column}': {words}")
    check_conversations(modalities, given)
    asked = given.get("questions", {}).get("generate", "auto") != "auto"
    given = with_generated(given, modalities, minutes, device)
    if not asked and not given["questions"]["generate"] and (able := able_to_generate(modalities)):
        shown.log(
            f"{', '.join(able)} will not be learned to be generated: that is on from {GENERATED[1]:g} minutes (on a GPU {GENERATED[0]:g}), or with --generate {','.join(able)}"
        )
    write_json(folder / "schema.json", schema.to_json())
    quarantine = Quarantine(folder / "quarantine.jsonl", data.max_bad)
    store, splits = folder / "store", Splits((), np.zeros(0, np.int8))

    talks = [column for column, modality in modalities.items() if modality.is_dialogue]
    alone = data.dialogue_validation if talks and data.entity_key else 0.0

    def divided(left_out: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal splits
        splits = split_without(
            opened,
            schema,
            left_out,
            by=data.split,
            seed=seed,
            carved=data.validation,
            thing=data.entity_key,
            rowwise=alone,
            but=talks,
        )
        return {name: splits.rows(name) for name in splits.names}

    with shown.bar("Reading cells", opened.rows) as done:
        prepared = prepare(
            opened,
            modalities,
            divided,
            store,
            quarantine,
            stored=("train", "validation", ROWWISE),
            workers=data.workers,
            done=done,
        )
    check_referred(modalities)
    for column, modality in modalities.items():
        if words := modality.truncation_note():
            shown.log(f"column '{column}': {words.replace('NAME', column)}")
    splits.save(folder / "splits.parquet")
    if not len(prepared.rows.get("train", ())):
        raise UserError(
            f"No row of '{opened.name}' is left for training. Rows by part of the split: {splits.counts()}; "
            f"{len(quarantine)} of them can't be read."
        )
    given = enough_to_generate(given, modalities, prepared, table=opened, asked=asked, shown=shown)
    train_rows = prepared.source[prepared.rows["train"]]
    remember(folder, opened, list(schema.columns), train_rows, resume)
    network = make_network(modalities, given, seed).to(device)
    network.targets = tuple(target)
    tuned = tuned_of(network)
    for what, one in tuned.items():
        shown.log(
            f"{what}: {one['tuned_parameters']:,} of {one['all_parameters']:,} parameters are tuned ({one['tuned_share']:.1%}, {one['tune']}; {one['bytes'] / 2**20:,.0f} MiB{', in ' + str(one['bits']) + ' bits' if 'bits' in one else ''})"
            + (f", and {one['expert_parameters']:,} of its own for what is drawn" if "expert_parameters" in one else "")
        )
    things = things_of(opened, schema, data.entity_key, prepared.source) if data.entity_key else None
    if not resume:
        look_first(network, prepared, things)
    objectives = {k: o.to(device) for k, o in make_objectives(given).items()}
    loop = TableTrainer(
        network=network,
        objectives=objectives,
        modalities=modalities,
        store=prepared.ready,
        rows=prepared.rows["train"],
        sampler=make_sampler(network, target, given),
        folder=folder / "checkpoints",
        seed=seed,
        minutes=minutes,
        epochs=epochs,
        things=things if any(o.couples for o in objectives.values()) else None,
        source=prepared.source,
        **settings_of(TableTrainer, given, "train"),
    )
    if resume and any((folder / "checkpoints").glob("step-*")):
        for wrong in loop.resume():
            shown.log(f"Warning: {wrong}")
        shown.log(f"Going on from step {loop.at.step}")
    write_json(folder / "environment.json", environment())
    at = train(loop, folder, given, minutes, shown)
    facts = {
        "rows": {name: len(rows) for name, rows in prepared.rows.items()},
        "seconds": round(at.seconds, 2),
        "steps": at.step,
        "rows_per_second": round(at.rows / max(at.seconds, 1e-9), 1),
        "waited_share": round(at.waited / max(at.seconds, 1e-9), 4),
        "skipped_steps": at.skipped,
        "parameters": sum(p.numel() for p in network.parameters()),
        "precision": loop.precision,
        "batch": loop.batch,
        "seed": seed,
        "targets": target,
        "table": opened.name,
        "stopped": at.stopped,
        "bad_rows": len(quarantine),
        "bad_cells": dict(quarantine.columns),
        **network.trunk.facts(),
        **({"tuned": tuned} if tuned else {}),
    }
    if network.generative_columns and not at.stopped:
        facts["generating_share"] = round(loop.share_of_generating(), 3)
    network.eval()
    if "match" in objectives and not at.stopped:
        memorise(
            network,
            prepared,
            build(MemorySettings, plain(given, "memory"), "memory"),
            objectives["match"].scale().item(),
            seed,
        )
    settle(network, prepared, judge=not at.stopped)
    if not at.stopped:
        sure(network, prepared, loop.precision)
        finished = finish(
            network,
            opened,
            lambda column, part: rows_with(prepared, column, part),
            folder / "checkpoints",
            seed,
            at.step,
            loop.precision,
            settings_of(VocoderSettings, given, "finish"),
            shown.bar,
        )
        if finished:
            facts["finished"] = finished
            at.stopped = facts["stopped"] = any(told.get("stopped") for told in finished.values())
    model = make(network, schema, given, facts, folder)
    model.save(folder)
    if at.stopped:
        shown.log(f"Stopped and saved. Go on with: --resume --out {folder}")
        return model
    extras = build(BaselineSettings, plain(given, "baselines"), "baselines")
    seconds = min(extras.most, extras.share * at.seconds)
    if seconds > 0:
        shown.log(f"Fitting plain models for comparison (at most {seconds:.0f} s)")
        plain_models(opened, prepared, modalities, schema, folder, seconds, seed)
    with contextlib.suppress(OSError):
        shutil.rmtree(store)
    report(model, opened, splits, folder, data.entity_key, shown)
    return model


def told_of_columns(table: Table, schema: Schema) -> list[str]:
    """What the user should know before training: how the source was read, how columns are, and which are left out."""
    said = list(table.notes)
    for name, column in schema.columns.items():
        if (
            name in table.remarks
            or "infinite" in column.why
            or column.why.startswith(("numbers written", "dates written"))
        ):
            said.append(f"column '{name}' ({column.kind}): {column.why}")
    left = [(name, why) for name, why in schema.left_out.items() if why != "you said so"]
    said += [f"column '{name}' is left out: {why}" for name, why in left[:MOST_TOLD]]
    if len(left) > MOST_TOLD:
        said.append(f"{len(left) - MOST_TOLD:,} more columns are left out; sensorium columns TABLE says why")
    return said


def tuned_of(network: Network) -> dict[str, dict[str, Any]]:
    """What of each pretrained model is learned further, in numbers, by what people call it."""
    found = (
        {}
        if not isinstance(network.trunk, ExternalModel)
        else {f"Language model '{network.trunk.language.name}'": network.trunk.facts()}
    )
    for column, key in network.stem_key.items():
        modality, stem = network.modalities[column], network.stems[key]
        if isinstance(stem, ExternalModel):
            found[f"Column '{column}', backbone '{modality.encoder.name}'"] = {
                "tune": modality.tuning.tune,
                **stem.share(),
            }
    return found


def look_first(network: Network, prepared: Prepared, things: np.ndarray | None) -> None:
    """Let each stem look at training cells, no cell twice, before the first step (``Stem.begin``)."""
    for column, key in network.stem_key.items():
        stem = network.stems[key]
        if type(stem).initialise is Stem.initialise or column not in prepared.ready.columns:
            continue
        rows = prepared.rows["train"]
        rows = rows[np.diff(prepared.ready.columns[column].offsets)[rows] > 0]
        cells = prepared.ready.cells(column, evenly_spaced(rows, LOOKED * 4))
        first = {hash_of(cell): number for number, cell in reversed(list(enumerate(cells)))}
        kept = sorted(first.values())[:LOOKED]
        if kept and key in network.projectors:  # few do: each has hundreds of patches
            few = {
                name: value.to(network.seen_mark.weight.device)
                for name, value in network.modalities[column].collate([cells[number] for number in kept[:FEW]]).items()
            }
            network.projectors[key].initialise(
                network.projectors[key].patches(stem.features(few)), network.trunk.loud.item()
            )
            if "features" in few:
                cells = [cell[: stem.n_placed] for cell in cells]
        if kept:
            own = None if things is None else torch.from_numpy(things[evenly_spaced(rows, LOOKED * 4)][kept])
            stem.initialise(
                {
                    key: value.to(network.seen_mark.weight.device)
                    for key, value in network.modalities[column].collate([cells[number] for number in kept]).items()
                },
                own,
            )


def with_generated(
    given: dict[str, Any], modalities: Mapping[str, Any], minutes: float | None, device: torch.device
) -> dict[str, Any]:
    """The settings with ``questions.generate`` by names, where "auto" is all columns if there is time to learn it.

    Raises:
        UserError: a column that can't be generated.
    """
    wanted = given.get("questions", {}).get("generate", "auto")
    if wanted == "auto":
        enough = minutes is not None and minutes >= (GENERATED[1] if device.type == "cpu" else GENERATED[0])
        wanted = ",".join(able_to_generate(modalities)) if enough else ""
    given = {**given, "questions": {**given.get("questions", {}), "generate": wanted}}
    generated(modalities, given)
    return given


def enough_to_generate(
    given: dict[str, Any],
    modalities: Mapping[str, Any],
    prepared: Prepared,
    *,
    table: Table,
    asked: bool,
    shown: ProgressReporter,
) -> dict[str, Any]:
    """The settings without columns that have too few training rows to be learned to be generated.

    Raises:
        UserError: the user ``asked`` for one of them.
    """
    kept = []
    for column in generated(modalities, given):
        count = len(rows_with(prepared, column, "train"))
        if count >= LEAST_DRAWN:
            kept.append(column)
        elif asked:
            raise UserError(
                f"--generate {column}: '{table.name}' has {count} training rows with it, and to learn to generate it takes at least {LEAST_DRAWN}. "
                "Leave it out of --generate, or give a table with more rows."
            )
        else:
            shown.log(
                f"'{column}' isn't learned to be generated: {count} training rows have it, {LEAST_DRAWN} are needed"
            )
    return {**given, "questions": {**given["questions"], "generate": ",".join(kept)}}


def rows_with(prepared: Prepared, column: str, part: str) -> np.ndarray:
    """The table's rows of a part of the split that have a column."""
    rows, cells = prepared.rows.get(part, np.zeros(0, np.int64)), prepared.read.columns.get(column)
    return prepared.source[rows[np.diff(cells.offsets)[rows] > 0]] if cells is not None else np.zeros(0, np.int64)


def split_without(table: Table, schema: Schema, left_out: np.ndarray, **how: Any) -> Splits:
    """The split of a table's rows without some of them (bool for each row): exactly that of the table that lacks them."""
    if not left_out.any():
        return split_rows(table, schema, **how)
    rest = split_rows(table.select(~left_out), schema, **how)
    codes = np.full(table.rows, -1, np.int8)
    codes[~left_out] = rest.codes
    return Splits(rest.names, codes)


def settings_of(part: type, given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """A section's checked settings, as keyword arguments."""
    from sensorium.core.settings import check

    return check(part, plain(given, section), section)


def train(
    loop: TableTrainer, folder: Path, given: Mapping[str, Any], minutes: float | None, shown: ProgressReporter
) -> Progress:
    """Run the loop with a journal, trackers and a progress bar."""
    journal = MetricsLog(folder / "metrics.jsonl", loop.at.step)
    trackers: list[Tracker] = make_trackers(plain_list(given, "trackers"), folder, given)
    total = loop.steps or round(60 * (minutes or 0))
    try:
        with shown.bar("Training", total) as done:
            before = [loop.at.step if loop.steps else loop.at.seconds]
            done(before[0])

            def log(at: Progress, values: dict[str, float]) -> None:
                journal.write(at, values)
                for tracker in trackers:
                    tracker.log(at.step, values)
                now = at.step if loop.steps else at.seconds
                done(now - before[0], f"loss {values['loss']:.3f}" if values else "skipped")
                before[0] = now

            return loop.run(log)
    finally:
        journal.close()
        for tracker in trackers:
            tracker.close()


def plain_list(given: Mapping[str, Any], section: str) -> list[str]:
    """``trackers=tensorboard,wandb`` as a list."""
    value = given.get(section, {}).get("", "tensorboard")
    return [item for item in (value.split(",") if isinstance(value, str) else value) if item and item != "none"]


def plain_models(
    table: Table,
    prepared: Prepared,
    modalities: Mapping[str, Any],
    schema: Schema,
    folder: Path,
    seconds: float,
    seed: int,
) -> None:
    """Fit the baselines for every category, number and date on the same split."""
    kinds = {c: name_of(m) for c, m in modalities.items() if name_of(m) in SHORT}
    if not kinds:
        return

    def some(part: str) -> np.ndarray:
        rows = prepared.rows.get(part, np.zeros(0, np.int64))
        return evenly_spaced(rows, BASELINE_ROWS)

    def features(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {
            c: np.stack([modalities[c].features(cell) for cell in prepared.read.cells(c, rows)])
            for c in modalities
            if c in prepared.read.columns and len(rows)
        }

    def truth(rows: np.ndarray) -> dict[str, list[Any]]:
        taken = table.take(prepared.source[rows], list(kinds))
        return {c: taken.column(c).to_pylist() for c in kinds}

    train, valid = some("train"), some("validation")
    fit_baselines(
        features(train), truth(train), kinds, (features(valid), truth(valid)), folder / "baselines", seconds, seed
    )


def report(model: Model, table: Table, splits: Splits, folder: Path, same: str | None, shown: ProgressReporter) -> None:
    """Evaluate on rows held out: ``results-PART.json`` for each part, and ``report.html`` for the first."""
    from sensorium.evaluation.report_data import KNOWN, report_run

    parts = [name for name in splits.names if name not in ("train", "validation", ROWWISE) and len(splits.rows(name))]
    parts = parts or [name for name in ("validation",) if name in splits.names and len(splits.rows(name))]
    if not parts:
        shown.log("No rows were held out, so there is nothing to report on.")
        return
    for number, name in enumerate(sorted(parts, key=lambda name: -len(splits.rows(name)) if name == "test" else 0)):
        shown.log(f"Evaluating on '{name}'")
        rows = splits.rows(name)
        notes = [f"Measured on '{name}', {min(len(rows), MOST_EVALUATED):,} of {len(rows):,} rows."]
        part = table.select(evenly_spaced(rows, MOST_EVALUATED))
        evaluation = model.evaluation(part, same=same, curves=number == 0)
        write_json(folder / f"results-{name}.json", evaluation.results)
        if number == 0:
            report_run(
                folder / "report.html",
                model,
                part,
                evaluation,
                notes,
                known=(table, evenly_spaced(splits.rows("train"), KNOWN)),
            )
    shown.log(f"Report: {folder / 'report.html'}")


# --- which rows a run knows -----------------------------------------------------------------------------------------------


# --- small things -----------------------------------------------------------------------------------------------------------
