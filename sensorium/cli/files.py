"""Files that commands write and queries they read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError

ENDINGS = (".parquet", ".csv", ".jsonl")


def check_ending(path: Path, *more: str) -> None:
    """Refuse a file ending that can't be written, before any long work."""
    if path.suffix not in (*ENDINGS, *more):
        raise UserError(f"--out {path} ends in '{path.suffix}'. Possible: {', '.join((*ENDINGS, *more))}.")


def check_folder(path: Path, option: str) -> None:
    """Make the folder of a file that is to be written, before any long work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path}: the folder '{path.parent}' can't be made: {error.strerror or error}.") from error
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder. Give the name of a file.")


def write_json(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise unwritten(path, temporary, error) from error


def unwritten(path: Path, temporary: Path, error: OSError) -> UserError:
    """What to say of a file that could not be written; what was begun of it is removed."""
    with contextlib.suppress(OSError):  # its folder may be a file
        temporary.unlink(missing_ok=True)
    return UserError(f"Can't write '{path}': {error.strerror or error}")


def write_table(table: pa.Table, path: Path) -> None:
    """Parquet, CSV or JSON lines by the ending; whole or not at all."""
    import pyarrow.csv
    import pyarrow.parquet

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".parquet":
                pyarrow.parquet.write_table(table, temporary)
            case ".csv":
                pyarrow.csv.write_csv(table, temporary)
            case _:
                with temporary.open("w", encoding="utf-8") as file:
                    for row in table.to_pylist():
                        file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise unwritten(path, temporary, error) from error


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Vectors as .npy, or as a column ``gist`` of lists (in CSV as one column a number)."""
    if path.suffix == ".npy":
        temporary = path.with_name(f".{path.name}.{os.getpid()}.npy")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(temporary, vectors, allow_pickle=False)
            os.replace(temporary, path)
        except OSError as error:
            raise unwritten(path, temporary, error) from error
    elif path.suffix == ".csv":
        write_table(pa.table({f"gist_{i}": vectors[:, i] for i in range(vectors.shape[1])}), path)
    else:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        write_table(pa.table({"gist": flat}), path)


def query_of(parts: Sequence[str]) -> dict[str, Any]:
    """``["name=a cat", "photo=@cat.png"]`` as a row; ``@`` reads a file, ``@@`` begins a text with one @."""
    query: dict[str, Any] = {}
    for part in parts:
        column, equals, value = part.partition("=")
        if not equals or not column:
            raise UserError(f"--by '{part}' is no query. Write column=words, or column=@file.")
        if value.startswith("@") and not value.startswith("@@"):
            try:
                query[column] = Path(value[1:]).read_bytes()
            except OSError as error:
                raise UserError(f"--by {part}: '{value[1:]}' can't be read: {error.strerror}.") from error
        else:
            query[column] = value.removeprefix("@")
    return query
