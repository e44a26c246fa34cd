"""The command ``columns``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Source

GROUP = "Tables"
RANK = 10


def columns(
    table: Source,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION.KEY=VALUE", help="Settings, as data.encoding=cp1252 or column.born.format=%d/%m/%Y."
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Read every cell and count those that can't be.")] = True,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write all that was found as JSON, to this file or to - (stdout).")
    ] = None,
) -> None:
    """Kind of each column of a table, and why; notes on how it was read; bad rows and cells counted."""
    from sensorium.cli.columns import print_columns

    print_columns(table, settings or [], check, json)
