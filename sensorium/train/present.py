"""Puts a run and its evaluation before the reader: gathers what the report page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell
from sensorium.core.settings import schema
from sensorium.data.order import spread
from sensorium.data.table import Table
from sensorium.report import Drawn, Evaluation, RunInfo, write_report

if TYPE_CHECKING:
    from sensorium.model import Model

REASONS = 3
DRAWN, SAMPLES, WATCHED, STEPS = 12, 3, 4, 20
"""Rows for which cells are drawn, how many for each, for how many of them each step is shown, and how many steps there are."""


def report_run(path: Path, model: Model, table: Table, evaluation: Evaluation, notes: list[str], folder: Path | None = None) -> None:
    """Write the report of a run, from its folder (by default that of ``path``) and an evaluation of ``table``."""
    facts, folder = model.facts, folder or path.parent
    if "generating_share" in facts:
        notes = [*notes, f"Learning to generate {', '.join(model.network.drawn_columns)} took {facts['generating_share']:.0%} of the time of a step."]

    run = RunInfo(
        name=folder.name, rows=facts["rows"], parameters=facts["parameters"], seconds=facts["seconds"], steps=facts["steps"],
        rows_per_second=facts["rows_per_second"], waited_share=facts["waited_share"], settings=model.settings,
        columns=[{"name": c.name, "kind": c.kind, "why": c.why} for c in model.schema.columns.values()],
        left_out=model.schema.left_out, environment=read_json(folder / "environment.json"),
        quarantine=put_aside(folder / "quarantine.jsonl", facts["bad_cells"]), metrics=folder / "metrics.jsonl", notes=notes,
    )

    def show(row: int, column: str) -> str:
        if column not in model.network.modalities:
            return ""
        modality = model.network.modalities[column]
        batch = table.take([row], [column])
        cell = next(iter(table.cells(batch, column, modality.media)), None)
        return "" if cell is None or isinstance(cell, BadCell) else modality.show(cell)

    evaluation.drawn = {column: drawn(model, table, column) for column in model.network.drawn_columns if column in table.columns}
    write_report(path, run, evaluation, show)


def drawn(model: Model, table: Table, column: str) -> Drawn:
    """Samples of a column for some rows, evenly spread, from all that these have beside it."""
    rows = spread(np.arange(table.rows), DRAWN)
    show = model.network.modalities[column].show
    cells, steps = model.draw(table.select(rows), column, samples=SAMPLES), []
    if "watch" in schema(model.network.generator(column).sample) and model.schema.columns[column].kind != "audio":  # whose phases take long
        steps = model.rows(table.select(rows[:WATCHED])).steps(column, steps=STEPS)
    return Drawn(rows=rows.tolist(), samples=[[show(cell) for cell in each if cell is not None] for each in cells],
                 steps=[[show(cell) for cell in each] for each in steps])


def put_aside(path: Path, counts: Mapping[str, int]) -> dict[str, tuple[int, list[str]]]:
    """For each column how many cells are in quarantine, and the first reasons."""
    reasons: dict[str, list[str]] = {column: [] for column in counts}
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                said = reasons.setdefault(entry["column"], [])
                if len(said) < REASONS and entry["reason"] not in said:
                    said.append(entry["reason"])
    return {column: (counts.get(column, 0), said) for column, said in reasons.items()}


def read_json(path: Path) -> Any:
    """A JSON file; empty where it isn't there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
