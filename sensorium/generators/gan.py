"""Adversarial generator in one pass: a conditional VAE's decoder that is also trained by a discriminator, against the
blur of a likelihood.

It is ``nn.conditional_vae`` with a discriminator of its own, which the same step trains.
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
from sensorium.nn.discriminator import NOISE_DEVIATION, Discriminator, adversarial_losses


class Gan(Generator):
    """Conditional VAE with the adversarial losses of ``nn.discriminator`` on segments sampled from the prior; one step
    trains both.

    Args:
        depth: blocks of the decoder; the encoder and the prior have half as many.
        judge: blocks of the discriminator.
        expand: hidden size of their feed-forward layers, relative to the width.
        whole: latents of the segment.
        each: latents of every token.
        beta: weight of the divergence from the prior beside the likelihood (1: the evidence bound itself).
        adversary: weight of the adversarial losses beside that bound.
        steep: weight of the gradient penalty.
    """

    is_generative = True

    def __init__(
        self,
        tokens: Tokens,
        width: int,
        *,
        depth: int = 4,
        judge: int = 2,
        expand: float = 4.0,
        whole: int = 64,
        each: int = 8,
        beta: float = 1.0,
        adversary: float = 0.2,
        steep: float = 10.0,
    ) -> None:
        super().__init__(tokens, width)
        at_least("generator.gan", 1, depth=depth, whole=whole, each=each)
        at_least("generator.gan", 0, beta=beta, adversary=adversary, steep=steep, judge=judge)
        self.beta, self.adversary, self.steep = beta, adversary, steep
        self.latents = ConditionalVAE(tokens, width, depth=depth, hidden=round(expand * width), whole=whole, each=each)
        self.judge = Discriminator(tokens, width, judge, round(expand * width))

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and not tokens.ordered

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return [*self.latents.output_parameters(), *self.judge.output_parameters()]

    def with_noise(self, target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k all"]:
        """Vectors [n, k, width] with their noise: for the latents of two segments, and for the gradient penalty."""
        n, k, width = target.shape
        whole, each = self.latents.noise(n, target.device, None)
        near, other = (torch.randn(n, k, size, device=target.device) for size in (width, self.latents.each))
        noise = near, each, other, whole.unsqueeze(1).expand(-1, k, -1)
        return torch.cat([target, *(part.to(target.dtype) for part in noise)], -1)

    def asked_tokens(self, target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k width"]:
        return self.latents.positions.expand(len(target), -1, -1)

    def loss(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, " n"]:
        sizes = (
            self.output_tokens.width,
            self.output_tokens.width,
            self.latents.each,
            self.latents.each,
            self.latents.whole,
        )
        x, near, each, other, whole = target.float().split(sizes, -1)
        bound = self.latents.bound(hidden, x, whole[:, 0], each, self.beta)
        generated = self.latents.sample_prior(hidden, -whole[:, 0], other)[0]
        fooling, judging, slope = adversarial_losses(self.judge, x, generated, NOISE_DEVIATION * near, hidden)
        return bound + self.adversary * (fooling + judging) + self.steep * slope

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, "n 1"]:
        sizes = (
            self.output_tokens.width,
            self.output_tokens.width,
            self.latents.each,
            self.latents.each,
            self.latents.whole,
        )
        x, _, each, _, whole = target.float().split(sizes, -1)
        return self.latents.bound(hidden, x, whole[:, 0], each, self.beta).unsqueeze(1)

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
