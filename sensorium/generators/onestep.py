"""One-step generator distilled from flow matching: a student predicts at once what many steps of its teacher make of a
noise.

It knows vectors and a trunk, nothing of pictures or sounds. ``sensorium.posttraining.distill`` trains it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sensorium.core.settings import at_least
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.autoencoder import with_autoencoder
from sensorium.nn.denoiser import Denoiser


class Onestep(Generator):
    """Network of ``flow``, evaluated at the first moment alone, where there is nothing but noise.

    Args:
        depth: the generator's own blocks.
        expand: hidden size of their feed-forward layers, relative to the width. A student begins as a copy of its
            teacher, and has its sizes.
        latents, coder: as its teacher's.
    """

    is_generative, one_token_per_vector, teacher = True, True, "flow"

    def __init__(
        self, tokens: Tokens, width: int, *, depth: int = 4, expand: float = 4.0, latents: int = 0, coder: int = 32
    ) -> None:
        super().__init__(tokens, width)
        at_least("generator.onestep", 0, depth=depth, latents=latents)
        at_least("generator.onestep", 1, coder=coder)
        self.sizes = {"depth": depth, "expand": expand, "latents": latents, "coder": coder}
        self.coder, self.latent_tokens = with_autoencoder(tokens, latents, coder)
        self.net = Denoiser(self.latent_tokens, width, depth=depth, hidden=round(expand * width))

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and not tokens.ordered

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return [*self.net.output_parameters(), *(() if self.coder is None else self.coder.parameters())]

    def with_noise(self, target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k all"]:
        """Vectors [n, k, width] with the noise beside them that they are to be made of."""
        return torch.cat(
            [
                target,
                torch.randn(*target.shape[:2], self.latent_tokens.width, device=target.device, dtype=target.dtype),
            ],
            -1,
        )

    def asked_tokens(self, target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k width"]:
        return self.noise_tokens(target[..., self.output_tokens.width :].float())

    def loss(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, " n"]:
        return self.token_nll(hidden, target).mean(1)

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k"]:
        x, noise = target.float().split([self.output_tokens.width, self.latent_tokens.width], -1)
        return (self.made(hidden, noise) - x).abs().mean(-1)

    def noise_tokens(self, noise: Float[Tensor, "n k latents"]) -> Float[Tensor, "n k width"]:
        """The asked tokens [n, k, width] of noise [n, k, width of a vector]."""
        return self.net.tokens(noise, noise.new_zeros(len(noise)))

    def made(
        self, hidden: Float[Tensor, "n k width"], noise: Float[Tensor, "n k latents"]
    ) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, width of a vector], fp32, from the trunk's output at the asked tokens of ``noise``."""
        output = self.net.predict_clean(hidden, noise, noise.new_zeros(len(noise)))
        return output if self.coder is None else self.coder.decode_normalised(output)

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        unconditional: Trunk | None = None,
    ) -> GeneratorOutput:
        """Generate the vectors of each row in one pass.

        Args:
            unconditional: the trunk where nothing is seen, which isn't used: the teacher's guidance is distilled with
                the rest.

        Returns:
            vectors, and 0 for their score.
        """
        noise = torch.randn(rows, self.output_tokens.length, self.latent_tokens.width, generator=generator).to(device)
        made = (
            self.made(trunk(self.noise_tokens(noise), 0), noise)
            if rows
            else noise.new_zeros(0, self.output_tokens.length, self.output_tokens.width)
        )
        return GeneratorOutput(made, torch.zeros(rows, device=device))
