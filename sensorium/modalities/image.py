"""Pictures: any common format to a small square of pixels, and a convolutional stem that makes tokens of it.

A hostile file is turned away by its header, before a pixel is decoded.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image as Pillow
from torch import nn
from torch.nn import functional as F

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.layers.attention import heads_of
from sensorium.layers.block import Block
from sensorium.layers.conv import Conv, Norm, working_dtype
from sensorium.modalities import Cells, Modality, Stem

try:
    import simplejpeg
except ImportError:  # the extra "jpeg": faster, not other
    simplejpeg = None

FORMATS = {"PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"}
"""Formats that are opened. Left out on purpose: those that run an interpreter (EPS), nest other files (ICO, ICNS) or
are decoded in Python (PPM as text)."""

ENDINGS = (".png", ".apng", ".jpg", ".jpeg", ".jfif", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")

DENSE = 50_000_000
"""A picture of more bytes than this once decoded, and more than ``SPARSE`` for each of its file, is taken for a
decompression bomb: photographs have up to 100, drawings some hundreds."""
SPARSE = 800
SCANNED = 400_000_000
"""Pixels times scans of a progressive JPEG, which pays for all its pixels in each; encoders write about ten."""
SMALL = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes of a decoded pixel in those modes that take fewer than four."""

LARGE = 2_000_000
"""Pixels from which on a picture is shrunk by bands."""

EARLY = 3
"""Layers of the stem whose feature maps are restyled: what they see is how a thing is drawn, rather than what it is."""

GRID = 6
"""Lines and columns of parts that a picture is taken to have."""

MARGIN = 8
"""What differs less from white is margin."""

TURNED: dict[int, Pillow.Transpose] = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT, 3: Pillow.Transpose.ROTATE_180, 4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE, 6: Pillow.Transpose.ROTATE_270, 7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}  # fmt: skip
"""What undoes each EXIF orientation."""


