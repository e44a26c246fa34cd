"""ZIP archives: of media, read as a folder of media without unpacking it, or of table files.

Media stay in the archive and are unpacked cell by cell as they are read. Table files are unpacked into this process's
cache, within bounds. Names in an archive are only ever looked up in it, so that none can lead out.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
import threading
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.data.arrow import MEDIA_TYPE
from sensorium.data.blocks import BATCH_BYTES, Blocks, ConcatenatedBlocks
from sensorium.data.media import HEAD_BYTES, named, sniff
from sensorium.data.objects import BadObject, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files, open_source, suffix_of
from sensorium.data.sources._inside import ZIP_ERRORS, error_summary, unpack_member
from sensorium.data.sources.folder import (
    METADATA_FILES,
    PARTITION_NAME,
    SPLIT_NAME,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    _described,
    _partition,
    _passed,
)
from sensorium.data.spool import cache_folder, drop_with, spooling

MAX_MEMBER_BYTES = 256 << 20
"""Bytes of the largest file of an archive that becomes a cell."""
FREE_BYTES, MAX_EXPANSION = 1 << 30, 200
"""Bytes to which table files may always unpack, and largest ratio to the archive's bytes where that is more."""
CHUNK_ROWS = 64
"""Rows of files that are unpacked at once, if they have no more than ``BATCH_BYTES`` bytes."""
MAX_OPEN_ARCHIVES = 2
"""Archives that one thread keeps open."""
ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
ARCHIVE_ERRORS = (*ZIP_ERRORS, ValueError)

Members = dict[str, zipfile.ZipInfo]


