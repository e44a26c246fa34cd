"""Videos: any clip as a few evenly spaced frames, and a stem for each frame and its change since the one before."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Norm, Profile, Tokens
from sensorium.media.formats import dotted, fuller, sounds_by_name
from sensorium.media.images import colour_mix, psnr
from sensorium.media.video import animated, frames_of, written
from sensorium.modalities import claim_files
from sensorium.modalities._capabilities import Attributable, Generable

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

ENDINGS = dotted("video")
PAIR = 2
"""Frames of one token in time."""
MAX_SIZE, MAX_FRAMES = 512, 256
"""Largest side of a frame, and largest number of frames."""


class Video(Generable, Attributable):
    """Clip as ``frames`` frames of RGB in white squares; its sound is left out.

    Args:
        size: side of a frame in pixels, a multiple of 16 up to 512.
        frames: number of frames, even, up to 256, evenly spaced in the clip's time.
        seconds: only the beginning of a longer clip is read.
        rate: frames a second of a clip that is generated.
        format: of a clip that is generated: webp, gif or mp4 (the extra ``video``).
        max_pixels: a clip whose frames have more is a bad cell, by its header.
        norm: the norm of the convolutions (``nn.conv``).
        patch: side of the square that, over two frames, is one token where clips are generated.
        turn, zoom, move: largest rotation in radians, change of scale and shift as shares, in training, the same for
            all frames of a clip.
        colour: strength of changes of brightness, contrast, saturation and hue in training.
        flip: also mirror clips in training. Off, because left and right may be the meaning.
    """

    display_rank = 1
    display_cost = 2
    media = True
    matched = True
    generator = "flow"

    def __init__(
        self,
        *,
        size: int = 32,
        frames: int = 8,
        seconds: float = 10.0,
        rate: float = 8.0,
        format: Literal["webp", "gif", "mp4"] = "webp",
        max_pixels: int = 16_000_000,
        norm: Norm = "group",
        patch: int = 8,
        turn: float = 0.1,
        zoom: float = 0.15,
        move: float = 0.1,
        colour: float = 0.2,
        flip: bool = False,
    ) -> None:
        size = self.clamp("size", size, 16, MAX_SIZE, 16)
        patch = self.nearest_divisor("patch", patch, size)
        frames = self.clamp("frames", frames, PAIR, MAX_FRAMES, PAIR)
        if not seconds > 0 or not rate > 0:
            raise UserError(f"seconds={seconds}, rate={rate}: both are above 0.")
        self.size, self.frames, self.seconds, self.rate, self.patch = size, frames, seconds, rate, patch
        self.ending, self.max_pixels, self.norm = f".{format}", max_pixels, norm
        self.turn, self.zoom, self.move, self.colour, self.flip = turn, zoom, move, colour, flip
        self.middle, self.reach = np.zeros(3, np.float32), 1.0

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on files whose first bytes are a film's or those of an animated picture; less sure where only their
        names say it."""
        profile = fuller(profile)
        if sounds_by_name(profile):
            return None
        return claim_files(profile, animated, ENDINGS, "video", rank=(0.99, 0.009))

    def read(self, cell: Any) -> np.ndarray:
        """Frames uint8 [frames, size, size, 3] of the bytes of a clip.

        Raises:
            BadCell: not a clip, cut short before its first frame, or larger than allowed.
        """
        return frames_of(cell, self.frames, self.size, self.max_pixels, self.seconds)

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Fit the mean of each colour and the deviation of all, of pixels in -1..1, for generated clips."""
        if cells:
            pixels = (
                np.concatenate([cell[::2, ::2, ::2].reshape(-1, 3) for cell in cells]).astype(np.float32) / 127.5 - 1
            )
            self.middle, self.reach = pixels.mean(0), max(float((pixels - pixels.mean(0)).std()), 0.05)

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Frames, each replaced by the one before it (the first: by the next), so that its change is gone."""
        result = []
        for number in range(len(read)):
            rest = read.copy()
            rest[number] = read[number - 1 if number else 1]
            result.append((f"frame {number + 1}", rest))
        return result

    def interpolate_parts(self, cell: np.ndarray, rest: Sequence[np.ndarray | None], keep: torch.Tensor) -> Cells:
        """Each frame's change since the one before in that measure: from the first frame standing still to the clip."""
        import torch

        pixels = self.collate([cell])["pixels"].to(keep.device).float()
        change = torch.diff(pixels, dim=1) * keep[:, 1:, None, None, None]
        return {
            "pixels": torch.cat([pixels[:, :1].expand(len(keep), -1, -1, -1, -1), pixels[:, :1] + change.cumsum(1)], 1)
        }

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """``pixels`` uint8 [n, frames, 3, size, size]."""
        import torch

        return {"pixels": torch.from_numpy(np.stack(cells)).permute(0, 1, 4, 2, 3)}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Random rotation, scale, shift and colours of each clip, the same for all its frames."""
        import torch
        from torch.nn import functional as F

        pixels = cells["pixels"]
        n, frames, _, h, w = pixels.shape
        draw = (torch.rand(8, n, generator=generator) * 2 - 1).to(pixels.device)
        angle, zoom = draw[0] * self.turn, torch.exp2(draw[1] * math.log2(1 + self.zoom))
        side = torch.where(draw[7] < 0, -1.0, 1.0) if self.flip else torch.ones_like(angle)
        cos, sin, shift = torch.cos(angle) * zoom, torch.sin(angle) * zoom, draw[2:4] * 2 * self.move
        transform = torch.stack(
            [torch.stack([cos * side, -sin, shift[0]], -1), torch.stack([sin * side, cos, shift[1]], -1)], 1
        )
        seen = pixels.flatten(1, 2).float().sub_(255.0)  # outside the picture grid_sample gives 0, so white must be 0
        seen = F.grid_sample(
            seen,
            F.affine_grid(transform, [n, 3 * frames, h, w], align_corners=False),
            padding_mode="zeros",
            align_corners=False,
        )
        seen = seen.view(n, frames, 3, -1).transpose(1, 2).reshape(n, 3, -1)
        seen = torch.bmm(colour_mix(draw[4:7], self.colour), seen).view(n, 3, frames, h, w).transpose(1, 2)
        return {**cells, "pixels": (seen + 255.0).clamp_(0.0, 255.0).to(torch.uint8), "whole": pixels}

    def stem(self, width: int) -> Stem:
        """Stem with (size / 16)² tokens for every two frames."""
        from sensorium.modalities._stems.video import VideoStem

        return VideoStem(width, self.size, self.frames, PAIR, self.norm)

    def tokens(self) -> Tokens:
        """Squares of ``patch`` by ``patch`` pixels over two frames, in time and then row by row, each a vector of its
        colours of about unit size."""
        grid = self.frames // PAIR, self.size // self.patch, self.size // self.patch
        return Tokens(
            length=math.prod(grid),
            width=3 * PAIR * self.patch**2,
            timed=True,
            grid=grid,
            patch=(PAIR, self.patch, self.patch),
        )

    def target(self, cells: Cells) -> torch.Tensor:
        """Pixels before augmentation, [n, frames / 2 · (size / patch)², 6 · patch²]."""
        import torch

        pixels, p = cells.get("whole", cells["pixels"]), self.patch
        n, side = len(pixels), self.size // p
        x = (
            pixels.reshape(n, self.frames // PAIR, PAIR, 3, side, p, side, p).permute(0, 1, 4, 6, 2, 5, 7, 3).float()
            / 127.5
            - 1
        )
        return ((x - torch.from_numpy(self.middle).to(x)) / self.reach).reshape(n, -1, 3 * PAIR * p**2)

    def decode(self, tokens: np.ndarray) -> bytes:
        """Clip of squares [frames / 2 · (size / patch)², 6 · patch²]."""
        p, side = self.patch, self.size // self.patch
        x = np.asarray(tokens).reshape(self.frames // PAIR, side, side, PAIR, p, p, 3).transpose(0, 3, 1, 4, 2, 5, 6)
        pixels = x.reshape(self.frames, self.size, self.size, 3) * self.reach + self.middle
        return written(((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8), self.rate, self.ending)

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``psnr``: peak signal-to-noise ratio of the frames' pixels in dB, at most 99."""
        return (
            {
                "psnr": psnr(
                    [self.read(a).astype(np.float32) - self.read(b) for a, b in zip(truth, predicted, strict=True)]
                )
            }
            if len(truth)
            else {}
        )

    def state(self) -> dict[str, Any]:
        """Scale of the colours of generated clips."""
        return {"middle": self.middle.tolist(), "reach": self.reach}

    def load_state(self, state: dict[str, Any]) -> None:
        self.middle, self.reach = np.array(state["middle"], np.float32), float(state["reach"])

    def show(self, cell: Any) -> str:
        """Moving thumbnail, encoded anew, so that nothing of a hostile file reaches the page."""
        if cell is None:
            return ""
        try:
            frames = frames_of(
                cell.get("bytes") if isinstance(cell, dict) else cell, 12, 96, self.max_pixels, self.seconds
            )
        except (BadCell, UserError) as error:
            return f"<em>{html.escape(str(error))}</em>"
        data = base64.b64encode(written(frames, 8.0, ".webp", exact=False)).decode()
        return f'<img width="96" height="96" alt="" src="data:image/webp;base64,{data}">'

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Mean colours on a 4 × 4 grid, change of grey on it, and the place and amount of ink in each quarter of the
        time."""
        if read is None:
            return np.full(48 + 16 + 16, np.nan, np.float32)
        pixels = read.astype(np.float32) / 255
        edges = np.linspace(0, self.size, 5).astype(int)[:-1]

        def grid(x: np.ndarray) -> np.ndarray:
            return np.add.reduceat(np.add.reduceat(x, edges, 0), edges, 1) / (self.size / 4) ** 2

        ink, at = 1 - pixels.mean(-1), np.linspace(-1, 1, self.size)
        paths = []
        for part in np.array_split(ink, 4):
            total = part.sum() + 1e-6
            paths += [
                (part * at).sum() / total,
                (part * at[:, None]).sum() / total,
                total / part.size,
                (part**2).sum() / total,
            ]
        return np.concatenate(
            [grid(pixels.mean(0)).ravel(), grid(np.abs(np.diff(ink, axis=0)).mean(0)).ravel(), paths]
        ).astype(np.float32)
