"""Conditional variational autoencoder of a segment's vectors with two levels of latents.

The latents of the tokens are drawn given those of the whole segment, so that the parts of a sample are consistent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sensorium.core.types import Tokens
from sensorium.nn.attention import heads_of
from sensorium.nn.patch_smoother import PatchSmoother
from sensorium.nn.transformer import TransformerBlock

MIN_LOG_DEVIATION, MAX_LOG_DEVIATION = -7.0, 2.0
"""Bounds of the logarithm of a deviation."""


class ConditionalVAE(nn.Module):
    """Evidence bound of Kingma & Welling 2014 (arXiv 1312.6114) with a learned prior conditioned on ``hidden``.

    Posteriors are parametrised relative to the prior (arXiv 2007.03898, section 3.2). The vectors have a Laplace
    distribution of learned scale (arXiv 2006.13202), so that nothing is left to balance between the two terms.

    Args:
        tokens: the tokens that are generated.
        width: of ``hidden``.
        depth: blocks of the decoder; the encoder and the prior have half as many.
        hidden: size of their feed-forward layers.
        whole: latents of the segment.
        each: latents of every token.
    """

    def __init__(self, tokens: Tokens, width: int, *, depth: int, hidden: int, whole: int, each: int) -> None:
        super().__init__()
        length, size = tokens.length, tokens.width
        self.whole, self.each, self.numbers = whole, each, length * size

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(TransformerBlock(width, heads_of(width, 48), hidden) for _ in range(count))

        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.enter, self.leave = nn.Linear(size, width), nn.Linear(width, size)
        self.encoder, self.prior, self.decoder = blocks(-(-depth // 2)), blocks(-(-depth // 2)), blocks(depth)
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(width, bias=False) for name in ("condition", "encoder", "prior", "decoder")}
        )
        self.believes = nn.ModuleDict({"whole": nn.Linear(width, 2 * whole), "each": nn.Linear(width, 2 * each)})
        self.finds = nn.ModuleDict({"whole": nn.Linear(2 * width, 2 * whole), "each": nn.Linear(2 * width, 2 * each)})
        self.tells = nn.ModuleDict({"whole": nn.Linear(whole, width), "each": nn.Linear(each, width)})
        for layer in (*self.believes.values(), *self.finds.values(), self.leave):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.refine = PatchSmoother(tokens)
        self.blur = nn.Parameter(torch.zeros(()))

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that meet vectors or latents: see ``Generator.output_parameters``."""
        ends = (self.enter, self.leave, *self.believes.values(), *self.finds.values(), *self.tells.values())
        return [
            self.positions,
            self.blur,
            *self.refine.parameters(),
            *(p for layer in ends for p in layer.parameters()),
        ]

    def bound(
        self,
        hidden: Float[Tensor, "n k width"],
        x: Float[Tensor, "n k size"],
        whole: Float[Tensor, "n whole"],
        each: Float[Tensor, "n k each"],
        beta: float,
    ) -> Float[Tensor, " n"]:
        """Negative evidence bound, in nats for each number of a segment.

        Args:
            hidden: [n, k, width].
            x: vectors [n, k, size], fp32.
            whole, each: noise of the latents, [n, whole] and [n, k, each].
            beta: weight of the divergence from the prior.

        Returns:
            [n]
        """
        condition, code = self.norms["condition"](hidden), self.enter(x) + self.positions
        code = self.run_blocks("encoder", code + condition)
        found = self.finds["whole"](torch.cat([condition.mean(1), code.mean(1)], -1))
        z, distance = relative(self.believes["whole"](condition.mean(1)), found, whole)
        context = self.run_blocks("prior", condition + self.tells["whole"](z).unsqueeze(1))
        found = self.finds["each"](torch.cat([context, code], -1))
        z, more = relative(self.believes["each"](context), found, each)
        blur = self.blur.clamp(min=MIN_LOG_DEVIATION)
        error = (self.decode(context, z) - x).abs() * torch.exp(-blur) + blur + math.log(2)
        return error.mean((1, 2)) + beta * (distance.sum(-1) + more.sum((1, 2))) / self.numbers

    def run_blocks(self, name: str, x: Float[Tensor, "n k width"]) -> Float[Tensor, "n k width"]:
        """Tokens through the blocks of that name and their norm."""
        for block in getattr(self, name):
            x = block(x)[0]
        return self.norms[name](x)

    def decode(self, context: Float[Tensor, "n k width"], z: Float[Tensor, "n k each"]) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, size], fp32, of a segment's context [n, k, width] and the latents of its tokens [n, k,
        each]."""
        return self.refine(self.leave(self.run_blocks("decoder", context + self.tells["each"](z))).float()).float()

    def sample_prior(
        self, hidden: Float[Tensor, "n k width"], whole: Float[Tensor, "n whole"], each: Float[Tensor, "n k each"]
    ) -> tuple[Float[Tensor, "n k size"], Float[Tensor, " n"]]:
        """Vectors [n, k, size] from the prior, by noise [n, whole] and [n, k, each], and the mean log-probability of
        their latents, [n]."""
        condition = self.norms["condition"](hidden)
        z, first = scaled(self.believes["whole"](condition.mean(1)), whole)
        context = self.run_blocks("prior", condition + self.tells["whole"](z).unsqueeze(1))
        z, second = scaled(self.believes["each"](context), each)
        return self.decode(context, z), first.mean(-1) + second.mean((1, 2))

    def noise(
        self, rows: int, device: torch.device, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "n whole"], Float[Tensor, "n k each"]]:
        """Noise for the latents of ``rows`` rows, as ``sample_prior`` takes it."""
        sizes = (rows, self.whole), (rows, len(self.positions), self.each)
        whole, each = (torch.randn(size, generator=generator).to(device) for size in sizes)
        return whole, each

    def sample(
        self,
        trunk: Callable[[Tensor, int], Tensor],
        rows: int,
        device: torch.device,
        generator: torch.Generator | None,
        temperature: float,
    ) -> tuple[Float[Tensor, "n k size"], Float[Tensor, " n"]]:
        """Output of ``sample_prior`` for the trunk's hidden at each row's positions, the noise scaled by
        ``temperature``."""
        whole, each = (temperature * noise for noise in self.noise(rows, device, generator))
        if rows == 0:
            return torch.zeros(0, len(self.positions), self.leave.out_features, device=device), torch.zeros(
                0, device=device
            )
        return self.sample_prior(trunk(self.positions.expand(rows, -1, -1), 0), whole, each)


def scaled(
    prior: Float[Tensor, "*shape both"], noise: Float[Tensor, "*shape latents"]
) -> tuple[Float[Tensor, "*shape latents"], Float[Tensor, "*shape latents"]]:
    """Latents from a prior (mean and log-deviation concatenated), and the log-probability of each up to a constant."""
    middle, spread = prior.float().chunk(2, -1)
    spread = spread.clamp(MIN_LOG_DEVIATION, MAX_LOG_DEVIATION)
    return middle + noise * spread.exp(), -0.5 * noise.square() - spread


def relative(
    prior: Float[Tensor, "*shape both"], found: Float[Tensor, "*shape both"], noise: Float[Tensor, "*shape latents"]
) -> tuple[Float[Tensor, "*shape latents"], Float[Tensor, "*shape latents"]]:
    """Latents from a posterior that is parametrised relative to its prior, and the divergence KL(posterior, prior) of
    each."""
    middle, spread = prior.float().chunk(2, -1)
    move, scale = found.float().chunk(2, -1)
    spread, scale = (
        spread.clamp(MIN_LOG_DEVIATION, MAX_LOG_DEVIATION),
        scale.clamp(MIN_LOG_DEVIATION, MAX_LOG_DEVIATION),
    )
    z = middle + (move + noise * scale.exp()) * spread.exp()
    return z, 0.5 * (move.square() + (2 * scale).exp() - 1) - scale
