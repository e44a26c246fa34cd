"""A folder of media files: described by a metadata file, or sorted into one folder a class.

The convention is that of Hugging Face's imagefolder and audiofolder: ``metadata.csv``, ``.jsonl`` or ``.parquet`` with
a column ``file_name`` (or several ``*_file_name``) beside the files, in the folder itself or in each of its splits.
Without metadata a file's own folder is its ``label``, and ``train``, ``test`` and their like are its ``split``.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.blocks import Blocks, ConcatenatedBlocks
from sensorium.data.media import HEAD_BYTES, named, sniff, unread_format
from sensorium.data.objects import BadObject, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import SPLIT_NAME, Opened, Source, converted, open_source, suffix_of
from sensorium.data.spool import spooling

METADATA_FILES = ("metadata.parquet", "metadata.csv", "metadata.jsonl")
TABLE_SUFFIXES = (
    ".parquet", ".csv", ".tsv", ".jsonl", ".arrow", ".orc", ".avro", ".xlsx", ".xlsm", ".xlsb", ".xls", ".ods",
    ".h5", ".npz", ".npy", ".tar", ".zip",
)  # fmt: skip


class Folder(Source):
    """A folder with metadata, or with a folder a class; else the tables that lie in it."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for a path to a folder."""
        # Unlike the method of a path it takes names that are too long.
        return isinstance(given, (str, Path)) and os.path.isdir(os.path.expanduser(given))

    @classmethod
    def open(cls, given: str | Path, options: ReadOptions) -> Opened:
        """Open metadata first, then media files, then table files."""
        folder = Path(given).expanduser()
        opened = Opened.empty(folder.resolve().name or "table", folder.resolve())
        passed: Counter[str] = Counter()
        splits = [sub for sub in sorted(folder.iterdir()) if sub.is_dir() and SPLIT_NAME.fullmatch(sub.name)]
        if _metadata(folder):
            opened.blocks = _described(folder, folder, opened, options)
        elif any(map(_metadata, splits)):
            described = [sub for sub in splits if _metadata(sub)]
            parts = [_described(folder, sub, opened, options) for sub in described]
            opened.blocks = ConcatenatedBlocks(parts, f"'{folder}'", ("split", [sub.name for sub in described]))
        elif next(_media(folder, passed), None):
            opened.blocks = _sorted(folder, opened, options)
        else:
            return _tables(folder, passed, options)
        return opened


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def _described(root: Path, folder: Path, opened: Opened, options: ReadOptions) -> _Renamed:
    """Rows of a metadata file; ``file_name`` becomes a column of paths from the root, named by their media kind."""
    path = _metadata(folder)
    found = open_source(path, options)
    opened.take(found, opened.blocks_before)
    opened.blocks_before += found.blocks.rows
    renamed: dict[str, str] = {}
    have = found.blocks.schema.names
    for name in have:
        if name == "file_name" or name.endswith("_file_name"):
            wanted = name.removesuffix("_file_name") if name != "file_name" else _kind(found.blocks, name)
            renamed[name] = wanted if wanted not in have and wanted not in renamed.values() else name
    if not renamed and found.blocks.rows:
        raise UserError(
            f"'{path}' has no column file_name (or one that ends in _file_name), so its rows can't be joined to files. "
            f"Found: {', '.join(have)}. To open it as a plain table, give the file itself."
        )
    prefix = PurePosixPath(folder.relative_to(root).as_posix())
    return _Renamed(found.blocks, renamed, "" if prefix == PurePosixPath(".") else f"{prefix}/")


def _kind(blocks: Blocks, column: str) -> str:
    """Media kind of files by their suffixes: "image", "audio", "video", or "file" where they differ."""
    for block in range(len(blocks.starts) - 1):
        for batch in blocks.read(block, [column], 1024):
            kinds = {named(str(path)) or "file" for path in batch.column(0).to_pylist() if path}
            return kinds.pop() if len(kinds) == 1 else "file"
    return "file"


