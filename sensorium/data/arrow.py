"""Arrow types and arrays in normal form: few types and valid UTF-8.

It knows types and values, nothing of files, tables or modalities.
"""

from __future__ import annotations

import datetime
import decimal
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

MEDIA_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a media cell: its bytes, or the path of a file."""

_SURROGATE = re.compile("[\ud800-\udfff]")
TEXT_CLASSES = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, PurePath)


def scrub(text: str) -> str:
    """``text`` with every lone surrogate (a byte that was no UTF-8, half of a pair) replaced by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def is_list(kind: pa.DataType) -> bool:
    """True for list types of any flavour."""
    return (
        pt.is_list(kind)
        or pt.is_large_list(kind)
        or pt.is_fixed_size_list(kind)
        or pt.is_list_view(kind)
        or pt.is_large_list_view(kind)
    )


def is_number(kind: pa.DataType) -> bool:
    """True for integer and float types."""
    return pt.is_integer(kind) or pt.is_floating(kind)


def is_media(kind: pa.DataType) -> bool:
    """True for structs ``{bytes, path}``."""
    return pt.is_struct(kind) and kind.get_field_index("bytes") >= 0 and kind.get_field_index("path") >= 0


MAX_EXACT_DIGITS = 18
"""Digits up to which whole decimals are numbers; longer ones are text."""
MAX_DEPTH = 16
"""Levels of nesting of a type; anything deeper is read as text."""


def nesting_depth(value: Any) -> int:
    """Nesting depth of lists and mappings in a Python value, counted up to a hundred."""
    levels, inside = 0, [value]
    while levels < 100:
        inside = [
            item for value in inside if isinstance(value, (list, tuple, dict))
            for item in (value.values() if isinstance(value, dict) else value) or (None,)
        ]  # fmt: skip
        if not inside:
            break
        levels += 1
    return levels


def normal_type(kind: pa.DataType, level: int = 0) -> pa.DataType:
    """Normal type, as which a column is read.

    There is one string, one binary and one list type; timestamps are in µs; decimals and durations are floats. Types
    that Python lacks, such as intervals, are null; ``blocks.remark_of`` has the reason.
    """
    if level > MAX_DEPTH or pt.is_union(kind):
        return pa.string()
    if pt.is_duration(kind):
        return pa.float64()
    if isinstance(kind, pa.BaseExtensionType):
        return normal_type(kind.storage_type, level)
    if pt.is_interval(kind) or kind.id not in _READABLE_TYPE_IDS:
        return pa.null()
    if pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
        return normal_type(kind.value_type, level)
    if pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_large_binary(kind) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind):
        return pa.binary()
    if pt.is_decimal(kind):
        return (
            pa.float64() if kind.scale or kind.precision <= MAX_EXACT_DIGITS else pa.string()
        )  # of so long whole numbers no digit is lost
    if pt.is_float16(kind):
        return pa.float32()
    if pt.is_timestamp(kind):
        return pa.timestamp("us", zone_of(kind))
    if pt.is_fixed_size_list(kind):
        return pa.list_(normal_type(kind.value_type, level + 1), kind.list_size)
    if is_list(kind):
        return pa.list_(normal_type(kind.value_type, level + 1))
    if pt.is_struct(kind):
        fields = [(field.name, normal_type(field.type, level + 1)) for field in kind]
        return pa.struct(fields) if fields else pa.null()
    return kind


_READABLE_TYPE_IDS = {
    kind.id
    for kind in (
        pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
        pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.string_view(),
        pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1), pa.date32(), pa.date64(), pa.time32("s"),
        pa.time64("us"), pa.timestamp("us"), pa.decimal128(5), pa.decimal256(5), pa.list_(pa.null()),
        pa.large_list(pa.null()),
        pa.list_(pa.null(), 1), pa.list_view(pa.null()), pa.large_list_view(pa.null()), pa.struct([]),
        pa.map_(pa.string(), pa.null()), pa.dictionary(pa.int8(), pa.string()),
        pa.run_end_encoded(pa.int32(), pa.null()),
        *(getattr(pa, name)(5) for name in ("decimal32", "decimal64") if hasattr(pa, name)),
    )
}  # fmt: skip
"""Ids of the types that are read."""


def zone_of(kind: pa.DataType) -> str | None:
    """Time zone of a timestamp type, "UTC" where this machine doesn't know the one it names; None: it has none."""
    if not kind.tz:
        return None
    try:
        pa.scalar(0, pa.timestamp("us", kind.tz)).as_py()
    except (ValueError, OSError, LookupError, pa.ArrowException):
        return "UTC"
    return kind.tz


