"""HDF5 files: the datasets of one group that have one length are the columns, read in place a few rows at a time.

Nothing outside of the file is read: external links, virtual and externally stored datasets are left out, and object
references too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, did_you_mean
from sensorium.data.arrow import scrub
from sensorium.data.blocks import BATCH_BYTES, BLOCK_ROWS, Blocks, ConcatenatedBlocks
from sensorium.data.contents import ending_by_content
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, folder_of, name_of_files
from sensorium.data.sources._inside import error_summary, optional_import, split_part
from sensorium.data.sources.arrays import columns_of, length_of_most

MAX_EXPANSION, FREE_BYTES = 2000, 64 << 20
"""Largest ratio of datasets' bytes to the file's, and bytes that are always allowed: unwritten values take no room."""
MAX_MEMBERS = 10_000
"""Most members of a group that are read."""


class HDF5(Source):
    """One HDF5 file or several; of each the group that has datasets, or ``FILE#/GROUP``."""

    suffixes = (".h5", ".hdf5", ".hdf", ".he5", ".nc")

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for ``FILE#/GROUP``."""
        return split_part(given, _fits) is not None

    @classmethod
    def open(cls, given: str | Path | Sequence[Path], options: ReadOptions) -> Opened:
        """Open the group; only shapes and types are read."""
        found = split_part(given, _fits) if isinstance(given, (str, Path)) else None
        if found:
            files, group = [found[0]], found[1]
        else:
            assert not isinstance(given, (str, Path))
            files, group = list(given), ""
        opened = Opened.empty(name_of_files(files), folder_of(files))
        parts = [_Datasets(path, group, opened, options) for path in files]
        opened.blocks = parts[0] if len(parts) == 1 else ConcatenatedBlocks(parts, f"{len(parts)} HDF5 files")
        return opened


def _fits(path: Path) -> bool:
    return path.suffix.lower() in HDF5.suffixes or ending_by_content(path) == ".h5"