class Image(Modality):
    """A picture as RGB, its aspect ratio kept, in the middle of a white square.

    White, because most transparent art is drawn for it, and because one colour for transparency, padding and what
    augmentation uncovers means that none of the three tells the network anything.

    Args:
        size: side of the square in pixels, a multiple of 16.
        max_pixels: a picture with more is a bad cell, by its header.
        trim: cut white and transparent margins off, so that a drawing's size on its sheet says nothing.
        norm: the norm of the convolutions (``layers.conv``).
        stem: "conv", a small convolutional encoder; "patches", squares of ``patch`` pixels and transformer blocks.
        patch: side of a patch, where ``stem`` is "patches", and of what is one token where pictures are generated.
        flip: also mirror pictures in training. Off, because left and right may be the meaning.
        turn: largest rotation in training, in radians.
        zoom: largest change of scale in training, as a share.
        move: largest shift in training, as a share of the side.
        bend: largest shift of a part of the picture against the others in training, as a share of the side.
        colour: strength of changes of brightness, contrast, saturation and hue in training.
        grey: share of pictures that lose their colours in training.
        stroke: share of pictures whose dark lines are made a pixel wider or narrower in training, half of them each: what
            is drawn with outlines and without is the same thing.
        outline: share of pictures whose edges are drawn in dark in training, for the same reason.
        reverse: share of pictures that become white on one colour in training, as signs are drawn.
        restyle: how much training changes strength and level of each early feature map of the convolutional stem: what all
            pictures of one hand have in common then says little (Li et al. 2022, arXiv 2202.03958).
    """

    media: ClassVar[bool] = True
    matched: ClassVar[bool] = True
    ending: ClassVar[str] = ".png"
    generator: ClassVar[str | None] = "flow"

    def __init__(
        self,
        *,
        size: int = 48,
        max_pixels: int = 64_000_000,
        trim: bool = False,
        norm: Norm = "group",
        stem: Literal["conv", "patches"] = "conv",
        patch: int = 8,
        flip: bool = False,
        turn: float = 0.25,
        zoom: float = 0.2,
        move: float = 0.15,
        bend: float = 0.0,
        colour: float = 0.2,
        grey: float = 0.0,
        stroke: float = 0.0,
        outline: float = 0.0,
        reverse: float = 0.0,
        restyle: float = 0.0,
    ) -> None:
        if size < 16 or size % 16:
            raise UserError(f"An image's size is a multiple of 16, not {size}. Try {max(16, round(size / 16) * 16)}.")
        if patch < 1 or size % patch:
            raise UserError(f"patch={patch} doesn't divide size={size}. Choose a patch that does, for instance 8.")
        self.size, self.max_pixels, self.trim, self.norm, self.kind, self.patch = size, max_pixels, trim, norm, stem, patch
        self.flip, self.turn, self.zoom, self.move, self.bend = flip, turn, zoom, move, bend
        self.colour, self.grey, self.stroke, self.outline, self.reverse = colour, grey, stroke, outline, reverse
        self.restyle = restyle

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Sure where the files' first bytes are a picture's; less so where only their names say it."""
        if profile.heads:
            share = sum(map(is_image, profile.heads)) / len(profile.heads)
            if share >= 0.5:
                return Claim(sure=0.9 + 0.09 * share, why=f"{share:.0%} of the files begin as pictures do")
        texts = [cell.lower() for cell in profile.sample if isinstance(cell, str)]
        named = sum(text.endswith(ENDINGS) for text in texts)
        if texts and named >= 0.8 * len(profile.sample):
            return Claim(sure=0.85, why=f"{named / len(texts):.0%} of the cells are names of picture files")
        return None

    def read(self, cell: Any) -> np.ndarray:
        """The bytes of a picture to uint8 [size, size, 3].

        Raises:
            BadCell: not a picture, cut short, more than ``max_pixels``, or a decompression bomb.
        """
        return square(cell, self.size, self.max_pixels, self.trim)

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The squares of a grid of ``GRID`` by ``GRID``, each made white, by line and column from the top left, counted from 1."""
        edges, result = np.linspace(0, self.size, GRID + 1).round().astype(int), []
        for line, column in itertools.product(range(GRID), range(GRID)):
            rest = read.copy()
            rest[edges[line] : edges[line + 1], edges[column] : edges[column + 1]] = 255
            result.append((f"{line + 1},{column + 1}", rest))
        return result

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``pixels`` uint8 [n, 3, size, size], channels last in memory."""
        return {"pixels": torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Each picture turned, scaled, shifted, bent and recoloured, in one pass of bilinear sampling over the batch."""
        pixels = cells["pixels"]
        n, _, h, w = pixels.shape
        draw = (torch.rand(8, n, generator=generator) * 2 - 1).to(pixels.device)
        angle, zoom = draw[0] * self.turn, torch.exp2(draw[1] * math.log2(1 + self.zoom))
        side = torch.where(draw[7] < 0, -1.0, 1.0) if self.flip else torch.ones_like(angle)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        across = torch.stack([cos * side, sin * side], -1)[:, None, None]
        down = torch.stack([-sin, cos], -1)[:, None, None]
        shift = (draw[2:4] * 2 * self.move).T[:, None, None]
        y, x = (((torch.arange(k, device=pixels.device) + 0.5) * (2 / k) - 1) for k in (h, w))
        grid = (y[:, None, None] * down + shift) + x[:, None] * across
        if self.bend:  # a smooth field through 4 × 4 random shifts
            field = ((torch.rand(n, 2, 4, 4, generator=generator) * 2 - 1) * (2 * self.bend)).to(pixels.device)
            grid = grid + F.interpolate(field, (h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
        def some(share: float) -> torch.Tensor:
            return (torch.rand(n, generator=generator) < share).nonzero().squeeze(1).to(pixels.device)

        # Outside the picture grid_sample gives 0, so white must be 0.
        ink = pixels.contiguous().float().sub_(255.0)
        if self.reverse:
            index = some(self.reverse)
            colour = (torch.rand(len(index), 3, 1, 1, generator=generator) * -205 - 25).to(pixels.device)
            ink[index] = (1 + ink[index].amin(1, keepdim=True) / 255) * colour
        seen = F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if self.outline:
            index = some(self.outline)
            seen[index] = outlined(seen[index])
        if self.stroke:
            chance = torch.rand(n, generator=generator)
            for part, sign in ((chance < self.stroke / 2, 1.0), ((chance >= self.stroke / 2) & (chance < self.stroke), -1.0)):
                index = part.nonzero().squeeze(1).to(pixels.device)
                seen[index] = sign * largest(sign * seen[index])
        if self.grey:
            index = some(self.grey)
            seen[index] = seen[index].mean(1, keepdim=True).expand(-1, 3, -1, -1)
        mixed = torch.bmm(colour_mix(draw[4:7], self.colour), seen.view(n, 3, -1))
        result = mixed.add_(255.0).clamp_(0.0, 255.0).to(torch.uint8).view(n, 3, h, w)
        return {**cells, "pixels": result.contiguous(memory_format=torch.channels_last), "whole": cells["pixels"]}

    def stem(self, width: int) -> Stem:
        """(size / 16)² tokens from "conv", (size / patch)² from "patches"."""
        if self.kind == "patches":
            return Patches(width, self.size, self.patch)
        return Convolutional(width, self.size, self.norm, self.restyle)

    def tokens(self) -> Tokens:
        """Patches, row by row, each a vector of its colours in -1..1."""
        return Tokens(length=(self.size // self.patch) ** 2, width=3 * self.patch**2)

    def target(self, cells: Cells) -> torch.Tensor:
        """Pixels before augmentation, [n, (size / patch)², 3 · patch²], in -1..1."""
        pixels, side = cells.get("whole", cells["pixels"]), self.size // self.patch
        patches = pixels.permute(0, 2, 3, 1).reshape(-1, side, self.patch, side, self.patch, 3).transpose(2, 3)
        return patches.reshape(len(pixels), side**2, 3 * self.patch**2).float() / 127.5 - 1

    def decode(self, tokens: np.ndarray) -> bytes:
        """Patches [(size / patch)², 3 · patch²] to a PNG."""
        side = self.size // self.patch
        pixels = np.asarray(tokens).reshape(side, side, self.patch, self.patch, 3).swapaxes(1, 2).reshape(self.size, self.size, 3)
        return png(((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8))

    def score(self, truth: Sequence[Any], said: Sequence[Any]) -> dict[str, float]:
        """``psnr``: how near the pixels are, in dB, at most 99."""
        if not len(truth):
            return {}
        gaps = [self.read(a).astype(np.float32) - self.read(b) for a, b in zip(truth, said, strict=True)]
        return {"psnr": float(min(20 * np.log10(255 / max(np.sqrt(np.mean(np.square(gaps))), 1e-9)), 99.0))}

    def show(self, cell: Any) -> str:
        """A thumbnail, encoded anew, so that nothing of a hostile file reaches the page."""
        if cell is None:
            return ""
        try:
            pixels = square(cell.get("bytes") if isinstance(cell, dict) else cell, 96, self.max_pixels)
        except BadCell as error:
            return f"<em>{html.escape(str(error))}</em>"
        data = base64.b64encode(png(pixels)).decode()
        return f'<img width="96" height="96" alt="" src="data:image/png;base64,{data}">'

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Colours on an 8 × 8 grid, a histogram of each colour, and gradient directions in quarters: float32 [248]."""
        if read is None:
            return np.full(248, np.nan, np.float32)
        pixels = read.astype(np.float32) / 255
        edges = np.linspace(0, len(read), 9).astype(int)[:-1]
        grid = np.add.reduceat(np.add.reduceat(pixels, edges, 0), edges, 1) / (len(read) / 8) ** 2
        colours = np.concatenate([np.bincount(read[..., c].ravel() >> 5, minlength=8) for c in range(3)])
        down, across = np.gradient(pixels.mean(-1))
        way = ((np.arctan2(down, across) % np.pi) * (8 / np.pi)).astype(int) % 8
        steep, half = np.hypot(down, across), len(read) // 2
        turns = [
            np.bincount(way[a : a + half, b : b + half].ravel(), steep[a : a + half, b : b + half].ravel(), 8)
            for a in (0, half)
            for b in (0, half)
        ]
        parts = [grid.ravel(), colours / read[..., 0].size, np.concatenate(turns) / half**2]
        return np.concatenate(parts).astype(np.float32)


def is_image(head: bytes) -> bool:
    """Whether a file's first bytes are those of a format that can be read."""
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*"))
        or (head.startswith(b"BM") and head[6:10] == b"\0\0\0\0")
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"))
    )


def outlined(ink: torch.Tensor) -> torch.Tensor:
    """Ink [n, 3, h, w] in -255..0 with its edges (the morphological gradient, over 3 × 3) drawn in dark."""
    edge = (largest(ink) + largest(-ink)).amax(1, keepdim=True)
    return torch.minimum(ink, -(1.5 * edge).clamp_(max=255.0))


def largest(x: torch.Tensor) -> torch.Tensor:
    """The largest of each 3 × 3 neighbourhood, [n, c, h, w]; several times faster than torch's pooling on a CPU."""
    for way in (2, 3):
        most, size = x.clone(), x.shape[way] - 1
        for to, at in ((0, 1), (1, 0)):
            part = most.narrow(way, to, size)
            torch.maximum(part, x.narrow(way, at, size), out=part)
        x = most
    return x


def colour_mix(draw: torch.Tensor, strength: float) -> torch.Tensor:
    """Random colour matrices [n, 3, 3] acting on ink (colour − white), so that white stays white.

    Brightness and contrast scale the ink, saturation goes to or from its mean, hue turns it about the grey axis
    (Rodrigues' formula). ``draw`` is uniform in −1..1, [3, n].
    """
    gain, saturation, hue = 1 + strength * draw[0], 1 + 2 * strength * draw[1], strength * draw[2]
    device = draw.device
    eye, mean = torch.eye(3, device=device), torch.full((3, 3), 1 / 3, device=device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / math.sqrt(3)
    cos, sin = torch.cos(hue).view(-1, 1, 1), torch.sin(hue).view(-1, 1, 1)
    chroma = (eye - mean) * cos + cross * sin
    return gain.view(-1, 1, 1) * (mean + saturation.view(-1, 1, 1) * chroma)


def png(pixels: np.ndarray) -> bytes:
    """Pixels uint8 [h, w, 3] as a file."""
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


# Reading

Pillow.init()  # Loads the formats, once and before there are threads.


def square(data: Any, size: int, max_pixels: int, trim: bool = False) -> np.ndarray:
    """The bytes of a picture as RGB on white, uint8 [size, size, 3]; see ``Image.read``."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise BadCell(f"expected the bytes of a picture, found {type(data).__name__}")
    if not len(data):
        raise BadCell("the picture file is empty")
    try:
        data = bytes(data)
        with opened(data, size, max_pixels, trim) as image:
            return fitted(image, data, size, trim)
    except BadCell:
        raise
    except MemoryError as error:
        raise BadCell("the picture needs more memory than there is") from error
    except Exception as error:  # Pillow's plugins raise whatever a broken file makes them stumble over.
        raise BadCell(f"the picture can't be decoded: {error or type(error).__name__}") from error


def opened(data: bytes, size: int, max_pixels: int, trim: bool = False) -> Pillow.Image:
    """The picture, its header read and judged, nothing decoded yet.

    Pillow's own limit warns through a process-wide switch; opening by the format's class leaves that switch alone.
    """
    for name in sorted(FORMATS & Pillow.OPEN.keys()):
        factory, accept = Pillow.OPEN[name]
        accepted = accept(data[:16]) if accept else True
        if accepted and not isinstance(accepted, str):
            image = factory(io.BytesIO(data), "")
            break
    else:
        raise BadCell("not a picture in a format that can be read (PNG, JPEG, GIF, WebP, BMP, TIFF, AVIF)")
    w, h = image.size
    if w * h > max_pixels:
        raise BadCell(f"the picture has {w} × {h} pixels, more than max_pixels={max_pixels}")
    if (decoded := w * h * SMALL.get(image.mode, 4)) > DENSE and decoded > SPARSE * len(data):
        raise BadCell(f"the picture claims {w} × {h} pixels in {len(data)} bytes: a decompression bomb")
    if image.format in ("JPEG", "MPO"):
        scans = data.count(b"\xff\xda")
        if scans > 10 and scans * w * h > SCANNED:
            raise BadCell(f"the JPEG draws {w} × {h} pixels {scans} times: a decompression bomb")
        # Decoded at 1/2, 1/4 or 1/8 where no side becomes shorter than in the square; margins that are cut may leave little.
        scale = size / (min(w, h) if trim else max(w, h))
        image.draft("RGB" if image.mode != "L" else "L", (math.ceil(w * scale), math.ceil(h * scale)))
    return image


def fitted(image: Pillow.Image, data: bytes, size: int, trim: bool) -> np.ndarray:
    """An opened picture, with or without its margins, shrunk into a white square, uint8 [size, size, 3]."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # A broken EXIF block is no reason to lose the picture.
        orientation = 1
    sides, pixels = image.size, jpeg(image, data)
    if pixels is None:
        image.load()
        pixels = np.array(shrunk(image, size, levels(image)))
    if trim:
        left, top, right, bottom = inside(pixels)
        pixels = pixels[top:bottom, left:right]
        sides = pixels.shape[1::-1]
    scale = size / max(sides)
    w, h = (max(1, round(side * scale)) for side in sides)
    pixels = on_white(resized(pixels, h, w))
    if orientation in TURNED:
        pixels = np.array(Pillow.fromarray(np.ascontiguousarray(pixels)).transpose(TURNED[orientation]))
    h, w = pixels.shape[:2]
    top, left = (size - h) // 2, (size - w) // 2
    result = np.full((size, size, 3), 255, np.uint8)
    torch.from_numpy(result)[top : top + h, left : left + w] = torch.from_numpy(pixels)  # faster than NumPy where planes are turned
    return result


def jpeg(image: Pillow.Image, data: bytes) -> np.ndarray | None:
    """The pixels [h, w, 3] of an opened JPEG in colours by simplejpeg, which makes the same ones as Pillow, and faster.

    None where it isn't installed, or the picture is none of these, or large, or broken: Pillow says how.
    """
    w, h = image.size
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB" or w * h >= LARGE:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=h, min_width=w)
    except ValueError:
        return None
    return pixels if pixels.shape == (h, w, 3) else None


def resized(pixels: np.ndarray, h: int, w: int) -> np.ndarray:
    """Pixels uint8 [rows, columns, 3 or 4] as [h, w, 3 or 4], bicubic: what Pillow makes, to one level, in a third of its time."""
    if pixels.shape[:2] == (h, w):
        return pixels
    planes = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return F.interpolate(planes, (h, w), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def on_white(pixels: np.ndarray) -> np.ndarray:
    """RGB or RGBa, uint8 [h, w, 3 or 4], as colours [h, w, 3]."""
    if pixels.shape[-1] == 4:  # Colours are premultiplied: what is missing to full opacity is white.
        pixels = np.minimum(pixels[..., :3].astype(np.uint16) + (255 - pixels[..., 3:].astype(np.uint16)), 255).astype(np.uint8)
    return pixels


def inside(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """The box around all that is not white, or the whole of a picture that is nothing but white."""
    inked = on_white(pixels).min(2) < 255 - MARGIN
    across, down = np.flatnonzero(inked.any(0)), np.flatnonzero(inked.any(1))
    if not len(across):
        return (0, 0, *pixels.shape[1::-1])
    return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1


def shrunk(image: Pillow.Image, size: int, span: tuple[float, float]) -> Pillow.Image:
    """``image`` in RGB or RGBa; a large one at 1/k and by bands, so that no second large picture is ever made."""
    w, h = image.size
    factor = max(w, h) // (4 * size)
    if w * h < LARGE or factor < 2:
        return inked(image, span)
    rows = factor * max(1, 1_000_000 // (w * factor))
    result = None
    for top in range(0, h, rows):
        band = inked(image.crop((0, top, w, min(h, top + rows))), span).reduce((min(factor, w), factor))
        if result is None:
            result = Pillow.new(band.mode, (band.size[0], -(-h // factor)))
        result.paste(band, (0, top // factor))
    return result


def levels(image: Pillow.Image) -> tuple[float, float]:
    """What is black and what is white in a picture of more than 8 bits.

    Raises:
        BadCell: floating-point pixels that are not finite.
    """
    if image.mode.startswith("I;16"):
        return 0, 65535
    if image.mode not in ("I", "F"):
        return 0, 255
    low, high = image.getextrema()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BadCell("the picture's pixels are not finite numbers")
    for white in (1, 255) if image.mode == "F" else (255, 65535):
        if low >= 0 and high <= white:
            return 0, white
    return low, high


def inked(image: Pillow.Image, span: tuple[float, float]) -> Pillow.Image:
    """Any mode as RGB, or as RGBa (premultiplied) where there is transparency."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        level = (np.asarray(image).astype(np.float32) - span[0]) * (255 / max(span[1] - span[0], 1e-30))
        return Pillow.fromarray(np.nan_to_num(level).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image if image.mode == "RGBa" else image.convert("RGBA").convert("RGBa")
    return image if image.mode == "RGB" else image.convert("RGB")


# Stems


class Convolutional(Stem):
    """Six 3 × 3 convolutions to (size / 16)² tokens, with a learned position added to each."""

    def __init__(self, width: int, size: int, norm: Norm, restyle: float = 0.0) -> None:
        super().__init__()
        self.restyle = restyle
        half = (2, 2)
        self.body = nn.Sequential(
            Conv(3, 32, stride=half, norm=norm),
            Conv(32, 64, stride=half, norm=norm),
            Conv(64, 64, residual=True, norm=norm),
            Conv(64, 128, stride=half, norm=norm),
            Conv(128, 128, residual=True, norm=norm),
            Conv(128, width, stride=half, norm=norm),
        )
        self.position = nn.Parameter(torch.randn((size // 16) ** 2, width) * 0.02)

    def forward(self, cells: Cells) -> tuple[torch.Tensor, None]:
        """``pixels`` [n, 3, size, size] in 0..255 to tokens [n, (size / 16)², width]."""
        x = ink(cells["pixels"], self.position)
        for number, layer in enumerate(self.body):
            x = layer(x)
            if self.restyle and self.training and number < EARLY:
                x = restyled(x, self.restyle)
        tokens = x.flatten(2).transpose(1, 2)
        return tokens + self.position.to(tokens.dtype), None


def restyled(x: torch.Tensor, strength: float) -> torch.Tensor:
    """Feature maps [n, c, h, w], each scaled and shifted at random, the same at all its places."""
    spread = x.float().std((2, 3), keepdim=True)
    scale, shift = torch.randn(2, *spread.shape, device=x.device) * strength
    return x * (1 + scale).to(x.dtype) + (shift * spread).to(x.dtype)


class Patches(Stem):
    """The plain transformer on patches (ViT, arXiv 2010.11929), for comparison."""

    def __init__(self, width: int, size: int, patch: int, depth: int = 4) -> None:
        super().__init__()
        side = (patch, patch)
        self.embed = Conv(3, width, kernel=side, stride=side, pad=(False, False), norm="none", act=False)
        self.position = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads_of(width, 32)) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, cells: Cells) -> tuple[torch.Tensor, None]:
        """``pixels`` [n, 3, size, size] in 0..255 to tokens [n, (size / patch)², width]."""
        x = self.embed(ink(cells["pixels"], self.position)).flatten(2).transpose(1, 2)
        x = x + self.position.to(x.dtype)
        for block in self.blocks:
            x = block(x)[0]
        return self.norm(x), None


def ink(pixels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Pixels in 0..255 as distance from white, about one in size: what a convolution pads with (0) is white too."""
    return (255.0 - pixels.to(working_dtype(like))) * (1 / 80)
