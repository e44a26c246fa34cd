"""Generated cells written to disk: a file for each picture or sound in a folder with its metadata, or one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress

from sensorium.cli.explanation import MAX_EXPLAINED
from sensorium.cli.files import check_cells, check_ending, check_folder, write_table, write_whole
from sensorium.cli.output import note, progress
from sensorium.core.errors import UserError
from sensorium.core.settings import schema
from sensorium.inference.trained import BAD_ROW

if TYPE_CHECKING:
    from sensorium.model import Model


def write_samples(
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
    """Sample a column of every row of a table and write it.

    When interrupted, what is finished is kept; where nothing is, what was there stays.
    Returns the cells of the first rows, as many as are explained.

    Raises:
        UserError: what was asked can't be done.
    """
    ending = model.network.modalities[column].ending
    if samples < 1:
        raise UserError(f"--samples {samples}: give at least 1.")
    folder = bool(ending) and (not out.suffix or out.is_dir())
    if ending and not folder and out.suffix != ".parquet":
        raise UserError(
            f"--out {out}: {ending} files can't stand in {out.suffix}. Give a folder (one with a dot in its "
            "name must be there), or the name of a .parquet file."
        )
    if not folder:
        check_ending(out)
        if out.suffix == ".csv":
            raise UserError(f"--out {out}: a series can't stand in a cell of .csv. Give a .parquet or a .jsonl file.")
    table, records, failed, explained = model.open(source), [], 0, []
    samples_by_row = model.iter_generate(table, column, seen, seed, samples, note, generator, **options)
    check_folder(out / "metadata.jsonl" if folder else out, "--out")
    mend = (
        "more --steps or less --guidance"
        if "steps" in schema(model.network.generator(column, generator).sample)
        else "a lower --temperature"
    )

    def keep() -> None:
        if folder:
            with write_whole(out / "metadata.jsonl") as part:
                part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        else:
            write_table(as_table(records, bool(ending)), out)

    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            for row, cells in enumerate(bar.track(samples_by_row, total=table.rows, description=f"Drawing {column}")):
                if len(explained) < MAX_EXPLAINED:
                    explained.append(cells)
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
                        with write_whole(out / name) as part:
                            part.write_bytes(cell)
                        records.append({"file_name": name, "row": row, "sample": number})
                    else:
                        records.append({"row": row, "sample": number, "value": cell})
    except BaseException as error:
        if records:
            keep()
            note(f"What was finished is saved: {len(records):,} in {out}.")
        elif isinstance(error, KeyboardInterrupt):
            note(f"Nothing was finished yet, and nothing is written to {out}.")
        raise
    if failed and not records:
        raise UserError(
            f"All {failed:,} failed, and nothing is written to {out}: their numbers aren't finite. Try {mend}."
        )
    keep()
    typer.echo(f"Wrote {len(records):,} to {out}" + (f"; {failed:,} failed" if failed else ""))
    return explained


def finished(rows: Iterable[Any], total: int, words: str) -> tuple[list[Any], bool]:
    """Rows collected with a progress bar, and whether they were interrupted; then those that were finished by then."""
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
    """Forecast the series of every row of a table and write what follows.

    Raises:
        UserError: what was asked can't be done.
    """
    check_ending(out)
    check_cells(out, model, [column])
    table = model.open(source)
    going = model.iter_forecast(table, column, horizon, seen, seed, samples, note, **options)
    check_folder(out, "--out")
    forecasts, stopped = finished(going, table.rows, f"Continuing {column}")
    records = [
        {"row": row, "sample": number, "value": cell}
        for row, cells in enumerate(forecasts)
        for number, cell in enumerate(cells)
        if cell is not None
    ]
    failed = sum(cell is None for cells in forecasts for cell in cells)
    if failed and not records:
        raise UserError(
            f"All {failed:,} failed, and nothing is written to {out}: their numbers aren't finite. Try more "
            "--steps or less --guidance."
        )
    write_table(as_table(records, files=False), out)
    lacking = sum(not cells for cells in forecasts)
    typer.echo(
        f"Wrote {len(records):,} to {out}"
        + (f"; {lacking:,} rows have no '{column}' to go on from" if lacking else "")
        + (f"; {failed:,} failed" if failed else "")
    )
    if stopped:
        raise KeyboardInterrupt


def as_table(records: Sequence[dict[str, Any]], files: bool) -> pa.Table:
    """Table of samples with the columns ``row``, ``sample`` and ``value``, also where there are none."""
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
    """Generate several columns of every row of a table and write them.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.inference.trained import bad_row_column

    check_ending(out)
    table = model.open(source)
    going = model.iter_generate_together(table, columns, seen, seed, jointly, note)
    check_cells(out, model, columns)
    check_folder(out, "--out")
    rows, stopped = finished(going, table.rows, "Saying " + ", ".join(columns))
    bad = {row: str(why) for row, why in table.bad_rows.items()}
    write_table(
        pa.table({**{column: [row[column] for row in rows] for column in columns}, **bad_row_column(bad, len(rows))}),
        out,
    )
    typer.echo(f"Wrote {len(rows):,} rows to {out}")
    if stopped:
        raise KeyboardInterrupt
