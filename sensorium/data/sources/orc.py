"""ORC files, read in place: only the asked columns of the asked stripes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.blocks import Blocks, ConcatenatedBlocks
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, folder_of, name_of_files
from sensorium.data.sources._inside import error_summary
from sensorium.data.sources._orc_lengths import BadLength, check_lengths


class ORC(Source):
    """One ORC file or several."""

    suffixes = (".orc",)

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Open files; each one's footer and one column are read."""
        parts = [_Stripes(path) for path in given]
        blocks: Blocks = parts[0] if len(parts) == 1 else ConcatenatedBlocks(parts, f"{len(parts)} ORC files")
        return Opened(blocks, name_of_files(given), folder_of(given))


class _Stripes(Blocks):
    """Stripes of one file. Safe to read from several threads and after a fork: each time the file is opened."""

    def __init__(self, path: Path) -> None:
        from pyarrow import orc

        self.path = path
        self.checked: set[int] = set()
        try:
            with pa.OSFile(str(path)) as source:
                file = orc.ORCFile(source)
                schema = file.schema
                # The library doesn't say how many rows a stripe has; the narrowest column does.
                narrow = min(schema, key=_width, default=None)
                counts = []
                for stripe in range(file.nstripes):
                    if narrow is None:
                        break
                    self._check(stripe)
                    counts.append(len(file.read_stripe(stripe, columns=[narrow.name])))
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"'{path}' can't be read as ORC: {error_summary(error)}") from error
        info = path.stat()
        self.key = info.st_size, info.st_mtime_ns
        super().__init__(schema, counts, f"'{path}'")

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices of one stripe."""
        from pyarrow import orc

        with pa.OSFile(str(self.path)) as source:
            info = self.path.stat()
            if (info.st_size, info.st_mtime_ns) != self.key:
                raise UserError(f"{self.where} was changed while it was read. Open it again when it is whole.")
            self._check(block)
            batch = orc.ORCFile(source).read_stripe(block, columns=columns)
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)

    def _check(self, stripe: int) -> None:
        """Refuse a stripe at which the library would end the process.

        Raises:
            UserError: it has lengths that no cell has.
        """
        if stripe in self.checked:
            return
        try:
            with open(self.path, "rb") as file:
                check_lengths(file, stripe)
        except BadLength as error:
            raise UserError(f"'{self.path}' can't be read as ORC: {error}. Copy it again, or leave it out.") from error
        self.checked.add(stripe)


def _width(field: pa.Field) -> int:
    """Bits of a cell; a large number where they vary."""
    try:
        return field.type.bit_width
    except ValueError:
        return 1 << 20
