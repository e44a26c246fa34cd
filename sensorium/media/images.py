"""Picture decoding: the bytes of a picture to a small square of RGB on white, and back.

A hostile file is turned away by its header, before a pixel is decoded.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pillow

from sensorium.media.bit_depth import DEEP_MODES, deepened, eighths, levels
from sensorium.media.formats import dotted
from sensorium.media.image_files import opened, orientation, picture

if TYPE_CHECKING:
    import torch

try:
    import simplejpeg
except ImportError:  # the extra "jpeg": faster, not other
    simplejpeg = None

ENDINGS = dotted("image")

MIN_BANDED_PIXELS = 2_000_000
"""Pixels from which on a picture is shrunk by bands."""

MARGIN_TOLERANCE = 8
"""Largest difference from white of a margin."""

EXIF_TRANSPOSES: dict[int, Pillow.Transpose] = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT, 3: Pillow.Transpose.ROTATE_180, 4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE, 6: Pillow.Transpose.ROTATE_270, 7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}  # fmt: skip
"""Transposition that undoes each EXIF orientation."""


def side_of(head: bytes) -> int | None:
    """Longer side of a picture in pixels, from its file's first bytes; None where these don't say."""
    if head.startswith(b"%PDF"):  # it has none, and would be rendered
        return None
    try:
        with opened(head, 1 << 16, 1 << 62) as image:
            return max(image.size)
    except Exception:  # a head is a broken file; what plugins raise of it is no one's concern
        return None


def png(pixels: np.ndarray) -> bytes:
    """PNG file of pixels uint8 [h, w, 3]."""
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def psnr(gaps: Any) -> float:
    """Peak signal-to-noise ratio, in dB, at most 99, of differences of pixels in 0..255."""
    return float(min(20 * np.log10(255 / max(np.sqrt(np.mean(np.square(gaps))), 1e-9)), 99.0))


def colour_mix(draw: torch.Tensor, strength: float) -> torch.Tensor:
    """Random colour matrices [n, 3, 3] acting on ink (colour − white), so that white stays white.

    Brightness and contrast scale the ink, saturation goes to or from its mean, hue turns it about the grey axis
    (Rodrigues' formula). ``draw`` is uniform in −1..1, [3, n].
    """

    import torch

    gain, saturation, hue = 1 + strength * draw[0], 1 + 2 * strength * draw[1], strength * draw[2]
    device = draw.device
    eye, mean = torch.eye(3, device=device), torch.full((3, 3), 1 / 3, device=device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / math.sqrt(3)
    cos, sin = torch.cos(hue).view(-1, 1, 1), torch.sin(hue).view(-1, 1, 1)
    chroma = (eye - mean) * cos + cross * sin
    return gain.view(-1, 1, 1) * (mean + saturation.view(-1, 1, 1) * chroma)


# Reading

Pillow.init()  # Loads the formats, once and before there are threads.


def square(data: Any, size: int, max_pixels: int, trim: bool = False) -> np.ndarray:
    """Picture as RGB on white, uint8 [size, size, 3], of a file's bytes; see ``Image.read``."""
    with picture(data) as raw, opened(raw, size, max_pixels, trim) as image:
        return fitted(image, raw, size, trim)


STRIP_RATIO = 16
"""Ratio of length to width of a strip, which an encoder that scales the short side would make huge."""


def colours(data: Any, size: int, max_pixels: int, trim: bool = False) -> np.ndarray:
    """Picture as RGB on white, upright, uint8 [h, w, 3], of a file's bytes. Only one much larger than ``size`` is made
    smaller, and a strip is put on a sheet.

    Raises:
        BadCell: as of ``square``.
    """
    with picture(data) as raw, opened(raw, 4 * size, max_pixels) as image:
        pixels, exif = decoded(image, raw, 4 * size)
        pixels = on_white(pixels)
        if trim:
            left, top, right, bottom = inside(pixels)
            pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
        if max(pixels.shape[:2]) > STRIP_RATIO * min(pixels.shape[:2]):
            pixels = sheet(pixels, 4 * size)
        return upright(pixels, exif)


def upright(pixels: np.ndarray, exif: int) -> np.ndarray:
    """Pixels [h, w, 3] turned or mirrored by their EXIF orientation."""
    return (
        np.array(Pillow.fromarray(np.ascontiguousarray(pixels)).transpose(EXIF_TRANSPOSES[exif]))
        if exif in EXIF_TRANSPOSES
        else pixels
    )


def sheet(pixels: np.ndarray, size: int) -> np.ndarray:
    """Strip, no longer than ``size``, in the middle of white that is wide enough for its short side to be scaled up."""
    scale = min(1.0, size / max(pixels.shape[:2]))
    pixels = resized(pixels, *(max(1, round(side * scale)) for side in pixels.shape[:2]))
    h, w = pixels.shape[:2]
    tall, wide = max(h, -(-w // STRIP_RATIO)), max(w, -(-h // STRIP_RATIO))
    result = np.full((tall, wide, 3), 255, np.uint8)
    result[(tall - h) // 2 : (tall - h) // 2 + h, (wide - w) // 2 : (wide - w) // 2 + w] = pixels
    return result


def decoded(image: Pillow.Image, data: bytes, size: int) -> tuple[np.ndarray, int]:
    """Pixels of an opened picture, or of its current frame, as RGB or RGBa, uint8 [h, w, 3 or 4], and their EXIF
    orientation.

    The orientation is known only after they are decoded: some decoders turn them.
    """
    deep = deepened(image, data)
    image.load()
    return np.array(shrunk(deep or image, size, levels(image))), orientation(image)


def fitted(image: Pillow.Image, data: bytes, size: int, trim: bool = False) -> np.ndarray:
    """Opened picture, with or without its margins, shrunk into a white square, uint8 [size, size, 3]."""
    sides, pixels = image.size, jpeg(image, data)
    pixels, exif = (pixels, orientation(image)) if pixels is not None else decoded(image, data, size)
    if trim:
        left, top, right, bottom = inside(pixels)
        pixels = pixels[top:bottom, left:right]
        sides = pixels.shape[1::-1]
    scale = size / max(sides)
    w, h = (max(1, round(side * scale)) for side in sides)
    return centred(upright(on_white(resized(pixels, h, w)), exif), size)


def centred(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels uint8 [h, w, 3] in the middle of a white square."""

    import torch

    h, w = pixels.shape[:2]
    top, left = (size - h) // 2, (size - w) // 2
    result = np.full((size, size, 3), 255, np.uint8)
    torch.from_numpy(result)[top : top + h, left : left + w] = torch.from_numpy(
        pixels
    )  # faster than NumPy where planes are turned
    return result


def jpeg(image: Pillow.Image, data: bytes) -> np.ndarray | None:
    """Pixels [h, w, 3] of an opened colour JPEG by simplejpeg, which makes the same ones as Pillow, and faster.

    None where it isn't installed, or the picture is none of these, or large, or broken: Pillow reports the error.
    """
    w, h = image.size
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB" or w * h >= MIN_BANDED_PIXELS:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=h, min_width=w)
    except ValueError:
        return None
    return pixels if pixels.shape == (h, w, 3) else None


def resized(pixels: np.ndarray, h: int, w: int) -> np.ndarray:
    """Pixels uint8 [rows, columns, 3 or 4] resized to [h, w, 3 or 4], bicubic: as Pillow's, to one level, in a third of
    its time."""

    import torch
    from torch.nn import functional as F

    if pixels.shape[:2] == (h, w):
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return F.interpolate(planes, (h, w), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Colours [h, w, 3] of RGB or RGBa, uint8 [h, w, 3 or 4], on white."""
    if pixels.shape[-1] == 4:  # Colours are premultiplied: what is missing to full opacity is white.
        pixels = np.minimum(pixels[..., :3].astype(np.uint16) + (255 - pixels[..., 3:].astype(np.uint16)), 255).astype(
            np.uint8
        )
    return pixels


def inside(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box of all that is not white, or the whole of a picture that is nothing but white."""
    inked = on_white(pixels).min(2) < 255 - MARGIN_TOLERANCE
    across, down = np.flatnonzero(inked.any(0)), np.flatnonzero(inked.any(1))
    if not len(across):
        return (0, 0, *pixels.shape[1::-1])
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def shrunk(image: Pillow.Image, size: int, span: tuple[float, float]) -> Pillow.Image:
    """Picture in RGB or RGBa; a large one at 1/k and by bands, so that no second large picture is ever made."""
    w, h = image.size
    factor = max(w, h) // (4 * size)
    if w * h < MIN_BANDED_PIXELS or factor < 2:
        return inked(image, span)
    rows = factor * max(1, 1_000_000 // (w * factor))
    result = None
    for top in range(0, h, rows):
        band = inked(image.crop((0, top, w, min(h, top + rows))), span).reduce((min(factor, w), factor))
        if result is None:
            result = Pillow.new(band.mode, (band.size[0], -(-h // factor)))
        result.paste(band, (0, top // factor))
    assert result is not None
    return result


def inked(image: Pillow.Image, span: tuple[float, float]) -> Pillow.Image:
    """Picture of any mode as RGB, or as RGBa (premultiplied) where there is transparency."""
    if image.mode in DEEP_MODES:
        grey = eighths(image, span)
        return grey.convert("RGB") if grey.mode == "L" else grey.convert("RGBA").convert("RGBa")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image if image.mode == "RGBa" else image.convert("RGBA").convert("RGBa")
    return image if image.mode == "RGB" else image.convert("RGB")


# Stems