class _Datasets(Blocks):
    """Datasets of one group. The file is opened for each block: HDF5 can't be shared by processes."""

    def __init__(self, path: Path, asked: str, opened: Opened, options: ReadOptions) -> None:
        self.path = path
        where = f"'{path}'"
        h5py = optional_import("h5py", "hdf5", "HDF5 files")
        try:
            with h5py.File(path, "r", locking=False) as file:
                self.group, found, left = _group(h5py, file, asked, where)
                lengths = [dataset.shape[0] for dataset in found.values()]
                rows = length_of_most(lengths)
                left += [name for name, length in zip(found, lengths, strict=True) if length != rows]
                self.names = {scrub(name): name for name, dataset in found.items() if dataset.shape[0] == rows}
                options.check_columns(len(self.names), where)
                total, width = 0, 0
                fields: list[pa.Field] = []
                self.owner: dict[str, str] = {}
                for label, name in self.names.items():
                    dataset = found[name]
                    size = math.prod(dataset.shape[1:]) * max(dataset.dtype.itemsize, 1)
                    if size > options.max_cell_size:
                        raise options.too_long(f"A row of the dataset '{name}' in {where}")
                    total, width = total + size * rows, width + size
                    for column, cells in _columns(h5py, label, dataset, 0, 0).items():
                        fields.append(pa.field(column, cells.type))
                        self.owner[column] = label
                if total > FREE_BYTES + MAX_EXPANSION * path.stat().st_size:
                    raise UserError(
                        f"{where} says it holds {total:,} bytes, more than {MAX_EXPANSION:,} times its size. "
                        "Is it damaged?"
                    )
                if left:
                    opened.remark(
                        f"group '{self.group}': left out, as of another length, type or file: {', '.join(left[:8])}",
                        path.name,
                    )
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(f"{where} can't be read as HDF5: {error_summary(error)}") from error
        info = path.stat()
        self.key = info.st_size, info.st_mtime_ns
        step = max(1, min(BLOCK_ROWS, BATCH_BYTES // max(width, 1)))
        super().__init__(pa.schema(fields), [min(step, rows - at) for at in range(0, rows, step)], where)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices of one block, which is read at once: each read unpacks whole chunks."""
        import h5py

        info = self.path.stat()
        if (info.st_size, info.st_mtime_ns) != self.key:
            raise UserError(f"{self.where} was changed while it was read. Open it again when it is whole.")
        wanted = list(dict.fromkeys(self.owner[name] for name in columns))
        start, end = int(self.starts[block]), int(self.starts[block + 1])
        found: dict[str, pa.Array] = {}
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                for name in wanted:
                    found |= _columns(h5py, name, file[self.group].get(self.names[name]), start, end)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OSError(f"{self.group}: {error_summary(error)}") from error
        batch = pa.RecordBatch.from_arrays([found[name] for name in columns], names=columns)
        for at in range(0, batch.num_rows, size):
            yield batch.slice(at, size)


def _group(h5py: Any, file: Any, asked: str, where: str) -> tuple[str, dict[str, Any], list[str]]:
    """Group that was asked for, or the only one with datasets: its name, the datasets, and those left out."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    waiting, looked = [("/", file["/"])], 0
    seen = {h5py.h5o.get_info(file["/"].id).addr}
    while waiting:
        path, group = waiting.pop(0)
        found: dict[str, Any] = {}
        left: list[str] = []
        for name in group:
            looked += 1
            if looked > MAX_MEMBERS:
                raise UserError(f"{where} has more than {MAX_MEMBERS:,} members. Name the group: FILE#/GROUP.")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                left.append(name)
                continue
            member = group.get(name)
            if isinstance(member, h5py.Group):
                key = h5py.h5o.get_info(member.id).addr
                if key not in seen:
                    seen.add(key)
                    waiting.append((f"{path.rstrip('/')}/{name}", member))
            elif isinstance(member, h5py.Dataset) and member.shape and _readable(h5py, member):
                found[name] = member
            else:
                left.append(name)
        groups[path] = found, left
        if asked and path.strip("/") == asked.strip("/"):
            break
    full = [path for path, (found, _) in groups.items() if found]
    path = (
        next((path for path in groups if path.strip("/") == asked.strip("/")), None)
        if asked
        else full[0]
        if len(full) == 1
        else None
    )
    if path is None and asked:
        raise UserError(f"{where} has no group '{asked[:100]}'.{did_you_mean(asked, full)}")
    if path is None and full:
        raise UserError(
            f"{where} has several groups with datasets. Name one, as FILE#{full[0]}. Possible: {', '.join(full[:20])}."
        )
    if path is None or not groups[path][0]:
        raise UserError(f"{where} has no dataset with rows that can be read{f' in {path}' if path else ''}.")
    return path, *groups[path]


def _readable(h5py: Any, dataset: Any) -> bool:
    """True for a dataset that lies in the file, and is of numbers, text, or lists of numbers."""
    if dataset.is_virtual or dataset.external:
        return False
    kinds = [dataset.dtype]
    while kinds:
        kind = kinds.pop()
        if kind.subdtype is not None:
            kind = kind.subdtype[0]
        if kind.names is not None:
            kinds += [kind[name] for name in kind.names]
        elif h5py.check_string_dtype(kind) is not None:
            continue
        elif (inner := h5py.check_vlen_dtype(kind)) is not None:
            if kind is not dataset.dtype or inner.kind not in "biuf":
                return False
        elif h5py.check_ref_dtype(kind) is not None or kind.kind not in "biufS":
            return False
    return True


def _columns(h5py: Any, name: str, dataset: Any, start: int, end: int) -> dict[str, pa.Array]:
    """Columns of some rows of a dataset."""
    kind = dataset.dtype
    array = dataset[start:end]
    if h5py.check_string_dtype(kind) is None and h5py.check_vlen_dtype(kind) is not None:
        inner = pa.list_(pa.from_numpy_dtype(h5py.check_vlen_dtype(kind)))
        if array.ndim > 1:
            raise TypeError(f"the dataset '{name}' has lists of several dimensions")
        return {name: pa.array(list(array), inner)}
    return columns_of(name, _text(h5py, array, kind))


def _text(h5py: Any, array: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Array with texts as NumPy strings, and enumerations by name."""
    if kind.names is not None:
        parts = {field: _text(h5py, array[field], kind[field]) for field in kind.names}
        out = np.empty(array.shape, [(field, part.dtype, part.shape[array.ndim :]) for field, part in parts.items()])
        for field, part in parts.items():
            out[field] = part
        return out
    if (names := h5py.check_enum_dtype(kind)) is not None and kind.kind != "b":
        words = {value: word for word, value in names.items()}
        flat = [words.get(value, "") for value in array.reshape(-1).tolist()]
        return np.array(flat, "U").reshape(array.shape)
    if kind.kind == "O":
        flat = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell) for cell in array.reshape(-1)]
        return np.array(flat, "U").reshape(array.shape)
    return array
