"""Content hashes of cells and rows: the same for the same content in any format, column order or batch size.

64 bits, for telling rows apart; not for security. A whole number and a float of the same value are the same content, a
fraction is compared as 32-bit float (so that 0.1 is 0.1 in both widths), an empty text and a NaN are missing, lists of
any flavour are compared item by item, ``{bytes, path}`` by its bytes if it has them, dates by their ISO text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.data.arrow import as_text, is_list, is_media
from sensorium.data.cells import list_bounds, list_items
from sensorium.data.table import Table

MAX_SHORT_BYTES = 256
"""Bytes of the longest cell that is hashed in a batch, eight bytes at a time; longer ones are hashed one by one."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_REAL = np.uint64(0x5851F42D4C957F2D)


def row_hashes(table: Table, columns: Sequence[str]) -> np.ndarray:
    """Hash of each row over the cells of ``columns``, uint64 [rows]; a missing cell counts as an absent column."""
    names = sorted(set(columns))
    result = np.zeros(table.rows, np.uint64)
    for row, batch in table.batches(4096, names):
        part = result[row : row + batch.num_rows]
        for name in names:
            part += _keyed(cell_hashes(batch.column(name)), name)
    return mix(result)


def mix(x: np.ndarray) -> np.ndarray:
    """Scatter 64-bit numbers, one to one, 0 to 0: the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def cell_hashes(array: pa.Array) -> np.ndarray:
    """Hash of each cell, uint64 [rows]; 0 where it is missing and nowhere else."""
    kind = array.type
    if pt.is_string(kind) or pt.is_binary(kind):
        return _text(array)
    if pt.is_boolean(kind):
        return _present(_whole(array.fill_null(False).cast(pa.int8()).to_numpy(zero_copy_only=False)), array)
    if pt.is_integer(kind):
        return _present(_whole(array.fill_null(0).to_numpy(zero_copy_only=False)), array)
    if pt.is_floating(kind):
        return _real(array.to_numpy(zero_copy_only=False).astype(np.float64))
    if is_list(kind):
        return _lists(array)
    if is_media(kind):
        parts = dict(zip((field.name for field in kind), map(cell_hashes, array.flatten()), strict=True))
        return _present(np.where(parts["bytes"] != 0, parts["bytes"], parts["path"]), array)
    if pt.is_struct(kind):
        total = np.ones(len(array), np.uint64)
        for field, part in zip(kind, array.flatten(), strict=True):
            total += _keyed(cell_hashes(part), field.name)
        return _present(_never_zero(mix(total)), array)
    if pt.is_date(kind) or pt.is_timestamp(kind):
        return _text(_iso(array))
    if pt.is_null(kind):
        return np.zeros(len(array), np.uint64)
    return _text(pa.array([as_text(value) for value in array.to_pylist()], pa.string()))


def _keyed(hashes: np.ndarray, name: str) -> np.ndarray:
    """Hashes keyed by column, whose sums don't depend on the order of columns."""
    key = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")
    return np.where(hashes != 0, mix(hashes ^ np.uint64(key)), np.uint64(0))


def _present(hashes: np.ndarray, array: pa.Array) -> np.ndarray:
    if not array.null_count:
        return hashes
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), hashes, np.uint64(0))


def _never_zero(hashes: np.ndarray) -> np.ndarray:
    hashes[hashes == 0] = 1
    return hashes


def _whole(values: np.ndarray) -> np.ndarray:
    return _never_zero(mix(values.astype(np.int64, copy=False).view(np.uint64) + _STEP))


def _real(values: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        whole = (np.floor(values) == values) & (np.abs(values) < 2.0**63)
        hashes = _whole(np.where(whole, values, 0).astype(np.int64))
        if not whole.all():
            narrow = values.astype(np.float32)
            fits = np.isinf(values) | (np.isfinite(narrow) & (np.abs(narrow) > 1e-37))
            bits = np.where(fits, narrow.view(np.uint32), values.view(np.uint64))
            hashes = np.where(whole, hashes, _never_zero(mix(bits.astype(np.uint64) + _REAL)))
    return np.where(np.isnan(values), np.uint64(0), hashes)


def _text(array: pa.Array) -> np.ndarray:
    """Hashes of strings or bytes; empty ones count as missing."""
    rows = len(array)
    _, offsets_buffer, data_buffer = array.buffers()
    if not rows or data_buffer is None or offsets_buffer is None:
        return np.zeros(rows, np.uint64)
    offsets = np.frombuffer(offsets_buffer, np.int32, rows + 1, array.offset * 4).astype(np.int64)
    data = np.frombuffer(data_buffer, np.uint8)
    lengths = np.diff(offsets)
    if array.null_count:
        lengths[~array.is_valid().to_numpy(zero_copy_only=False)] = 0
    hashes = mix(lengths.astype(np.uint64) * _STEP)
    short = np.flatnonzero((lengths > 0) & (lengths <= MAX_SHORT_BYTES))
    if len(short):
        padded = np.zeros(int(offsets[-1] - offsets[0]) + 8, np.uint8)
        padded[:-8] = data[offsets[0] : offsets[-1]]
        words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
        starts = offsets[:-1] - offsets[0]
        at = 0
        while len(short):
            word = words[starts[short] + at]
            left = lengths[short] - at
            tail = left < 8
            word[tail] &= (np.uint64(1) << (left[tail].astype(np.uint64) * np.uint64(8))) - np.uint64(1)
            hashes[short] = mix(hashes[short] ^ mix(word + _STEP)) + _STEP
            at += 8
            short = short[left > 8]
    view = data.data
    for i in np.flatnonzero(lengths > MAX_SHORT_BYTES).tolist():
        digest = hashlib.blake2b(view[offsets[i] : offsets[i] + lengths[i]], digest_size=8).digest()
        hashes[i] = int.from_bytes(digest, "little")
    return np.where(lengths > 0, _never_zero(hashes), np.uint64(0))


def _lists(array: pa.Array) -> np.ndarray:
    """Sums of items' hashes, each scattered by its place, so that ragged lists are hashed side by side."""
    starts, ends = list_bounds(array)
    inner = cell_hashes(list_items(array))
    lengths = ends - starts
    place = np.arange(len(inner), dtype=np.int64)
    place -= np.repeat(starts, lengths) if lengths.sum() == len(inner) else _places(starts, ends, len(inner))
    inner = mix(inner + (place + 1).astype(np.uint64) * _STEP)
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(inner, dtype=np.uint64)])
    return _present(_never_zero(mix(total[ends] - total[starts] + (lengths + 1).astype(np.uint64) * _REAL)), array)


def _places(starts: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """For each item the start of its list, where items behind null lists belong to none."""
    first = np.zeros(size, np.int64)
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        first[a:b] = a
    return first


def _iso(array: pa.Array) -> pa.Array:
    """Dates as ISO text: without a time at midnight, without a fraction where it is 0."""
    if pt.is_date(array.type):
        return array.cast(pa.date32()).cast(pa.string())
    text = pc.replace_substring_regex(array.cast(pa.timestamp("us")).cast(pa.string()), r"\.0*$", "")
    return pc.replace_substring_regex(pc.replace_substring_regex(text, r"(\.\d*?)0+$", r"\1"), r" 00:00:00$", "")
