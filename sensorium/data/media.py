"""Media cells: the bytes of the file that bytes, a path or ``{bytes, path}`` name, and its media type.

It opens files below the table's folder only (unless allowed), fetches nothing and decodes nothing.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from sensorium.core.errors import BadCell
from sensorium.media.formats import ENDINGS, frame_name, media_type, named, undecided
from sensorium.media.unsupported import unread_format

__all__ = [
    "ENDINGS",
    "HEAD_BYTES",
    "MAX_BYTES",
    "File",
    "Files",
    "find_file",
    "frame_names",
    "is_frames",
    "media_bytes",
    "media_head",
    "named",
    "sniff",
    "unread_format",
]

MAX_BYTES = 256 << 20
MAX_DISPLAYED_ROWS = 50
"""Most rows of generated files that a notebook displays."""
MAX_BOXES, MAX_INDEX_BYTES = 1000, 1 << 20
"""Most boxes of an MP4 that are walked to its index, and most bytes of the index that are read."""
HEAD_BYTES = 1024
"""Bytes by which a file's media type is recognised."""

_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.\-]+://", re.IGNORECASE)


def media_bytes(cell: Any, folder: Path | None, allow_outside: bool, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a media cell.

    Args:
        cell: bytes, a path, or ``{"bytes": .., "path": ..}`` of which the bytes win. A folder of pictures is a ZIP
            archive of them in order.
        folder: the table's folder; paths are relative to it. None: the table has no folder.
        allow_outside: whether a path may leave the folder.
        max_bytes: the longest file that is read.

    Raises:
        BadCell: there are no bytes, too many, the path leaves the folder, or the file can't be read.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray, memoryview)):
        if len(cell) > max_bytes:
            raise BadCell(f"{len(cell):,} bytes, more than the limit of {max_bytes:,}")
        data = bytes(cell)
    elif isinstance(cell, (str, PurePath)):
        data = _open(str(cell), folder, allow_outside, max_bytes)
    else:
        raise BadCell(f"neither bytes nor a path but {type(cell).__name__}")
    if not data:
        raise BadCell("the file is empty")
    return data


def media_head(cell: Any, folder: Path | None, allow_outside: bool, size: int = HEAD_BYTES) -> bytes:
    """The first ``size`` bytes of a media cell; raises as ``media_bytes`` does."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return mp4_index_first(bytes(cell[:size]), len(cell), lambda at, count: bytes(cell[at : at + count]))
    if isinstance(cell, (str, PurePath)):
        return _open(str(cell), folder, allow_outside, None, size)
    raise BadCell(f"neither bytes nor a path but {type(cell).__name__}")


def mp4_index_first(head: bytes, size: int, read: Callable[[int, int], bytes]) -> bytes:
    """Head of an MP4 or MOV with its index moved right behind its type, where it lies further on; else ``head``.

    Args:
        head: the file's first bytes; size: of the file; read: its bytes from a place on, so many.
    """
    if not undecided(head):
        return head
    at, first = 0, b""
    for _ in range(MAX_BOXES):
        box = read(at, 16)
        if len(box) < 8:
            break
        length = int.from_bytes(box[:4], "big")
        length = int.from_bytes(box[8:16], "big") if length == 1 else length or size - at
        if length < 8 or at + length > size:
            break
        if box[4:8] == b"ftyp":
            first = read(at, min(length, HEAD_BYTES))
        elif box[4:8] == b"moov":
            return first + read(at, min(length, MAX_INDEX_BYTES))
        at += length
    return head


def find_file(path: str, folder: Path | None, allow_outside: bool) -> Path:
    """File that a table's path names.

    Raises:
        BadCell: a web address, or a path that leaves the folder: by "..", as an absolute path or by a link.
    """
    if _ADDRESS.match(path):
        raise BadCell(f"'{_short(path)}' is a web address, which is never fetched: save the file beside the table")
    if not path or "\0" in path:
        raise BadCell("the path is empty" if not path else "the path holds a NUL")
    if folder is None and not allow_outside:
        raise BadCell(
            f"'{_short(path)}' is a path, and this table has no folder that it could be in; "
            "data.outside=true allows any"
        )
    root = folder if folder is not None else Path.cwd()
    try:
        root = root.resolve()
        full = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise BadCell(f"'{_short(path)}' can't be followed: {_why(error)}") from error
    if not allow_outside and not full.is_relative_to(root):
        raise BadCell(f"'{_short(path)}' leaves the table's folder, which data.outside=true allows")
    return full


def is_frames(path: str, folder: Path | None, allow_outside: bool) -> bool:
    """True for a path of a folder that has a picture."""
    try:
        full = find_file(path, folder, allow_outside)
        with os.scandir(full) as entries:
            return any(frame_name(entry.name) for entry in entries)
    except (BadCell, OSError, ValueError):
        return False


def frame_names(full: Path) -> list[str]:
    """Names of the pictures in a folder in order, numbers in them by their value."""
    with os.scandir(full) as entries:
        found = [entry.name for entry in entries if frame_name(entry.name)]
    return sorted(
        found,
        key=lambda name: [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)],
    )


def _packed(
    full: Path, path: str, folder: Path | None, allow_outside: bool, max_bytes: int | None, size: int | None
) -> bytes:
    """Frames of a folder as one file: an uncompressed ZIP archive, of whose head the first picture is enough."""
    out, total = io.BytesIO(), 0
    try:
        names = frame_names(full)
    except OSError as error:
        raise BadCell(f"'{_short(path)}' can't be looked into: {_why(error)}") from error
    if not names:
        raise BadCell(f"'{_short(path)}' is a folder that holds no picture")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number, name in enumerate(names[:1] if size is not None else names):
            data = _read(find_file(os.path.join(path, name), folder, allow_outside), f"{path}/{name}", max_bytes, size)
            total += len(data)
            if max_bytes is not None and total > max_bytes:
                raise BadCell(f"the pictures in '{_short(path)}' have more than {max_bytes:,} bytes together")
            archive.writestr(f"{number:06}{os.path.splitext(name)[1].lower()}", data)
    return out.getvalue()[:size]


def _open(path: str, folder: Path | None, allow_outside: bool, max_bytes: int | None, size: int | None = None) -> bytes:
    """Bytes of the file that a table's path names, or of the frames in that folder."""
    full = find_file(path, folder, allow_outside)
    if os.path.isdir(full):  # unlike the method of a path it takes names that are too long
        return _packed(full, path, folder, allow_outside, max_bytes, size)
    return _read(full, path, max_bytes, size)


def _read(full: Path, path: str, max_bytes: int | None, size: int | None = None) -> bytes:
    try:
        # Non-blocking, so that a named pipe in place of a file can't hold the reader.
        with open(os.open(full, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise BadCell(f"'{_short(path)}' is no file")
            if max_bytes is not None and info.st_size > max_bytes:
                raise BadCell(f"'{_short(path)}' has {info.st_size:,} bytes, more than the limit of {max_bytes:,}")
            if size is None:
                return file.read(info.st_size)

            def read(at: int, count: int) -> bytes:
                file.seek(at)
                return file.read(count)

            return mp4_index_first(read(0, size), info.st_size, read)
    except (OSError, ValueError) as error:
        raise BadCell(f"'{_short(path)}' can't be read: {_why(error)}") from error


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _short(path: str) -> str:
    path = path.encode("utf-8", "replace").decode()
    return path if len(path) <= 120 else path[:60] + "…" + path[-59:]


class File(bytes):
    """Generated file, as its bytes; a notebook displays it as the picture, clip or sound that it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{sniff(self[:64]) or 'file'}, {len(self):,} bytes>"

    def _repr_html_(self) -> str:
        kind = {"video/webp-animated": "image/webp"}.get(found := sniff(self[:64]) or "", found)
        url = f"data:{kind};base64,{base64.b64encode(self).decode()}"
        match kind.partition("/")[0]:
            case "image":
                return f'<img src="{url}" alt="">'
            case "audio":
                return f'<audio controls src="{url}"></audio>'
            case "video":
                return f'<video controls loop src="{url}"></video>'
            case _:
                return html.escape(repr(self))


class Files(list):
    """Generated files, one for each row, or a list of samples for each; a notebook displays one line a row."""

    def _repr_html_(self) -> str:
        lines = [[cell] if cell is None or isinstance(cell, File) else cell for cell in self]
        rows = [
            "".join("<span>(failed)</span>" if cell is None else cell._repr_html_() for cell in line) for line in lines
        ]
        return "".join(f"<div>{line}</div>" for line in rows[:MAX_DISPLAYED_ROWS]) + (
            f"<div>… and {len(rows) - MAX_DISPLAYED_ROWS:,} more</div>" if len(rows) > MAX_DISPLAYED_ROWS else ""
        )


def sniff(head: bytes) -> str | None:
    """Media type of a file by its first bytes, such as "image/png"; None if it is none that is known.

    64 bytes are enough for most; 1,024 also tell DICOM from TIFF and the sound of an MP4 from a film. An animated WebP
    is "video/webp-animated".
    """
    return media_type(head)
