"""The command ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.options import Run, Seen, Source, names
from sensorium.core.errors import UserError

GROUP = "Ask"
RANK = 220


def predict(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column to predict.")],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    seen: Seen = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Share of the truth that intervals (0.9 by default) and sets of classes should hold."),
    ] = None,
) -> None:
    """Predict a column of every row; works with any columns missing."""
    from sensorium.cli.files import as_json, check_ending, write_table
    from sensorium.cli.output import note
    from sensorium.model import Model

    check_ending(out)
    model = Model.load(run)
    model.check([column, *(names(seen) or ())])
    if coverage is not None and not 0 < coverage < 1:
        raise UserError(f"--coverage {coverage}: a share between 0 and 1 is needed, for instance 0.9.")
    options: dict[str, Any] = {} if coverage is None else {"coverage": coverage}
    answers = model.predict(table, column, names(seen), note=note, **options)
    if out.suffix == ".csv" and "set" in answers.column_names:
        answers = as_json(answers, "set")
    write_table(answers, out)
    typer.echo(f"Wrote {out}")
