"""Imputation of a table's empty cells: the command ``fill``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from sensorium.cli.files import as_json, check_ending, check_folder, write_table
from sensorium.cli.output import note, progress
from sensorium.core.errors import UserError

if TYPE_CHECKING:
    from sensorium.data.table import Table
    from sensorium.model import Model
from sensorium.cli.files import check_cells


def write_filled(model: Model, source: str, out: Path, columns: Sequence[str] | None, jointly: bool, seed: int) -> None:
    """Fill a table's empty cells and write it.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.inference.fill import FillInterrupted

    check_ending(out)
    table, stopped = model.open(source), None
    for column in columns or ():
        model.check_asked(column, None)
    check_cells(
        out,
        model,
        [
            c
            for c in model.network.asked_columns
            if (c in table.columns and has_gaps(table, c) if columns is None else c in columns)
        ],
    )
    check_types(out, table.schema)
    check_folder(out, "--out")
    try:
        with progress("Filling", table.rows) as done:
            filled = model.fill(table, columns, jointly, seed, note, done)
    except FillInterrupted as stop:
        filled, stopped = stop.table, stop
        note(f"Rows from {stop.rows} on are as they were.")
    cells = filled.column("filled").to_pylist() if filled.num_columns and "filled" in filled.column_names else []
    if out.suffix == ".csv":
        filled = as_json(filled, "filled")
    write_table(filled, out)
    counts: dict[str, int] = {}
    for entry in (entry for cell in cells for entry in cell):
        counts[entry["column"]] = counts.get(entry["column"], 0) + 1
    typer.echo(
        f"Wrote {filled.num_rows:,} rows to {out}; filled: "
        f"{', '.join(f'{c} {n:,}' for c, n in counts.items()) or 'nothing, as nothing is empty'}"
    )
    if stopped:
        raise KeyboardInterrupt


def has_gaps(table: Table, column: str) -> bool:
    """True if a column of a table has an empty cell."""
    cells = table.take(np.arange(table.rows), [column]).column(column)
    return cells.null_count > 0 or (
        pa.types.is_string(cells.type) and bool(pc.any(pc.equal(pc.utf8_trim_whitespace(cells), "")).as_py())
    )


def check_types(out: Path, schema: pa.Schema) -> None:
    """Refuse a text file for a table whose other cells can't stand in it."""
    for field in schema if out.suffix != ".parquet" else ():
        kind = field.type
        if (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or (pa.types.is_struct(kind) and "bytes" in {kind.field(i).name for i in range(kind.num_fields)})
        ):
            raise UserError(
                f"--out {out}: the cells of '{field.name}' are files, which can't stand in {out.suffix}. "
                "Give a .parquet file."
            )
        if out.suffix == ".csv" and pa.types.is_nested(kind):
            raise UserError(
                f"--out {out}: lists ('{field.name}') can't stand in a cell of .csv. Give a .parquet or a .jsonl file."
            )
