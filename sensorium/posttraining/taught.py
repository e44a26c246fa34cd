"""A model that is taught something more: the lesson is given, and what it changed is noted and kept. What ``Model.distill``, ``prefer`` and ``reinforce`` do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.core.settings import parse, sections
from sensorium.data.hashes import row_hashes
from sensorium.data.order import evenly_spaced
from sensorium.data.table import Table
from sensorium.dialogue.reward_model import FILE, RewardModel
from sensorium.export import hub
from sensorium.inference.trained import Trained
from sensorium.network.types import slug
from sensorium.posttraining.adapter_training import begin
from sensorium.posttraining.distill import MAX_TEACHER_ROWS, distill
from sensorium.posttraining.dpo import prefer
from sensorium.posttraining.grpo import Scoring, reinforce
from sensorium.training.run_folder import trained_on


def of_section(settings: Mapping[str, Any] | Sequence[str], section: str, example: str) -> dict[str, Any]:
    """Settings of a lesson.

    Raises:
        UserError: some are of another section.
    """
    given = sections(settings) if isinstance(settings, Mapping) else parse(settings)
    for name in given:
        if name != section:
            raise UserError(f"Settings of this lesson are in section '{section}', as {example}; given: '{name}'.")
    return given


def folder_of(model: Trained, out: str | Path | None) -> Path:
    """Where a model that is taught is kept.

    Raises:
        UserError: it is nowhere yet.
    """
    folder = Path(out) if out is not None else model.folder
    if folder is None:
        raise UserError("This model is in no folder yet, and a lesson is kept in one. Say which: out=FOLDER.")
    return folder


def distilled(
    model: Trained,
    table: Any,
    column: str,
    *,
    out: str | Path | None,
    settings: Mapping[str, Any] | Sequence[str],
    note: Callable[[str], None] | None,
    **how: Any,
) -> Trained:
    """See ``Model.distill``."""
    given, network = of_section(settings, "distill", "distill.pairs=8192"), model.network
    model.check_asked(column, None)
    if "flow" not in network.generator_keys[column]:
        able = [c for c in network.generative_columns if "flow" in network.generator_keys[c]]
        raise UserError(
            f"'{column}' is not drawn by flow, which alone can be distilled. Possible: {', '.join(able) or 'none'}."
        )
    folder, opened = folder_of(model, out), Table.open(table)
    if not opened.rows:
        raise UserError(f"'{opened.name}' has no rows to draw from.")
    known = trained_on(model.folder, opened, model.columns)
    every = np.arange(opened.rows) if known is None or not known.any() else np.flatnonzero(known)
    chosen = opened.select(evenly_spaced(every, MAX_TEACHER_ROWS))
    shown = [c for c in model.columns if c != column]
    rows = model.rows(chosen, shown, note)
    content = int(row_hashes(chosen, [c for c in shown if c in chosen.columns]).sum(dtype=np.uint64))
    student, facts = distill(
        network,
        rows,
        column,
        folder / f"distill-{slug(column, model.columns.index(column))}",
        settings={**model.settings, **given},
        described={"table": opened.name, "rows": rows.count, "content": content},
        **how,
    )
    network.add_generator(column, student.eval())
    taught = {**model.settings.get("taught", {}), column: ["onestep"]}
    model.settings |= {"taught": taught, "generator": {**model.settings.get("generator", {}), "onestep": student.sizes}}
    model.facts["distilled"] = {**model.facts.get("distilled", {}), column: facts}
    hub.save(model, folder)
    return model


def preferred(
    model: Trained,
    table: Any,
    *,
    out: str | Path | None,
    settings: Mapping[str, Any] | Sequence[str],
    resume: bool,
    **how: Any,
) -> Trained:
    """See ``Model.prefer``."""
    given, folder = of_section(settings, "prefer", "prefer.beta=0.3"), folder_of(model, out)
    facts, judge = prefer(
        model.network,
        Table.open(table),
        folder / "prefer",
        settings=given,
        resume=resume,
        begin=lambda described: begin(folder / "prefer", described, resume),
        **how,
    )
    model.facts["preferred" if judge is None else "judge"] = facts
    if judge is None:
        unsure(model)
    hub.save(model, folder)
    if judge is not None:
        judge.save(folder / FILE)
    return model


def unsure(model: Trained) -> None:
    """How often answers are right was told of the model as it was: of this one it isn't known."""
    for column in model.network.dialogue_columns:
        model.network.dialogue_modality(column).sureness = None


def reinforced(
    model: Trained,
    table: Any,
    *,
    score: Scoring | None,
    out: str | Path | None,
    settings: Mapping[str, Any] | Sequence[str],
    resume: bool,
    **how: Any,
) -> Trained:
    """See ``Model.reinforce``."""
    given, folder = of_section(settings, "reinforce", "reinforce.group=16"), folder_of(model, out)
    model.facts["reinforced"] = reinforce(
        model.network,
        Table.open(table),
        folder / "reinforce",
        own=score,
        judge=lambda: RewardModel.load((model.folder or folder) / FILE, model.network),
        settings=given,
        resume=resume,
        begin=lambda described: begin(folder / "reinforce", described, resume),
        **how,
    )
    unsure(model)
    hub.save(model, folder)
    return model
