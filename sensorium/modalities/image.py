"""Images of any common format as a small square of pixels, and a convolutional stem.

A hostile file is refused by its header, before a pixel is decoded.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Norm, Profile, Tokens
from sensorium.media.formats import is_image
from sensorium.media.images import ENDINGS, colour_mix, colours, png, psnr, side_of, square
from sensorium.modalities import claim_files
from sensorium.modalities._augmentation import EveryAugmentation, ImageAugmentation
from sensorium.modalities._capabilities import Attributable, Generable, Spatial

if TYPE_CHECKING:
    import torch

    from sensorium.nn.geometry import Geometry
    from sensorium.nn.stem import Cells, Stem

SIZE, MAX_SIZE = 48, 1024
"""Default side of a picture, and the largest."""


GRID = 6
"""Lines and columns of parts of a picture."""


class Image(Generable, Attributable, Spatial):
    """Image as RGB, its aspect ratio kept, in the middle of a white square.

    White, because most transparent art is drawn for it, and because one colour for transparency, padding and what
    augmentation uncovers means that none of the three tells the network anything.

    Args:
        size: side of the square in pixels, a multiple of 16 up to 1,024. Where nothing is set for the column and all
            pictures that were looked at to tell its kind are smaller than the default, it is the next multiple.
        max_pixels: a picture with more is a bad cell, by its header.
        trim: cut white and transparent margins off, so that a drawing's size on its sheet says nothing.
        norm: the norm of the convolutions (``nn.conv``).
        stem: "conv", a small convolutional encoder; "patches", squares of ``patch`` pixels and transformer blocks.
        patch: side of a patch, where ``stem`` is "patches", and of one token where pictures are generated.
        of: the column that these pictures lie on, such as a photo of which they are masks: in training they are
            rotated, scaled, shifted and bent as its pictures are, and keep their own colours.
        restyle: how much training changes strength and level of each early feature map of the convolutional stem: what
            all pictures of one hand have in common then says little (Li et al. 2022, arXiv 2202.03958).
        backbone: a pretrained image encoder whose features stand for the cells: a folder, package:NAME, or
            OWNER/NAME@REVISION on the hub. It determines the size and the preprocessing; such a column is seen and not
            generated. dropout: share of its features that training leaves out.
        tune: frozen, lora, dora, rslora, bias, last:N or full: fine-tuning of the backbone, with the model. Unless it
            is frozen, cells go through it in every step.
        rank: of low-rank updates. tune_rate: learning rate of what is tuned, relative to ``train.lr``; 0: as suits
            ``tune``.
        llava: in conversations the picture is every patch of its backbone, a CLIP or SigLIP, through two linear layers,
            as in LLaVA (arXiv 2310.03744), so that ``export-trunk`` can write a model of that layout.
    """

    display_rank = 0
    is_spatial = True
    media = True
    matched = True
    ending = ".png"
    generator = "flow"

    def __init__(
        self,
        *,
        size: int = SIZE,
        max_pixels: int = 64_000_000,
        trim: bool = False,
        norm: Norm = "group",
        stem: Literal["conv", "patches"] = "conv",
        patch: int = 8,
        augmentation: EveryAugmentation = ImageAugmentation(),
        of: str = "",
        restyle: float = 0.0,
        backbone: str = "",
        dropout: float = 0.1,
        tune: str = "frozen",
        rank: int = 16,
        tune_rate: float = 0.0,
        llava: bool = False,
    ) -> None:
        if llava and not backbone:
            raise UserError("column.NAME.llava=true takes a backbone, a CLIP or SigLIP: column.NAME.backbone=FOLDER.")
        self.llava = llava
        if self.use_backbone(backbone, "image", tune, rank, tune_rate, llava):
            assert self.encoder is not None
            size = self.encoder.size
            patch = size if patch < 1 or size % patch else patch
        else:
            size = self.clamp("size", size, 16, MAX_SIZE, 16)
            patch = self.nearest_divisor("patch", patch, size)
        self.size, self.max_pixels, self.trim, self.norm, self.kind, self.patch = (
            size,
            max_pixels,
            trim,
            norm,
            stem,
            patch,
        )
        self.augmentation, self.follows = augmentation, of
        self.restyle, self.dropout = restyle, dropout

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on files whose first bytes are a picture's; less sure where only their names say it."""
        largest = max((side_of(head) or SIZE for head in profile.heads), default=SIZE)
        small = -(-largest // 16) * 16  # enlarged they would cost more and show no more
        return claim_files(profile, is_image, ENDINGS, "picture", {"size": small} if small < SIZE else {})

    def read(self, cell: Any) -> np.ndarray:
        """Pixels uint8 [size, size, 3] of the bytes of a picture.

        Raises:
            BadCell: not a picture, cut short, more than ``max_pixels``, or a decompression bomb.
        """
        if self.encoder is not None:
            pixels = colours(cell, self.size, self.max_pixels, self.trim)
            try:
                return self.encoder.picture(pixels)
            except (MemoryError, RuntimeError, ValueError) as error:
                raise BadCell(
                    f"the encoder can't take a picture of {pixels.shape[1]} × {pixels.shape[0]} pixels"
                ) from error
        return square(cell, self.size, self.max_pixels, self.trim)

    def as_image(self, read: np.ndarray) -> np.ndarray | None:
        return read

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Squares of a ``GRID`` by ``GRID`` grid, each made white.

        They are named by line and column from the top left, counted from 1.
        """
        edges, result = np.linspace(0, self.size, GRID + 1).round().astype(int), []
        for line, column in itertools.product(range(GRID), range(GRID)):
            rest = read.copy()
            rest[edges[line] : edges[line + 1], edges[column] : edges[column + 1]] = 255
            result.append((f"{line + 1},{column + 1}", rest))
        return result

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``pixels`` uint8 [n, 3, size, size], channels last in memory.

        With a frozen backbone ``features`` and their mask ``there``.
        """
        import torch

        from sensorium.modalities._stems.encoder import collate_encoded

        if self.encoder is not None:
            return collate_encoded(self.encoder, self.tuning, cells)
        return {"pixels": torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)}

    def augment(
        self, cells: Cells, generator: torch.Generator, lead: Callable[[Geometry], Geometry] | None = None
    ) -> Cells:
        """Random rotation, scale, shift, bend and colours of each picture, in one pass of bilinear sampling over the
        batch.

        Features stay as they are.

        Args:
            lead: puts the geometry of the pictures that these lie on in place of their own (``of``).
        """
        import torch
        from torch.nn import functional as F

        if "pixels" not in cells:
            return cells
        pixels, use = cells["pixels"], self.augmentation
        n, _, h, w = pixels.shape
        geometry, tint = self.draw_geometry(n, generator, pixels.device)
        grid = (geometry if lead is None else lead(geometry)).grid(h, w)

        def some(share: float) -> torch.Tensor:
            return (torch.rand(n, generator=generator) < share).nonzero().squeeze(1).to(pixels.device)

        # Outside the picture grid_sample gives 0, so white must be 0.
        ink = pixels.contiguous().float().sub_(255.0)
        if use.reverse:
            index = some(use.reverse)
            colour = (torch.rand(len(index), 3, 1, 1, generator=generator) * -205 - 25).to(pixels.device)
            ink[index] = (1 + ink[index].amin(1, keepdim=True) / 255) * colour
        seen = F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if use.outline:
            index = some(use.outline)
            seen[index] = outlined(seen[index])
        if use.stroke:
            chance = torch.rand(n, generator=generator)
            for part, sign in (
                (chance < use.stroke / 2, 1.0),
                ((chance >= use.stroke / 2) & (chance < use.stroke), -1.0),
            ):
                index = part.nonzero().squeeze(1).to(pixels.device)
                seen[index] = sign * largest(sign * seen[index])
        if use.grey:
            index = some(use.grey)
            seen[index] = seen[index].mean(1, keepdim=True).expand(-1, 3, -1, -1)
        mixed = torch.bmm(colour_mix(tint, use.colour), seen.view(n, 3, -1))
        result = mixed.add_(255.0).clamp_(0.0, 255.0).to(torch.uint8).view(n, 3, h, w)
        return {**cells, "pixels": result.contiguous(memory_format=torch.channels_last), "whole": cells["pixels"]}

    def draw_geometry(self, n: int, generator: torch.Generator, device: torch.device) -> tuple[Geometry, torch.Tensor]:
        """Random geometry of n pictures, and numbers from -1 to 1 for the change of their colours, [3, n]."""
        import torch

        from sensorium.nn.geometry import Geometry

        use = self.augmentation
        draw = (torch.rand(8, n, generator=generator) * 2 - 1).to(device)
        angle, zoom = draw[0] * use.turn, torch.exp2(draw[1] * math.log2(1 + use.zoom))
        side = torch.where(draw[7] < 0, -1.0, 1.0) if use.flip else torch.ones_like(angle)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        across, down = torch.stack([cos * side, sin * side], -1), torch.stack([-sin, cos], -1)
        field = None
        if use.bend:  # a smooth field through 4 × 4 random shifts
            field = ((torch.rand(n, 2, 4, 4, generator=generator) * 2 - 1) * (2 * use.bend)).to(device)
        return Geometry(across, down, (draw[2:4] * 2 * use.move).T, field), draw[4:7]

    def stem(self, width: int) -> Stem:
        """Stem with (size / 16)² tokens from "conv", (size / patch)² from "patches".

        With a backbone it has one token for the whole picture and 3² for its parts.
        """
        from sensorium.backbones import GRID as GRID_TOKENS
        from sensorium.modalities._stems.encoder import encoder_stem
        from sensorium.modalities._stems.image import FullSizePatches, ImageStem
        from sensorium.nn.shape_buckets import recurring

        if self.encoder is not None:
            return encoder_stem(
                width,
                self.encoder,
                self.tuning,
                recurring(1 + GRID_TOKENS**2),
                self.dropout,
                n_placed=1 + GRID_TOKENS**2,
            )
        if self.kind == "patches":
            return FullSizePatches(width, self.size, self.patch)
        return ImageStem(width, self.size, self.norm, self.restyle)

    @property
    def is_generable(self) -> bool:
        return self.encoder is None

    def tokens(self) -> Tokens:
        """Patches, row by row, each a vector of its colours in -1..1."""
        side = self.size // self.patch
        return Tokens(length=side**2, width=3 * self.patch**2, grid=(side, side), patch=(self.patch, self.patch))

    def target(self, cells: Cells) -> torch.Tensor:
        """Pixels before augmentation, [n, (size / patch)², 3 · patch²], in -1..1."""
        pixels, side = cells.get("whole", cells["pixels"]), self.size // self.patch
        patches = pixels.permute(0, 2, 3, 1).reshape(-1, side, self.patch, side, self.patch, 3).transpose(2, 3)
        return patches.reshape(len(pixels), side**2, 3 * self.patch**2).float() / 127.5 - 1

    def decode(self, tokens: np.ndarray) -> bytes:
        """PNG file of patches [(size / patch)², 3 · patch²]."""
        side = self.size // self.patch
        pixels = (
            np.asarray(tokens)
            .reshape(side, side, self.patch, self.patch, 3)
            .swapaxes(1, 2)
            .reshape(self.size, self.size, 3)
        )
        return png(((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8))

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``psnr``: peak signal-to-noise ratio of the pixels in dB, at most 99."""
        return (
            {
                "psnr": psnr(
                    [self.read(a).astype(np.float32) - self.read(b) for a, b in zip(truth, predicted, strict=True)]
                )
            }
            if len(truth)
            else {}
        )

    def show(self, cell: Any) -> str:
        """Thumbnail, encoded anew, so that nothing of a hostile file reaches the page."""
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
        counts = np.concatenate([np.bincount(read[..., c].ravel() >> 5, minlength=8) for c in range(3)])
        down, across = np.gradient(pixels.mean(-1))
        direction = ((np.arctan2(down, across) % np.pi) * (8 / np.pi)).astype(int) % 8
        steep, half = np.hypot(down, across), len(read) // 2
        turns = [
            np.bincount(direction[a : a + half, b : b + half].ravel(), steep[a : a + half, b : b + half].ravel(), 8)
            for a in (0, half)
            for b in (0, half)
        ]
        parts = [grid.ravel(), counts / read[..., 0].size, np.concatenate(turns) / half**2]
        return np.concatenate(parts).astype(np.float32)


def outlined(ink: torch.Tensor) -> torch.Tensor:
    """Ink [n, 3, h, w] in -255..0 with its edges (the morphological gradient, over 3 × 3) drawn in dark."""
    import torch

    edge = (largest(ink) + largest(-ink)).amax(1, keepdim=True)
    return torch.minimum(ink, -(1.5 * edge).clamp_(max=255.0))


def largest(x: torch.Tensor) -> torch.Tensor:
    """Maximum of each 3 × 3 neighbourhood, [n, c, h, w]; several times faster than torch's pooling on a CPU."""
    import torch

    for axis in (2, 3):
        most, size = x.clone(), x.shape[axis] - 1
        for to, at in ((0, 1), (1, 0)):
            part = most.narrow(axis, to, size)
            torch.maximum(part, x.narrow(axis, at, size), out=part)
        x = most
    return x