class Archive(Source):
    """One ZIP archive or several."""

    suffixes = (".zip",)

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Open media first, as in folders, then table files."""
        if len(given) == 1:
            return _open(given[0], options)
        opened, parts = Opened.empty(name_of_files(given), folder_of(given)), []
        for path in given:
            part = _open(path, options)
            opened.take(part, sum(blocks.rows for blocks in parts))
            parts.append(part.blocks)
        opened.blocks = ConcatenatedBlocks(parts, f"{len(given)} ZIP archives")
        return opened


def _open(path: Path, options: ReadOptions) -> Opened:
    opened = Opened.empty(name_of_files([path]), None)
    blocks: Blocks | None = None
    cache = Path(tempfile.mkdtemp(prefix="zip-", dir=cache_folder()))
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            kinds = _kinds(archive, members)
            if kinds and (tables := _metadata(members)):
                blocks = _with_metadata(path, archive, members, tables, cache, opened, options)
            elif kinds:
                blocks = _sorted(path, members, kinds, opened, options)
            else:
                blocks = _tables(path, archive, members, cache, opened, options).blocks
        opened.blocks = blocks
        return opened
    except UserError as error:
        raise UserError(str(error).replace(f"{cache}{os.sep}", f"{path}/").replace(str(cache), str(path))) from error
    except ARCHIVE_ERRORS as error:
        raise UserError(f"'{path}' can't be read as a ZIP archive: {error_summary(error)}") from error
    finally:
        if blocks is None:
            shutil.rmtree(cache, ignore_errors=True)
        else:
            drop_with(blocks, cache / "members")


def _members(path: Path, archive: zipfile.ZipFile) -> Members:
    """The files of an archive by their paths, without hidden ones and without the one folder that holds them all.

    Raises:
        UserError: its members overlap, as only those of ZIP bombs do.
    """
    infos = archive.infolist()
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise UserError(f"The members of '{path}' overlap: it would unpack to far more than it holds, and isn't read.")
    found: Members = {}
    for info in infos:
        parts = [part for part in info.filename.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not info.is_dir() and parts and "__MACOSX" not in parts and not any(part.startswith(".") for part in parts):
            found["/".join(parts)] = info
    tops = {name.partition("/")[0] for name in found}
    below = {name.partition("/")[2]: info for name, info in found.items()}
    whole = len(tops) == 1 and all(below) and not SPLIT_NAME.fullmatch(next(iter(tops)))
    # A folder of files alone stays: it is their label.
    return below if whole and any("/" in name or suffix_of(Path(name)) in TABLE_SUFFIXES for name in below) else found


def _kinds(archive: zipfile.ZipFile, members: Members) -> dict[str, str]:
    """Media files and their kinds, "image", "audio" or "video", in the order of their names."""
    found = {}
    tables = _suffixes()
    for name, info in sorted(members.items()):
        ending = PurePosixPath(name).suffix.lower()
        kind = named(name)
        if kind is None and ending not in TEXT_SUFFIXES and ending not in tables and not _unread(info):
            try:
                with archive.open(info) as file:
                    kind = (sniff(file.read(HEAD_BYTES)) or "").partition("/")[0]
            except ARCHIVE_ERRORS:
                continue
        if kind in ("image", "audio", "video"):
            found[name] = kind
    return found


def _suffixes() -> list[str]:
    """Suffixes of table files that may lie in an archive, those that a folder prefers first."""
    every = [
        suffix for name in names(Source) for suffix in find(Source, name).suffixes if suffix not in Archive.suffixes
    ]
    return list(dict.fromkeys([*(suffix for suffix in TABLE_SUFFIXES if suffix not in Archive.suffixes), *every]))


def _unread(info: zipfile.ZipInfo) -> str:
    """Reason not to unpack a member; empty: it is unpacked."""
    if info.flag_bits & 1:
        return "encrypted by a password"
    if info.compress_type not in ZIP_METHODS:
        return f"compressed by a method that isn't read ({info.compress_type})"
    return (
        f"{info.file_size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}"
        if info.file_size > MAX_MEMBER_BYTES
        else ""
    )


def _metadata(members: Members) -> list[str]:
    """The metadata files: that of the whole archive, or of each split."""
    if whole := [name for name in METADATA_FILES if name in members][:1]:
        return whole
    splits = sorted({name.partition("/")[0] for name in members if SPLIT_NAME.fullmatch(name.partition("/")[0])})
    return [
        path
        for split in splits
        for path in [f"{split}/{name}" for name in METADATA_FILES if f"{split}/{name}" in members][:1]
    ]


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, limit: int) -> int:
    """Unpack one member into the cache, and give its size in bytes.

    Raises:
        UserError: it can't be, or would be over the limit.
    """
    if info.flag_bits & 1:
        raise UserError(
            f"'{info.filename[:100]}' in '{archive.filename}' is encrypted by a password. Unpack it yourself."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        with open(path, "wb") as out:
            for piece in unpack_member(archive, info, limit):
                size += out.write(piece)
    except OverflowError as error:
        raise UserError(
            f"'{archive.filename}': {error}, {MAX_EXPANSION} times what it holds. Unpack it yourself if it is "
            "no ZIP bomb."
        ) from error
    return size


def _limit(path: Path) -> int:
    return max(FREE_BYTES, MAX_EXPANSION * path.stat().st_size)


def _with_metadata(
    path: Path,
    archive: zipfile.ZipFile,
    members: Members,
    tables: list[str],
    cache: Path,
    opened: Opened,
    options: ReadOptions,
) -> Blocks:
    for name in tables:
        _extract(archive, members[name], cache / name, _limit(path))
    folders = [cache / PurePosixPath(name).parent for name in tables]
    parts = [_described(cache, folder, opened, options) for folder in folders]
    columns: set[str] = set().union(*(part.paths for part in parts))
    if folders == [cache]:
        inner: Blocks = parts[0]
    else:
        inner = ConcatenatedBlocks(parts, f"'{path}'", ("split", [folder.name for folder in folders]))
    inner.where = f"'{path}'"
    return _Packed(path, inner, columns, members)


def _sorted(path: Path, members: Members, kinds: dict[str, str], opened: Opened, options: ReadOptions) -> Blocks:
    """Rows of files sorted into folders: the folder is the label, as in ``folder``."""

    def rows() -> Iterator[tuple[dict[str, Any] | BadObject, int]]:
        for name, kind in kinds.items():
            if reason := _unread(members[name]):
                yield BadObject(f"{path.name}, {name}", reason), 0
                continue
            above = list(PurePosixPath(name).parts[:-1])
            row: dict[str, Any] = {kind: name}
            if above and SPLIT_NAME.fullmatch(above[0]):
                row["split"] = above.pop(0)
            keys = [part for part in above if PARTITION_NAME.fullmatch(part)]
            row |= {key: value for key, value in map(_partition, keys) if key not in row}
            if above := [part for part in above if part not in keys]:
                row["label"] = above[-1]
            yield row, 100

    with spooling(f"'{path}'") as spool:
        spool_objects(rows(), spool, opened, options)
        inner = converted(spool)
    _passed(
        Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in members if name not in kinds),
        opened,
    )
    return _Packed(path, inner, set(kinds.values()) & set(inner.schema.names), members)


class _Packed(Blocks):
    """Blocks whose paths in an archive are replaced by the files."""

    def __init__(self, path: Path, inner: Blocks, columns: set[str], members: Members) -> None:
        self.path, self.inner, self.columns, self.members = path, inner, columns, members
        info = path.stat()
        self.key = path, info.st_mtime_ns, info.st_size
        fields = [(field.name, MEDIA_TYPE if field.name in columns else field.type) for field in inner.schema]
        super().__init__(pa.schema(fields), np.diff(inner.starts).tolist(), f"'{path}'")
        self.declared, self.remarks = set(inner.declared) - columns, dict(inner.remarks)

    def repairs(self) -> dict[str, int]:
        """Repairs of the inner blocks."""
        return self.inner.repairs()

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Inner batches with files unpacked, a few rows at a time."""
        asked = [name for name in columns if name in self.columns]
        for batch in self.inner.read(block, columns, min(size, CHUNK_ROWS) if asked else size):
            if not asked:
                yield batch
                continue
            archive = _opened(self.key)
            paths = {name: batch.column(name).to_pylist() for name in asked}
            start = taken = 0
            cells: dict[str, list[Any]] = {name: [] for name in asked}
            for row in range(batch.num_rows):
                for name in asked:
                    cell = None if paths[name][row] is None else self.cell(archive, str(paths[name][row]))
                    cells[name].append(cell)
                    taken += len(cell["bytes"] or b"") if cell else 0
                if taken > BATCH_BYTES or row == batch.num_rows - 1:
                    part = batch.slice(start, row + 1 - start)
                    arrays = [
                        pa.array(cells[name], MEDIA_TYPE) if name in cells else part.column(name) for name in columns
                    ]
                    yield pa.RecordBatch.from_arrays(arrays, names=columns)
                    start, taken, cells = row + 1, 0, {name: [] for name in asked}

    def cell(self, archive: zipfile.ZipFile, path: str) -> dict[str, Any]:
        """File at a path of the archive; where it can't be read, a path that names the reason and leads nowhere."""
        info = self.members.get(posixpath.normpath(path.replace("\\", "/")))
        reason = "not in the archive" if info is None else _unread(info)
        if info is not None and not reason:
            try:
                return {"bytes": b"".join(unpack_member(archive, info, MAX_MEMBER_BYTES)), "path": path}
            except (OverflowError, *ARCHIVE_ERRORS) as error:
                reason = f"damaged: {error_summary(error)}"
        return {
            "bytes": None,
            "path": f"{self.path.name}/{posixpath.basename(path)[:100]} ({reason.replace('/', ' ')})",
        }


