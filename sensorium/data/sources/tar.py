"""WebDataset-layout tar shards: members that share a name up to its first dot are one row, the rest is the column.

Nothing is unpacked to disk and nothing is unpickled: members that would need it are refused. Pictures, sounds and
videos stay bytes; ``.json`` becomes columns by its keys, ``.txt`` text, ``.cls`` a label, ``.npy`` a list of numbers.
A link has the bytes of the member that it names.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.data.contents import UNREADABLE, read_stream
from sensorium.data.media import named
from sensorium.data.objects import BadObject, parse, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.spool import spooling

MEMBER = 256 << 20
"""Bytes of the longest member."""
PICKLES = {"pyd", "pickle", "pkl", "pth", "pt", "joblib", "dill", "npz"}
COLUMNS = {"txt": "text", "text": "text", "cls": "label", "cls2": "label2", "npy": "array"}

Object = tuple[dict[str, Any] | BadObject, int]


class Tar(Source):
    """One shard or several."""

    suffixes = (".tar",)
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Converted to Parquet. A damaged member makes its row a bad one; a shard that ends early keeps what came before."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} tar files"
        opened = Opened(None, name_of_files(given), folder_of(given))  # type: ignore[arg-type]
        with spooling(where) as spool:
            spool_objects((row for path in given for row in _rows(path, opened)), spool, opened, options)
            opened.blocks = converted(spool)
        return opened


def _rows(path: Path, opened: Opened) -> Iterator[Object]:
    key, row, weight, bad = "", {}, 0, ""
    passed, last = 0, ""

    def done() -> Iterator[Object]:
        if bad:
            yield BadObject(f"{path.name}, sample {key}", bad, ", ".join(row)), 0
        elif len(row) > 1:
            nonlocal last
            last = key
            yield row, weight

    for member, read in _members(path):
        if member is None:
            yield from done()
            if not bad:
                yield BadObject(path.name, read()), 0
            opened.remark(f"{read()}; the last sample that was read is '{last}'", path.name)
            key = ""
            break
        name, column = _split(member.name)
        if not column:
            passed += not name  # hidden files are passed over in silence, as they are in folders
            continue
        if name != key:
            yield from done()
            key, row, weight, bad = name, {"__key__": name}, 0, ""
        try:
            for known, value in _decoded(path, column, read()).items():
                row[known if known not in row else column] = value
        except BadCell as error:
            bad = bad or f"{column}: {error}"
        weight += member.size
    if key:
        yield from done()
    if passed:
        opened.remark(f"{passed:,} file(s) without an ending belong to no sample", path.name)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo | None, Callable[[], Any]]]:
    """Each file of a shard and what reads it, in the order they lie; at last None where it ends early, and the reason."""
    seen = 0
    places: dict[str, tuple[int, int]] = {}
    try:
        with read_stream(path) as file, tarfile.open(fileobj=file, mode="r|") as shard:
            for member in shard:
                shard.members.clear()  # type: ignore[attr-defined]  # else every header of the shard is remembered
                if not (member.isreg() or member.islnk() or member.issym()):
                    continue
                seen += 1
                if member.isreg():
                    places[posixpath.normpath(member.name)] = member.offset_data, member.size

                def read(member: tarfile.TarInfo = member) -> bytes:
                    if member.islnk() or member.issym():
                        return _linked(path, member, places)
                    if member.size > MEMBER:
                        raise BadCell(f"{member.size:,} bytes, more than the limit of {MEMBER:,}")
                    try:
                        data = shard.extractfile(member).read()  # type: ignore[union-attr]
                    except (tarfile.TarError, *UNREADABLE) as error:
                        raise BadCell(f"damaged: {error}") from error
                    if len(data) < member.size:
                        raise BadCell(f"cut short: {len(data):,} of {member.size:,} bytes are there")
                    return data

                yield member, read
    except (tarfile.TarError, *UNREADABLE) as error:
        if not seen and path.stat().st_size:
            raise UserError(f"'{path}' can't be read as tar: {error}") from error
        if seen:
            reason = f"the archive ends early or is damaged, after {seen:,} files ({error})"
            yield None, lambda: reason


def _linked(path: Path, member: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> bytes:
    """The bytes of the earlier member that a link names: hard links by the whole path, symbolic ones from their own folder."""
    target = member.linkname if member.islnk() else posixpath.join(posixpath.dirname(member.name), member.linkname)
    found = places.get(posixpath.normpath(target))
    if found is None:
        raise BadCell(f"a link to '{member.linkname[:100]}', which doesn't lie before it in the shard")
    if found[1] > MEMBER:
        raise BadCell(f"{found[1]:,} bytes, more than the limit of {MEMBER:,}")
    with read_stream(path) as file:
        file.seek(found[0])
        return file.read(found[1])


def _split(path: str) -> tuple[str, str]:
    """``a/b.left.png`` is the sample ``a/b`` and its member ``left.png``; hidden files belong to none."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem and ending else ("." if not stem else "", "")


def _decoded(path: Path, column: str, data: bytes) -> dict[str, Any]:
    """The columns that one member fills.

    Raises:
        UserError: it is a pickle or holds one.
        BadCell: it can't be decoded.
    """
    name, _, ending = column.rpartition(".")
    if ending in PICKLES:
        raise UserError(
            f"'{path}' holds a member .{column}. Sensorium never reads pickles (nor archives that may hold them), "
            "since reading one can run any code. Write the shard again with .json, .txt, .cls, .npy or media files instead."
        )
    known = name or named(f".{ending}") or COLUMNS.get(ending, ending)
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
            value = parse(data)
        except ValueError as error:
            raise BadCell(str(error)) from error
        return value if isinstance(value, dict) and not name else {known: value}
    if ending == "npy":
        return {known: npy_array(path, column, data)}
    return {known: data}


def npy_array(path: Path, column: str, data: bytes) -> list[Any]:
    """The numbers of a NumPy file as lists.

    Raises:
        UserError: it holds Python objects.
        BadCell: it is none, or of other things than numbers.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        if "pickle" in str(error).lower() or "Object arrays" in str(error):
            raise UserError(
                f"'{path}' holds a member .{column} with Python objects inside. Sensorium never reads pickles, since "
                "reading one can run any code. Write the array again as numbers."
            ) from error
        raise BadCell(f"no NumPy array: {error}") from error
    except (EOFError, OSError, MemoryError, SyntaxError) as error:
        raise BadCell(f"no NumPy array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise BadCell(f"a NumPy array of {array.dtype}, where numbers are needed")
    return array.tolist()
