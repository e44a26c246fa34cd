"""The command ``query``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Source

GROUP = "Search"
RANK = 430


def query(
    table: Source,
    question: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION", help="As \"Which group has the oldest ones?\", or one SELECT over the table 'rows'."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for the answer.")] = None,
) -> None:
    """The answer to a question about many rows, in words or as SQL, with the query that was asked."""
    from sensorium.cli.search import answer_query

    answer_query(table, question, out)
