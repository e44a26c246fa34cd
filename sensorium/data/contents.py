"""Content sniffing: the compression and table format of a file by its first bytes, and its decompressed stream.

Names lie: a Parquet file or a gzip archive is often called ``.csv``. First bytes win over the ending.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from sensorium.core.errors import UserError

HEAD_BYTES = 512
"""Bytes by which a file's format is recognised; the mark of a tar archive is at byte 257."""
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
"""Exceptions that reading a damaged file raises."""

COMPRESSION_SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4")

MAX_EXPANSION, MIN_EXPANDED_BYTES = 200, 64 << 20
"""Largest ratio of unpacked to compressed bytes, and unpacked bytes from which on it is checked."""

TABLE_SIGNATURES = (
    (b"PAR1", ".parquet"),
    (b"ARROW1\0\0", ".arrow"),
    (b"FEA1", ".arrow"),
    (b"SQLite format 3\0", ".sqlite"),
    (b"ORC", ".orc"),
    (b"Obj\x01", ".avro"),
    (b"\x89HDF\r\n\x1a\n", ".h5"),
    (b"\x93NUMPY", ".npy"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
)
"""First bytes of the formats whose files are tables, and the ending of each."""


def compression(head: bytes) -> str | None:
    """Compression of a file by its first bytes: "gzip", "bz2", "xz", "zstd", "lz4" or None."""
    return next((name for start, name in COMPRESSION_SIGNATURES if head.startswith(start)), None)


def read_stream(path: Path) -> BinaryIO:
    """Stream of a file's bytes, decompressed by its content."""
    with open(path, "rb") as file:
        kind = compression(file.read(8))
    if kind is None:
        return open(path, "rb")
    openers = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    stream = openers[kind](path, "rb") if kind in openers else pa.CompressedInputStream(pa.OSFile(str(path)), kind)
    return io.BufferedReader(_Unpacked(stream, path))


class _Unpacked(io.RawIOBase):
    """Decompressed stream with a guard against decompression bombs.

    Raises:
        UserError: far more comes out than any table has that was compressed.
    """

    def __init__(self, stream: Any, path: Path) -> None:
        self.stream, self.path, self.size, self.given = stream, path, path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.given += len(data)
        if self.given > MIN_EXPANDED_BYTES and self.given > MAX_EXPANSION * self.size:
            raise UserError(
                f"'{self.path}' unpacks to more than {MAX_EXPANSION} times its {self.size:,} bytes: a decompression "
                "bomb. Unpack it first if it is none."
            )
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def ending_by_content(path: Path) -> str | None:
    """File name suffix of the table format that a file's first bytes show; None where they show none, as in text.

    Compressed files are looked into. A ZIP archive is ".xlsx", ".ods" or ".npz" by what it holds, else ".zip".
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        if compression(head):
            with read_stream(path) as file:
                head = file.read(HEAD_BYTES)
    except READ_ERRORS:
        return None
    for start, ending in TABLE_SIGNATURES:
        if head.startswith(start):
            return ending
    if head[257:262] == b"ustar":
        return ".tar"
    if head.lstrip()[:1] == b"{" and path.suffix.lower() in (".csv", ".tsv", ".tab") and _json_line(path):
        return ".jsonl"
    if head[8:12] == b"DUCK":
        return ".duckdb"
    return _archive(path) if head.startswith(b"PK\x03\x04") else None


def _json_line(path: Path) -> bool:
    """True for a text file whose first line is a JSON object."""
    try:
        with read_stream(path) as file:
            return isinstance(json.loads(file.readline(1 << 20)), dict)
    except (*READ_ERRORS, ValueError, RecursionError, UserError):
        return False


def _archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as files:
            names = set(files.namelist())
            if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
                return ".xlsx"
            if "mimetype" in names and files.getinfo("mimetype").file_size < 1000:
                return ".ods" if b"opendocument.spreadsheet" in files.read("mimetype") else ".zip"
            return ".npz" if names and all(name.endswith(".npy") for name in names) else ".zip"
    except (zipfile.BadZipFile, *READ_ERRORS, NotImplementedError, RuntimeError, ValueError):
        return None  # its list of files, at its end, is damaged: the name says more
