"""Report data: a run, its evaluation, generated samples and explanations, gathered for the report page."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.deadline import Deadline
from sensorium.core.errors import BadCell
from sensorium.core.settings import schema
from sensorium.data.order import evenly_spaced
from sensorium.data.table import Table
from sensorium.explain.columns import Explanation
from sensorium.explain.rows import explain_rows
from sensorium.inference.generate import GenerationMixin
from sensorium.inference.trained import Trained
from sensorium.media.images import png
from sensorium.modalities._capabilities import Attributable, Refinable
from sensorium.report.types import Evaluation, GeneratedSamples, RunInfo
from sensorium.report.why import ExplainedCell
from sensorium.report.write import write_report

MAX_REASONS = 3
"""Reasons of quarantined cells that are shown for a column."""
N_GENERATED, N_SAMPLES, N_WATCHED, N_STEPS = 12, 3, 4, 20
"""Rows for which cells are generated; samples of each; rows of which each step of the generation is shown; steps."""
N_EXPLAINED, MAX_SEEN, N_KNOWN_ROWS = 3, 4, 1000
"""Rows whose generated cell is explained; columns that it is generated from; training rows that are searched for near
copies of it.
"""

Known = tuple[Table, np.ndarray]
"""A table and the numbers of some of its rows."""


def report_run(
    path: Path,
    model: GenerationMixin,
    table: Table,
    evaluation: Evaluation,
    notes: list[str],
    folder: Path | None = None,
    known: Known | None = None,
    deadline: Deadline | None = None,
) -> None:
    """Write the report of a run and an evaluation of ``table``.

    Args:
        folder: of the run; by default that of ``path``. known: rows that it was trained on, to look for near copies in.
        deadline: by which samples are generated, as many as fit.
    """
    deadline, notes = deadline or Deadline(), list(notes)
    facts, folder = model.facts, folder or path.parent
    if "generating_share" in facts:
        notes = [
            *notes,
            f"Learning to generate {', '.join(model.network.generative_columns)} took "
            f"{facts['generating_share']:.0%} of the time of a step.",
        ]

    run = RunInfo(
        name=folder.name,
        rows=facts["rows"],
        parameters=facts["parameters"],
        seconds=facts["seconds"],
        steps=facts["steps"],
        rows_per_second=facts["rows_per_second"],
        waited_share=facts["waited_share"],
        settings=model.settings,
        columns=[column_info(model, c.name) for c in model.schema.columns.values()],
        left_out=model.schema.left_out,
        environment=read_json(folder / "environment.json"),
        quarantine=quarantine_summary(folder / "quarantine.jsonl", facts["bad_cells"]),
        metrics=folder / "metrics.jsonl",
        notes=notes,
    )

    def show(row: int, column: str) -> str:
        return cell_html(model, table, row, column) if column in model.network.modalities else ""

    generated = [column for column in model.network.generative_columns if column in table.columns]
    for number, column in enumerate(generated):
        samples = generated_samples(model, table, column, known, deadline.part(1 / (len(generated) - number)))
        evaluation.generated[column] = samples
        if len(samples.rows) < min(N_GENERATED, table.rows):
            notes.append(f"'{column}' was generated for {len(samples.rows)} rows, to end in time.")
    run.notes = notes
    write_report(path, run, evaluation, show)


def column_info(model: Trained, name: str) -> dict[str, Any]:
    """Facts of a column that the page shows, and how its cells are shown."""
    column, modality = model.schema.columns[name], model.network.modalities[name]
    return {
        "name": name,
        "kind": column.kind,
        "why": column.why,
        "display_rank": modality.display_rank,
        "display_cost": modality.display_cost,
        "is_spatial": modality.is_spatial,
    }


def cell_html(model: Trained, table: Table, row: int, column: str) -> str:
    """A cell of a table as HTML that is safe as it is; empty where it is missing or can't be had."""
    cell = cell_of(model, table, row, column)
    return "" if cell is None else model.network.modalities[column].show(cell)


def cell_of(model: Trained, table: Table, row: int, column: str) -> Any:
    """A cell of a table; None where it is missing or can't be had."""
    cell = next(table.cells(table.take([row], [column]), column, model.network.modalities[column].media), None)
    return None if isinstance(cell, BadCell) else cell


