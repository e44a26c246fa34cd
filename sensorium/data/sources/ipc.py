"""Arrow IPC: the file format is mapped into memory and read in place, the stream format is converted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import normal, normal_type
from sensorium.data.blocks import Blocks, Joined, distinct
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.spool import ROWS, spooling

MAGIC = b"ARROW1"


class IPC(Source):
    """Arrow files (Feather version 2 is the same) and Arrow streams."""

    suffixes = (".arrow", ".feather", ".ipc", ".arrows")

    @classmethod
    def open(cls, given: Sequence[Path]) -> Opened:
        """Files are read in place; streams become a Parquet file first."""
        parts = [_blocks(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else Joined(parts, f"{len(parts)} Arrow files")
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


class IPCBlocks(Blocks):
    """The record batches of one Arrow file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        # Batch lengths aren't in the footer; only their headers are touched where nothing is compressed.
        counts = [self._file.get_batch(i).num_rows for i in range(self._file.num_record_batches)]
        super().__init__(self._file.schema, counts, f"'{path}'")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices of the mapped batch; dictionaries and foreign types are turned into normal ones slice by slice."""
        batch = self._file.get_batch(block)
        batch.validate()
        batch = batch.select(columns)
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


def _converted(path: Path) -> Blocks:
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader, spooling(f"'{path}'") as spool:
        names = reader.schema.names
        distinct(names, f"'{path}'")
        kinds = [normal_type(kind) for kind in reader.schema.types]
        for batch in reader:
            batch.validate(full=False)
            for at in range(0, batch.num_rows, ROWS):
                piece = batch.slice(at, ROWS)
                arrays = [normal(column, kind) for column, kind in zip(piece.columns, kinds, strict=True)]
                spool.add(dict(zip(names, arrays, strict=True)), piece.num_rows)
        return converted(spool, empty=names)
