"""Convolutional smoothing over a whole segment that was predicted patch by patch, so that patches fit together at their
edges."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Tokens

HIDDEN_CHANNELS = 24
"""Channels between the two convolutions."""


class PatchSmoother(nn.Module):
    """Residual branch of two 3 × 3 convolutions (of three steps, where there is only time) over predicted vectors. A
    new one is the identity.

    Args:
        tokens: the tokens that are predicted; vectors that don't lie on a grid of patches stay as they are.
        beside: number of further segments of the same shape among the inputs.
    """

    def __init__(self, tokens: Tokens, beside: int = 0) -> None:
        super().__init__()
        self.grid, self.patch = tokens.grid, tokens.patch
        if not self.grid:
            return
        channels = tokens.width // math.prod(tokens.patch)
        flat = min(len(self.grid), 2)  # of a film each frame by itself
        conv = nn.Conv1d if flat == 1 else nn.Conv2d
        self.channels = channels
        self.first, self.second = (
            conv((1 + beside) * channels, HIDDEN_CHANNELS, 3, padding=1),
            conv(HIDDEN_CHANNELS, channels, 3, padding=1),
        )
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(
        self, vectors: Float[Tensor, "n k width"], *beside: Float[Tensor, "n k width"]
    ) -> Float[Tensor, "n k width"]:
        """Smoothed vectors [n, k, width] of vectors and of others beside them."""
        if not self.grid:
            return vectors
        x = torch.cat([self.unfolded(part) for part in (vectors, *beside)], 1)
        return vectors + self.folded(self.second(F.gelu(self.first(x))), len(vectors))

    def unfolded(self, x: Float[Tensor, "n k width"]) -> Float[Tensor, "rows channels *places"]:
        """Segment [n, channels, …] of vectors [n, k, width], patches side by side; of a film the frames are rows of
        their own."""
        n, dims = len(x), len(self.grid)
        x = x.reshape(n, *self.grid, *self.patch, self.channels)
        x = x.permute(0, *(d for axis in range(dims) for d in (1 + axis, 1 + dims + axis)), 1 + 2 * dims)
        sides = [a * b for a, b in zip(self.grid, self.patch, strict=True)]
        return x.reshape(n * math.prod(sides[:-2]), *sides[-2:], self.channels).movedim(-1, 1)

    def folded(self, x: Float[Tensor, "rows channels *places"], n: int) -> Float[Tensor, "n k width"]:
        """The inverse of ``unfolded``."""
        dims = len(self.grid)
        x = x.movedim(1, -1).reshape(
            n, *(size for pair in zip(self.grid, self.patch, strict=True) for size in pair), self.channels
        )
        x = x.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 1 + 2 * dims)
        return x.reshape(n, math.prod(self.grid), math.prod(self.patch) * self.channels)
