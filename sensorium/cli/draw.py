"""What ``generate`` draws: a file for each picture or sound in a folder with its metadata, or all in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress

from sensorium.cli.files import check_ending, check_folder, write_table
from sensorium.cli.show import note
from sensorium.core.errors import UserError
from sensorium.core.files import whole

if TYPE_CHECKING:
    from sensorium.model import Model


def write_drawn(model: Model, source: str, column: str, out: Path, seen: Sequence[str] | None, seed: int, samples: int,
                options: dict[str, Any], generator: str | None = None) -> None:
    """Draw a column of every row of a table and write it; what is finished is kept when interrupted.

    Raises:
        UserError: what was asked can't be done.
    """
    from sensorium.model import open_table

    ending = model.network.modalities[column].ending
    if samples < 1:
        raise UserError(f"--samples {samples}: give at least 1.")
    folder = bool(ending) and not out.suffix
    if folder:
        check_folder(out / "metadata.jsonl", "--out")
    elif ending and out.suffix != ".parquet":
        raise UserError(f"--out {out}: {ending} files can't stand in {out.suffix}. Give a folder, or the name of a .parquet file.")
    else:
        check_ending(out)
        if out.suffix == ".csv":
            raise UserError(f"--out {out}: a series can't stand in a cell of .csv. Give a .parquet or a .jsonl file.")
    table, records, failed = open_table(source), [], 0
    drawn = model.draw(table, column, seen, seed, samples, note, generator, **options)
    try:
        with Progress(console=Console(stderr=True), transient=True) as shown:
            for row, cells in enumerate(shown.track(drawn, total=table.rows, description=f"Drawing {column}")):
                for number, cell in enumerate(cells):
                    if cell is None:
                        failed += 1
                        note(f"row {row}, sample {number}: its numbers aren't finite. Try more --steps or less --guidance.")
                    elif folder:
                        name = f"{row:06}-{number}{ending}"
                        with whole(out / name) as part:
                            part.write_bytes(cell)
                        records.append({"file_name": name, "row": row, "sample": number})
                    else:
                        records.append({"row": row, "sample": number, "value": cell})
    except KeyboardInterrupt:
        note("Interrupted; what was finished is kept.")
    except OSError as error:
        raise UserError(f"Can't write to '{out}': {error.strerror or error}") from error
    finally:
        if folder:
            with whole(out / "metadata.jsonl") as part:
                part.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        elif records:
            write_table(pa.Table.from_pylist(records), out)
    typer.echo(f"Wrote {len(records):,} to {out}" + (f"; {failed:,} failed" if failed else ""))