class _Renamed(Blocks):
    """Blocks with some columns of paths renamed and prefixed by a folder."""

    def __init__(self, inner: Blocks, renamed: dict[str, str], prefix: str) -> None:
        self.inner, self.prefix = inner, prefix
        self.original = {renamed.get(name, name): name for name in inner.schema.names}
        self.paths = set(renamed.values())
        fields = [(new, inner.schema.field(old).type) for new, old in self.original.items()]
        super().__init__(pa.schema(fields), np.diff(inner.starts).tolist(), inner.where)

    def repairs(self) -> dict[str, int]:
        new = {old: name for name, old in self.original.items()}
        return {new[name]: cells for name, cells in self.inner.repairs().items()}

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        for batch in self.inner.read(block, [self.original[name] for name in columns], size):
            arrays = [
                self._below(array) if name in self.paths else array
                for name, array in zip(columns, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _below(self, array: pa.Array) -> pa.Array:
        if not self.prefix:
            return array
        return pa.array([path if path is None else self.prefix + str(path) for path in array.to_pylist()], pa.string())


def _media(folder: Path, passed: Counter[str]) -> Iterator[tuple[PurePosixPath, str]]:
    """Media files below the folder in a fixed order, and the kind of each; links to folders aren't followed.

    A file whose ending says nothing is looked into. ``passed`` counts the others by what they are.
    """
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = Path(top) / name
            if not inside(path, folder):
                passed["links out of the folder"] += 1
                continue
            kind = named(name) or (_kind_of(path) if path.suffix.lower() not in TEXT_SUFFIXES else None)
            if kind:
                yield PurePosixPath(path.relative_to(folder).as_posix()), kind
            else:
                passed[path.suffix.lower() or "without an ending"] += 1


def _kind_of(path: Path) -> str | None:
    """Media kind of a file by its first bytes: "image", "audio", "video" or None."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            head = file.read(HEAD_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return None
    kind = (sniff(head) or "").partition("/")[0]
    return kind if kind in ("image", "audio", "video") and unread_format(head, path.name) is None else None


def _passed(counts: Counter[str], opened: Opened) -> None:
    """Remark which files were skipped."""
    if counts:
        counted = ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(8))
        opened.remark(f"{counts.total():,} file(s) of kinds that aren't read were passed over: {counted}")


def _sorted(folder: Path, opened: Opened, options: ReadOptions) -> Blocks:
    passed: Counter[str] = Counter()

    def rows() -> Iterator[tuple[dict[str, Any] | BadObject, int]]:
        for path, kind in _media(folder, passed):
            above = list(path.parts[:-1])
            row: dict[str, Any] = {kind: str(path)}
            if above and SPLIT_NAME.fullmatch(above[0]):
                row["split"] = above.pop(0)
            keys = [part for part in above if PARTITION_NAME.fullmatch(part)]
            row |= {key: value for key, value in map(_partition, keys) if key not in row}
            above = [part for part in above if part not in keys]
            if above:
                row["label"] = above[-1]
            yield row, 100

    with spooling(f"'{folder}'") as spool:
        spool_objects(rows(), spool, opened, options)
        blocks = converted(spool)
    _passed(passed, opened)
    return blocks


TEXT_SUFFIXES = {
    ".txt",
    ".md",
    ".rst",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".xml",
    ".html",
    ".yaml",
    ".yml",
    ".ini",
    ".log",
    ".py",
}
"""Suffixes of text files, whose content isn't sniffed."""
PARTITION_NAME = re.compile(r"([^=/]+)=(.*)")
"""Name of a folder in Hive's partition layout, ``year=2024``: a column and its value in all files below."""


def _partition(folder: str) -> tuple[str, str | None]:
    key, _, value = folder.partition("=")
    value = unquote(value)
    return unquote(key), None if value == "__HIVE_DEFAULT_PARTITION__" else value


def _tables(folder: Path, passed: Counter[str], options: ReadOptions) -> Opened:
    every = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".", "_")) and inside(path, folder)
    ]
    for suffix in TABLE_SUFFIXES:
        files = [path for path in every if suffix_of(path) == suffix]
        if not files:
            continue
        opened = _partitioned(folder, files, options)
        opened.folder, opened.name = folder.resolve(), folder.resolve().name
        _passed(Counter(path.suffix.lower() or "without an ending" for path in every if path not in files), opened)
        return opened
    seen = ", ".join(f"{count:,} {ending}" for ending, count in passed.most_common(8))
    raise UserError(
        f"The folder '{folder}' is no table. {f'It holds {seen}. ' if seen else ''}It needs metadata.csv, "
        "metadata.jsonl or metadata.parquet with a column file_name; or images, sounds or videos, one folder a class; "
        f"or files ending in {', '.join(TABLE_SUFFIXES)}."
    )


