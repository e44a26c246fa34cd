"""WebDataset shards (tar): members that share a name up to its first dot are one row, the rest names the column.

A row's members may lie anywhere in the shard. Nothing is unpickled: members that would need it are refused.
Pictures, sounds and videos stay bytes; ``.json`` becomes columns by its keys, ``.txt`` text, ``.cls`` a label, ``.npy``
a list of numbers.
A link has the bytes of the member that it names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import posixpath
import shutil
import tarfile
import tempfile
import tokenize
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.data.contents import READ_ERRORS, compression, read_stream
from sensorium.data.media import named
from sensorium.data.objects import BadObject, parse_json, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.spool import cache_folder, spooling

MAX_MEMBER_BYTES, BLOCK_BYTES, MAX_LINKS = 256 << 20, 512, 8
"""Bytes of the largest member, and of a block; length of a chain of links."""
PICKLE_SUFFIXES = {"pyd", "pickle", "pkl", "pth", "pt", "joblib", "dill", "npz"}
MEMBER_COLUMNS = {"txt": "text", "text": "text", "cls": "label", "cls2": "label2", "npy": "array"}

Object = tuple[dict[str, Any] | BadObject, int]


class Tar(Source):
    """One shard or several."""

    suffixes = (".tar",)
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet. A damaged member makes its row a bad one; a shard that ends early keeps what came
        before."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} tar files"
        opened = Opened.empty(name_of_files(given), folder_of(given))
        with spooling(where) as spool:
            spool_objects((row for path in given for row in _rows(path, opened)), spool, opened, options)
            opened.blocks = converted(spool)
        return opened


@dataclasses.dataclass
class _Index:
    """Index of a shard: the place of each member.

    Attributes:
        samples: for each sample its members: the column, where its bytes begin, how many they are, and for a link to
            what.
        places: where each file's bytes begin, and how many they are, by its path.
        files: how many there are; passed: how many belong to no sample.
        links: what links name. damaged: after how many files something lies that is none.
        ends: why the shard ends early; empty: it doesn't.
    """

    samples: dict[str, list[tuple[str, int, int, str]]] = dataclasses.field(default_factory=dict)
    places: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    files: int = 0
    passed: int = 0
    ends: str = ""
    damaged: list[int] = dataclasses.field(default_factory=list)

    def gap(self, file: BinaryIO, start: int, end: int) -> None:
        """Check the bytes between two members: zeros end an archive, anything else is a damaged member."""
        if end <= start:
            return
        file.seek(start)
        if file.read(min(end - start, BLOCK_BYTES)).strip(b"\0"):
            self.damaged.append(self.files)

    def add(self, member: tarfile.TarInfo) -> None:
        """Add a file or a link."""
        if not (member.isreg() or member.islnk() or member.issym()):
            self.passed += not member.isdir()
            return
        self.files += 1
        name, link = posixpath.normpath(member.name), ""
        if member.isreg():
            self.places[name] = member.offset_data, member.size
        else:  # hard links name a whole path, symbolic ones one from their own folder
            link = member.linkname if member.islnk() else posixpath.join(posixpath.dirname(name), member.linkname)
            self.links[name] = posixpath.normpath(link)
        key, column = _split(member.name)
        if column:
            self.samples.setdefault(key, []).append((column, member.offset_data, member.size, link))
        else:
            self.passed += not key

    def target(self, link: str) -> tuple[int, int] | None:
        """Place of the bytes that a link names, through other links; None where there is none."""
        name = posixpath.normpath(link)
        for _ in range(MAX_LINKS):
            if name in self.places:
                return self.places[name]
            name = self.links.get(name, "")
        return None


def _rows(path: Path, opened: Opened) -> Iterator[Object]:
    """Samples of a shard in the order of their first members, wherever the others lie."""
    with _plain(path) as (file, torn):
        index = _indexed(path, file)
        index.ends = index.ends or torn
        last, whole = "", True
        for key, members in index.samples.items():
            row: dict[str, Any] = {"__key__": key}
            try:
                for column, start, size, link in members:
                    data = _bytes(file, start, size, link, index)
                    for known, value in _decoded(path, column, data).items():
                        row[known if known not in row else column] = value
            except BadCell as error:
                whole = False
                yield BadObject(f"{path.name}, sample {key}", f"{column}: {error}", ", ".join(row)), 0
                continue
            if len(row) > 1:
                last, whole = key, True
                yield row, sum(size for _, _, size, _ in members)
    if index.ends:
        opened.remark(f"the archive {index.ends}; the last sample that was read is '{last}'", path.name)
        if whole and "end mark" not in index.ends:  # else the sample that it ends in was told of
            yield BadObject(path.name, f"the archive {index.ends}: what followed is lost"), 0
    for files in index.damaged:
        opened.remark(f"the archive is damaged after {files:,} files: what lay there is lost", path.name)
        yield BadObject(path.name, f"the archive is damaged after {files:,} files: what lay there is lost"), 0
    if index.passed:
        opened.remark(
            f"{index.passed:,} file(s) without an ending, or that are no files, belong to no sample", path.name
        )


@contextlib.contextmanager
def _plain(path: Path) -> Generator[tuple[BinaryIO, str]]:
    """Context of a seekable shard, unpacked to this process's folder where it is compressed; and the reason why it
    ends early."""
    with open(path, "rb") as file:
        if not compression(file.read(8)):
            yield file, ""
            return
    torn = ""
    with tempfile.TemporaryFile(dir=cache_folder()) as file, read_stream(path) as packed:
        try:
            shutil.copyfileobj(packed, file, 1 << 20)
        except READ_ERRORS as error:
            torn = f"ends early ({error})"
        yield file, torn


def _indexed(path: Path, file: BinaryIO) -> _Index:
    """Index a shard. A damaged header is skipped block by block, so that the members behind it are found."""
    index, end, due = _Index(), file.seek(0, 2), 0
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as shard:
            for member in shard:
                shard.members.clear()  # ty: ignore[missing-attribute]  # else every header is remembered twice
                index.gap(file, due, member.offset)
                due = (
                    member.offset_data + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
                    if member.isreg()
                    else member.offset_data
                )
                index.add(member)
                if member.isreg() and member.offset_data + member.size > end:
                    index.ends = f"ends early, in the middle of '{member.name[:100]}'"
    except (tarfile.TarError, *READ_ERRORS) as error:
        if not index.files and end:
            raise UserError(f"'{path}' can't be read as tar: {error}") from error
        if index.files:
            index.ends = index.ends or f"ends early or is damaged after {index.files:,} files ({error})"
    if not index.files:
        index.gap(file, 0, end)
        if index.damaged:
            raise UserError(f"'{path}' can't be read as tar: it begins with no header of a file.")
    elif not index.ends:
        index.gap(file, due, end)
        if due >= end:
            index.ends = f"has no end mark after {index.files:,} files: it may be cut"
    return index


def _bytes(file: BinaryIO, start: int, size: int, link: str, index: _Index) -> bytes:
    """Bytes of a member, or of the one that a link names.

    Raises:
        BadCell: there are too many, fewer than the header says, or the link names nothing in the shard.
    """
    if link:
        found = index.target(link)
        if found is None:
            raise BadCell(f"a link to '{link[:100]}', which isn't in the shard")
        start, size = found
    if size > MAX_MEMBER_BYTES:
        raise BadCell(f"{size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise BadCell(f"cut short: {len(data):,} of {size:,} bytes are there")
    return data


def _split(path: str) -> tuple[str, str]:
    """Split a name: ``a/b.left.png`` is the sample ``a/b`` and its member ``left.png``; hidden files belong to none."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem and ending else ("." if not stem else "", "")


