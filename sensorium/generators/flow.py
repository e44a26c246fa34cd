"""Flow matching generator: from noise along straight paths to the data, the clean vectors predicted at every moment.

Raw patches are generated as they are, with no autoencoder before them, as the network predicts what is clean and not
what is noise (JiT: Li & He 2025, arXiv 2511.13720). Of larger ones ``latents`` may be generated instead, of an
autoencoder that is trained beside (arXiv 2112.10752). It knows vectors and a trunk, nothing of pictures or sounds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sensorium.core.errors import UserError
from sensorium.core.settings import at_least
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.autoencoder import with_autoencoder
from sensorium.nn.denoiser import Denoiser

MAX_STEPS = 1000
"""Steps from noise at most: more of them change no picture, and take as long as somebody mistyped."""
GUIDED_UNTIL = 0.7
"""Moment until which guidance is applied, of what isn't generated in time: where little noise is left, pictures with it
and without are judged alike (arXiv 2404.07724), and it takes a pass of its own. Speech is understood less without it.
"""
SCORED_MOMENTS = 0.25, 0.5, 0.75
"""Moments at which the loss of a sample is taken, as its score."""


class Flow(Generator):
    """Flow matching with clean-vector prediction (arXiv 2511.13720, algorithm 1): z = t x + (1 - t) noise at the
    moments t from 0 (noise) to 1 (data); x is predicted, and the loss is the error of the velocity (x - z) / (1 - t).

    Args:
        depth: the generator's own blocks.
        expand: hidden size of their feed-forward layers, relative to the width.
        mean, spread: training draws t as the sigmoid of a Gaussian (arXiv 2403.03206, section 3.1).
        least: lower bound of 1 - t where it is divided by.
        prefix_share: share of the rows whose prefix training gives, where tokens follow one another in time: given
            tokens are marked, and the loss is that of the rest alone.
        latents: so many numbers of each patch are generated in place of its own, and decoded to patches by an
            autoencoder, which is trained in the same steps; for pictures and films larger than 64 pixels. 0: patches
            are generated as they are. Nothing is continued from a prefix then, and what lies on no grid (points) is
            generated as it is.
        coder: channels of the autoencoder's first convolution.
    """

    is_generative = one_token_per_vector = True

    def __init__(
        self,
        tokens: Tokens,
        width: int,
        *,
        depth: int = 4,
        expand: float = 4.0,
        mean: float = -0.8,
        spread: float = 0.8,
        least: float = 0.05,
        prefix_share: float = 0.3,
        latents: int = 0,
        coder: int = 32,
    ) -> None:
        super().__init__(tokens, width)
        at_least("generator.flow", 0, depth=depth, spread=spread, prefix_share=prefix_share, latents=latents)
        at_least("generator.flow", 1, coder=coder)
        if not 0 < least < 1:
            raise UserError(
                f"generator.flow.least={least} is no share. Give a number between 0 and 1, for instance 0.05."
            )
        self.depth, self.expand, self.mean, self.spread, self.least = depth, expand, mean, spread, least
        self.channels = coder
        self.coder, self.latent_tokens = with_autoencoder(tokens, latents, coder)
        self.can_continue = tokens.timed and tokens.length > 1 and self.coder is None
        self.prefix_share = prefix_share if self.can_continue else 0.0
        self.guided = 1.0 if tokens.timed else GUIDED_UNTIL
        self.net = Denoiser(
            self.latent_tokens, width, depth=depth, hidden=round(expand * width), mark_given=bool(self.prefix_share)
        )

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and not tokens.ordered

    def output_parameters(self) -> Iterable[nn.Parameter]:
        return [*self.net.output_parameters(), *(() if self.coder is None else self.coder.parameters())]

    # --- training -----------------------------------------------------------------------------------------------------

    def with_noise(self, target: Float[Tensor, "n k size"]) -> Float[Tensor, "n k all"]:
        """Vectors [n, k, width] to [n, k, 2 · width + 1]: beside each its noise and the moment, 1 where it is given. Of
        latents, of their width, and behind them the autoencoder's loss of the segment."""
        costs = []
        if self.coder is not None:
            target, cost = self.coder.learn(target.float())
            costs = [cost[:, None, None].expand(-1, target.shape[1], -1)]
        n, k, _ = target.shape
        t = torch.sigmoid(torch.randn(n, 1, 1, device=target.device) * self.spread + self.mean).expand(-1, k, -1)
        if self.prefix_share:
            known = torch.randint(1, k, (n, 1), device=target.device) * (
                torch.rand(n, 1, device=target.device) < self.prefix_share
            )
            t = t.masked_fill((torch.arange(k, device=target.device) < known).unsqueeze(-1), 1.0)
        return torch.cat([target, torch.randn_like(target), t.to(target.dtype), *costs], -1)

    def asked_tokens(self, target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k width"]:
        z, t, _, given = self.mixed(target)
        return self.net.tokens(z, t, given)

    def loss(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, " n"]:
        loss = self.token_nll(hidden, target).mean(1)
        return loss if self.coder is None else loss + target[:, 0, -1]

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Float[Tensor, "n k all"]) -> Float[Tensor, "n k"]:
        z, t, x, given = self.mixed(target)
        error = (
            ((self.net.predict_clean(hidden, z, t) - x) / (1 - t).clamp(min=self.least)[:, None, None])
            .square()
            .mean(-1)
        )
        return error if given is None else error * ~given * (given.shape[1] / (~given).sum(1, keepdim=True))

    def mixed(
        self, target: Float[Tensor, "n k all"]
    ) -> tuple[Float[Tensor, "n k size"], Float[Tensor, " n"], Float[Tensor, "n k size"], Bool[Tensor, "n k"] | None]:
        """Output of ``with_noise`` as z [n, k, width], t [n], x [n, k, width], in fp32, and which tokens are given [n,
        k], if any may be."""
        width = self.latent_tokens.width
        x, noise, t = target[..., : 2 * width + 1].float().split([width, width, 1], -1)
        return t * x + (1 - t) * noise, t[:, -1, 0], x, (t == 1).squeeze(-1) if self.prefix_share else None

    # --- asking -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        *,
        steps: int = 20,
        guidance: float = 2.0,
        solver: Literal["euler", "heun"] = "euler",
        unconditional: Trunk | None = None,
        given: tuple[Float[Tensor, "n k size"], Bool[Tensor, "n k size"]] | None = None,
        watch: Callable[[Tensor], None] | None = None,
        judged: bool = False,
    ) -> GeneratorOutput:
        """Generate the vectors of each row.

        Args:
            steps: integration steps.
            guidance: scale of classifier-free guidance (arXiv 2207.12598): the conditional velocity and ``guidance`` -
                1 times its difference to the unconditional one. 1: none.
            solver: "heun" evaluates each step's end as well, and takes twice as long for pictures that a judge finds no
                better.
            unconditional: the trunk where nothing is seen; needed where ``guidance`` isn't 1.
            given: vectors of which a part is known, [rows, k, width], and which, bool: they stay, and the rest is
                generated to go with them.
            judged: also take the loss of the samples, in three more passes.
            watch: callback that gets at each step the current prediction of the clean vectors, [rows, k, width].

        Returns:
            vectors, not finite where a row's sampling failed; score: where ``judged``, minus the loss of the samples,
                with the same noise for all; else 0.

        Raises:
            UserError: options that are out of range.
        """
        if not 1 <= steps <= MAX_STEPS or not math.isfinite(guidance) or guidance < 0:
            raise UserError(
                f"steps={steps}, guidance={guidance}: needed are 1 to {MAX_STEPS:,} steps and guidance ≥ 0."
            )
        if unconditional is None:
            guidance = 1.0
        noise = torch.randn(rows, self.output_tokens.length, self.latent_tokens.width, generator=generator).to(device)
        if rows == 0:
            return GeneratorOutput(
                noise.new_zeros(0, self.output_tokens.length, self.output_tokens.width), torch.zeros(0, device=device)
            )

        given_tokens = None if given is None else given[1].all(-1)

        def guess(listener: Trunk, z: Tensor, t: Tensor) -> Tensor:
            return self.net.predict_clean(listener(self.net.tokens(z, t, given_tokens), 0), z, t)

        def with_given(z: Tensor, moment: float) -> Tensor:
            """Given vectors in their place: as they are where all of a token is given, else as noisy as the rest."""
            if given is None or given_tokens is None:
                return z
            known = torch.where(given_tokens.unsqueeze(-1), given[0], moment * given[0] + (1 - moment) * noise)
            return torch.where(given[1], known, z)

        def velocity(z: Tensor, moment: float, watch: Callable[[Tensor], None] | None = None) -> Tensor:
            t, z = torch.full((rows,), moment, device=device), with_given(z, moment)
            x = guess(trunk, z, t)
            if unconditional is not None and guidance != 1 and moment < self.guided:
                without = guess(unconditional, z, t)
                x = without + guidance * (x - without)
            if watch is not None:
                watch(self.made(x))
            return (x - z) / max(1 - moment, self.least)

        z, moments = noise, torch.linspace(0, 1, steps + 1).tolist()
        for now, then in itertools.pairwise(moments):
            first = velocity(z, now, watch)
            ahead = z + (then - now) * first
            z = ahead if solver == "euler" or then == 1 else z + (then - now) / 2 * (first + velocity(ahead, then))
        z = with_given(z, 1.0)
        judge, score = torch.Generator().manual_seed(0), torch.zeros(rows, device=device)
        same = torch.randn(1, *z.shape[1:], generator=judge).to(device) if judged else z
        for moment in SCORED_MOMENTS if judged else ():
            t = torch.full((rows,), moment, device=device)
            mixed = torch.where(
                torch.zeros_like(z, dtype=torch.bool) if given_tokens is None else given_tokens.unsqueeze(-1),
                z,
                moment * z + (1 - moment) * same,
            )
            score -= ((guess(trunk, mixed, t) - z) / (1 - moment)).square().mean((1, 2)) / len(SCORED_MOMENTS)
        return GeneratorOutput(self.made(z), score)

    def made(self, z: Float[Tensor, "n k latents"]) -> Float[Tensor, "n k size"]:
        """Vectors [n, k, width] of generated vectors or latents."""
        return z if self.coder is None else self.coder.decode_normalised(z)
