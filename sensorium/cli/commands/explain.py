"""The command ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Inside, Run, Seen, Source, names

GROUP = "Ask"
RANK = 250


def explain(
    run: Run,
    table: Source,
    column: Annotated[str, typer.Option(help="The column whose answers are explained.")],
    out: Annotated[Path, typer.Option(help="A .html or .json file.")],
    row: Annotated[list[int] | None, typer.Option(help="The number of a row; may be given several times.")] = None,
    rows: Annotated[int, typer.Option(help="Or how many rows, evenly spread over the table.")] = 24,
    seen: Seen = None,
    among: Annotated[
        str | None,
        typer.Option(
            help="The table the run was trained on: the nearest rows of the same class and of others, and what "
            "would turn the answer."
        ),
    ] = None,
    inside: Inside = "occlusion",
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Why the model says what it says of a column: each seen column's exact share, what in it counted, and over many
    rows what matters.
    """
    from sensorium.cli.explanation import explain_rows
    from sensorium.cli.files import check_ending
    from sensorium.model import Model

    check_ending(out, ".html", ".json", only=True)
    explain_rows(Model.load(run), table, column, out, row or [], rows, names(seen), among, seed, inside)
