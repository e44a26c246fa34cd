"""Build a table from packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.lazy import CommandEntry, LazyGroup

GROUP = "Tables"
RANK = 20


class TableGroup(LazyGroup):
    """One command for each builder of ``sensorium/datasets``: its options are the builder's settings."""

    def entries(self) -> Mapping[str, CommandEntry]:
        """The builders by name."""
        from sensorium.core.registry import names
        from sensorium.datasets import Builder

        return {
            name: CommandEntry(name, lambda name=name: table_command(name), f"Build the table '{name}'.", "Commands")
            for name in names(Builder)
        }


table = typer.Typer(
    cls=TableGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build a table from packages.",
)


@table.callback()
def options() -> None:
    """A group, though it has no options of its own."""


def table_command(name: str) -> Any:
    """The command that builds one table."""

    def command(
        out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
        settings: Annotated[
            list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The builder's settings, as rows=200.")
        ] = None,
    ) -> None:
        from sensorium.cli.tables import build_table

        build_table(name, out, settings or [])

    command.__doc__ = f"Build the table '{name}'."
    return command
