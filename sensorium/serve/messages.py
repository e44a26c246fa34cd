"""Message serialization between our processes: plain values, bytes and arrays, as MessagePack.

What a message says can't run anything where it is read.
"""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import msgpack
import numpy as np

ARRAY_TYPE = 1
"""The extension type of an array: its dtype, its shape and its bytes."""
DTYPE_KINDS = "buif"
"""The kinds of dtype that may be sent."""


def pack(message: Any) -> bytes:
    """Message as bytes; dates and decimals become text, as JSON would write them."""
    return msgpack.packb(message, default=_plain)


def unpack(data: bytes) -> Any:
    """Message of bytes that ``pack`` made.

    Raises:
        ValueError: these bytes are none.
    """
    return msgpack.unpackb(data, ext_hook=_array, strict_map_key=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in DTYPE_KINDS:
            raise TypeError(f"an array of {value.dtype} can't be sent")
        return msgpack.ExtType(
            ARRAY_TYPE, msgpack.packb([value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()])
        )
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} can't be sent")


def _array(code: int, data: bytes) -> Any:
    if code != ARRAY_TYPE:
        raise ValueError(f"unknown extension {code}")
    kind, shape, values = msgpack.unpackb(data)
    dtype = np.dtype(kind)
    if dtype.kind not in DTYPE_KINDS:
        raise ValueError(f"an array of {dtype} can't be received")
    return np.frombuffer(values, dtype).reshape(shape)
