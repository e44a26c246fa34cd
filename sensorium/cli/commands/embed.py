"""The command ``embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source, names

GROUP = "Search"
RANK = 410


def embed(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .npy, .parquet, .csv or .jsonl file.")],
    columns: Annotated[str | None, typer.Option(help="Columns to embed, joined by commas. Default: all.")] = None,
) -> None:
    """One unit vector a row, from whichever columns are given."""
    from sensorium.cli.files import check_ending, write_vectors
    from sensorium.cli.output import note
    from sensorium.model import Model

    check_ending(out, ".npy")
    model = Model.load(run)
    chosen = names(columns)
    model.check(chosen or ())
    write_vectors(model.embed(table, chosen, note), out)
    typer.echo(f"Wrote {out}")