def row_bytes(array: pa.Array) -> np.ndarray:
    """Approximate bytes of each cell once it is in a normal array, int64 [rows]."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return row_bytes(array.storage)
    if pt.is_dictionary(kind):
        if not len(array.dictionary):
            return np.zeros(len(array), np.int64)
        sizes = row_bytes(array.dictionary)[pc.fill_null(array.indices, 0).to_numpy(zero_copy_only=False)]
        return sizes * array.is_valid().to_numpy(zero_copy_only=False)
    if pt.is_struct(kind):
        return sum((row_bytes(part) for part in array.flatten()), np.zeros(len(array), np.int64))
    if pt.is_string(kind) or pt.is_binary(kind) or pt.is_large_string(kind) or pt.is_large_binary(kind):
        return pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.full(len(array), array.nbytes // max(len(array), 1), np.int64)


def split_by_bytes(batch: pa.RecordBatch, limit: int) -> Iterator[pa.RecordBatch]:
    """Slices of a batch of at most about ``limit`` bytes each, or of one row."""
    if not batch.num_rows:
        return
    ends = np.cumsum(sum((row_bytes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64)))
    start, before = 0, 0
    while start < batch.num_rows:
        end = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield batch.slice(start, end - start)
        start, before = end, int(ends[end - 1])


def check_layout(array: pa.Array) -> None:
    """Refuse an array that leads out of its own buffers, as in a damaged file: reading it may end the process.

    Text that is no UTF-8 passes; ``clean`` mends it.

    Raises:
        pa.ArrowException: offsets, views or codes of a dictionary that lead nowhere, or cells that their type can't
            have.
    """
    try:
        array.validate(full=True)
        return
    except pa.ArrowInvalid:
        array = array.storage if isinstance(array, pa.ExtensionArray) else array
        kind = array.type
        array.validate()
        if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
            bare = (
                pa.binary()
                if pt.is_string(kind)
                else pa.large_binary()
                if pt.is_large_string(kind)
                else pa.binary_view()
            )
            array.view(bare).validate(full=True)
        elif pt.is_struct(kind):
            for place in range(kind.num_fields):
                check_layout(array.field(place))
        elif pt.is_dictionary(kind):
            check_layout(array.dictionary)
            pa.DictionaryArray.from_arrays(array.indices, pa.nulls(len(array.dictionary))).validate(full=True)
        elif pt.is_fixed_size_list(kind):
            check_layout(array.values)
        elif pt.is_list(kind) or pt.is_large_list(kind):
            check_layout(array.values)
            whole = pa.ListArray if pt.is_list(kind) else pa.LargeListArray
            whole.from_arrays(array.offsets, pa.nulls(len(array.values))).validate(full=True)
        else:
            raise


def type_name(kind: pa.DataType) -> str:
    """Name of a type, as profiles have it: "string", "int64", "list<double>", "struct<bytes: binary>"."""
    if is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pt.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_name(field.type)}' for field in kind)}>"
    return str(normal_type(kind))


def as_normal(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """``array`` as the type ``kind``, which is its own normal type or one that it can be joined into."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.type == kind:
        return array
    if pt.is_null(kind) or pt.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pt.is_duration(array.type):
        seconds = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
        return pc.divide(array.cast(pa.int64()).cast(pa.float64(), safe=False), float(seconds)).cast(kind)
    if pt.is_run_end_encoded(array.type):
        return as_normal(pc.run_end_decode(array), kind)
    if pt.is_dictionary(array.type):
        return as_normal(array.dictionary_decode(), kind)
    if pt.is_list_view(array.type) or pt.is_large_list_view(array.type):  # Arrow's cast of a slice is broken
        return as_normal(pa.array(array.to_pylist(), pa.list_(array.type.value_type)), kind)
    if is_media(kind) and (pt.is_binary(array.type) or pt.is_string(array.type)):
        return _media(array)
    if pt.is_struct(kind) and pt.is_struct(array.type):
        have = [field.name for field in array.type]
        parts = array.flatten()
        fields = [
            as_normal(parts[have.index(f.name)], f.type) if f.name in have else pa.nulls(len(array), f.type)
            for f in kind
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if pt.is_string(kind) and not (_castable(array.type)):
        return pa.array([as_text(value) for value in array.to_pylist()], kind)
    try:
        return array.cast(kind, safe=False)
    except pa.ArrowNotImplementedError:
        return pa.array(array.to_pylist(), kind)
    except pa.ArrowInvalid:
        # A slice of a huge chunk: copied, its offsets start at zero and fit.
        return pa.concat_arrays([array.take(pa.array(np.arange(len(array))))]).cast(kind, safe=False)


def _castable(kind: pa.DataType) -> bool:
    """True where Arrow's cast to text is the text we would write."""
    return (
        pt.is_integer(kind)
        or pt.is_boolean(kind)
        or pt.is_date(kind)
        or pt.is_timestamp(kind)
        or (pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))
    )


