"""What ``generate`` draws and ``fill`` fills: a file for each picture or sound in a folder with its metadata, or all in one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console
from rich.progress import Progress

from sensorium.cli.files import as_json, asked_for, check_ending, check_folder, write_json, write_table
from sensorium.cli.show import note, progress
from sensorium.core.errors import UserError
from sensorium.core.settings import schema
from sensorium.inference.fill import BAD_ROW

if TYPE_CHECKING:
    from sensorium.data.table import Table
    from sensorium.model import Model

EXPLAINED = 24
"""Rows of a table that are explained, as each is asked many times."""


def write_drawn(
    model: Model,
    source: str,
    column: str,
    out: Path,
    seen: Sequence[str] | None,
    seed: int,
    samples: int,
    options: dict[str, Any],
    generator: str | None = None,
) -> list[list[Any]]:
    """Draw a column of every row of a table and write it. When interrupted, what is finished is kept; where nothing is, what was there stays.
    Gives back the cells of the first rows, as many as are explained.

    Raises:
        UserError: what was asked can't be done.
    """
    ending = model.network.modalities[column].ending
    if samples < 1:
        raise UserError(f"--samples {samples}: give at least 1.")
    folder = bool(ending) and (not out.suffix or out.is_dir())
    if ending and not folder and out.suffix != ".parquet":
        raise UserError(
            f"--out {out}: {ending} files can't stand in {out.suffix}. Give a folder (one with a dot in its name must be there), or the name of a .parquet file."
        )
    if not folder:
        check_ending(out)
        if out.suffix == ".csv":
            raise UserError(f"--out {out}: a series can't stand in a cell of .csv. Give a .parquet or a .jsonl file.")
    table, records, failed, kept = model.open(source), [], 0, []
    drawn = model.draw(table, column, seen, seed, samples, note, generator, **options)
    check_folder(out / "metadata.jsonl" if folder else out, "--out")
    mend = (
        "more --steps or less --guidance"
        if "steps" in schema(model.network.generator(column, generator).sample)
        else "a lower --temperature"
    )

    def keep() -> None:
        if folder:
            with asked_for(out / "metadata.jsonl") as part:
                part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        else:
            write_table(as_table(records, bool(ending)), out)

    try:
        with Progress(console=Console(stderr=True), transient=True) as shown:
            for row, cells in enumerate(shown.track(drawn, total=table.rows, description=f"Drawing {column}")):
                if len(kept) < EXPLAINED:
                    kept.append(cells)
                for number, cell in enumerate(cells):
                    if cell is None and row in table.bad_rows:
                        if not folder:
                            records.append(
                                {"row": row, "sample": number, "value": None, BAD_ROW: str(table.bad_rows[row])}
                            )
                    elif cell is None:
                        failed += 1
                        note(f"row {row}, sample {number}: its numbers aren't finite. Try {mend}.")
                    elif folder:
                        name = f"{row:06}-{number}{ending}"
                        with asked_for(out / name) as part:
                            part.write_bytes(cell)
                        records.append({"file_name": name, "row": row, "sample": number})
                    else:
                        records.append({"row": row, "sample": number, "value": cell})
    except BaseException as error:
        if records:
            keep()
            note(f"What was finished is kept: {len(records):,} in {out}.")
        elif isinstance(error, KeyboardInterrupt):
            note(f"Nothing was finished yet, and nothing is written to {out}.")
        raise
    if failed and not records:
        raise UserError(
            f"All {failed:,} failed, and nothing is written to {out}: their numbers aren't finite. Try {mend}."
        )
    keep()
    typer.echo(f"Wrote {len(records):,} to {out}" + (f"; {failed:,} failed" if failed else ""))
    return kept


def finished(rows: Iterable[Any], total: int, words: str) -> tuple[list[Any], bool]:
    """What rows come to, with a bar; and whether they were interrupted, when what was finished by then is given."""
    result: list[Any] = []
    with progress(words, total) as done:
        try:
            for row in rows:
                result.append(row)
                done(1)
        except KeyboardInterrupt:
            if not result:
                raise
            return result, True
    return result, False


def write_why(
    model: Model,
    source: str,
    column: str,
    cells: Sequence[Any] | None,
    out: Path,
    seen: Sequence[str] | None,
    among: str | None,
    seed: int,
    generator: str | None = None,
    rows: np.ndarray | None = None,
    inside: str = "occlusion",
) -> None:
    """Explain said cells as a page or as JSON.

    Args:
        cells: one for each of ``rows``; None: what is said of them now. rows: their numbers; by default the table's first ones. inside: how it is looked inside
            the seen cells.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.evaluation.report_data import explained
    from sensorium.explain.columns import importance
    from sensorium.report.why import write_page

    check_folder(out, "--explain")
    table, known = model.open(source), None if among is None else model.open(among)
    if rows is None:
        rows = np.arange(min(table.rows if cells is None else len(cells), EXPLAINED))
        if len(rows) < table.rows:
            note(f"Explained are the first {len(rows)} rows.")
    some = table.select(rows)
    said = (
        model.predict(some, column, seen, seed, note).column("value").to_pylist()
        if cells is None
        else list(cells[: len(rows)])
    )
    with progress("Explaining", len(said)) as done:
        whys = model.explain(some, column, said, seen, known, seed, generator, note, done, inside)
    for row, why in zip(rows.tolist(), whys, strict=True):
        if why is not None and why.copied:
            note(f"row {row}: nearly a copy of row {why.nearest[0][0]} of '{known.name}'.")
    overall = importance(whys)
    if out.suffix == ".json":
        entries = [
            None if why is None else {"row": row, "said": plain_cell(cell), **why.to_json()}
            for row, cell, why in zip(rows.tolist(), said, whys, strict=True)
        ]
        write_json(out, entries if cells is not None else {"column": column, "importance": overall, "rows": entries})
    else:
        entries = explained(
            model, column, (table, rows), None if known is None else (known, np.arange(known.rows)), said, whys
        )
        with asked_for(out) as part:
            part.write_text(write_page(column, model.schema.columns[column].kind, entries, overall), encoding="utf-8")
    for name, (mean, low, high) in overall.items():
        note(
            f"  {name}: {mean:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else "")
        )
    typer.echo(f"Wrote {out}")


