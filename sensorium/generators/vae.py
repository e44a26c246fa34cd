"""Conditional VAE generator in one pass: latents from a prior conditioned on what is seen, then a decoder.

It knows vectors and a trunk, nothing of pictures or sounds.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sensorium.core.settings import at_least
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.conditional_vae import ConditionalVAE


class Vae(Generator):
    """Conditional VAE; see ``nn.conditional_vae`` for the model and its sources.

    Args:
        depth: blocks of the decoder; the encoder and the prior have half as many.
        expand: hidden size of their feed-forward layers, relative to the width.
        whole: latents of the segment.
        each: latents of every token.
        beta: weight of the divergence from the prior beside the likelihood (1: the evidence bound itself).
    """

    is_generative = True

    def __init__(
        self,
        tokens: Tokens,
        width: int,
        *,
        depth: int = 4,
        expand: float = 4.0,
        whole: int = 64,
        each: int = 8,
        beta: float = 1.0,
    ) -> None:
        super().__init__(tokens, width)
        at_least("generator.vae", 1, depth=depth, whole=whole, each=each)
        at_least("generator.vae", 0, beta=beta)
        self.beta = beta
        self.latents = ConditionalVAE(tokens, width, depth=depth, hidden=round(expand * width), whole=whole, each=each)

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and not tokens.ordered

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return self.latents.output_parameters()

    def with_noise(self, target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k all"]:
        """Vectors [n, k, width] with the noise of their latents."""
        whole, each = self.latents.noise(len(target), target.device, None)
        return torch.cat(
            [target, each.to(target.dtype), whole.unsqueeze(1).expand(-1, target.shape[1], -1).to(target.dtype)], -1
        )

    def asked_tokens(self, target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k width"]:
        return self.latents.positions.expand(len(target), -1, -1)

    def loss(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, " n"]:
        x, each, whole = target.float().split([self.output_tokens.width, self.latents.each, self.latents.whole], -1)
        return self.latents.bound(hidden, x, whole[:, 0], each, self.beta)

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        unconditional: Trunk | None = None,
    ) -> GeneratorOutput:
        """Generate the vectors of each row in one pass.

        Args:
            temperature: factor on the latents' deviation; 0 takes their mean.
            unconditional: the trunk where nothing is seen, which isn't used.

        Returns:
            vectors; score: the mean log-probability of their latents.

        Raises:
            UserError: a temperature below 0.
        """
        at_least("generate", 0, temperature=temperature)
        return GeneratorOutput(*self.latents.sample(trunk, rows, device, generator, temperature))