def _media(array: pa.Array) -> pa.Array:
    """Media cells ``{bytes, path}`` of bytes or paths."""
    text = pt.is_string(array.type)
    none = pa.nulls(len(array), pa.binary() if text else pa.string())
    return pa.StructArray.from_arrays(
        [none, array] if text else [array, none], fields=list(MEDIA_TYPE), mask=array.is_null()
    )


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Common type of two: numbers widen, bytes and paths become media, the rest is text."""
    if a == b or pt.is_null(b):
        return a
    if pt.is_null(a):
        return b
    if pt.is_integer(a) and pt.is_integer(b) and pa.uint64() not in (a, b):
        return pa.int64()
    if is_number(a) and is_number(b):
        return pa.float64()
    if is_list(a) and is_list(b):
        return pa.list_(common_type(a.value_type, b.value_type))
    pair = {a, b}
    if all(pt.is_binary(kind) or pt.is_string(kind) or is_media(kind) for kind in pair):
        return MEDIA_TYPE
    if pt.is_struct(a) and pt.is_struct(b):
        fields = {field.name: field.type for field in a}
        for field in b:
            fields[field.name] = common_type(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    if all(pt.is_date(kind) or pt.is_timestamp(kind) for kind in pair):
        zones = {kind.tz for kind in pair if pt.is_timestamp(kind) and kind.tz}
        return pa.timestamp("us", zones.pop() if len(zones) == 1 else "UTC" if zones else None)
    return pa.string()


def clean(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """``array`` with text that is valid UTF-8, and the positions of the cells whose bad bytes became U+FFFD.

    Raises:
        pa.ArrowInvalid: the array itself is broken (offsets beyond its buffers, as in a hostile file).
    """
    try:
        array.validate(full=True)
        return array, np.empty(0, np.int64)
    except pa.ArrowInvalid:
        raw = array.view(_bytes_type(array.type)) if pt.is_string(array.type) else array.cast(_bytes_type(array.type))
        raw.validate(full=True)
    bad: list[int] = []
    cells = []
    for i, value in enumerate(raw.to_pylist()):
        cell = _decoded(value, array.type)
        if "\ufffd" in strings(cell) and _encoded(cell, array.type) != value:
            bad.append(i)
        cells.append(cell)
    return pa.array(cells, array.type), np.array(bad, np.int64)


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    if pt.is_string(kind):
        return pa.binary()
    if pt.is_fixed_size_list(kind):
        return pa.list_(_bytes_type(kind.value_type), kind.list_size)
    if is_list(kind):
        return pa.list_(_bytes_type(kind.value_type))
    if pt.is_struct(kind):
        return pa.struct([(field.name, _bytes_type(field.type)) for field in kind])
    return kind


def _walk(value: Any, kind: pa.DataType, leaf: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if pt.is_string(kind):
        return leaf(value)
    if is_list(kind):
        return [_walk(item, kind.value_type, leaf) for item in value]
    if pt.is_struct(kind):
        return {field.name: _walk(value[field.name], field.type, leaf) for field in kind}
    return value


def _decoded(value: Any, kind: pa.DataType) -> Any:
    return _walk(value, kind, lambda cell: cell.decode("utf-8", "replace"))


def _encoded(value: Any, kind: pa.DataType) -> Any:
    return _walk(value, kind, lambda cell: cell.encode("utf-8"))


def strings(value: Any) -> str:
    """All texts in a value, one after another."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = value.values()
    return "".join(map(strings, value)) if isinstance(value, Iterable) and not isinstance(value, bytes) else ""


def as_text(value: Any) -> str | None:
    """Any plain value as the text a user would write; None stays None."""
    if value is None or isinstance(value, str):
        return value if value is None else scrub(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, TEXT_CLASSES):
        return str(value)
    try:
        return scrub(json.dumps(value, ensure_ascii=False, default=as_text))
    except RecursionError:
        return f"{type(value).__name__} nested too deeply"
