"""Check of an ORC stripe's LENGTH streams, before it is read.

Lengths of texts and lists are unsigned, but a damaged stream may decode to negative or enormous ones. The C++ reader
that Arrow uses doesn't refuse these, and ends the process. The check goes through the run-length headers of the streams
and decodes only the runs that their headers don't bound: https://orc.apache.org/specification/ORCv1/ ("Run Length
Encoding", "Stripe Footer").
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

MAX_CELL_LENGTH = 1 << 40
"""Most bytes or items of one cell."""
MAX_BLOCK_BYTES = 64 << 20
"""Bytes of the largest block of compression, when unpacked."""
_CODECS = {2: "snappy", 4: "lz4_raw", 5: "zstd", 6: "brotli"}
_NONE, _ZLIB, _LZO = 0, 1, 3
_LENGTH_STREAM = 2
_WIDTHS = (*range(1, 25), 26, 28, 30, 32, 40, 48, 56, 64)
"""Bits of a value by the code of a width, of 5 bits."""


class BadLength(Exception):
    """Length that no cell has, in words for the user."""


def check_lengths(file: BinaryIO, stripe: int) -> None:
    """Refuse a stripe whose LENGTH streams decode to lengths that no cell has.

    A file that is damaged in another way passes: the library refuses it.

    Raises:
        BadLength: a length is negative or enormous, or a column has no encoding.
    """
    with contextlib.suppress(ValueError, IndexError, EOFError, pa.ArrowException):
        _check(file, stripe)


def _check(file: BinaryIO, stripe: int) -> None:
    kind, limit, footer = _tail(file)
    if kind == _LZO:
        return
    stripes = [_fields(part) for part in footer.get(3, ()) if isinstance(part, bytes)]
    about = stripes[stripe]
    start, body = _number(about, 1), _number(about, 2) + _number(about, 3)
    inner = _fields(_unpacked(_read(file, start + body, _number(about, 4)), kind, limit))
    encodings = [_number(_fields(part), 1) for part in inner.get(2, ()) if isinstance(part, bytes)]
    for part in inner.get(1, ()):
        stream = _fields(part) if isinstance(part, bytes) else {}
        size, column = _number(stream, 3), _number(stream, 2)
        if _number(stream, 1) == _LENGTH_STREAM and size:
            data = _unpacked(_read(file, start, size), kind, limit)
            if column >= len(encodings):
                raise BadLength(f"its column {column} has no encoding")
            for length in (_lengths_2 if encodings[column] >= 2 else _lengths_1)(data):
                if not 0 <= length <= MAX_CELL_LENGTH:
                    raise BadLength(f"a cell of its column {column} has the length {length:,}")
        start += size


def _tail(file: BinaryIO) -> tuple[int, int, dict[int, list[int | bytes]]]:
    """Kind of compression, bytes of a block of it, and fields of the file's footer."""
    end = file.seek(0, 2)
    tail = _read(file, max(0, end - 256), min(256, end))
    size = tail[-1] if tail else 0
    script = _fields(tail[-1 - size : -1])
    kind, length = _number(script, 2), _number(script, 1)
    limit = _number(script, 3) or 256 << 10
    if not 0 < size < len(tail) or not 0 < limit <= MAX_BLOCK_BYTES:
        raise ValueError("its tail is damaged")
    return kind, limit, _fields(_unpacked(_read(file, end - 1 - size - length, length), kind, limit))


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    end = file.seek(0, 2)
    if not 0 <= start <= start + size <= end:
        raise ValueError("a part of it lies outside of the file")
    file.seek(start)
    return file.read(size)


def _unpacked(data: bytes, kind: int, limit: int) -> bytes:
    """Unpack a stream of blocks, each behind its length and a bit that says it is stored."""
    if kind == _NONE:
        return data
    out, at = bytearray(), 0
    while at + 3 <= len(data):
        head = int.from_bytes(data[at : at + 3], "little")
        block, at = data[at + 3 : at + 3 + (head >> 1)], at + 3 + (head >> 1)
        if head & 1:
            out += block
        elif kind == _ZLIB:
            try:
                out += zlib.decompressobj(-15).decompress(block, limit)
            except zlib.error as error:
                raise ValueError(f"a block is damaged: {error}") from error
        elif kind in _CODECS:
            out += _decoded(block, kind, limit)
        else:
            raise ValueError(f"its compression {kind} is unknown")
    return bytes(out)


