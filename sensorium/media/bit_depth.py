"""Bit depth: black and white levels of pictures of more than 8 bits, and their pixels between the two.

Cameras and scanners store 10, 12 or 14 bits in 16; a picture is as bright as its file says that such numbers are, not
as the 16 bits would be.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sensorium.core.errors import BadCell

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of pictures of one channel and more than 8 bits."""
DEEP_RAW_MODES = "RGB;16L", "RGB;16B", "RGB;16N", "RGBA;16L", "RGBA;16B", "RGBA;16N"
"""Raw modes of pictures of several channels of 16 bits, of which Pillow keeps the upper 8."""
BITS_TAG, PHOTOMETRIC_TAG, MAX_VALUE_TAG, MAX_VALUE_SIGNED_TAG = 258, 262, 281, 341
"""Numbers of TIFF's tags: bits stored, photometric interpretation (whether 0 is white), and the largest value."""
BAND_PIXELS = 1 << 20
"""Pixels that are read together."""


def levels(image: Pillow.Image) -> tuple[float, float]:
    """Black and white levels of an opened and loaded picture.

    Raises:
        BadCell: floating-point pixels that are not finite.
    """
    if image.mode not in DEEP_MODES:
        return 0, 255
    tags, most = getattr(image, "tag_v2", {}), claimed(image)
    low, high = span(image) if most or not image.mode.startswith("I;16") else (0, 65535)
    if most and not (low >= 0 and high <= most and (image.format != "PNG" or crowded(image, 16 - most.bit_length()))):
        most = None
    if image.mode.startswith("I;16"):
        ends = 0.0, float(most or 65535)
    elif most:
        ends = 0.0, float(most)
    else:
        ends = next(
            (
                (0.0, float(bound))
                for bound in ((1, 255) if image.mode == "F" else (255, 65535))
                if low >= 0 and high <= bound
            ),
            (low, high),
        )
    return ends[::-1] if tags.get(PHOTOMETRIC_TAG) == 0 else ends


def span(image: Pillow.Image) -> tuple[float, float]:
    """Smallest and largest value.

    Raises:
        BadCell: values that are not finite.
    """
    low, high = math.inf, -math.inf
    for rows in bands(image):
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise BadCell("the picture's pixels are not finite numbers")
    return low, high


def bands(image: Pillow.Image) -> Iterator[np.ndarray]:
    """Pixels in some lines at a time, so that a large picture is never in memory twice."""
    w, h = image.size
    lines = max(1, BAND_PIXELS // max(w, 1))
    for top in range(0, h, lines):
        yield np.asarray(image.crop((0, top, w, min(h, top + lines))))


def claimed(image: Pillow.Image) -> int | None:
    """Largest value that a picture of one channel may have, by its file; None where that says nothing, or all 16
    bits."""
    bits = image.info.get("significant") if image.format == "PNG" else None
    most = (1 << bits) - 1 if bits and bits < 16 else stored(getattr(image, "tag_v2", {}))
    return None if most == 65535 else most


def stored(tags: Any) -> int | None:
    """Largest value by a TIFF's tags: a full number of bits, for some write the largest value that there happens to
    be."""
    bits = first(tags.get(BITS_TAG))
    most = first(tags.get(MAX_VALUE_TAG)) or first(tags.get(MAX_VALUE_SIGNED_TAG))
    most = (1 << int(most).bit_length()) - 1 if isinstance(most, int) and most > 0 else None
    return min(
        (value for value in (most, (1 << bits) - 1 if isinstance(bits, int) and 8 < bits < 32 else None) if value),
        default=None,
    )


def first(value: Any) -> Any:
    """First item of a tuple or list, else the value itself."""
    return (value[0] if value else None) if isinstance(value, (tuple, list)) else value


def crowded(image: Pillow.Image, spare: int) -> bool:
    """True where values use the lowest ``spare`` bits, which those that were scaled up to 16 bits, as PNG wants it,
    leave at 0 or at what rounding makes."""
    return any(bool(((rows & ((1 << spare) - 1)) > 1).any()) for rows in bands(image))


def significant(data: bytes) -> int | None:
    """Number of a PNG's significant bits, by its chunk sBIT: the most of all channels but transparency."""
    at = 8
    for _ in range(64):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"sBIT":
            values = data[at + 8 : at + 8 + min(size, 4)]
            return max(values[: 3 if len(values) > 2 else 1], default=None)
        if name in (b"IDAT", b"") or size > len(data):
            return None
        at += 12 + size
    return None


def deepened(image: Pillow.Image, data: bytes) -> Pillow.Image | None:
    """Picture of several channels of 16 bits that fewer bits fill, in 8 bits a channel; None where the upper 8 bits are
    what it has.

    Pillow keeps one byte of each value, the upper one. Read once more as if its bytes were swapped, the file gives the
    lower one.
    """
    if image.mode not in ("RGB", "RGBA") or image.format not in ("PNG", "TIFF") or image.tell():
        return None
    assert isinstance(image, ImageFile)
    raw_mode = next((tile[3] for tile in image.tile), "")
    raw_mode = raw_mode[0] if isinstance(raw_mode, tuple) else raw_mode
    most = stored(image.tag_v2) if isinstance(image, TiffImageFile) else (1 << (significant(data) or 16)) - 1
    if raw_mode not in DEEP_RAW_MODES or not most or not 255 < most < 65535:
        return None
    lower = type(image)(io.BytesIO(data), "")
    swapped = {"L": "B", "B": "L", "N": "B" if struct.pack("=H", 1)[0] else "L"}[raw_mode[-1]]
    lower.tile = [
        tile._replace(
            args=(raw_mode[:-1] + swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode[:-1] + swapped
        )
        for tile in lower.tile
    ]
    if image.format == "PNG":
        lower.info.pop("transparency", None)
    image.load()
    lower.load()
    if int(np.asarray(image)[..., :3].max()) << 8 > most:  # scaled up to all 16 bits after all
        return None
    values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
    if image.format == "PNG" and not ((values[..., :3] & ((1 << 16 - most.bit_length()) - 1)) > 1).any():
        return None
    values[..., :3] = np.minimum(values[..., :3] * np.float32(255 / most) + 0.5, 255)
    if values.shape[-1] == 4:
        values[..., 3] = np.minimum(values[..., 3] * np.float32(255 / most) + 0.5, 255)
    return Pillow.fromarray(values.astype(np.uint8))


def eighths(image: Pillow.Image, ends: tuple[float, float]) -> Pillow.Image:
    """Pixels of one channel as grey of 8 bits; with transparency where one of the values stands for it."""
    values = np.asarray(image)
    level = (values.astype(np.float32) - ends[0]) * (255 / (ends[1] - ends[0] or 1e-30))
    grey = Pillow.fromarray(np.nan_to_num(level).clip(0, 255).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int) and image.mode.startswith("I;16"):
        return Pillow.merge("LA", (grey, Pillow.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
    return grey
