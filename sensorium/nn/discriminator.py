"""Discriminator of an adversarial loss: how real each token of a segment is, given a condition."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from sensorium.core.types import Tokens
from sensorium.nn.attention import heads_of
from sensorium.nn.transformer import TransformerBlock

NOISE_DEVIATION = 0.1
"""Deviation of the noise by which the gradient penalty of a discriminator of vectors is estimated."""
ALL_ROWS = slice(None)


class Discriminator(nn.Module):
    """Conditional patch discriminator: vectors [n, k, …] and hidden [n, k, width] to logits [n, k] of being real."""

    def __init__(self, tokens: Tokens, width: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.enter, self.hears = nn.Linear(tokens.width, width), nn.Linear(width, width)
        self.positions = nn.Parameter(torch.randn(tokens.length, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads_of(width, 48), hidden) for _ in range(depth))
        self.condition_norm, self.norm = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.verdict = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.verdict.weight, std=0.02)

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that meet vectors or logits: see ``Generator.output_parameters``."""
        return [self.positions, *(p for layer in (self.enter, self.verdict) for p in layer.parameters())]

    def forward(self, x: Float[Tensor, "n k size"], hidden: Float[Tensor, "n k width"]) -> Float[Tensor, "n k"]:
        """Vectors [n, k, …] and hidden [n, k, width] to logits [n, k]."""
        y = self.enter(x) + self.positions + self.hears(self.condition_norm(hidden))
        for block in self.blocks:
            y = block(y)[0]
        return self.verdict(self.norm(y)).squeeze(-1).float()


def adversarial_losses(
    judge: nn.Module,
    real: Float[Tensor, " n *segment"],
    made: Float[Tensor, " n *segment"],
    near: Float[Tensor, " n *segment"],
    *conditions: Tensor,
    some: slice = ALL_ROWS,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " some"]]:
    """Adversarial losses of one step that trains both sides.

    The discriminator compares a real and a generated segment of one row (relativistic loss, arXiv 1807.00734). Its
    slope at either is penalised (R1 and R2 as in R3GAN, arXiv 2501.05441), estimated by the difference that a little
    noise makes (arXiv 2501.08316, section 3.3).

    Args:
        judge: module from segments [n, …], and ``conditions``, to [n, k].
        real, made: segments.
        near: a little noise of ``real``'s shape.
        conditions: tensors [n, …] that get no gradient.
        some: rows at which the gradient penalty is taken.

    Returns:
        The generator's loss of each row [n], through a frozen discriminator; the discriminator's [n], by detached
            segments; and the gradient penalty at ``some`` rows.
    """
    conditions, still = (
        tuple(part.detach() for part in conditions),
        {name: value.detach() for name, value in judge.named_parameters()},
    )
    true, false = judge(real, *conditions), judge(made.detach(), *conditions)
    fooled = functional_call(judge, still, (made, *conditions)) - true.detach()
    x, y, conditions = real[some], made.detach()[some], tuple(part[some] for part in conditions)
    slope = (judge(x + near[some], *conditions) - true[some]).square() + (
        judge(y + near[some], *conditions) - false[some]
    ).square()
    return F.softplus(-fooled).mean(1), F.softplus(false - true).mean(1), slope.mean(1)
