"""Explanation pages: attributions of answers, as HTML or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from sensorium.cli.files import check_folder, write_json, write_whole
from sensorium.cli.output import note, progress
from sensorium.core.errors import UserError

if TYPE_CHECKING:
    from sensorium.model import Model


MAX_EXPLAINED = 24
"""Rows of a table that are explained, as each is asked many times."""


def write_why(
    model: Model,
    source: str,
    column: str,
    cells: Sequence[Any] | None,
    out: Path,
    seen: Sequence[str] | None,
    among: str | None,
    seed: int,
    generator: str | None = None,
    rows: np.ndarray | None = None,
    inside: str = "occlusion",
) -> None:
    """Write explanations of answers as a page or as JSON.

    Args:
        cells: answers, one for each of ``rows``; None: what the model says of them now.
        rows: numbers of the rows; by default the table's first ones.
        inside: how it is looked inside the seen cells.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.evaluation.report_data import explained_cells
    from sensorium.explain.columns import importance
    from sensorium.report.why import write_page

    check_folder(out, "--explain")
    table, known = model.open(source), None if among is None else model.open(among)
    if rows is None:
        rows = np.arange(min(table.rows if cells is None else len(cells), MAX_EXPLAINED))
        if len(rows) < table.rows:
            note(f"Explained are the first {len(rows)} rows.")
    some = table.select(rows)
    answers = (
        model.predict(some, column, seen, seed, note).column("value").to_pylist()
        if cells is None
        else list(cells[: len(rows)])
    )
    with progress("Explaining", len(answers)) as done:
        whys = model.explain(some, column, answers, seen, known, seed, generator, note, done, inside)
    for row, why in zip(rows.tolist(), whys, strict=True):
        if why is not None and why.copied and known is not None:
            note(f"row {row}: nearly a copy of row {why.nearest[0][0]} of '{known.name}'.")
    overall = importance(whys)
    if out.suffix == ".json":
        entries = [
            None if why is None else {"row": row, "said": plain_cell(cell), **why.to_json()}
            for row, cell, why in zip(rows.tolist(), answers, whys, strict=True)
        ]
        write_json(out, entries if cells is not None else {"column": column, "importance": overall, "rows": entries})
    else:
        entries = explained_cells(
            model, column, (table, rows), None if known is None else (known, np.arange(known.rows)), answers, whys
        )
        with write_whole(out) as part:
            part.write_text(
                write_page(column, entries, overall, model.network.modalities[column].is_spatial), encoding="utf-8"
            )
    for name, (mean, low, high) in overall.items():
        note(
            f"  {name}: {mean:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else "")
        )
    typer.echo(f"Wrote {out}")


def explain_rows(
    model: Model,
    source: str,
    column: str,
    out: Path,
    numbers: Sequence[int],
    count: int,
    seen: Sequence[str] | None,
    among: str | None,
    seed: int,
    inside: str = "occlusion",
) -> None:
    """Write explanations of the model's answers for some rows of a table.

    Raises:
        UserError: a row that isn't there, or a column whose cells are drawn.
    """
    from sensorium.data.order import evenly_spaced

    model.check_asked(column, seen)
    table = model.open(source)
    if column in model.network.generative_columns:
        raise UserError(
            f"The cells of '{column}' are drawn. To see why one is as it is: generate --column {column} --explain {out}"
        )
    if not table.rows or any(not 0 <= number < table.rows for number in numbers):
        raise UserError(
            f"'{table.name}' has {table.rows} rows, numbered from 0; asked: "
            f"{', '.join(map(str, numbers)) or 'some of them'}."
        )
    if count < 1:
        raise UserError(f"--rows {count}: give at least 1.")
    write_why(
        model,
        source,
        column,
        None,
        out,
        seen,
        among,
        seed,
        rows=np.array(numbers, np.int64) if numbers else evenly_spaced(np.arange(table.rows), count),
        inside=inside,
    )


def plain_cell(cell: Any) -> Any:
    """Answer as JSON has it; None for a file."""
    return None if isinstance(cell, bytes) else cell
