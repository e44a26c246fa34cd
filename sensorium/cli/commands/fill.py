"""The command ``fill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source, names

GROUP = "Ask"
RANK = 270


def fill(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    columns: Annotated[
        str | None,
        typer.Option(help="Columns to fill, joined by commas; added where lacking. Default: all that can be."),
    ] = None,
    jointly: Annotated[
        bool, typer.Option("--jointly", help="What was filled is seen where the row's next column is filled.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Fill the empty cells of a table from the present ones, and say which were filled and how sure."""
    from sensorium.cli.filling import write_filled
    from sensorium.model import Model

    write_filled(Model.load(run), table, out, names(columns), jointly, seed)
