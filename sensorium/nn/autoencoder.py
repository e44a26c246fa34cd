"""Convolutional variational autoencoder of a segment's patches. A latent of a patch sees its surroundings.

Generation is easier where it needs to predict less: at 64 pixels a patch has 192 numbers, and a latent of 16 numbers
holds nearly all that is seen (Rombach et al. 2022, arXiv 2112.10752).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Tokens
from sensorium.nn.patch_smoother import PatchSmoother

MAX_WIDENING, NORM_GROUPS, PYRAMID_LEVELS = 4, 8, 3
"""Ratio of the widest convolution's channels to the first one's, at most; channel groups of a GroupNorm; and
resolutions at which edges are compared."""
INITIAL_LOG_VARIANCE, MIN_LOG_VARIANCE, MAX_MOMENTUM = -4.0, -12.0, 0.99
"""Logarithm of a latent's variance at first, so that the latents carry a signal from the start; its lower bound; and
the largest momentum of the running mean of latents."""


class Autoencoder(nn.Module):
    """Variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114): convolutions down to one place for each patch
    and up again, and between them a Gaussian of ``latents`` numbers.

    Args:
        tokens: the tokens that are encoded: patches on a grid.
        latents: numbers of each latent.
        hidden: channels of the first convolution, doubled at each halving.
        beta: weight of the divergence from a standard Gaussian: as little as keeps latents in bounds.
        edges: weight of the differences of neighbours beside that of the numbers themselves, at three resolutions each
            half the one before (a Laplacian pyramid's loss, as in Bojanowski et al. 2018, arXiv 1707.05776). Without it
            pictures come out blurred, in the right colours.
        spectrum: weight of the magnitudes of the Fourier transform in time, where time is the only dimension.
    """

    middle: Tensor
    square: Tensor
    steps: Tensor

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
            size: Any = stride  # as many numbers as the convolution has dimensions
            self.down += [down(narrow, wide, size, size), Residual(wide, flat)]
            self.up.insert(0, up(wide, narrow, size, size))
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
        """True where tokens are patches on a grid of one, two or three dimensions."""
        return 0 < len(tokens.grid) <= 3 and len(tokens.patch) == len(tokens.grid)

    def encode(self, x: Float[Tensor, "n k size"]) -> tuple[Float[Tensor, "n k latents"], Float[Tensor, "n k latents"]]:
        """Mean and log-variance of the latents, [n, k, latents] each, of vectors [n, k, size]."""
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

    def decode(self, z: Float[Tensor, "n k latents"]) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, size], fp32, of latents [n, k, latents]."""
        n, y = len(z), self.from_latents(z)
        y = y.reshape(n, -1, math.prod(self.grid[-self.flat :]), self.frames, y.shape[-1] // self.frames)
        y = y.permute(0, 1, 3, 4, 2).reshape(-1, y.shape[-1], *self.grid[-self.flat :])
        for layer in self.up:
            y = layer(y)
        return self.refine(self.refine.folded(y, n).float()).float()

    def learn(self, x: Float[Tensor, "n k size"]) -> tuple[Float[Tensor, "n k latents"], Float[Tensor, " n"]]:
        """Normalised latents without a gradient, as targets of a generator, and the autoencoder's loss of each segment.

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
    def update_statistics(self, z: Tensor) -> None:
        """Update the running mean and the running mean square of latents."""
        momentum = torch.clamp((1 + self.steps) / (10 + self.steps), max=MAX_MOMENTUM) * (self.steps > 0)
        self.middle.lerp_(z.float().mean((0, 1)), 1 - momentum)
        self.square.lerp_(z.float().square().mean((0, 1)), 1 - momentum)
        self.steps += 1

    def normalise(self, z: Float[Tensor, "n k latents"]) -> Float[Tensor, "n k latents"]:
        """Latents of zero mean and unit deviation."""
        return (z - self.middle) / self.size

    def decode_normalised(self, z: Float[Tensor, "n k latents"]) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, size] of normalised latents."""
        return self.decode(z * self.size + self.middle)

    @property
    def size(self) -> Float[Tensor, " latents"]:
        """Standard deviation of each latent."""
        return (self.square - self.middle.square()).clamp(min=1e-8).sqrt()

    def reconstruction_error(
        self, one: Float[Tensor, "n k size"], other: Float[Tensor, "n k size"]
    ) -> Float[Tensor, " n"]:
        """Distance of two batches of segments [n, k, size], [n]."""
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
    """Residual block of two convolutions with kernels of three."""

    def __init__(self, width: int, flat: int) -> None:
        super().__init__()
        conv = nn.Conv1d if flat == 1 else nn.Conv2d
        self.norm = nn.GroupNorm(math.gcd(NORM_GROUPS, width), width)
        self.first, self.second = conv(width, width, 3, padding=1), conv(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Float[Tensor, "n width *places"]) -> Float[Tensor, "n width *places"]:
        """Activations [n, width, …] to the same."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


def with_autoencoder(tokens: Tokens, latents: int, hidden: int) -> tuple[Autoencoder | None, Tokens]:
    """Autoencoder of a segment, or None, and the tokens that are generated: ``latents`` numbers of each patch. Where
    ``latents`` is 0, or tokens lie on no grid, these are the segment's own vectors."""
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
