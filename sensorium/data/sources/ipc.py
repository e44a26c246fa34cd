"""Arrow IPC: the file format is read batch by batch, the stream format is converted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import check_layout, split_by_bytes
from sensorium.data.blocks import BATCH_BYTES, Blocks, ConcatenatedBlocks, MemoryBlocks, check_distinct_names, names_of
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.spool import spooling

MAGIC = b"ARROW1"


class IPC(Source):
    """Arrow files (Feather version 2 is the same) and Arrow streams."""

    suffixes = (".arrow", ".feather", ".ipc", ".arrows")

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Open files in place; convert streams to Parquet first."""
        parts = [_blocks(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else ConcatenatedBlocks(parts, f"{len(parts)} Arrow files")
        return Opened(blocks, name_of_files(given), folder_of(given))


def _blocks(path: Path) -> Blocks:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        if start.startswith(MAGIC):
            return IPCBlocks(path)
        if start.startswith(b"FEA1"):
            raise UserError(f"'{path}' is Feather version 1, which is no longer read. Write it again as Parquet.")
        return _converted(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise UserError(f"'{path}' can't be read as Arrow: {(str(error) or 'it is empty').splitlines()[0]}") from error


MIN_MAPPED_BYTES = 256 << 20
"""Bytes from which on a record batch is memory-mapped instead of read whole."""


class IPCBlocks(Blocks):
    """Record batches of one Arrow file.

    A file that becomes shorter while it is mapped ends the process (SIGBUS), so a batch is read, and only a very large
    one mapped and copied slice by slice, each after a look at the file's size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as file:
            schema = file.schema
            names_of(schema, f"'{path}'")
            # Batch lengths aren't in the footer; only their headers are touched where nothing is compressed.
            counts = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        self.key = self.state()
        self.large = self.key[0] // max(len(counts), 1) > MIN_MAPPED_BYTES
        super().__init__(schema, counts, f"'{path}'")

    def state(self) -> tuple[int, int]:
        """Size and time of change of the file."""
        info = self.path.stat()
        return info.st_size, info.st_mtime_ns

    def check(self) -> None:
        """Refuse a file that was changed since it was opened."""
        if self.state() != self.key:
            raise UserError(f"{self.where} was changed while it was read. Open it again when it is whole.")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices of one record batch, of the asked columns only."""
        self.check()
        places = sorted(self.names.index(name) for name in columns)
        how = pa.ipc.IpcReadOptions(included_fields=places)
        with (pa.memory_map if self.large else pa.OSFile)(str(self.path)) as source:
            batch = pa.ipc.open_file(source, options=how).get_batch(block)
            batch.validate()
            batch = batch.select(columns)
            for column in batch.columns:
                if not self.large or pa.types.is_dictionary(column.type):
                    check_layout(column)
            for start in range(0, batch.num_rows, size):
                if not self.large:
                    yield batch.slice(start, size)
                    continue
                for piece in split_by_bytes(batch.slice(start, size), BATCH_BYTES):
                    self.check()
                    for column in piece.columns:
                        check_layout(column)
                    rows = pa.array(range(piece.num_rows))
                    yield pa.RecordBatch.from_arrays([column.take(rows) for column in piece.columns], names=columns)

    @property
    def names(self) -> list[str]:
        """Columns of the file itself, structs not flattened."""
        return list(dict.fromkeys(path[0] for path in self.inside.values()))


def _converted(path: Path) -> Blocks:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader, spooling(f"'{path}'") as spool:
        names = names_of(reader.schema, f"'{path}'")
        check_distinct_names(names, f"'{path}'")
        remarks: dict[str, str] = {}
        repaired: dict[str, set[int]] = {}
        for batch in reader:
            first = spool.rows
            batch.validate(full=False)
            for column in batch.columns:
                check_layout(column)
            blocks = MemoryBlocks(pa.Table.from_batches([batch]), f"'{path}'")
            remarks |= blocks.remarks
            spool.add_blocks(blocks)
            for name, rows in blocks.repaired.items():
                repaired.setdefault(name, set()).update(first + row for row in rows)
        found = converted(spool, empty=names)
        found.remarks |= remarks
        found.repaired |= repaired
        return found
