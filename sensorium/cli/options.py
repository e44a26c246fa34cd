"""The command itself, and the options that several of its verbs take. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="sensorium",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One multimodal model for a table: any column finds, predicts or generates any other.",
)
build = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build a table from packages.")
app.add_typer(build, name="table")

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
        help="How it is looked inside seen cells: occlusion (again without each part), gradients (integrated) or attention (rolled out)."
    ),
]
MaxBad = Annotated[str | None, typer.Option("--max-bad", help="How many rows may hold a bad cell: 10% or a number.")]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from sensorium import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def names(joined: str | None) -> list[str] | None:
    """``a,b`` as a list; None stays."""
    return None if joined is None else [name.strip() for name in joined.split(",") if name.strip()]
