"""Spreadsheet scan before reading: the extent of the sheets, the unpacked size, cells with errors.

Calamine lays a sheet out as one rectangle; two cells in opposite corners ask for half a terabyte, and end the process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import posixpath
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from sensorium.core.errors import UserError
from sensorium.data.sources._inside import ZIP_ERRORS, error_summary, unpack_member

MAX_CELLS = 50_000_000
"""Cells of a sheet's bounding rectangle; each takes 32 bytes."""
MAX_UNPACKED_BYTES = 4 << 30
"""Bytes of a spreadsheet's unpacked parts."""
MAX_PART_BYTES = 16 << 20
"""Bytes of a part that names others."""
OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_PLACE = re.compile(rb"""[\s"']r\s*=\s*["']([A-Za-z]{0,7})(\d{1,10})["']""")
_ERROR = re.compile(rb"""<(?:\w+:)?c\s[^<>]*?\bt\s*=\s*["']e["']""")
_OVERLAP = 256


@dataclasses.dataclass
class WorkbookScan:
    """Result of a scan: OpenDocument or the old binary format, and the number of cells with errors by sheet."""

    old: bool = False
    ods: bool = False
    errors: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Extent:
    """Extent of a sheet: its lowest row, rightmost column, and number of cells with errors."""

    rows: int = 0
    columns: int = 0
    errors: int = 0

    def update(self, row: int, column: int) -> None:
        """Take in a cell, counted from 1."""
        self.rows, self.columns = max(self.rows, row), max(self.columns, column)

    def check(self, path: Path) -> None:
        """Refuse a sheet that is too large."""
        if self.rows * max(self.columns, 1) > MAX_CELLS:
            raise UserError(
                f"A sheet of '{path}' reaches to row {self.rows:,} and column {self.columns:,}, more than "
                f"{MAX_CELLS:,} cells. Delete what lies far from the table, or save the sheet as CSV or Parquet."
            )


def scan_workbook(path: Path) -> WorkbookScan:
    """Scan a spreadsheet without building its grid of cells.

    Raises:
        UserError: it is damaged, or asks for more than is read.
    """
    with open(path, "rb") as file:
        head = file.read(8)
    if head == OLE_SIGNATURE:
        extent = _Extent()
        for kind, data in _records(path):
            if kind == 0x0809:  # a new sheet begins
                extent = _Extent()
            elif kind in _BIFF and len(data) >= 4:
                extent.update(*(1 + number for number in struct.unpack_from("<HH", data)))
                if kind == 0x00BD and len(data) >= 6:  # several cells, with the last one's column at the end
                    extent.update(1, 1 + struct.unpack("<H", data[-2:])[0])
                extent.check(path)
        return WorkbookScan(old=True)
    try:
        with zipfile.ZipFile(path) as archive:
            return _zip(path, archive)
    except (OverflowError, *ZIP_ERRORS) as error:
        raise UserError(f"'{path}' can't be read as a spreadsheet: {error_summary(error)}") from error


def _zip(path: Path, archive: zipfile.ZipFile) -> WorkbookScan:
    infos = {info.filename: info for info in archive.infolist()}
    binary = "xl/workbook.bin" in infos
    extents: dict[str, _Extent] = {}
    left = [MAX_UNPACKED_BYTES]
    for name, info in infos.items():
        extent = extents[name] = _Extent()
        pieces = _counted(unpack_member(archive, info, MAX_UNPACKED_BYTES), left)
        if binary and name.endswith(".bin") and "sheet" in name.lower():
            _xlsb(pieces, extent)
        else:
            _xlsx(pieces, extent)
        extent.check(path)
    looked = WorkbookScan(ods="content.xml" in infos)
    if "xl/workbook.xml" in infos:
        with contextlib.suppress(ElementTree.ParseError, KeyError, ValueError):  # calamine says what is wrong
            looked.errors = {sheet: extents[name].errors for sheet, name in _sheets(archive).items() if name in extents}
    return looked


