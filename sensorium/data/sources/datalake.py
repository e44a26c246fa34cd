"""Data lake tables on this machine: Delta Lake (a folder with ``_delta_log``) and Apache Iceberg (one with metadata).

The Parquet files of a Delta table are read in place; one with deletion vectors or renamed columns, and an Iceberg
table, are converted. Files outside of the table's folder are refused, and nothing is fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.blocks import Blocks, ConcatenatedBlocks
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source
from sensorium.data.sources._inside import error_summary, optional_import, spool_batches
from sensorium.data.sources.parquet import ParquetBlocks
from sensorium.data.spool import spooling

METADATA_SUFFIX = ".metadata.json"
PLAIN_FEATURES = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
"""Features of a Delta table under which its Parquet files have its rows unchanged."""
MAX_METADATA_BYTES = 64 << 20
"""Bytes of the largest metadata file of an Iceberg table."""


class DataLake(Source):
    """A folder that holds a Delta or an Iceberg table, or the metadata file of an Iceberg table."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for such a folder or file."""
        if not isinstance(given, (str, Path)):
            return False
        path = os.path.expanduser(given)
        return os.path.isdir(os.path.join(path, "_delta_log")) or _metadata(path) is not None

    @classmethod
    def open(cls, given: str | Path, options: ReadOptions) -> Opened:
        """Open the current version of the table."""
        path = Path(given).expanduser()
        if (path / "_delta_log").is_dir():
            opened = Opened.empty(path.resolve().name, path.resolve())
            opened.blocks = _delta(path, opened, options)
            return opened
        metadata = _metadata(os.fspath(path))
        assert metadata is not None
        folder = metadata.parent.parent.resolve()
        opened = Opened.empty(folder.name, folder)
        opened.blocks = _iceberg(metadata, folder, opened, options)
        return opened


def _metadata(path: str) -> Path | None:
    """The newest metadata file of an Iceberg table's folder, or the file itself."""
    if path.endswith(METADATA_SUFFIX) and os.path.isfile(path):
        return Path(path)
    folder = os.path.join(path, "metadata")
    try:
        names = [name for name in os.listdir(folder) if name.endswith(METADATA_SUFFIX)]
    except (OSError, ValueError):
        return None
    return Path(folder, max(names, key=_version)) if names else None


def _version(name: str) -> tuple[int, str]:
    """``v3.metadata.json`` and ``00003-UUID.metadata.json`` are both the third version."""
    found = re.match(r"v?(\d{1,18})", name)
    return int(found[1]) if found else -1, name


def _inside(folder: Path, path: str, where: str) -> Path:
    full = Path(os.path.realpath(folder / path))
    if not full.is_relative_to(folder.resolve()):
        raise UserError(
            f"{where} names the file '{path[:200]}', which doesn't lie in its folder. Copy the whole table to one "
            "folder."
        )
    return full


def _delta(folder: Path, opened: Opened, options: ReadOptions) -> Blocks:
    where = f"'{folder}'"
    deltalake = optional_import("deltalake", "lake", "Delta tables")
    try:
        table = deltalake.DeltaTable(str(folder.resolve()))
        files = pa.table(table.get_add_actions()).to_pylist()
        protocol = table.protocol()
        schema = pa.schema(table.schema())
    except Exception as error:  # the library raises its own errors, Rust's and plain ones
        raise UserError(f"{where} can't be read as a Delta table: {error_summary(error)}") from error
    paths = [_file(folder, file["path"], where) for file in files]
    if protocol.min_reader_version not in (1, 3) or not set(protocol.reader_features or ()) <= PLAIN_FEATURES:
        try:
            with spooling(where) as spool:
                reader = pa.RecordBatchReader.from_stream(table.scan())
                return spool_batches(reader, schema, spool, options, opened)
        except (pa.ArrowException, OSError, ValueError, RuntimeError, deltalake.exceptions.DeltaError) as error:
            raise UserError(f"{where} can't be read as a Delta table: {error_summary(error)}") from error
    order = sorted(range(len(files)), key=lambda i: paths[i])
    parts: list[Blocks] = [_DeltaFile(paths[i], schema, files[i].get("partition") or {}) for i in order]
    return ConcatenatedBlocks(parts, where) if parts else _Empty(schema, [], where)


def _file(folder: Path, path: str, where: str) -> Path:
    """Path of a data file; names in the log may be percent-encoded."""
    full = _inside(folder, path, where)
    full = full if full.is_file() else _inside(folder, unquote(path), where)
    if not full.is_file():
        raise UserError(f"{where} lacks its file '{path[:200]}'. Copy the whole table again.")
    return full


class _Empty(Blocks):
    """Blocks of a table without rows."""

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        yield from ()


class _DeltaFile(Blocks):
    """Blocks of one Parquet file of a Delta table; its partition columns aren't in the file."""

    def __init__(self, path: Path, schema: pa.Schema, values: dict[str, Any]) -> None:
        self.inner = ParquetBlocks(path)
        self.values = {name: pa.scalar(value, schema.field(name).type) for name, value in values.items()}
        have = {field.name: field for field in self.inner.schema if self.inner.inside[field.name][0] not in self.values}
        fields: list[pa.Field] = []
        for column in schema:
            if column.name in self.values:
                fields.append(column)
                continue
            inside = [field for name, field in have.items() if self.inner.inside[name][0] == column.name]
            fields += inside or [column]
        super().__init__(pa.schema(fields), np.diff(self.inner.starts).tolist(), self.inner.where)
        self.declared = {name for name in self.inner.declared if name in have}
        self.remarks |= {name: words for name, words in self.inner.remarks.items() if name in have}
        self.have = set(have) & set(self.schema.names)

    def repairs(self) -> dict[str, int]:
        """Repairs of the file."""
        return self.inner.repairs()

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Batches of the file with the partition's values added."""
        names = [name for name in columns if name in self.have]
        for batch in self.inner.read(block, names, size):
            arrays = dict(zip(names, batch.columns, strict=True))
            arrays |= {name: pa.repeat(self.values[name], batch.num_rows) for name in columns if name in self.values}
            arrays |= {name: pa.nulls(batch.num_rows) for name in columns if name not in arrays}
            yield pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _iceberg(metadata: Path, folder: Path, opened: Opened, options: ReadOptions) -> Blocks:
    where = f"'{metadata}'"
    optional_import("pyiceberg", "lake", "Iceberg tables")
    from sensorium.data.sources._iceberg import open_table

    try:
        if metadata.stat().st_size > MAX_METADATA_BYTES:
            raise UserError(
                f"{where} has more than {MAX_METADATA_BYTES:,} bytes. Is it the metadata of an Iceberg table?"
            )
        scan = open_table(metadata, folder).scan()
        with spooling(where) as spool:
            reader = scan.to_arrow_batch_reader()
            return spool_batches(reader, reader.schema, spool, options, opened)
    except UserError:
        raise
    except Exception as error:  # the library raises its own errors, pydantic's, Arrow's and plain ones
        raise UserError(f"{where} can't be read as an Iceberg table: {error_summary(error)}") from error