def cell_image(model: Trained, table: Table, row: int, column: str) -> str:
    """The cell as the model reads it, a picture as a data URL; empty where there is none."""
    modality, cell = model.network.modalities[column], cell_of(model, table, row, column)
    try:
        seen = cell is not None and isinstance(modality, Attributable)
        pixels = modality.as_image(modality.read(cell)) if seen else None
    except BadCell:
        return ""
    return "" if pixels is None else f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def generated_samples(
    model: GenerationMixin, table: Table, column: str, known: Known | None, deadline: Deadline
) -> GeneratedSamples:
    """Samples of a column for some rows, evenly spread, from all that these have beside it; as many as fit into half of
    the time. What takes longer, steps and explanations, is left out where that is over."""
    rows = evenly_spaced(np.arange(table.rows), N_GENERATED)
    count = deadline.part(0.5).rows(
        len(rows), lambda n: list(model.iter_generate(table.select(rows[:n]), column)), least=2, tried=2
    )
    rows = evenly_spaced(rows, count)
    show = model.network.modalities[column].show
    cells, steps = model.iter_generate(table.select(rows), column, samples=N_SAMPLES), []
    if (
        "watch" in schema(model.network.generator(column).sample)
        and not isinstance(model.network.modalities[column], Refinable)
        and deadline.left
    ):  # whose phases take long
        steps = model.rows(table.select(rows[:N_WATCHED])).steps(column, steps=N_STEPS)
    return GeneratedSamples(
        rows=rows.tolist(),
        samples=[[show(cell) for cell in each if cell is not None] for each in cells],
        steps=[[show(cell) for cell in each] for each in steps],
        whys=explain_samples(model, table, column, known) if count == N_GENERATED or deadline.left > 30 else [],
    )


def explain_samples(model: GenerationMixin, table: Table, column: str, known: Known | None) -> list[ExplainedCell]:
    """Explanations of cells that were generated for a few rows from a few columns."""
    seen = [c for c in model.columns if c != column and c in table.columns][:MAX_SEEN]
    rows = evenly_spaced(np.arange(table.rows), N_EXPLAINED)
    if not seen:
        return []
    some, among = table.select(rows), None
    if known is not None:
        among = model.rows(known[0].select(known[1]), [column])
        if not among.has(column).any():  # a column that few rows have
            known = among = None
    cells = model.generate(some, column, seen=seen)
    return explained_cells(
        model, column, (table, rows), known, cells, explain_rows(model, some, column, cells, seen, among)
    )


def explained_cells(
    model: Trained,
    column: str,
    some: Known,
    known: Known | None,
    cells: Sequence[Any],
    found: Sequence[Explanation | None],
) -> list[ExplainedCell]:
    """Explanations of answered cells of ``some`` rows, with all that is shown beside them.

    Args:
        known: the rows among which their nearest ones are.
    """
    entries, whole = (
        [],
        model.network.modalities[column].is_categorical,
    )  # of which one sees no more by its own cell alone

    def beside(number: int, seen: Sequence[str]) -> str:
        """A row of the table that was looked among."""
        assert known is not None
        return " ".join(
            cell_html(model, known[0], int(known[1][number]), c) for c in ([column, *seen] if whole else [column])
        )

    for place, why in enumerate(found):
        if why is not None:
            row, facts, seen = (
                int(some[1][place]),
                why.to_json(),
                [c for c in why.shares if known is not None and c in known[0].columns][:MAX_SEEN],
            )
            sides = {
                side: [{**near, "row": int(known[1][near["row"]])} for near in facts[side]] if known is not None else []
                for side in ("nearest", "contrast")
            }
            if why.turned is not None and known is not None:
                source = int(known[1][why.turned.row])
                if html := cell_html(model, known[0], source, why.turned.column):
                    facts["turned"] |= {"row": source, "shown": html}
            entries.append(
                ExplainedCell(
                    row,
                    model.network.modalities[column].show(cells[place]),
                    {c: cell_html(model, some[0], row, c) for c in why.shares},
                    {**facts, **sides},
                    *(
                        [beside(near["row"], seen) for near in facts[side]] if known is not None else []
                        for side in sides
                    ),
                    read={c: url for c in why.parts if (url := cell_image(model, some[0], row, c))},
                )
            )
    return entries


def quarantine_summary(path: Path, counts: Mapping[str, int]) -> dict[str, tuple[int, list[str]]]:
    """For each column the number of quarantined cells, and the first reasons."""
    reasons: dict[str, list[str]] = {column: [] for column in counts}
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                found = reasons.setdefault(entry["column"], [])
                if len(found) < MAX_REASONS and entry["reason"] not in found:
                    found.append(entry["reason"])
    return {column: (counts.get(column, 0), found) for column, found in reasons.items()}


def read_json(path: Path) -> Any:
    """A JSON file; empty where it isn't there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
