"""Parquet files, read in place: only the asked columns of the asked row groups."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sensorium.core.errors import UserError
from sensorium.data.arrow import check_layout
from sensorium.data.blocks import BATCH_BYTES, Blocks, ConcatenatedBlocks
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, folder_of, name_of_files

MAX_OPEN_FILES = 4
"""Files that one thread keeps open."""
Key = tuple[Path, int, int, tuple[str, ...]]
"""Cache key of an open file: path, time of change, size; and the columns that are read as dictionaries."""


class Parquet(Source):
    """One Parquet file or several."""

    suffixes = (".parquet", ".pq")

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Open files; each one's footer is read, no row."""
        parts = [ParquetBlocks(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else ConcatenatedBlocks(parts, f"{len(parts)} Parquet files")
        return Opened(blocks, name_of_files(given), folder_of(given))


class ParquetBlocks(Blocks):
    """Row groups of one file. Safe to read from several threads and after a fork: each opens the file itself."""

    def __init__(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
                schema, meta = file.schema_arrow, file.metadata
                counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
                self.leaves: dict[str, list[int]] = {}
                for number in range(meta.num_columns):
                    leaf = meta.schema.column(number).path
                    self.leaves.setdefault(leaf if leaf in schema.names else leaf.partition(".")[0], []).append(number)
                repeated: set[str] = set()
                if counts:
                    check_group(sealed(meta, path.stat().st_size), 0, None)
                    repeated = repeated_columns(meta.row_group(0), schema)
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"'{path}' can't be read as Parquet: {str(error).splitlines()[0]}") from error
        info = path.stat()
        self.key = (path, info.st_mtime_ns, info.st_size, tuple(sorted(repeated)))
        self.sizes: dict[tuple[int, str], int] = {}
        super().__init__(schema, counts, f"'{path}'")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Batches of one row group of about ``BATCH_BYTES`` bytes, decoded page by page."""
        rows = int(self.starts[block + 1] - self.starts[block])
        file, footer = _opened(self.key)
        if unknown := [name for name in columns if (block, name) not in self.sizes]:
            check_group(footer, block, unknown)
            group = file.metadata.row_group(block)
            for name in unknown:
                places = [number for number in self.leaves.get(name, ()) if number < group.num_columns]
                self.sizes[block, name] = sum(group.column(number).total_uncompressed_size for number in places)
        taken = sum(self.sizes[block, name] for name in columns)
        size = max(1, min(size, int(BATCH_BYTES * rows / max(taken, 1))))
        for batch in file.iter_batches(size, row_groups=[block], columns=columns):
            for column in batch.columns:
                check_codes(column)
            yield batch


def check_codes(column: pa.Array) -> None:
    """Refuse a column with codes that its dictionary lacks, as Arrow's reader gives for a damaged page.

    Raises:
        pa.ArrowException: it has such.
    """
    if pa.types.is_dictionary(column.type):  # the values themselves may be large, and are the same in many batches
        pa.DictionaryArray.from_arrays(column.indices, pa.nulls(len(column.dictionary)))
    elif "dictionary<" in str(column.type):
        check_layout(column)


class _Sealed(io.RawIOBase):
    """File of some bytes of which none can be read."""

    def __init__(self, size: int) -> None:
        self.size, self.place = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        self.place = (0, self.place, self.size)[whence] + place
        return self.place

    def tell(self) -> int:
        return self.place

    def read(self, size: int = -1) -> bytes:
        raise _End


class _End(OSError):
    """Error of a read from a sealed file."""


def sealed(meta: pq.FileMetaData, size: int) -> pq.ParquetFile:
    """Parquet file of a footer without its other bytes."""
    return pq.ParquetFile(pa.PythonFile(_Sealed(size), "r"), metadata=meta, pre_buffer=False, buffer_size=1 << 16)


def check_group(file: pq.ParquetFile, block: int, columns: list[str] | None) -> None:
    """Refuse impossible metadata in a footer of a row group's columns (of all where ``columns`` is None).

    What pyarrow itself says of them isn't guarded: where a damaged footer contradicts itself there, the process ends.
    Arrow's reader raises an error; of a sealed file it gets as far as the first byte.

    Raises:
        OSError, pa.ArrowException: as reading it would.
    """
    with contextlib.suppress(_End):
        next(file.iter_batches(1, row_groups=[block], columns=columns, use_threads=False), None)


def repeated_columns(group: pq.RowGroupMetaData, schema: pa.Schema) -> set[str]:
    """Dictionary-encoded plain columns of bytes and text: each value is read once, however many rows have it.

    So a few kilobytes can't unpack to gigabytes: what is decoded is decoded by ``blocks.BATCH_BYTES`` bytes.
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


def _opened(key: Key) -> tuple[pq.ParquetFile, pq.ParquetFile]:
    if getattr(_local, "owner", None) != os.getpid():
        _local.owner, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Key, tuple[pq.ParquetFile, pq.ParquetFile]] = _local.files
    if key not in files:
        # A buffer makes column chunks stream page by page, so that a row group of many gigabytes costs a few pages.
        file = pq.ParquetFile(
            key[0], memory_map=False, pre_buffer=False, buffer_size=1 << 20, read_dictionary=list(key[3]),
            coerce_int96_timestamp_unit="us", page_checksum_verification=True,
        )  # fmt: skip
        files[key] = file, sealed(file.metadata, key[2])
        if len(files) > MAX_OPEN_FILES:
            files.popitem(last=False)
    files.move_to_end(key)
    return files[key]
