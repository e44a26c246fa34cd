"""The command ``index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source, names
from sensorium.core.errors import UserError

GROUP = "Search"
RANK = 440


def index(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="The index's folder.")],
    columns: Annotated[
        str | None, typer.Option(help="Columns that are encoded, joined by commas. Default: all.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="A column whose cells differ, by which rows are replaced and removed.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Dimensions kept of each vector, its leading principal components. Default: all.")
    ] = None,
    finder: Annotated[
        str | None,
        typer.Option(
            help="Finder of candidate rows, for millions of rows: hnsw or lance. Default: all rows are compared."
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            "--map",
            help="How rows lie on the page's map: pca (the two directions in which they differ most) or umap "
            "(near their nearest).",
        ),
    ] = "pca",
    add: Annotated[
        bool,
        typer.Option("--add", help="Add the rows to the index that is there, in place of those with the same key."),
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the rows with these keys from the index that is there.")
    ] = False,
) -> None:
    """Write an index of a table, that search looks through without the table."""
    from sensorium.cli.search import change_index, write_index

    if add and remove:
        raise UserError("--add and --remove can't be given together. Remove first, then add.")
    if not (add or remove):
        write_index(run, table, out, names(columns), key, size, finder, plan)
        return
    if columns or key or size or finder or plan != "pca":
        raise UserError(
            "--columns, --key, --size, --finder and --map were chosen when the index was made. Leave them out."
        )
    change_index(run, table, out, remove)
