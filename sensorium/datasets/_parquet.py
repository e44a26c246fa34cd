"""Parquet files of small built tables, written whole or not at all, and the packages that they are made from."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write, digest
from sensorium.datasets import Progress

ROW_GROUP = 256
SERIES = pa.list_(pa.list_(pa.float32()))
"""Type of a series, [time][channel]."""


def write(
    out: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    credits: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write rows as Parquet and return what ``Builder.build`` promises.

    Args:
        out: the file; name: the table's name; rows: cells by column; schema: the columns and their types.
        credits: whose work it is and under which licence; kept in the file as well.

    Raises:
        UserError: nothing can be written at ``out``.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file to write, such as {out / name}.parquet.")
    schema = schema.with_metadata({"credits": "\n".join(credits), "source": f"sensorium table {name}"})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as part:
            with pq.ParquetWriter(
                part, schema, compression="zstd", compression_level=3, use_dictionary=False
            ) as writer:
                for first in range(0, len(rows), ROW_GROUP):
                    batch = [dict(row) for row in rows[first : first + ROW_GROUP]]
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema), row_group_size=ROW_GROUP)
                    if progress:
                        progress(first + len(batch), len(rows))
            sha256 = digest(part)
    except OSError as error:
        raise UserError(f"The table can't be written to {out}: {error}") from error
    return {"rows": len(rows), "sha256": sha256, "credits": list(credits)}


def package(name: str, table: str) -> tuple[Path, str]:
    """Folder and version of an installed package, without importing it.

    Raises:
        UserError: it isn't installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The table '{table}' is made from the package '{name}', which isn't installed. "
            "Install all that the examples need with: pip install 'sensorium[examples]'"
        )
    return Path(spec.submodule_search_locations[0]), version(name)


def data_file(name: str, path: str, table: str) -> tuple[Path, str]:
    """File inside an installed package, and the package's version.

    Raises:
        UserError: the package isn't installed, or its version lacks the file.
    """
    folder, number = package(name, table)
    if not (folder / path).is_file():
        raise UserError(
            f"The package '{name}' {number} doesn't hold '{path}', which the table '{table}' is made from. "
            "Install the version that the examples were made with: pip install 'sensorium[examples]'"
        )
    return folder / path, number


def beginning(rows: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """First ``count`` rows in the order of their ids' hashes, so that any beginning is a mixture."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())[:count]


def check_rows(rows: int | None) -> None:
    """Check that a number of rows makes a table.

    Raises:
        UserError: it is below 1.
    """
    if rows is not None and rows < 1:
        raise UserError(f"rows={rows}: give 1 or more, or none for all of them.")


def share(key: str) -> float:
    """Hash of a key as a number in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
