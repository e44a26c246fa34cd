"""Output files of commands, and the queries that they read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, json_text
from sensorium.data.cells import row_dicts

if TYPE_CHECKING:
    from sensorium.model import Model

ENDINGS = (".parquet", ".csv", ".jsonl")


def check_ending(path: Path, *more: str, only: bool = False, option: str = "--out") -> None:
    """Refuse a file ending that can't be written, before any long work; ``only``: those of tables can't."""
    possible = more if only else (*ENDINGS, *more)
    if path.suffix not in possible:
        raise UserError(f"{option} {path} ends in '{path.suffix}'. Possible: {', '.join(possible)}.")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder. Give the name of a file.")


def check_folder(path: Path, option: str) -> None:
    """Make the folder of a file that is to be written, before any long work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{option} {path}: the folder '{path.parent}' can't be made: {error.strerror or error}."
        ) from error
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder. Give the name of a file.")


@contextlib.contextmanager
def write_whole(path: Path) -> Generator[Path]:
    """Atomic write of a file that the user named: ``core.files.atomic_write`` with an error for the user.

    Raises:
        UserError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            yield part
    except OSError as error:
        raise UserError(f"Can't write '{path}': {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with write_whole(path) as part:
        part.write_text(json_text(value), encoding="utf-8")


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet, CSV or JSON lines by the ending; whole or not at all."""
    import pyarrow.csv
    import pyarrow.parquet

    with write_whole(path) as part:
        match path.suffix:
            case ".parquet":
                pyarrow.parquet.write_table(table, part)
            case ".csv":
                pyarrow.csv.write_csv(table, part)
            case _:
                with part.open("w", encoding="utf-8") as file:
                    for row in row_dicts(table):
                        file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def as_json(table: pa.Table, column: str) -> pa.Table:
    """Table whose lists in one column are JSON texts, so that they can stand in a CSV file."""
    cells = [json.dumps(cell, ensure_ascii=False) for cell in table.column(column).to_pylist()]
    return table.set_column(table.column_names.index(column), column, pa.array(cells, pa.string()))


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Write vectors as .npy, or as a column ``gist`` of lists (in CSV a column each); rows of NaN are null there."""
    if path.suffix == ".npy":
        with write_whole(path) as part:
            np.save(part, vectors, allow_pickle=False)
    elif path.suffix == ".csv":
        write_table(
            pa.table({f"gist_{i}": pa.array(vectors[:, i], from_pandas=True) for i in range(vectors.shape[1])}), path
        )
    else:
        none = pa.array(np.isnan(vectors).any(1))
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1], mask=none)
        write_table(pa.table({"gist": flat}), path)


def query_of(parts: Sequence[str]) -> dict[str, Any]:
    """Query row from ``["name=a cat", "photo=@cat.png"]``; ``@`` reads a file, ``@@`` begins a text with one @."""
    query: dict[str, Any] = {}
    for part in parts:
        column, equals, value = part.partition("=")
        if not equals or not column:
            raise UserError(f"--by '{part}' is no query. Write column=words, or column=@file.")
        if column in query:
            raise UserError(f"--by names '{column}' twice. A query has one cell of each column.")
        if value.startswith("@") and not value.startswith("@@"):
            try:
                query[column] = Path(value[1:]).read_bytes()
            except OSError as error:
                raise UserError(f"--by {part}: '{value[1:]}' can't be read: {error.strerror}.") from error
        else:
            query[column] = value.removeprefix("@")
    return query


def check_cells(out: Path, model: Model, columns: Sequence[str]) -> None:
    """Refuse a text file for cells that are files, and a .csv for series."""
    for column in columns:
        modality = model.network.modalities[column]
        if modality.media and out.suffix != ".parquet":
            raise UserError(
                f"--out {out}: the cells of '{column}' are files, which can't stand in {out.suffix}. Give a "
                ".parquet file."
            )
        if out.suffix == ".csv" and model.network.modalities[column].is_nested:
            raise UserError(
                f"--out {out}: lists of numbers ('{column}') can't stand in a cell of .csv. Give a .parquet "
                "or a .jsonl file."
            )
