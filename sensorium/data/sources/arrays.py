"""NumPy arrays: .npy, mapped into memory a few rows at a time, and .npz, whose arrays of one length are the columns.

Nothing is unpickled: arrays of Python objects are refused.
"""

from __future__ import annotations

import math
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import scrub
from sensorium.data.blocks import BATCH_BYTES, BLOCK_ROWS, Blocks, ConcatenatedBlocks
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, folder_of, name_of_files
from sensorium.data.sources._inside import ZIP_ERRORS, error_summary, spool_batches
from sensorium.data.spool import PIECE_ROWS, spooling

MAX_WHOLE_BYTES = 1 << 30
"""Bytes of a Fortran-order array in an archive, which has to be read whole."""


class Arrays(Source):
    """One NumPy file or several."""

    suffixes = (".npy", ".npz")

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Open a .npy in place, or convert the arrays of a .npz to Parquet."""
        opened = Opened.empty(name_of_files(given), folder_of(given))
        parts = [
            _archive(path, opened, options) if zipfile.is_zipfile(path) else _Array(path, options) for path in given
        ]
        opened.blocks = parts[0] if len(parts) == 1 else ConcatenatedBlocks(parts, f"{len(parts)} NumPy files")
        return opened


def columns_of(name: str, array: np.ndarray) -> dict[str, pa.Array]:
    """Columns of an array's rows: one, or one for each field of a structured type.

    Raises:
        TypeError: its numbers are none that a table has.
    """
    kind = array.dtype
    if kind.names is not None:
        found: dict[str, pa.Array] = {}
        for field in kind.names:
            found |= columns_of(f"{name}.{field}" if name else field, array[field])
        return found
    if kind.kind not in "biufSUMm":
        raise TypeError(f"arrays of {kind} are no column")
    width = array.shape[1:]
    flat = np.ascontiguousarray(array).reshape(-1)
    if kind.kind == "S":
        text = [cell.decode("utf-8", "replace") for cell in flat.tolist()]
        cells = pa.array(text, pa.string())
    elif kind.kind == "U":
        cells = pa.array([scrub(cell) for cell in _known(flat).tolist()], pa.string())
    elif kind.kind in "Mm":
        seconds = flat.astype("datetime64[us]" if kind.kind == "M" else "timedelta64[us]")
        cells = pa.array(seconds)
    else:
        cells = pa.array(flat.astype(kind.newbyteorder("=") if kind.itemsize <= 8 else np.float64, copy=False))
    for size in reversed(width):
        cells = (
            pa.FixedSizeListArray.from_arrays(cells, size)
            if size
            else pa.array([[]] * math.prod(array.shape[: array.ndim - 1]), pa.list_(cells.type))
        )
    return {name or "array": cells}


def _known(text: np.ndarray) -> np.ndarray:
    """Texts with U+FFFD for numbers that are no characters, at which Python would fail."""
    text = np.array(text, text.dtype.newbyteorder("="))
    if text.dtype.itemsize:
        codes = text.view(np.uint32)
        codes[codes > sys.maxunicode] = 0xFFFD
    return text


def check(kind: np.dtype, where: str) -> None:
    """Refuse Python objects.

    Raises:
        UserError: the array holds some.
    """
    if kind.hasobject:
        raise UserError(
            f"{where} holds Python objects. Sensorium never reads pickles, since reading one can run any code. "
            "Write the array again as numbers or text."
        )


class _Array(Blocks):
    """Rows of one .npy file; each block is memory-mapped while it is read."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path = path
        where = f"'{path}'"
        try:
            with open(path, "rb") as file:
                shape, _, kind = _header(file)
                check(kind, where)
            array = self.mapped() if math.prod(shape) else np.zeros(shape, kind)
            first = columns_of("", array[:0]) if array.ndim else {}
            if not array.ndim:
                raise ValueError("it holds one value, and no rows")
        except (ValueError, TypeError, EOFError, OSError, OverflowError, MemoryError) as error:
            raise UserError(f"{where} can't be read as a NumPy array: {error_summary(error)}") from error
        width = math.prod(shape[1:]) * kind.itemsize
        if width > options.max_cell_size:
            raise options.too_long(f"A row of {where}")
        rows = max(1, min(BLOCK_ROWS, BATCH_BYTES // max(width, 1)))
        info = path.stat()
        self.key = info.st_size, info.st_mtime_ns
        schema = pa.schema([(name, cells.type) for name, cells in first.items()])
        super().__init__(schema, [min(rows, shape[0] - at) for at in range(0, shape[0], rows)], where)

    def mapped(self) -> np.ndarray:
        """Memory-mapped array."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Copies of a few rows at a time."""
        info = self.path.stat()
        if (info.st_size, info.st_mtime_ns) != self.key:
            raise UserError(f"{self.where} was changed while it was read. Open it again when it is whole.")
        array = self.mapped()
        for start in range(int(self.starts[block]), int(self.starts[block + 1]), size):
            found = columns_of("", np.array(array[start : min(start + size, int(self.starts[block + 1]))]))
            yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Header: shape, True for Fortran order, and type."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, kind = read(file)
        if version >= (3, 0) and kind.names:  # as 2.0, but in UTF-8
            kind.names = tuple(name.encode("latin-1").decode() for name in kind.names)
    except (OSError, zlib.error, zipfile.BadZipFile):
        raise
    except Exception as error:  # the header is parsed as Python literals, which fails in many ways
        raise ValueError(f"its header is damaged: {error_summary(error)}") from error
    if any(size < 0 for size in shape) or math.prod(shape) * max(kind.itemsize, 1) > 1 << 62:
        raise ValueError("its shape is out of range")
    return shape, by_columns, kind


def _archive(path: Path, opened: Opened, options: ReadOptions) -> Blocks:
    """The arrays of a .npz that have as many rows as most of them do."""
    where = f"'{path}'"
    try:
        with zipfile.ZipFile(path) as archive:
            about: dict[str, tuple[tuple[int, ...], bool, np.dtype]] = {}
            for info in archive.infolist():
                name = scrub(info.filename.removesuffix(".npy"))
                with archive.open(info) as file:
                    try:
                        about[name] = _header(file)
                    except ValueError as error:
                        raise UserError(
                            f"{where}: its member '{name}' is no NumPy array: {error_summary(error)}"
                        ) from error
                check(about[name][2], f"{where}, array '{name}',")
            rows = length_of_most([shape[0] for shape, _, _ in about.values() if shape])
            taken = [
                name for name, (shape, _, kind) in about.items() if shape and shape[0] == rows and kind.kind != "c"
            ]
            if left := [name for name in about if name not in taken]:
                opened.remark(
                    f"arrays of another length or of complex numbers were left out: {', '.join(left[:8])}", path.name
                )
            options.check_columns(len(taken), where)
            with spooling(where) as spool:
                pieces = _pieces(archive, taken, about, rows, where, options)
                schema = next(pieces).schema
                return spool_batches(pieces, schema, spool, options, opened)
    except (ValueError, TypeError, OverflowError, MemoryError, *ZIP_ERRORS) as error:
        raise UserError(f"{where} can't be read as NumPy arrays: {error_summary(error)}") from error


def length_of_most(lengths: Sequence[int]) -> int:
    """Most frequent length; of equals the greatest."""
    counts = Counter(lengths)
    return max(counts, key=lambda length: (counts[length], length), default=0)


def _pieces(
    archive: zipfile.ZipFile, names: list[str], about: dict[str, Any], rows: int, where: str, options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    """The columns without rows, for their types, then the rows; all members are read side by side."""
    members = {scrub(info.filename.removesuffix(".npy")): info for info in archive.infolist()}
    files, whole = {}, {}
    for name in names:
        shape, by_columns, kind = about[name]
        if math.prod(shape[1:]) * kind.itemsize > options.max_cell_size:
            raise options.too_long(f"A row of the array '{name}' in {where}")
        files[name] = archive.open(members[name])
        _header(files[name])
        if by_columns and len(shape) > 1:
            if math.prod(shape) * kind.itemsize > MAX_WHOLE_BYTES:
                raise UserError(
                    f"{where}: the array '{name}' lies by columns (Fortran order) and is too large to turn. "
                    "Write it in C order."
                )
            flat = _filled(files[name], math.prod(shape), kind)
            whole[name] = flat.reshape(shape, order="F")
    widths = sum(math.prod(about[name][0][1:]) * about[name][2].itemsize for name in names)
    step = max(1, min(PIECE_ROWS, BATCH_BYTES // max(widths, 1)))

    def piece(start: int, end: int) -> pa.RecordBatch:
        found: dict[str, pa.Array] = {}
        for name in names:
            shape, _, kind = about[name]
            if name in whole:
                array = whole[name][start:end]
            else:
                array = _filled(files[name], (end - start) * math.prod(shape[1:]), kind).reshape(
                    end - start, *shape[1:]
                )
            found |= columns_of(name, array)
        return pa.RecordBatch.from_arrays(list(found.values()), names=list(found))

    yield piece(0, 0)
    for start in range(0, rows, step):
        yield piece(start, min(start + step, rows))


def _filled(file: IO[bytes], count: int, kind: np.dtype) -> np.ndarray:
    """The next ``count`` values of a member."""
    size = count * kind.itemsize
    data = file.read(size) if size else b""
    if len(data) < size:
        raise EOFError("an array ends early")
    return np.frombuffer(data, kind, count) if size else np.zeros(count, kind)