def explain_rows(
    model: Model,
    source: str,
    column: str,
    out: Path,
    numbers: Sequence[int],
    count: int,
    seen: Sequence[str] | None,
    among: str | None,
    seed: int,
    inside: str = "occlusion",
) -> None:
    """Explain what the model says of some rows of a table.

    Raises:
        UserError: a row that isn't there, or a column whose cells are drawn.
    """
    from sensorium.data.order import spread

    model.check_asked(column, seen)
    table = model.open(source)
    if column in model.network.generative_columns:
        raise UserError(
            f"The cells of '{column}' are drawn. To see why one is as it is: generate --column {column} --explain {out}"
        )
    if not table.rows or any(not 0 <= number < table.rows for number in numbers):
        raise UserError(
            f"'{table.name}' has {table.rows} rows, numbered from 0; asked: {', '.join(map(str, numbers)) or 'some of them'}."
        )
    if count < 1:
        raise UserError(f"--rows {count}: give at least 1.")
    write_why(
        model,
        source,
        column,
        None,
        out,
        seen,
        among,
        seed,
        rows=np.array(numbers, np.int64) if numbers else spread(np.arange(table.rows), count),
        inside=inside,
    )


def plain_cell(cell: Any) -> Any:
    """A said cell as JSON has it; nothing of files."""
    return None if isinstance(cell, bytes) else cell