_local = threading.local()


def _opened(key: tuple[Path, int, int]) -> zipfile.ZipFile:
    """Archive, opened once in this thread of this process."""
    if getattr(_local, "owner", None) != os.getpid():
        _local.owner, _local.files = os.getpid(), OrderedDict()
    files: OrderedDict[Any, zipfile.ZipFile] = _local.files
    info = key[0].stat()
    if (info.st_mtime_ns, info.st_size) != key[1:]:
        raise UserError(f"'{key[0]}' was changed while it was read. Open it again when it is whole.")
    if key not in files:
        files[key] = zipfile.ZipFile(key[0])
        if len(files) > MAX_OPEN_ARCHIVES:
            files.popitem(last=False)[1].close()
    files.move_to_end(key)
    return files[key]


def _tables(
    path: Path, archive: zipfile.ZipFile, members: Members, cache: Path, opened: Opened, options: ReadOptions
) -> Opened:
    """The table files of one kind, unpacked into the cache."""
    by_suffix: dict[str, list[str]] = {}
    for name in sorted(members):
        by_suffix.setdefault(suffix_of(Path(PurePosixPath(name).name)), []).append(name)
    suffix = next((suffix for suffix in _suffixes() if suffix in by_suffix), None)
    if suffix is None:
        seen = ", ".join(
            f"{len(files):,} {ending or 'without an ending'}" for ending, files in list(by_suffix.items())[:8]
        )
        raise UserError(
            f"The archive '{path}' is no table. {f'It holds {seen}. ' if seen else 'It is empty. '}"
            "It needs images, sounds or videos, with metadata.csv or one folder a class; or files ending in "
            f"{', '.join(_suffixes())}."
        )
    files, left = [], _limit(path)
    for number, name in enumerate(by_suffix[suffix]):
        file = cache / str(number) / _plain(PurePosixPath(name).name)
        left -= _extract(archive, members[name], file, left)
        files.append(file)
    found = open_source(files, options)
    opened.take(found)
    opened.blocks, opened.folder = found.blocks, folder_of([path])
    opened.blocks.where = f"'{path}'"
    opened.remark(f"{len(files):,} table file(s) of the archive were read, from '{by_suffix[suffix][0]}' on", path.name)
    _passed(
        Counter({ending or "without an ending": len(rest) for ending, rest in by_suffix.items() if ending != suffix}),
        opened,
    )
    return opened


def _plain(name: str) -> str:
    """A file name that any system takes."""
    return re.sub(r"[^\w.\- ]", "_", name)[-100:]
