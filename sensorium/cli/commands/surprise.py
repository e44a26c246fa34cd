"""The command ``surprise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sensorium.cli.options import Run, Source

GROUP = "Ask"
RANK = 260


def surprise(
    run: Run,
    table: Source,
    out: Annotated[Path, typer.Option(help="A .parquet, .csv or .jsonl file: a line a row.")],
    k: Annotated[int, typer.Option("-k", help="How many of the most surprising rows are printed.")] = 10,
) -> None:
    """Find rows whose cells don't go together: wrong labels, swapped files and odd rows."""
    import pyarrow as pa

    from sensorium.cli.files import check_ending, check_folder, write_table
    from sensorium.cli.output import note, print_rows
    from sensorium.data.cells import qualified_names
    from sensorium.model import Model

    check_ending(out)
    check_folder(out, "--out")
    model = Model.load(run)
    opened = model.open(table)
    found = model.surprise(opened, note)
    write_table(found, out)
    first = [
        row
        for row in found.column("surprise").to_numpy().argsort()[::-1].tolist()
        if found.column("column")[row].as_py() is not None
    ][: max(0, k)]
    printed = found.take(first).select(["surprise", "column"]).add_column(0, "row", pa.array(first, pa.int64()))
    for name, cells in qualified_names(printed.column_names, opened.take(first)).items():
        printed = printed.append_column(name, cells)
    print_rows(printed)
    typer.echo(f"Wrote {out}")
