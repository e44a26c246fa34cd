"""Picture files: opened, and judged by their headers before a pixel is decoded."""

from __future__ import annotations

import contextlib
import io
import math
import re
import threading
from collections.abc import Generator
from typing import Any

from PIL import Image as Pillow

from sensorium.core.errors import BadCell
from sensorium.media.bit_depth import significant
from sensorium.media.formats import EXTRA_PACKAGES, is_image, media_type
from sensorium.media.unsupported import by_media, unread_format

PILLOW_FORMATS = {"PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "JXL", "JPEGXL", "PPM"}
"""Formats that are opened. Left out on purpose: those that run an interpreter (EPS) or nest other files (ICO, ICNS)."""
FORMAT_NAMES = "PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF, JPEG 2000, PPM; HEIC and PDF with the extras heic and pdf"

MAX_DENSE_BYTES = 50_000_000
"""Limit of a decompression bomb: a picture of more bytes than this once decoded, and more than ``MAX_COMPRESSION`` for
each of its file. Photographs have up to 100, drawings some hundreds."""
MAX_COMPRESSION = 800
MAX_SCANNED_PIXELS = 400_000_000
"""Pixels times scans of a progressive JPEG, which pays for all its pixels in each; encoders write about ten."""
MAX_SLOW_PIXELS = 1_000_000
"""Pixels of a portable map of odd levels, which are decoded in Python."""
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes of a decoded pixel in those modes that take fewer than four."""
MAX_PAGE_SIDE = 4096
"""Longer side of a rendered PDF page, at most."""
PDFIUM_LOCK = threading.Lock()
"""Lock around PDFium, which renders one page at a time."""


class BrokenImage(BadCell):
    """Error of a picture that can't be decoded, rather than one that is larger than allowed: of a clip, the frames
    before it are used."""


@contextlib.contextmanager
def picture(data: Any) -> Generator[bytes, None, None]:
    """Context manager that gives a cell's picture bytes, and turns errors of decoding them into bad cells.

    Raises:
        BadCell: it holds none, or whatever goes wrong with it.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadCell(f"expected the bytes of a picture, found {type(data).__name__}")
    if not len(data):
        raise BrokenImage("the picture file is empty")
    try:
        yield bytes(data)
    except BadCell:
        raise
    except MemoryError as error:
        raise BadCell("the picture needs more memory than there is") from error
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them stumble over.
        raise BrokenImage(f"the picture can't be decoded: {why(error)}") from error


def why(error: Exception) -> str:
    """Message of a decoder's error, where it is words; a stumble over Python objects, or an address, helps no one."""
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
    has_words = re.search(r"[a-z]{3}", text) and not re.search(r" object at 0x|BytesIO|decoder error -?\d", text)
    inner = isinstance(error, (LookupError, ArithmeticError, TypeError, AttributeError))
    return text if has_words and not inner else "it is damaged"


def opened(data: bytes, size: int, max_pixels: int, trim: bool = False) -> Pillow.Image:
    """Opened picture, its header read and judged, nothing decoded yet but of a PDF, whose first page is rendered.

    Pillow's own limit warns through a process-wide switch; opening by the format's class leaves that switch alone.
    """
    kind = media_type(data[:1024]) or ""
    if kind in EXTRA_PACKAGES and is_image(data[:1024]):
        image = page(data, size, max_pixels) if kind == "application/pdf" else heic(data)
    else:
        if found := by_media(kind) or (unread_format(data[:1024]) if not kind else None):
            raise BrokenImage(f"the file is {found[0]}, which isn't read here: {found[1]}")
        image = by_pillow(data)
    w, h = image.size
    if w * h > max_pixels:
        raise BadCell(f"the picture has {w} × {h} pixels, more than max_pixels={max_pixels}")
    if min(w, h) < 1:
        raise BrokenImage(f"the picture has {w} × {h} pixels: none")
    if (
        (decoded := w * h * BYTES_PER_PIXEL.get(image.mode, 4)) > MAX_DENSE_BYTES
        and decoded > MAX_COMPRESSION * len(data)
        and kind != "application/pdf"
    ):
        raise BadCell(f"the picture claims {w} × {h} pixels in {len(data)} bytes: a decompression bomb")
    if image.format in ("JPEG", "MPO"):
        scans = data.count(b"\xff\xda")
        if scans > 10 and scans * w * h > MAX_SCANNED_PIXELS:
            raise BadCell(f"the JPEG draws {w} × {h} pixels {scans} times: a decompression bomb")
        # Decoded at 1/2, 1/4 or 1/8 where no side becomes shorter than in the square; margins that are cut may leave
        # little.
        scale = size / (min(w, h) if trim else max(w, h))
        image.draft("RGB" if image.mode != "L" else "L", (math.ceil(w * scale), math.ceil(h * scale)))
    if (
        image.format == "PPM"
        and w * h > MAX_SLOW_PIXELS
        and any(tile[0] != "raw" for tile in getattr(image, "tile", ()))
    ):
        raise BadCell(
            f"the portable map has {w} × {h} pixels of odd levels, more than {MAX_SLOW_PIXELS:,}: "
            "save it with 255 or 65535"
        )
    if image.format == "PNG" and (bits := significant(data)):
        image.info["significant"] = bits
    return image


def by_pillow(data: bytes) -> Pillow.Image:
    """Picture opened by the first of Pillow's formats that accepts the bytes."""
    for name in sorted(PILLOW_FORMATS & Pillow.OPEN.keys()):
        factory, accept = Pillow.OPEN[name]
        accepted = accept(data[:16]) if accept else True
        if accepted and not isinstance(accepted, str):
            return factory(io.BytesIO(data), "")
    raise BrokenImage(f"not a picture in a format that can be read ({FORMAT_NAMES})")


def heic(data: bytes) -> Pillow.Image:
    """HEIC or HEIF picture, by libheif, which turns it upright itself."""
    from pillow_heif import HeifImageFile

    return HeifImageFile(io.BytesIO(data), "")


def page(data: bytes, size: int, max_pixels: int) -> Pillow.Image:
    """First page of a PDF, rendered on white, about four times as large as it will be used."""
    import pypdfium2

    with PDFIUM_LOCK:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            text = str(error).lower()
            raise BrokenImage(
                "the PDF takes a password" if "password" in text else "the PDF is damaged: it can't be opened"
            ) from error
        try:
            if not len(document):
                raise BrokenImage("the PDF has no pages")
            first = document[0]
            w, h = first.get_size()
            if not (0 < w < 1e6 and 0 < h < 1e6):
                raise BrokenImage(f"the PDF's first page measures {w:g} × {h:g}")
            longest = min(MAX_PAGE_SIDE, 4 * size, math.sqrt(max_pixels * max(w, h) / min(w, h)))
            return (
                first.render(scale=max(1.0, math.floor(longest)) / max(w, h), may_draw_forms=False)
                .to_pil()
                .convert("RGB")
            )
        finally:
            document.close()


def orientation(image: Pillow.Image) -> int:
    """EXIF orientation of a loaded picture's pixels: 1 where its decoder has turned them already, as TIFF's does while
    it loads."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # A broken EXIF block is no reason to lose the picture.
        return 1