def inside(path: Path, folder: Path) -> bool:
    """True for a file that lies in a folder itself, and isn't a link that leads out of it."""
    return path.resolve().is_relative_to(folder.resolve())


def _partitioned(folder: Path, files: list[Path], options: ReadOptions) -> Opened:
    """Table files below a folder; folders of Hive's layout are columns, missing for files that lie in none."""
    keys = [
        dict(map(_partition, filter(PARTITION_NAME.fullmatch, path.relative_to(folder).parts[:-1]))) for path in files
    ]
    names = list(dict.fromkeys(name for key in keys for name in key))
    if not names:
        return open_source(files, options)
    whole = Opened.empty(folder.name, folder)
    parts, first = [], 0
    for path, key in zip(files, keys, strict=True):
        opened = open_source([path], options)
        whole.take(opened, first)
        first += opened.blocks.rows
        parts.append(ConstantColumns(opened.blocks, {name: key.get(name) for name in names}))
    types = {name: _type([key.get(name) for key in keys]) for name in names}
    for part in parts:
        part.set_types(types)
    whole.blocks = ConcatenatedBlocks(parts, f"'{folder}'")
    return whole


def _type(values: list[str | None]) -> pa.DataType:
    """Type of a partition's values: whole numbers where all are written as such, else text."""
    given = [value for value in values if value is not None]
    return pa.int64() if given and all(re.fullmatch(r"0|-?[1-9]\d{0,17}", value) for value in given) else pa.string()


class ConstantColumns(Blocks):
    """Blocks with added columns that have one value in all rows."""

    def __init__(self, inner: Blocks, values: dict[str, str | None]) -> None:
        self.inner = inner
        self.values = {name: value for name, value in values.items() if name not in inner.schema.names}
        self.set_types(dict.fromkeys(self.values, pa.string()))
        self.declared, self.remarks = set(inner.declared), dict(inner.remarks)

    def set_types(self, types: dict[str, pa.DataType]) -> None:
        """Set the types of the constant columns."""
        fields = [*self.inner.schema, *(pa.field(name, types[name]) for name in self.values)]
        declared, remarks = getattr(self, "declared", set()), getattr(self, "remarks", {})
        super().__init__(pa.schema(fields), np.diff(self.inner.starts).tolist(), self.inner.where)
        self.declared, self.remarks = declared, remarks

    def repairs(self) -> dict[str, int]:
        return self.inner.repairs()

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Inner batches with the constant columns added."""
        names = [name for name in columns if name not in self.values]
        for batch in self.inner.read(block, names, size):
            arrays = dict(zip(names, batch.columns, strict=True))
            for name in columns:
                if name in self.values:
                    kind = self.schema.field(name).type
                    value = self.values[name]
                    cell = pa.scalar(int(value) if value is not None and pa.types.is_integer(kind) else value, kind)
                    arrays[name] = pa.repeat(cell, batch.num_rows)
            yield pa.RecordBatch.from_arrays([arrays[name] for name in columns], names=columns)
