"""Puts a run and its evaluation before the reader: gathers what the report page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell
from sensorium.core.settings import schema
from sensorium.data.order import spread
from sensorium.data.table import Table
from sensorium.report import Drawn, Evaluation, RunInfo, write_report
from sensorium.report.why import Explained

if TYPE_CHECKING:
    from sensorium.explain import Why
    from sensorium.model import Model

REASONS = 3
DRAWN, SAMPLES, WATCHED, STEPS = 12, 3, 4, 20
"""Rows for which cells are drawn, how many for each, for how many of them each step is shown, and how many steps there are."""
EXPLAINED, BESIDE, KNOWN = 3, 4, 1000
"""Rows of which a drawn cell is explained, columns from which it is, and training rows among which near copies of it are looked for."""


def report_run(path: Path, model: Model, table: Table, evaluation: Evaluation, notes: list[str], folder: Path | None = None,
               known: Table | None = None) -> None:
    """Write the report of a run, from its folder (by default that of ``path``) and an evaluation of ``table``; ``known``: rows that it was trained
    on, to look for near copies in."""
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

    evaluation.drawn = {column: drawn(model, table, column, known) for column in model.network.drawn_columns if column in table.columns}
    write_report(path, run, evaluation, show)


def drawn(model: Model, table: Table, column: str, known: Table | None) -> Drawn:
    """Samples of a column for some rows, evenly spread, from all that these have beside it."""
    rows = spread(np.arange(table.rows), DRAWN)
    show = model.network.modalities[column].show
    cells, steps = model.draw(table.select(rows), column, samples=SAMPLES), []
    if "watch" in schema(model.network.generator(column).sample) and model.schema.columns[column].kind != "audio":  # whose phases take long
        steps = model.rows(table.select(rows[:WATCHED])).steps(column, steps=STEPS)
    return Drawn(rows=rows.tolist(), samples=[[show(cell) for cell in each if cell is not None] for each in cells],
                 steps=[[show(cell) for cell in each] for each in steps], whys=whys(model, table, column, known))


def whys(model: Model, table: Table, column: str, known: Table | None) -> list[Explained]:
    """Why cells drawn for a few rows from a few columns are as they are."""
    seen = [c for c in model.columns if c != column and c in table.columns][:BESIDE]
    some = table.select(spread(np.arange(table.rows), EXPLAINED))
    if not seen:
        return []
    cells = model.generate(some, column, seen=seen)
    return explained(model, column, some, known, cells, model.explain(some, column, cells, seen, known))


def explained(model: Model, column: str, table: Table, known: Table | None, cells: Sequence[Any], found: Sequence[Why | None]) -> list[Explained]:
    """Why said cells of a table's rows are as they are, with all that is shown beside; ``known``: the table of their nearest ones."""

    def show(of: Table, row: int, name: str) -> str:
        modality = model.network.modalities[name]
        cell = next(of.cells(of.take([row], [name]), name, modality.media), None)
        return "" if cell is None or isinstance(cell, BadCell) else modality.show(cell)

    return [Explained(row, model.network.modalities[column].show(cells[row]), {c: show(table, row, c) for c in why.shares}, why.to_json(),
                      [show(known, near, column) for near, _ in why.nearest] if known is not None else []) for row, why in enumerate(found) if why is not None]


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
