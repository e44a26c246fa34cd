"""Avro object container files: blocks of records, each decoded by fastavro.

The container itself is read here, so that a damaged block costs its own rows only, and one that unpacks to gigabytes is
turned away.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.contents import READ_ERRORS
from sensorium.data.encodings import read_up_to
from sensorium.data.objects import BadObject, spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.sources._inside import error_summary, optional_import
from sensorium.data.spool import spooling

MAX_BLOCK_BYTES = 256 << 20
"""Bytes of the largest block, packed or not."""
MAX_EMPTY_RECORDS = 1_000_000
"""Most records without a byte in one block."""
LOST_RECORDS, MAX_PACKING = 1000, 16
"""Records that a damaged block may always claim to have lost, and how many more for each of its bytes."""
MIN_VALUE_BYTES = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
    "enum": 1,
    "map": 1,
    "array": 1,
}
"""Least bytes of a value by type."""

Row = tuple[dict[str, Any] | BadObject, int]


class Avro(Source):
    """One Avro file or several."""

    suffixes = (".avro",)

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet; the rows of a damaged block are bad ones."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} Avro files"
        opened = Opened.empty(name_of_files(given), folder_of(given))
        known: dict[str, bool] = {}
        with spooling(where) as spool:
            for path in given:
                spool_objects(_rows(path, opened, known), spool, opened, options)
            opened.blocks = converted(spool, empty=list(known))
        opened.blocks.declared |= {name for name, enum in known.items() if enum} & set(opened.blocks.schema.names)
        return opened


def _rows(path: Path, opened: Opened, known: dict[str, bool]) -> Iterator[Row]:
    fastavro = optional_import("fastavro", "avro", "Avro files")
    with open(path, "rb") as file:
        try:
            codec, schema, sync = _header(file)
            parsed = fastavro.parse_schema(schema)
            smallest = _least(schema, [], {})
        except (UserError, *READ_ERRORS) as error:
            raise UserError(f"'{path}' can't be read as Avro: {error_summary(error)}") from error
        except (
            Exception
        ) as error:  # the library raises its own errors and whatever a schema of the wrong shape leads to
            raise UserError(f"'{path}' can't be read as Avro: its schema is damaged: {error_summary(error)}") from error
        for field in parsed.get("fields", ()) if isinstance(parsed, dict) else ():
            known[field["name"]] = isinstance(field["type"], dict) and field["type"].get("type") == "enum"
        if codec not in _UNPACK:
            raise UserError(
                f"'{path}' is compressed by {codec}. Possible: {', '.join(_UNPACK)}. Write it again with one of these."
            )
        lost = 0
        for number, (count, data, reason) in enumerate(_blocks(file, sync), 1):
            block, done = io.BytesIO(), 0
            size = 1
            try:
                if reason:
                    raise EOFError(reason)
                block = io.BytesIO(_UNPACK[codec](data))
                size = len(block.getbuffer())
                if count * smallest > size or (not smallest and count > MAX_EMPTY_RECORDS):
                    raise EOFError("it says that it holds more records than it has bytes for")
                while done < count:
                    record = fastavro.schemaless_reader(block, parsed, None, handle_unicode_errors="surrogateescape")
                    yield (record if isinstance(record, dict) else {"value": record}), size // count
                    done += 1
            except (
                Exception
            ) as error:  # the library raises plain errors of any kind for bytes that don't fit the schema
                missing = max(1, count - done) if count <= max(MAX_EMPTY_RECORDS, len(data)) else 1
                lost += missing
                bad = BadObject(f"{path.name}, block {number:,}", f"the block is damaged: {error_summary(error)}")
                yield from ((bad, 0) for _ in range(missing))
        if lost:
            opened.remark(f"{lost:,} row(s) lie in damaged blocks, or in one that ends early", path.name)


def _long(file: BinaryIO) -> int:
    """Read a number as Avro writes it (zigzag varint): seven bits a byte, the sign in the lowest."""
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("it ends early")
        number |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return (number >> 1) ^ -(number & 1)
    raise EOFError("a number is too long")


def _bytes(file: BinaryIO) -> bytes:
    size = _long(file)
    if not 0 <= size <= MAX_BLOCK_BYTES:
        raise EOFError("a length is out of range")
    data = read_up_to(file, size)
    if len(data) < size:
        raise EOFError("it ends early")
    return data


def _header(file: BinaryIO) -> tuple[str, Any, bytes]:
    """Read the header: codec, schema and sync marker."""
    if file.read(4) != b"Obj\x01":
        raise UserError("its first bytes aren't those of an Avro file")
    about: dict[bytes, bytes] = {}
    while count := _long(file):
        if count < 0:
            _long(file)
        for _ in range(abs(count)):
            key = _bytes(file)
            about[key] = _bytes(file)
    sync = file.read(16)
    if len(sync) < 16 or b"avro.schema" not in about:
        raise EOFError("its header ends early")
    return about.get(b"avro.codec", b"null").decode("latin-1"), json.loads(about[b"avro.schema"]), sync


def _blocks(file: BinaryIO, sync: bytes) -> Iterator[tuple[int, bytes, str]]:
    """Blocks: number of records, bytes, and the reason why a block can't be read.

    After a damaged one the next sync marker is sought.
    """
    while True:
        start = file.tell()
        if not file.read(1):
            return
        file.seek(start)
        count, data, reason = 0, b"", ""
        try:
            count = max(0, _long(file))
            after = file.tell()
            data = _bytes(file)
            if file.read(16) != sync:
                reason = "the mark at its end isn't there"
        except EOFError as error:
            reason = str(error)
            after = start
        found = not reason or _find(file, sync, after)
        if reason and count > LOST_RECORDS + MAX_PACKING * (file.tell() - start):
            count = 1  # the number is damaged, too: so many records don't lie between two markers
        yield count, data if found else b"", reason
        if not found:
            return


def _find(file: BinaryIO, sync: bytes, start: int) -> bool:
    """Seek behind the next sync marker."""
    file.seek(start)
    rest = b""
    while piece := file.read(1 << 20):
        at = (rest + piece).find(sync)
        if at >= 0:
            file.seek(file.tell() - len(piece) - len(rest) + at + 16)
            return True
        rest = (rest + piece)[-15:]
    return False


def _least(schema: Any, above: list[str], named: dict[str, int]) -> int:
    """Least bytes of a value of a schema.

    Raises:
        UserError: it has arrays of values without a byte, or records that hold themselves, as only hostile files do.
    """
    if isinstance(schema, list):
        return 1 + min((_least(part, above, named) for part in schema), default=0)
    if isinstance(schema, str):
        if schema in above or f".{schema}" in [name[-len(schema) - 1 :] for name in above]:
            raise UserError(f"its records '{schema[:100]}' hold themselves, which no column can")
        return MIN_VALUE_BYTES.get(schema, named.get(schema, 1))
    kind, name = schema["type"], f"{schema.get('namespace', '')}.{schema.get('name', '')}".strip(".")
    size = 1
    if kind in ("record", "error"):
        size = sum(_least(field["type"], [*above, name], named) for field in schema["fields"])
    elif kind == "array":
        if not _least(schema["items"], above, named):
            raise UserError("it has lists of values that take no bytes")
    elif kind == "map":
        _least(schema["values"], above, named)
    elif kind == "fixed":
        size = max(0, int(schema["size"]))
    elif kind in ("error_union", "request"):
        raise UserError(f"it has values of the type '{kind}', which only remote calls have")
    elif kind != "enum":
        return _least(kind, above, named)
    if schema.get("name"):
        named[schema["name"]] = named[name] = size
    return size


def _inflated(data: bytes, decompressor: Any) -> bytes:
    out = decompressor.decompress(data, MAX_BLOCK_BYTES + 1)
    if len(out) > MAX_BLOCK_BYTES:
        raise OverflowError(f"it unpacks to more than {MAX_BLOCK_BYTES:,} bytes")
    return out


def _snappy(data: bytes) -> bytes:
    size = shift = 0
    for byte in data[:5]:  # the unpacked length stands in front
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    if size > MAX_BLOCK_BYTES:
        raise OverflowError(f"it unpacks to more than {MAX_BLOCK_BYTES:,} bytes")
    out = pa.Codec("snappy").decompress(data[:-4], size, asbytes=True)
    if zlib.crc32(out) != int.from_bytes(data[-4:], "big"):
        raise EOFError("its checksum is wrong")
    return out


def _zstandard(data: bytes) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        out = stream.read(MAX_BLOCK_BYTES + 1)
    if len(out) > MAX_BLOCK_BYTES:
        raise OverflowError(f"it unpacks to more than {MAX_BLOCK_BYTES:,} bytes")
    return out


_UNPACK = {
    "null": bytes,
    "deflate": lambda data: _inflated(data, zlib.decompressobj(-15)),
    "snappy": _snappy,
    "zstandard": _zstandard,
    "bzip2": lambda data: _inflated(data, bz2.BZ2Decompressor()),
    "xz": lambda data: _inflated(data, lzma.LZMADecompressor()),
}
"""Functions that unpack a block, by codec."""
