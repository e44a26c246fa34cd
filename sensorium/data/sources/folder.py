"""A folder of media files: described by a metadata file, or sorted into one folder a class.

The convention is that of Hugging Face's imagefolder and audiofolder: ``metadata.csv``, ``.jsonl`` or ``.parquet`` with
a column ``file_name`` (or several ``*_file_name``) beside the files, in the folder itself or in each of its splits.
Without metadata a file's own folder is its ``label``, and ``train``, ``test`` and their like are its ``split``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.blocks import Blocks, Joined
from sensorium.data.media import named
from sensorium.data.objects import spool_objects
from sensorium.data.sources import Opened, Source, converted, open_source
from sensorium.data.spool import spooling

METADATA = ("metadata.parquet", "metadata.csv", "metadata.jsonl")
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".arrow", ".tar")
SPLIT = re.compile(r"(train|training|val|valid|validation|dev|test|eval|holdout)([_\-.].*)?", re.IGNORECASE)


class Folder(Source):
    """A folder with metadata, or with a folder a class; else the tables that lie in it."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """Whether it is a path to a folder."""
        return isinstance(given, (str, Path)) and Path(given).expanduser().is_dir()

    @classmethod
    def open(cls, given: str | Path) -> Opened:
        """Metadata first, then media files, then table files."""
        folder = Path(given).expanduser()
        opened = Opened(None, folder.resolve().name or "table", folder.resolve())  # type: ignore[arg-type]
        splits = [sub for sub in sorted(folder.iterdir()) if sub.is_dir() and SPLIT.fullmatch(sub.name)]
        if _metadata(folder):
            opened.blocks = _described(folder, folder, opened)
        elif any(map(_metadata, splits)):
            described = [sub for sub in splits if _metadata(sub)]
            parts = [_described(folder, sub, opened) for sub in described]
            opened.blocks = Joined(parts, f"'{folder}'", ("split", [sub.name for sub in described]))
        elif next(_media(folder), None):
            opened.blocks = _sorted(folder, opened)
        else:
            return _tables(folder)
        return opened


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def _described(root: Path, folder: Path, opened: Opened) -> Blocks:
    """The rows of a metadata file; ``file_name`` becomes a column of paths from the root, named for what they are."""
    path = _metadata(folder)
    found = open_source(path)
    opened.bad_rows += found.bad_rows
    opened.bad_count += found.bad_count
    for column, cells in found.repaired.items():
        opened.mended(column, cells)
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
    """What the files are by their endings: "image", "audio", "video", or "file" where they differ."""
    for block in range(len(blocks.starts) - 1):
        for batch in blocks.read(block, [column], 1024):
            kinds = {named(str(path)) or "file" for path in batch.column(0).to_pylist() if path}
            return kinds.pop() if len(kinds) == 1 else "file"
    return "file"


class _Renamed(Blocks):
    """Other blocks with some columns of paths renamed and put below a folder."""

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


def _media(folder: Path) -> Iterator[tuple[PurePosixPath, str]]:
    """All media files below the folder in a fixed order, and what each is; links to folders aren't followed."""
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            kind = named(name)
            if kind and not name.startswith("."):
                yield PurePosixPath((Path(top) / name).relative_to(folder).as_posix()), kind


def _sorted(folder: Path, opened: Opened) -> Blocks:
    def rows() -> Iterator[tuple[dict[str, Any], int]]:
        for path, kind in _media(folder):
            above = list(path.parts[:-1])
            row: dict[str, Any] = {kind: str(path)}
            if above and SPLIT.fullmatch(above[0]):
                row["split"] = above.pop(0)
            if above:
                row["label"] = above[-1]
            yield row, 100

    with spooling(f"'{folder}'") as spool:
        spool_objects(rows(), spool, opened.mended)
        return converted(spool)


def _tables(folder: Path) -> Opened:
    for suffix in TABLES:
        files = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
        if files:
            opened = open_source(files)
            opened.folder, opened.name = folder.resolve(), folder.resolve().name
            return opened
    raise UserError(
        f"The folder '{folder}' is no table. It needs metadata.csv, metadata.jsonl or metadata.parquet with a column "
        f"file_name; or images, sounds or videos, one folder a class; or files ending in {', '.join(TABLES)}."
    )
