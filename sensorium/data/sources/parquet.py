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
from sensorium.data.blocks import Blocks, Joined
from sensorium.data.sources import Opened, Source, folder_of, name_of_files

OPEN = 4
"""Files that one thread keeps open."""
Key = tuple[Path, int, int]
"""A file as it was: path, time it was changed, size."""


class Parquet(Source):
    """One Parquet file or several."""

    suffixes = (".parquet", ".pq")

    @classmethod
    def open(cls, given: Sequence[Path]) -> Opened:
        """Each file's footer is read, no row."""
        parts = [ParquetBlocks(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else Joined(parts, f"{len(parts)} Parquet files")
        return Opened(blocks, name_of_files(given), folder_of(given))


class ParquetBlocks(Blocks):
    """The row groups of one file. Safe to read from several threads and after a fork: each opens the file itself."""

    def __init__(self, path: Path) -> None:
        try:
            with pq.ParquetFile(path) as file:
                schema, meta = file.schema_arrow, file.metadata
                counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"'{path}' can't be read as Parquet: {str(error).splitlines()[0]}") from error
        info = path.stat()
        self.key = (path, info.st_mtime_ns, info.st_size)
        super().__init__(schema, counts, f"'{path}'")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """One row group, decoded page by page."""
        yield from _opened(self.key).iter_batches(size, row_groups=[block], columns=columns)


_local = threading.local()


def _opened(key: Key) -> pq.ParquetFile:
    if getattr(_local, "owner", None) != os.getpid():
        _local.owner, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Key, pq.ParquetFile] = _local.files
    if key not in files:
        # A buffer makes column chunks stream page by page, so that a row group of many gigabytes costs a few pages.
        files[key] = pq.ParquetFile(key[0], memory_map=False, pre_buffer=False, buffer_size=1 << 20)
        if len(files) > OPEN:
            files.popitem(last=False)
    files.move_to_end(key)
    return files[key]