def _decoded(path: Path, column: str, data: bytes) -> dict[str, Any]:
    """Decode the columns of one member.

    Raises:
        UserError: it is a pickle or holds one.
        BadCell: it can't be decoded.
    """
    name, _, ending = column.rpartition(".")
    if ending in PICKLE_SUFFIXES:
        raise UserError(
            f"'{path}' holds a member .{column}. Sensorium never reads pickles (nor archives that may hold them), "
            "since reading one can run any code. Write the shard again with .json, .txt, .cls, .npy or media files "
            "instead."
        )
    known = name or named(f".{ending}") or MEMBER_COLUMNS.get(ending, ending)
    if ending in ("txt", "text"):
        return {known: data.decode("utf-8", "surrogateescape")}
    if ending in ("cls", "cls2", "id", "index"):
        text = data.decode("utf-8", "surrogateescape").strip()
        try:
            return {known: int(text) if str(int(text)) == text else text}
        except ValueError:
            return {known: text}
    if ending == "json":
        try:
            value = parse_json(data)
        except ValueError as error:
            raise BadCell(str(error)) from error
        return value if isinstance(value, dict) and not name else {known: value}
    if ending == "npy":
        return {known: npy_array(path, column, data)}
    return {known: data}


def npy_array(path: Path, column: str, data: bytes) -> list[Any]:
    """Numbers of a NumPy file as lists.

    Raises:
        UserError: it holds Python objects.
        BadCell: it is none, or of other things than numbers.
    """
    if (
        not data.startswith(b"\x93NUMPY") and data[:1] != b"\x80"
    ):  # else NumPy takes it for a pickle, which it is where it begins so
        raise BadCell("no NumPy array: it doesn't begin as one")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error).lower() or "Object arrays" in str(error):
            raise UserError(
                f"'{path}' holds a member .{column} with Python objects inside. Sensorium never reads pickles, since "
                "reading one can run any code. Write the array again as numbers."
            ) from error
        raise BadCell(f"no NumPy array: {error}") from error
    except (
        EOFError,
        OSError,
        MemoryError,
        SyntaxError,
        OverflowError,
        RecursionError,
        TypeError,
        tokenize.TokenError,
    ) as error:
        raise BadCell(f"no NumPy array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise BadCell(f"a NumPy array of {array.dtype}, where numbers are needed")
    return array.tolist()