def _decoded(block: bytes, kind: int, limit: int) -> bytes:
    if kind == 2:  # the unpacked length stands in front
        size, _ = _varint(block, 0)
        if size > limit:
            raise ValueError("a block is too large")
        return pa.Codec("snappy").decompress(block, size, asbytes=True)
    if kind == 5:
        with pa.CompressedInputStream(pa.BufferReader(block), "zstd") as stream:
            return stream.read(limit)
    return pa.Codec(_CODECS[kind]).decompress(block, limit, asbytes=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Unsigned varint at a place, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise ValueError("a number ends early or is too long")


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protobuf message by their numbers; nested messages are bytes."""
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}.get(key & 7, -1), at)
            if not 0 <= size <= len(data) - at:
                raise ValueError("a message is damaged")
            value, at = data[at : at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def _number(fields: dict[int, list[int | bytes]], key: int) -> int:
    value = fields.get(key, [0])[-1]
    if not isinstance(value, int):
        raise ValueError("a message is damaged")
    return value


def _lengths_1(data: bytes) -> Iterator[int]:
    """Smallest and largest lengths of the runs of run-length encoding, version 1."""
    at = 0
    while at < len(data):
        head, at = data[at], at + 1
        if head < 128:
            step = int.from_bytes(data[at : at + 1], "big", signed=True)
            base, at = _varint(data, at + 1)
            yield base
            yield base + step * (head + 2)
        else:
            for _ in range(256 - head):
                length, at = _varint(data, at)
                yield length


def _lengths_2(data: bytes) -> Iterator[int]:
    """Bounds of the lengths in each run of run-length encoding, version 2: extreme values, or numbers beyond them."""
    at = 0
    while at < len(data):
        head = data[at]
        if head >> 6 == 0:  # short repeat
            size = (head >> 3 & 7) + 1
            yield int.from_bytes(data[at + 1 : at + 1 + size], "big")
            at += 1 + size
            continue
        code, count = head >> 1 & 31, (head & 1) << 8 | (data[at + 1] if at + 1 < len(data) else 0)
        width, count, at = _WIDTHS[code], count + 1, at + 2
        if head >> 6 == 1:  # direct
            size = -(-width * count // 8)
            if 1 << width > MAX_CELL_LENGTH:
                yield from _values(data[at : at + size], width, count)
            at += size
        elif head >> 6 == 2:  # patched base
            third, fourth = int.from_bytes(data[at : at + 1], "big"), int.from_bytes(data[at + 1 : at + 2], "big")
            base_size, patch_width = (third >> 5) + 1, _WIDTHS[third & 31]
            gap_width, patches = (fourth >> 5) + 1, fourth & 31
            base = int.from_bytes(data[at + 2 : at + 2 + base_size], "big")
            sign = 1 << 8 * base_size - 1
            yield -1 if base & sign else base
            yield (1 << min(width + patch_width, 63)) - 1 if width + patch_width > 48 else base
            pair = next(bits for bits in _WIDTHS if bits >= patch_width + gap_width)
            at += 2 + base_size + -(-width * count // 8) + -(-pair * patches // 8)
        else:  # delta
            base, at = _varint(data, at)
            zigzag, at = _varint(data, at)
            step = (zigzag >> 1) ^ -(zigzag & 1)
            yield base
            if code == 0:
                yield base + step * (count - 1)
                continue
            size = -(-width * max(0, count - 2) // 8)
            bound = (1 << width) * count
            if step < 0 or bound > MAX_CELL_LENGTH:
                total = sum(_values(data[at : at + size], width, count - 2))
                yield base + step + (total if step >= 0 else -total)
            at += size


def _values(data: bytes, width: int, count: int) -> Iterator[int]:
    """Big-endian numbers of some bits each."""
    number = int.from_bytes(data, "big")
    for place in range(count):
        shift = 8 * len(data) - width * (place + 1)
        if shift < 0:
            return
        yield number >> shift & (1 << width) - 1
