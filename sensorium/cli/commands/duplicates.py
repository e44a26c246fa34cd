"""The command ``duplicates``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

GROUP = "Search"
RANK = 450


def duplicates(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder that index wrote.")],
    among: Annotated[str | None, typer.Option(help="The column that is compared. Default: all that a row has.")] = None,
    above: Annotated[float, typer.Option(help="The cosine from which on two rows are nearly alike.")] = 0.98,
    out: Annotated[Path | None, typer.Option(help="A .parquet, .csv or .jsonl file for all of them.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run that the index was made with, where that was moved.")
    ] = None,
) -> None:
    """Rows of an index that are nearly alike, in groups."""
    from sensorium.cli.search import write_duplicates

    write_duplicates(index, among, above, out, run)
