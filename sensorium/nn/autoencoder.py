"""An autoencoder of a segment's patches: each becomes a few numbers that look at their surroundings, from which the patches are made again.

Drawing is easier where it needs to say less: at 64 pixels a patch has 192 numbers, and a latent of 16 of them holds nearly all that is seen (Rombach et al. 2022, arXiv 2112.10752).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.core.types import Tokens
from sensorium.nn.patch_smoother import PatchSmoother

MAX_WIDENING, NORM_GROUPS, PYRAMID_LEVELS = 4, 8, 3
"""How many times as wide as the first its last convolutions are at most; groups of channels that are normed together, and sizes at which edges are compared."""
INITIAL_LOG_VARIANCE, MIN_LOG_VARIANCE, MAX_MOMENTUM = -4.0, -12.0, 0.99
"""The logarithm of a latent's variance at first, so that there is something to be heard, and at least; and how much of the running mean of latents stays at each step."""


class Autoencoder(nn.Module):
    """Convolutions down to one place for each patch and up again, and between them a Gaussian of ``latents`` numbers (Kingma & Welling 2014, arXiv 1312.6114).

    Args:
        tokens: what is coded: patches on a grid. latents: numbers of each.
        hidden: channels of the first convolution, doubled at each halving.
        beta: what the distance of latents from a standard Gaussian counts: as little as keeps them in bounds.
        edges: what the differences of neighbours count beside those of the numbers themselves, at three sizes each half the one before (a Laplacian pyramid's loss, as in
            Bojanowski et al. 2018, arXiv 1707.05776): a blurred picture has the right colours. spectrum: what the magnitudes of waves in time count, where there is only time.
    """

    def __init__(
        self,
        tokens: Tokens,
        latents: int,
        *,
        hidden: int,
        beta: float = 1e-3,
        edges: float = 1.0,
        spectrum: float = 0.2,
    ) -> None:
        super().__init__()
        flat = min(len(tokens.grid), 2)  # of a film each frame by itself; those of one patch meet in its latents
        self.flat, self.patch, self.grid = flat, tokens.patch, tokens.grid
        self.frames = math.prod(tokens.patch[:-flat])
        self.beta, self.edges, self.spectrum = beta, edges, spectrum if flat == 1 else 0.0
        self.refine = PatchSmoother(tokens)
        widths, strides = [self.refine.channels], halvings(tokens.patch[-flat:])
        widths += [min(hidden << number, MAX_WIDENING * hidden) for number in range(len(strides))]
        down, up = (nn.Conv1d, nn.ConvTranspose1d) if flat == 1 else (nn.Conv2d, nn.ConvTranspose2d)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for stride, narrow, wide in zip(strides, widths, widths[1:], strict=False):
            self.down += [down(narrow, wide, stride, stride), Residual(wide, flat)]
            self.up.insert(0, up(wide, narrow, stride, stride))
            self.up.insert(0, Residual(wide, flat))
        self.to_latents, self.from_latents = (
            nn.Linear(self.frames * widths[-1], 2 * latents),
            nn.Linear(latents, self.frames * widths[-1]),
        )
        with torch.no_grad():
            self.to_latents.bias[latents:] += INITIAL_LOG_VARIANCE
        self.register_buffer("middle", torch.zeros(latents))
        self.register_buffer("square", torch.ones(latents))
        self.register_buffer("steps", torch.zeros(()))

    @staticmethod
    def fits(tokens: Tokens) -> bool:
        """Whether tokens are patches on a grid of one, two or three dimensions."""
        return 0 < len(tokens.grid) <= 3 and len(tokens.patch) == len(tokens.grid)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors [n, k, size] to the middle of their latents and the logarithm of their variance, [n, k, latents] each."""
        n, y = len(x), self.refine.unfolded(x)
        for layer in self.down:
            y = layer(y)
        y = y.reshape(
            n, -1, self.frames, y.shape[1], math.prod(self.grid[-self.flat :])
        )  # [n, places in time, frames of a patch, channels, places]
        middle, spread = (
            self.to_latents(y.permute(0, 1, 4, 2, 3).reshape(n, math.prod(self.grid), -1)).float().chunk(2, -1)
        )
        return middle, spread.clamp(MIN_LOG_VARIANCE, 2.0)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latents [n, k, latents] to vectors [n, k, size], fp32."""
        n, y = len(z), self.from_latents(z)
        y = y.reshape(n, -1, math.prod(self.grid[-self.flat :]), self.frames, y.shape[-1] // self.frames)
        y = y.permute(0, 1, 3, 4, 2).reshape(-1, y.shape[-1], *self.grid[-self.flat :])
        for layer in self.up:
            y = layer(y)
        return self.refine(self.refine.folded(y, n).float()).float()

    def learn(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents to be drawn later on, of about unit size and without a gradient, and how badly they code each segment.

        Args:
            x: vectors [n, k, size], fp32.

        Returns:
            [n, k, latents] and [n].
        """
        middle, spread = self.encode(x)
        z = middle + torch.randn_like(middle) * (0.5 * spread).exp() if self.training else middle
        distance = 0.5 * (middle.square() + spread.exp() - 1 - spread).mean((1, 2))
        cost = self.reconstruction_error(self.decode(z), x) + self.beta * distance
        if self.training and len(x):
            self.update_statistics(z.detach())
        return self.normalise(z.detach()), cost

    @torch.no_grad()
    def update_statistics(self, z: torch.Tensor) -> None:
        """Take notice of how large latents are."""
        momentum = torch.clamp((1 + self.steps) / (10 + self.steps), max=MAX_MOMENTUM) * (self.steps > 0)
        self.middle.lerp_(z.float().mean((0, 1)), 1 - momentum)
        self.square.lerp_(z.float().square().mean((0, 1)), 1 - momentum)
        self.steps += 1

    def normalise(self, z: torch.Tensor) -> torch.Tensor:
        """Latents at unit size."""
        return (z - self.middle) / self.size

    def decode_normalised(self, z: torch.Tensor) -> torch.Tensor:
        """Vectors [n, k, size] of latents at unit size."""
        return self.decode(z * self.size + self.middle)

    @property
    def size(self) -> torch.Tensor:
        """The deviation of each latent."""
        return (self.square - self.middle.square()).clamp(min=1e-8).sqrt()

    def reconstruction_error(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """How different segments are, [n]."""
        n = len(one)
        a, b = self.refine.unfolded(one), self.refine.unfolded(other)
        total = (a - b).abs().flatten(1).mean(1)
        if self.spectrum:
            total = total + self.spectrum * (
                torch.fft.rfft(a, norm="ortho").abs() - torch.fft.rfft(b, norm="ortho").abs()
            ).abs().flatten(1).mean(1)
        for level in range(PYRAMID_LEVELS if self.edges else 0):
            if min(a.shape[2:]) < 2:
                break
            if level:
                pool = F.avg_pool1d if self.flat == 1 else F.avg_pool2d
                a, b = pool(a, 2), pool(b, 2)
            for axis in range(2, a.ndim):
                if a.shape[axis] > 1:
                    total = total + self.edges / PYRAMID_LEVELS * (a.diff(dim=axis) - b.diff(dim=axis)).abs().flatten(
                        1
                    ).mean(1)
        return total.reshape(n, -1).mean(1)


class Residual(nn.Module):
    """Two convolutions of three, added to what they hear."""

    def __init__(self, width: int, flat: int) -> None:
        super().__init__()
        conv = nn.Conv1d if flat == 1 else nn.Conv2d
        self.norm = nn.GroupNorm(math.gcd(NORM_GROUPS, width), width)
        self.first, self.second = conv(width, width, 3, padding=1), conv(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


def with_autoencoder(tokens: Tokens, latents: int, hidden: int) -> tuple[Autoencoder | None, Tokens]:
    """What is drawn of a segment, and the autoencoder that makes patches of it: so many latents of each patch, or where these are none or lie on no grid its own vectors."""
    if not latents or not Autoencoder.fits(tokens):
        return None, tokens
    return Autoencoder(tokens, latents, hidden=hidden), dataclasses.replace(
        tokens, width=latents, patch=(1,) * len(tokens.grid)
    )


def halvings(patch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Strides that lead from a patch to one place: by two while they can, then at once."""
    result, rest = [], list(patch)
    while any(size > 1 for size in rest):
        stride = tuple(2 if size % 2 == 0 else 1 for size in rest)
        if max(stride) == 1:
            stride = tuple(rest)
        result.append(stride)
        rest = [size // step for size, step in zip(rest, stride, strict=True)]
    return result or [(1,) * len(patch)]