def _counted(pieces: Iterable[bytes], left: list[int]) -> Iterator[bytes]:
    for piece in pieces:
        left[0] -= len(piece)
        if left[0] < 0:
            raise OverflowError(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
        yield piece


def _xlsx(pieces: Iterable[bytes], extent: _Extent) -> None:
    """Scan the cells of a sheet in XML: anything that looks like a cell's place counts, as no other part has it."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        # A match that begins in the overlap is seen with the next piece, in which it is whole.
        until = len(text) - _OVERLAP
        for found in _PLACE.finditer(text):
            extent.update(int(found[2]), _column(found[1]))
        extent.errors += sum(found.start() < until for found in _ERROR.finditer(text))
        rest = text[max(0, until) :]
    extent.errors += sum(1 for _ in _ERROR.finditer(rest))


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def _xlsb(pieces: Iterable[bytes], extent: _Extent) -> None:
    """Scan the cells of a sheet in binary records: a type and a length, both of seven bits a byte, and the data."""
    data, at, row = b"", 0, 0
    for piece in pieces:
        data, at = data[at:] + piece, 0
        while True:
            kind, after = _seven(data, at, 2)
            length, after = _seven(data, after, 4)
            if after < 0 or (after + min(length, 4) > len(data)):
                break
            if after + length > len(data):
                if length > MAX_PART_BYTES:
                    raise zipfile.BadZipFile("a record of a sheet is too long")
                break
            if kind == 0 and length >= 4:
                row = 1 + struct.unpack_from("<I", data, after)[0]
            elif 1 <= kind <= 11 and length >= 4:
                extent.update(row, 1 + struct.unpack_from("<I", data, after)[0])
                extent.errors += kind in (3, 11)
            at = after + length


def _seven(data: bytes, at: int, most: int) -> tuple[int, int]:
    """Variable-length number of up to ``most`` bytes, and where it ends; -1: not within the data."""
    number = 0
    for i in range(most):
        if at < 0 or at + i >= len(data):
            return 0, -1
        number |= (data[at + i] & 0x7F) << (7 * i)
        if not data[at + i] & 0x80:
            return number, at + i + 1
    return number, at + most


def _sheets(archive: zipfile.ZipFile) -> dict[str, str]:
    """Member of each sheet of an .xlsx by the sheet's name."""

    def tree(name: str) -> ElementTree.Element:
        return ElementTree.fromstring(b"".join(unpack_member(archive, archive.getinfo(name), MAX_PART_BYTES)))

    targets = {element.get("Id"): element.get("Target", "") for element in tree("xl/_rels/workbook.xml.rels")}
    found = {}
    for element in tree("xl/workbook.xml").iter():
        if element.tag.rpartition("}")[2] == "sheet":
            ids = [value for key, value in element.attrib.items() if key.endswith("}id")]
            target = targets.get(ids[0], "") if ids else ""
            found[element.get("name", "")] = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")
    return found


_BIFF = {
    0x0001,
    0x0002,
    0x0003,
    0x0004,
    0x0005,
    0x0006,
    0x00BD,
    0x00BE,
    0x00D6,
    0x00FD,
    0x0201,
    0x0203,
    0x0204,
    0x0205,
    0x027E,
    0x0406,
    0x0206,
}
"""Cell records of the old binary format; each begins with its row and column."""


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """The records of the stream "Workbook" (or "Book") in an OLE file."""
    try:
        stream = _stream(path)
        at = 0
        while at + 4 <= len(stream):
            kind, length = struct.unpack_from("<HH", stream, at)
            yield kind, stream[at + 4 : at + 4 + length]
            at += 4 + length
    except (struct.error, IndexError) as error:
        raise UserError(f"'{path}' can't be read as a spreadsheet: it is damaged.") from error


def _stream(path: Path) -> bytes:
    """The bytes of the workbook's stream, put together from the sectors of an OLE file."""
    data = path.read_bytes()
    size = 1 << min(struct.unpack_from("<H", data, 30)[0], 16)
    most = len(data) // size + 1

    def sector(number: int) -> bytes:
        return data[(number + 1) * size : (number + 2) * size]

    tables = list(struct.unpack_from("<109I", data, 76))
    following = struct.unpack_from("<I", data, 68)[0]
    while following < most and len(tables) <= most:
        numbers = struct.unpack(f"<{size // 4}I", sector(following))
        tables += numbers[:-1]
        following = numbers[-1]
    fat = b"".join(sector(number) for number in tables[:most] if number < most)

    def chain(number: int) -> bytes:
        parts: list[bytes] = []
        while number < most and number * 4 + 4 <= len(fat) and len(parts) <= most:
            parts.append(sector(number))
            number = struct.unpack_from("<I", fat, number * 4)[0]
        return b"".join(parts)

    entries = chain(struct.unpack_from("<I", data, 48)[0])
    small = b""
    for at in range(0, len(entries) - 127, 128):
        length = struct.unpack_from("<H", entries, at + 64)[0]
        name = entries[at : at + max(0, min(length, 64) - 2)].decode("utf-16-le", "replace")
        start, found = struct.unpack_from("<II", entries, at + 116)
        if at == 0:  # the root's stream holds all streams under 4,096 bytes
            small = chain(start)
        if name in ("Workbook", "Book"):
            return (
                chain(start)[:found]
                if found >= 4096
                else _short(small, chain(struct.unpack_from("<I", data, 60)[0]), start)[:found]
            )
    return b""


def _short(small: bytes, fat: bytes, number: int) -> bytes:
    """A stream of sectors of 64 bytes."""
    parts: list[bytes] = []
    while number * 4 + 4 <= len(fat) and len(parts) < 64:
        parts.append(small[number * 64 : number * 64 + 64])
        number = struct.unpack_from("<I", fat, number * 4)[0]
    return b"".join(parts)
