"""Categorical generator: one id of a vocabulary at a learned query token, by cross-entropy. Id 0 ("unseen") is never an
output nor a target."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.row_memory import MemoryAnswer

PERCENTS = 100
TEMPERATURES = 61
"""Number of temperatures that are tried, from 1/5 to 5."""


class Categorical(Generator):
    """Classification head: p(id | hidden) as a softmax over a linear layer, each token by itself.

    Args:
        smoothing: label smoothing (Szegedy et al. 2016, arXiv 1512.00567, §7).
    """

    trust: Tensor

    def __init__(self, tokens: Tokens, width: int, *, smoothing: float = 0.0) -> None:
        super().__init__(tokens, width)
        self.smoothing, self.uses_memory = smoothing, tokens.length == 1
        self.query = nn.Parameter(torch.randn(tokens.length, width) * 0.5)
        self.head = nn.Linear(width, max(1, tokens.vocabulary - 1))
        nn.init.normal_(self.head.weight, std=0.5 * width**-0.5)
        nn.init.zeros_(self.head.bias)
        # The temperature, and for 0 to 100 % of coverage the largest 1 - probability of a class in the set: all
        # classes, until validation rows calibrate it.
        self.register_buffer("trust", torch.ones(1 + PERCENTS + 1))

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.vocabulary > 0 and not tokens.ordered

    def asked_tokens(self, target: Int[Tensor, "n k"]) -> Float[Tensor, "n k width"]:
        return self.query.expand(len(target), -1, -1)

    def loss(
        self, hidden: Float[Tensor, "n k width"], target: Int[Tensor, "n k"], recalled: MemoryAnswer | None = None
    ) -> Float[Tensor, " n"]:
        return self.loss_of(self.logits(hidden, recalled), target)

    def loss_of(self, logits: Float[Tensor, "n k classes"], target: Int[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Loss of each row [n] from calibrated logits."""
        each = F.cross_entropy(
            logits.flatten(0, 1),
            target.flatten() - 1,
            ignore_index=-1,
            reduction="none",
            label_smoothing=self.smoothing,
        )
        return each.view(target.shape).mean(1)

    def logits(
        self, hidden: Float[Tensor, "n k width"], recalled: MemoryAnswer | None = None
    ) -> Float[Tensor, "n k classes"]:
        """Logits [n, tokens, vocabulary - 1], at the calibrated temperature."""
        return self.mixed(self.head(hidden).float(), recalled) / self.known(recalled)[0]

    def known(self, recalled: MemoryAnswer | None) -> Tensor:
        """Calibration of such answers by validation rows: see ``margin``."""
        return self.trust if recalled is None or recalled.margin is None else recalled.margin

    @staticmethod
    def mixed(logits: Float[Tensor, "n k classes"], recalled: MemoryAnswer | None) -> Float[Tensor, "n k classes"]:
        """Logits [n, 1, vocabulary - 1] of the mixture of the network's answer and that of remembered rows, by its
        share."""
        if recalled is None:
            return logits
        found = (
            logits.new_zeros(logits.shape[-1] + 1, len(logits))
            .index_add_(0, recalled.targets.flatten(), recalled.weights.T)[1:]
            .T
        )
        known = found.sum(1, keepdim=True)
        share = recalled.share * (known > 0)
        mixture = (1 - share) * logits[:, 0].softmax(-1) + share * found / known.clamp(min=1e-9)
        return mixture.clamp(min=1e-9).log().unsqueeze(1)

    def distribution(
        self, hidden: Float[Tensor, "n k width"], recalled: MemoryAnswer | None = None
    ) -> tuple[Float[Tensor, "n k classes"], Tensor]:
        """Logits before calibration, and their calibration (``margin``)."""
        return self.mixed(self.head(hidden).float(), recalled), self.known(recalled)

    def residual(
        self, hidden: Float[Tensor, "n 1 width"], target: Int[Tensor, "n 1"], recalled: MemoryAnswer | None = None
    ) -> Float[Tensor, "n vocabulary"]:
        """Logits before calibration and the true id of each row, [n, vocabulary]."""
        return self.residual_of(self.mixed(self.head(hidden).float(), recalled), target)

    def residual_of(
        self, logits: Float[Tensor, "n 1 classes"], target: Int[Tensor, "n 1"]
    ) -> Float[Tensor, "n vocabulary"]:
        """Residuals as of ``residual`` from logits before calibration."""
        return torch.cat([logits[:, 0], target.float()], 1)

    def margin(self, residual: Float[Tensor, "n vocabulary"]) -> Float[Tensor, " levels"]:
        """Temperature that maximises the likelihood of rows like these (Guo et al. 2017, arXiv 1706.04599), and for
        each percent of coverage the largest 1 - probability of a class in the prediction set, so that as many sets hold
        the truth (Sadinle et al. 2019, arXiv 1609.00451).

        Args:
            residual: from ``residual`` on rows that the model wasn't trained on; none: temperature 1, and all classes
                in every set.
        """
        residual, found = residual[residual[:, -1] > 0].float(), torch.ones_like(self.trust)
        if not len(residual):
            return found
        logits, true = residual[:, :-1], residual[:, -1].long() - 1
        tried = torch.logspace(-math.log10(5), math.log10(5), TEMPERATURES).tolist()
        found[0] = min(tried, key=lambda warmth: float(F.cross_entropy(logits / warmth, true)))
        doubt = 1 - (logits / found[0]).softmax(1).gather(1, true[:, None])[:, 0]
        doubt, n = doubt.sort().values, len(doubt)
        for percent in range(PERCENTS + 1):
            rank = math.ceil((n + 1) * percent / PERCENTS)
            if rank <= n:  # of too few rows nothing is known so surely
                found[1 + percent] = doubt[max(rank, 1) - 1]
        return found

    @torch.no_grad()
    def calibrate(self, residual: Tensor) -> None:
        """Set the ``margin`` of later answers of the network without a memory."""
        self.trust.copy_(self.margin(residual))

    @torch.no_grad()
    def sample(
        self,
        trunk: Trunk,
        rows: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        recalled: MemoryAnswer | None = None,
        *,
        sample: bool = False,
        temperature: float = 1.0,
        coverage: float = 0.0,
    ) -> GeneratorOutput:
        """Choose the likeliest id, or sample one at ``temperature`` with ``sample``; probabilities are those of the
        model.

        Args:
            coverage: also the set of the ids that hold the truth in so many of all rows, rounded up to a percent.

        Raises:
            UserError: a coverage that is no share.
        """
        hidden = trunk(self.query.expand(rows, -1, -1).to(device), 0)
        logits, margin = self.distribution(hidden, recalled)
        return self.answer(logits, margin, generator, sample=sample, temperature=temperature, coverage=coverage)

    def answer(
        self,
        logits: Float[Tensor, "n k classes"],
        margin: Float[Tensor, " levels"],
        generator: torch.Generator | None = None,
        *,
        sample: bool = False,
        temperature: float = 1.0,
        coverage: float = 0.0,
    ) -> GeneratorOutput:
        """Answers from logits before calibration, and their calibration (``margin``); options as of ``sample``."""
        if not 0 <= coverage < 1:
            raise UserError(f"coverage={coverage}: a share from 0 to below 1 is needed, for instance 0.9.")
        logits = logits / margin[0]
        log = logits.log_softmax(-1)
        if sample and temperature > 0:
            weights = (logits / temperature).softmax(-1).flatten(0, 1).cpu()
            chosen = torch.multinomial(weights, 1, generator=generator).view(len(logits), -1).to(logits.device)
        else:
            chosen = logits.argmax(-1)
        score = log.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).sum(1)
        if self.output_tokens.length > 1:
            return GeneratorOutput(tokens=chosen + 1, score=score)
        whole, sets = F.pad(log.exp(), (1, 0))[:, 0], None
        if coverage:
            sets = whole >= 1 - margin[1 + math.ceil(coverage * PERCENTS - 1e-9)]
            sets[:, 0] = False
            sets |= F.one_hot(logits[:, 0].argmax(-1) + 1, whole.shape[1]).bool()  # which is never empty
        return GeneratorOutput(tokens=chosen + 1, score=score, probabilities=whole, sets=sets)
