"""Command line options that several commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sensorium.core.errors import UserError

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that fit or save wrote.")]
Source = Annotated[
    str, typer.Argument(metavar="TABLE", help="Parquet, CSV, TSV, JSON lines, Arrow, tar shards, a folder, or a glob.")
]
Seen = Annotated[
    str | None, typer.Option("--seen", help="Columns that may be seen, joined by commas. Default: all others.")
]
Inside = Annotated[
    str,
    typer.Option(
        help="How it is looked inside seen cells: occlusion (again without each part), gradients (integrated) or "
        "attention (rolled out)."
    ),
]
EntityKey = Annotated[
    str | None, typer.Option("--entity-key", help="Key column: rows that share its value are one thing when searching.")
]
Same = Annotated[str | None, typer.Option("--same", hidden=True, help="The old name of --entity-key.")]
MaxBad = Annotated[str | None, typer.Option("--max-bad", help="How many rows may hold a bad cell: 10% or a number.")]


def names(joined: str | None) -> list[str] | None:
    """Column names of a comma-separated option; None stays."""
    return None if joined is None else [name.strip() for name in joined.split(",") if name.strip()]


def renamed(option: str, value: str | None, old_option: str, old_value: str | None) -> str | None:
    """Value of a renamed option; the old name still counts, with a warning on stderr.

    Raises:
        UserError: both are given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise UserError(f"{old_option} is the old name of {option}. Give only {option}.")
    print(f"{old_option} is called {option} now, and will be gone in the next release.", file=sys.stderr)
    return old_value
