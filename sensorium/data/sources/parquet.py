"""Parquet files, read in place: only the asked columns of the asked row groups."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.errors import UserError
from sensorium.data.blocks import BATCH, Blocks, Joined
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, folder_of, name_of_files

OPEN = 4
"""Files that one thread keeps open."""
Key = tuple[Path, int, int, tuple[str, ...]]
"""A file as it was: path, time it was changed, size; and the columns that are read as dictionaries."""


class Parquet(Source):
    """One Parquet file or several."""

    suffixes = (".parquet", ".pq")

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Each file's footer is read, no row."""
        parts = [ParquetBlocks(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else Joined(parts, f"{len(parts)} Parquet files")
        return Opened(blocks, name_of_files(given), folder_of(given))


class ParquetBlocks(Blocks):
    """The row groups of one file. Safe to read from several threads and after a fork: each opens the file itself."""

    def __init__(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
                schema, meta = file.schema_arrow, file.metadata
                groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
                counts = [group.num_rows for group in groups]
                self.sizes, repeated = [column_sizes(group) for group in groups], set()
                for group in groups[:1]:
                    repeated = repeated_columns(group, schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"'{path}' can't be read as Parquet: {str(error).splitlines()[0]}") from error
        info = path.stat()
        self.key = (path, info.st_mtime_ns, info.st_size, tuple(sorted(repeated)))
        super().__init__(schema, counts, f"'{path}'")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """One row group, decoded page by page, in batches of about ``BATCH`` bytes."""
        rows = int(self.starts[block + 1] - self.starts[block])
        taken = sum(self.sizes[block].get(name, 0) for name in columns)
        size = max(1, min(size, int(BATCH * rows / max(taken, 1))))
        yield from _opened(self.key).iter_batches(size, row_groups=[block], columns=columns)


def column_sizes(group: pq.RowGroupMetaData) -> dict[str, int]:
    """Bytes of each top-level column of a row group, decompressed."""
    sizes: dict[str, int] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        name = column.path_in_schema.partition(".")[0]
        sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
    return sizes


def repeated_columns(group: pq.RowGroupMetaData, schema: pa.Schema) -> set[str]:
    """Plain columns of bytes and text that have a dictionary: each value is read once, however many rows name it.

    So a few kilobytes can't unpack to gigabytes: what is decoded is decoded by ``blocks.BATCH`` bytes.
    """
    found = set()
    for number in range(group.num_columns):
        column = group.column(number)
        name = column.path_in_schema
        at = schema.get_field_index(name)  # -1 also where two share a name, which is refused later
        kind = schema.field(at).type if at >= 0 else pa.null()
        text = pa.types.is_binary(kind) or pa.types.is_string(kind)
        if text and column.has_dictionary_page:
            found.add(name)
    return found


_local = threading.local()


def _opened(key: Key) -> pq.ParquetFile:
    if getattr(_local, "owner", None) != os.getpid():
        _local.owner, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Key, pq.ParquetFile] = _local.files
    if key not in files:
        # A buffer makes column chunks stream page by page, so that a row group of many gigabytes costs a few pages.
        files[key] = pq.ParquetFile(
            key[0], memory_map=False, pre_buffer=False, buffer_size=1 << 20, read_dictionary=list(key[3]),
            coerce_int96_timestamp_unit="us", page_checksum_verification=True,
        )  # fmt: skip
        if len(files) > OPEN:
            files.popitem(last=False)
    files.move_to_end(key)
    return files[key]
