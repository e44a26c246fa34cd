"""Denoising network: predicts the clean vectors that noisy ones come from.

Flow matching runs it at every moment, and its one-step student once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Tokens
from sensorium.nn.adaln import AdaLNBlock
from sensorium.nn.attention import heads_of
from sensorium.nn.conv import waves
from sensorium.nn.patch_smoother import PatchSmoother

POSITION_SCALE = 0.5
"""Initial scale of positions beside noisy vectors, which enter with a deviation of about 0.6: fainter ones are lost in
the noise."""


class Denoiser(nn.Module):
    """Denoiser around the trunk: the trunk gets the noisy vectors as asked tokens (``tokens``), and blocks of this
    module's own, conditioned on the moment, follow it (``predict_clean``).

    Args:
        tokens: the tokens that are generated.
        width: of the trunk.
        depth: blocks.
        hidden: size of their feed-forward layers.
        mark_given: tokens may be marked as given.
    """

    def __init__(self, tokens: Tokens, width: int, *, depth: int, hidden: int, mark_given: bool = False) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(tokens.width, width)
        self.positions = nn.Parameter(POSITION_SCALE * position_encoding(tokens, width))
        self.clock = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.noisy = nn.Linear(tokens.width, width)
        self.blocks = nn.ModuleList(AdaLNBlock(width, heads_of(width, 48), hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        self.leave = nn.Linear(width, tokens.width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        self.refine = PatchSmoother(tokens, beside=1)
        self.given_mark = nn.Parameter(torch.randn(width) * 0.02) if mark_given else None

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that meet vectors: see ``Generator.output_parameters``."""
        others = [*([] if self.given_mark is None else [self.given_mark]), *self.refine.parameters()]
        return [
            self.positions,
            *others,
            *(p for layer in (self.enter, self.noisy, self.leave) for p in layer.parameters()),
        ]

    def tokens(
        self, z: Float[Tensor, "n k size"], t: Float[Tensor, " n"], given: Bool[Tensor, "n k"] | None = None
    ) -> Float[Tensor, "n k width"]:
        """Asked tokens [n, k, width] of noisy vectors z [n, k, …] at moments t [n].

        Args:
            given: which tokens are as they are, [n, k].
        """
        tokens = self.enter(z) + self.positions + self.time_embedding(t).unsqueeze(1)
        return tokens if given is None or self.given_mark is None else tokens + given.unsqueeze(-1) * self.given_mark

    def time_embedding(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """Embedding [n, width] of moments [n] in 0..1."""
        return self.clock(waves(1000 * t, self.width))

    def predict_clean(
        self, hidden: Float[Tensor, "n k width"], z: Float[Tensor, "n k size"], t: Float[Tensor, " n"]
    ) -> Float[Tensor, "n k size"]:
        """Prediction of the clean vectors [n, k, width of a vector], fp32, that z [n, k, …] at t [n] come from.

        Args:
            hidden: output of the trunk at ``tokens(z, t)``.
        """
        x, by = hidden + self.noisy(z).to(hidden.dtype), self.time_embedding(t) + hidden.mean(1)
        for block in self.blocks:
            x = block(x, by)
        output = self.leave(self.norm(x)).float()
        return self.refine(output, z.to(output.dtype)).float()


def position_encoding(tokens: Tokens, width: int) -> Float[Tensor, "length width"]:
    """Sinusoidal encoding of each token's place, [length, width]; each axis of a grid has its share of the width."""
    axes = torch.meshgrid(*(torch.arange(size) for size in tokens.grid or (tokens.length,)), indexing="ij")
    parts = [waves(axis.flatten(), width // len(axes)) for axis in axes]
    return F.pad(torch.cat(parts, 1), (0, width - len(axes) * (width // len(axes))))
