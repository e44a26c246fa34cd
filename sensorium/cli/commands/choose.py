"""The command ``choose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source, names

GROUP = "Ask"
RANK = 230


def choose(
    run: Run,
    table: Source,
    question: Annotated[str, typer.Option(help="Asked about each row, as: What is this?")],
    among: Annotated[
        str, typer.Option(help="Answers to choose among, joined by commas; none of them need ever have been learned.")
    ],
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file.")],
    of: Annotated[
        str | None,
        typer.Option(
            help="Columns that are shown, joined by commas. Default: those that its conversations were about."
        ),
    ] = None,
) -> None:
    """The likeliest of some answers to a question about each row, by a model that talks."""
    from sensorium.cli.files import check_ending, write_table
    from sensorium.cli.output import note
    from sensorium.model import Model

    check_ending(out)
    write_table(
        Model.load(run).choose(
            table, question, [option.strip() for option in among.split(",") if option.strip()], names(of), note
        ),
        out,
    )
    typer.echo(f"Wrote {out}")