def write_forecast(
    model: Model,
    source: str,
    column: str,
    horizon: int,
    out: Path,
    seen: Sequence[str] | None,
    seed: int,
    samples: int,
    options: dict[str, Any],
) -> None:
    """Continue the series of every row of a table and write what follows.

    Raises:
        UserError: what was asked can't be done.
    """
    check_ending(out)
    check_cells(out, model, [column])
    table = model.open(source)
    going = model.continued(table, column, horizon, seen, seed, samples, note, **options)
    check_folder(out, "--out")
    told, stopped = finished(going, table.rows, f"Continuing {column}")
    records = [
        {"row": row, "sample": number, "value": cell}
        for row, cells in enumerate(told)
        for number, cell in enumerate(cells)
        if cell is not None
    ]
    failed = sum(cell is None for cells in told for cell in cells)
    if failed and not records:
        raise UserError(
            f"All {failed:,} failed, and nothing is written to {out}: their numbers aren't finite. Try more --steps or less --guidance."
        )
    write_table(as_table(records, files=False), out)
    lacking = sum(not cells for cells in told)
    typer.echo(
        f"Wrote {len(records):,} to {out}"
        + (f"; {lacking:,} rows have no '{column}' to go on from" if lacking else "")
        + (f"; {failed:,} failed" if failed else "")
    )
    if stopped:
        raise KeyboardInterrupt


def as_table(records: Sequence[dict[str, Any]], files: bool) -> pa.Table:
    """What was drawn as ``row``, ``sample`` and ``value``, also where that is nothing."""
    if records:
        return pa.Table.from_pylist(list(records))
    return pa.table(
        {
            "row": pa.array([], pa.int64()),
            "sample": pa.array([], pa.int64()),
            "value": pa.array([], pa.binary() if files else pa.list_(pa.float64())),
        }
    )


def write_together(
    model: Model, source: str, columns: Sequence[str], out: Path, seen: Sequence[str] | None, jointly: bool, seed: int
) -> None:
    """Say several columns of every row of a table and write them.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.model import reasons

    check_ending(out)
    table = model.open(source)
    going = model.together(table, columns, seen, seed, jointly, note)
    check_cells(out, model, columns)
    check_folder(out, "--out")
    rows, stopped = finished(going, table.rows, "Saying " + ", ".join(columns))
    bad = {row: str(why) for row, why in table.bad_rows.items()}
    write_table(
        pa.table({**{column: [row[column] for row in rows] for column in columns}, **reasons(bad, len(rows))}), out
    )
    typer.echo(f"Wrote {len(rows):,} rows to {out}")
    if stopped:
        raise KeyboardInterrupt


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
            if (c in table.columns and gaps(table, c) if columns is None else c in columns)
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
        f"Wrote {filled.num_rows:,} rows to {out}; filled: {', '.join(f'{c} {n:,}' for c, n in counts.items()) or 'nothing, as nothing is empty'}"
    )
    if stopped:
        raise KeyboardInterrupt


def gaps(table: Table, column: str) -> bool:
    """Whether a column of a table has an empty cell."""
    cells = table.take(np.arange(table.rows), [column]).column(column)
    return cells.null_count > 0 or (
        pa.types.is_string(cells.type) and bool(pc.any(pc.equal(pc.utf8_trim_whitespace(cells), "")).as_py())
    )


def check_cells(out: Path, model: Model, columns: Sequence[str]) -> None:
    """Refuse a text file for cells that are files, and a .csv for series."""
    for column in columns:
        modality = model.network.modalities[column]
        if modality.media and out.suffix != ".parquet":
            raise UserError(
                f"--out {out}: the cells of '{column}' are files, which can't stand in {out.suffix}. Give a .parquet file."
            )
        if out.suffix == ".csv" and model.schema.columns[column].kind in ("series", "points"):
            raise UserError(
                f"--out {out}: lists of numbers ('{column}') can't stand in a cell of .csv. Give a .parquet or a .jsonl file."
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
                f"--out {out}: the cells of '{field.name}' are files, which can't stand in {out.suffix}. Give a .parquet file."
            )
        if out.suffix == ".csv" and pa.types.is_nested(kind):
            raise UserError(
                f"--out {out}: lists ('{field.name}') can't stand in a cell of .csv. Give a .parquet or a .jsonl file."
            )
