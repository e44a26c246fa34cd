"""Cell store: decoded cells on disk, by column and memory-mapped, so that no epoch decodes a file twice.

A column is a file of raw values and a file of offsets; a missing cell has length 0. No pickle: the store's shape is in
JSON. What is mapped can be let go at any time (``release``), so memory stays flat however many rows there are.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np

from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write


class StoredColumn:
    """Stored column, open for reading."""

    def __init__(self, folder: Path, number: int, dtype: str, tail: Sequence[int]) -> None:
        self.dtype, self.tail = np.dtype(dtype), tuple(tail)
        self.size = int(np.prod(self.tail, dtype=np.int64)) * self.dtype.itemsize
        self.offsets_map = Mapped(folder / f"{number}.offsets")
        self.data_map = Mapped(folder / f"{number}.data")
        self.offsets = np.frombuffer(self.offsets_map.view, dtype=np.int64)

    def __getitem__(self, row: int) -> np.ndarray | None:
        """Cell of a row as a read-only array, None where missing."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        if start == end:
            return None
        count = (end - start) * self.size // self.dtype.itemsize
        flat = np.frombuffer(self.data_map.view, dtype=self.dtype, count=count, offset=start * self.size)
        return flat.reshape(end - start, *self.tail)


class Mapped:
    """Read-only memory map of a file; an empty one is an empty buffer."""

    def __init__(self, path: Path) -> None:
        self.map: mmap.mmap | None = None
        if path.stat().st_size:
            with path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.view: mmap.mmap | bytes = self.map if self.map is not None else b""

    def release(self) -> None:
        """Release the mapped pages to the system; they are read again when needed."""
        if self.map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED)


class CellStore:
    """Cell store, open for reading.

    Attributes:
        rows: how many rows are stored.
        columns: each stored column.
    """

    def __init__(self, folder: Path) -> None:
        shape = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        self.folder, self.rows = folder, shape["rows"]
        self.columns = {
            column: StoredColumn(folder, part["number"], part["dtype"], part["tail"])
            for column, part in shape["columns"].items()
        }

    def cells(self, column: str, rows: Sequence[int] | np.ndarray) -> list[np.ndarray | None]:
        """Cells of some rows."""
        part = self.columns[column]
        return [part[int(row)] for row in rows]

    def release(self) -> None:
        """Give mapped pages back to the system."""
        for part in self.columns.values():
            part.data_map.release()
            part.offsets_map.release()


class CellStoreWriter:
    """Writer of a store, row by row; it exists, under its name, only once it is complete.

    Raises:
        UserError: the disk is full or can't be written, in any call.
    """

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self.folder, self.rows = folder, 0
        self.parts: dict[str, ColumnWriter] = {}
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "store.json").unlink(missing_ok=True)
            for number, column in enumerate(columns):
                self.parts[column] = ColumnWriter(folder, number)

    def __enter__(self) -> CellStoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files, also where the store wasn't finished."""
        for part in self.parts.values():
            part.drop()

    def add(self, cells: dict[str, np.ndarray | None]) -> None:
        """Append one row: a read cell for each column, None or of length 0 where missing."""
        try:
            for column, part in self.parts.items():
                part.add(cells.get(column))
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.rows += 1

    def close(self, keep: Callable[[str], bool] = lambda column: True) -> CellStore:
        """Finish and open for reading."""
        shape = {"rows": self.rows, "columns": {}}
        with writable(self.folder):
            for number, (column, part) in enumerate(self.parts.items()):
                part.close()
                if keep(column):
                    shape["columns"][column] = {
                        "number": number,
                        "dtype": part.dtype or "uint8",
                        "tail": part.tail or [],
                    }
            with atomic_write(self.folder / "store.json") as part:
                part.write_text(json.dumps(shape), encoding="utf-8")
        return CellStore(self.folder)


@contextlib.contextmanager
def writable(path: Path) -> Generator[None]:
    """Context that turns the errors of a full or forbidden disk into a UserError."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """UserError for a disk that is full or can't be written."""
    return UserError(f"Can't write '{path}': {error.strerror or error}. Free some space, or put the run elsewhere.")


class ColumnWriter:
    """Writer of one column's cells."""

    def __init__(self, folder: Path, number: int) -> None:
        self.data = (folder / f"{number}.data").open("wb", buffering=1 << 20)
        self.offsets = (folder / f"{number}.offsets").open("wb", buffering=1 << 18)
        self.end, self.dtype, self.tail = 0, "", None
        self.offsets.write(np.int64(0).tobytes())

    def add(self, cell: np.ndarray | None) -> None:
        """Append one cell; all must agree in dtype and in every dimension but the first."""
        if cell is not None and len(cell):
            if self.tail is None:
                self.dtype, self.tail = cell.dtype.str, list(cell.shape[1:])
            if cell.dtype.str != self.dtype or list(cell.shape[1:]) != self.tail:
                raise ValueError(f"a cell of {cell.dtype} {cell.shape} among cells of {self.dtype} (…, {self.tail})")
            self.data.write(np.ascontiguousarray(cell).data)
            self.end += len(cell)
        self.offsets.write(np.int64(self.end).tobytes())

    def close(self) -> None:
        """Flush both files to the disk."""
        for file in (self.data, self.offsets):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def drop(self) -> None:
        """Close both files without flushing."""
        for file in (self.data, self.offsets):
            with contextlib.suppress(OSError):
                file.close()
