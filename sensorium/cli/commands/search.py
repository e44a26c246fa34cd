"""The command ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.core.errors import UserError

GROUP = "Search"
RANK = 420


def search(
    run: Annotated[
        Path, typer.Argument(metavar="RUN|INDEX", help="A folder that fit or save wrote, or one that index wrote.")
    ],
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="With RUN: the table to search.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help='What to look for: name="a crying cat", photo=@cat.png; may be given several times.'),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--not", help="What not to look for, written in the same way.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Only rows that meet a condition: 'year > 2015 and group = \"food\"'.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="How much a column of the query counts, as photo=2; may be given several times."),
    ] = None,
    among: Annotated[str | None, typer.Option(help="The column to search. Default: all that a row has.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many rows.")] = 10,
    model: Annotated[
        Path | None, typer.Option("--run", help="With INDEX: the run it was made with, if that was moved.")
    ] = None,
) -> None:
    """The rows of a table or an index nearest to a query of any columns."""
    from sensorium.cli.search import search_index, search_table

    if (run / "index.json").is_file():
        if table is not None:
            raise UserError(f"'{run}' is an index, which is searched without a table. Leave '{table}' out.")
        search_index(run, model, by or [], without or [], where, weight or [], among, k)
        return
    if table is None:
        raise UserError(
            f"'{run}' is no index: give the table to search, or make an index with: sensorium index {run} "
            "TABLE --out INDEX"
        )
    if without or where or weight or model:
        raise UserError(
            "--not, --where, --weight and --run are for an index. Make one with: sensorium index RUN TABLE --out INDEX"
        )
    search_table(run, table, by or [], among, k)
