"""Files that commands write and queries they read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.files import json_text, whole
from sensorium.data.cells import lines

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
def asked_for(path: Path) -> Iterator[Path]:
    """``whole`` for a file that the user named.

    Raises:
        UserError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            yield part
    except OSError as error:
        raise UserError(f"Can't write '{path}': {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    with asked_for(path) as part:
        part.write_text(json_text(value), encoding="utf-8")


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet, CSV or JSON lines by the ending; whole or not at all."""
    import pyarrow.csv
    import pyarrow.parquet

    with asked_for(path) as part:
        match path.suffix:
            case ".parquet":
                pyarrow.parquet.write_table(table, part)
            case ".csv":
                pyarrow.csv.write_csv(table, part)
            case _:
                with part.open("w", encoding="utf-8") as file:
                    for row in lines(table):
                        file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def as_json(table: pa.Table, column: str) -> pa.Table:
    """A table whose lists in one column are JSON, so that they can stand in a CSV file."""
    cells = [json.dumps(cell, ensure_ascii=False) for cell in table.column(column).to_pylist()]
    return table.set_column(table.column_names.index(column), column, pa.array(cells, pa.string()))


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Vectors as .npy, or as a column ``gist`` of lists (in CSV as one column a number); rows of NaN are null there."""
    if path.suffix == ".npy":
        with asked_for(path) as part:
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
    """``["name=a cat", "photo=@cat.png"]`` as a row; ``@`` reads a file, ``@@`` begins a text with one @."""
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
