"""WebDataset-layout tar shards: members that share a name up to its first dot are one row, the rest is the column.

Nothing is unpacked to disk and nothing is unpickled: members that would need it are refused. Pictures, sounds and
videos stay bytes; ``.json`` becomes columns by its keys, ``.txt`` text, ``.cls`` a label, ``.npy`` a list of numbers.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.data.media import named
from sensorium.data.objects import parse, spool_objects
from sensorium.data.sources import UNREADABLE, Opened, Source, converted, folder_of, name_of_files, read_stream
from sensorium.data.spool import spooling

MEMBER = 256 << 20
"""Bytes of the longest member."""
PICKLES = {"pyd", "pickle", "pkl", "pth", "pt", "joblib", "dill", "npz"}
COLUMNS = {"txt": "text", "text": "text", "cls": "label", "cls2": "label2", "npy": "array"}


class Tar(Source):
    """One shard or several."""

    suffixes = (".tar",)
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path]) -> Opened:
        """Converted to Parquet. A damaged member costs its row; a shard that ends early keeps what came before."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} tar files"
        opened = Opened(None, name_of_files(given), folder_of(given))  # type: ignore[arg-type]
        with spooling(where) as spool:
            spool_objects((row for path in given for row in _rows(path, opened)), spool, opened.mended)
            opened.blocks = converted(spool)
        return opened


def _rows(path: Path, opened: Opened) -> Iterator[tuple[dict[str, Any], int]]:
    key, row, weight, bad = "", {}, 0, ""

    def done() -> Iterator[tuple[dict[str, Any], int]]:
        if bad:
            opened.bad(f"{path.name}, sample {key}", bad, ", ".join(row))
        elif len(row) > 1:
            yield row, weight

    for member, read in _members(path, opened):
        name, column = _split(member.name)
        if not column:
            continue
        if name != key:
            yield from done()
            key, row, weight, bad = name, {"__key__": name}, 0, ""
        try:
            for known, value in _decoded(path, column, read()).items():
                row[known if known not in row else column] = value
        except BadCell as error:
            bad = f"{column}: {error}"
        weight += member.size
    if key:
        yield from done()


def _members(path: Path, opened: Opened) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    """Each regular file of a shard and what reads it, in the order they lie."""
    seen = 0
    try:
        with read_stream(path) as file, tarfile.open(fileobj=file, mode="r|") as shard:
            for member in shard:
                shard.members.clear()  # type: ignore[attr-defined]  # else every header of the shard is remembered
                if not member.isreg():
                    continue
                seen += 1

                def read(member: tarfile.TarInfo = member) -> bytes:
                    if member.size > MEMBER:
                        raise BadCell(f"{member.size:,} bytes, more than the limit of {MEMBER:,}")
                    try:
                        return shard.extractfile(member).read()  # type: ignore[union-attr]
                    except (tarfile.TarError, *UNREADABLE) as error:
                        raise BadCell(f"damaged: {error}") from error

                yield member, read
    except (tarfile.TarError, *UNREADABLE) as error:
        if not seen and path.stat().st_size:
            raise UserError(f"'{path}' can't be read as tar: {error}") from error
        if seen:
            opened.bad(path.name, f"the shard is damaged after {seen:,} files: {error}")


def _split(path: str) -> tuple[str, str]:
    """``a/b.left.png`` is the sample ``a/b`` and its member ``left.png``; hidden files belong to none."""
    folder, slash, name = path.removeprefix("./").rpartition("/")
    stem, _, ending = name.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem else ("", "")


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
            return {known: int(text)}
        except ValueError:
            return {known: text}
    if ending == "json":
        try:
            value = parse(data)
        except (ValueError, RecursionError) as error:
            raise BadCell(f"no JSON: {error}") from error
        return value if isinstance(value, dict) and not name else {known: value}
    if ending == "npy":
        return {known: _array(path, column, data)}
    return {known: data}


def _array(path: Path, column: str, data: bytes) -> list[Any]:
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
