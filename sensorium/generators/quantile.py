"""Quantile regression generator of one vector: pinball loss, quantiles that can't cross, conformal intervals."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators import Generator, GeneratorOutput, Trunk
from sensorium.nn.row_memory import MemoryAnswer

COVERAGES = 0.5, 0.8, 0.9, 0.95, 0.98
"""Coverages for which intervals are calibrated."""


class Quantile(Generator):
    """Quantile regression (Koenker & Bassett 1978) at evenly spaced levels around the median.

    The head predicts the median and the distances between neighbouring quantiles, made positive by softplus.

    Args:
        levels: number of quantiles; odd, so that the median is one. 19 gives 5 %, 10 % … 95 %.
        cover: share of the truth that the interval should hold, unless another is asked.
    """

    levels: Tensor
    widening: Tensor

    uses_memory = True

    def __init__(self, tokens: Tokens, width: int, *, levels: int = 19, cover: float = 0.9) -> None:
        super().__init__(tokens, width)
        if levels < 3 or levels % 2 == 0:
            raise UserError(f"levels={levels}: an odd number from 3 on is needed, so that one of them is the median.")
        if not 0 < cover < 1:
            raise UserError(f"cover={cover}: a share between 0 and 1 is needed, for instance 0.9.")
        self.n_below, self.cover, self.covers = levels // 2, cover, sorted({*COVERAGES, cover})
        self.query = nn.Parameter(torch.randn(1, width) * 0.5)
        self.head = nn.Linear(width, tokens.width * levels)
        nn.init.normal_(self.head.weight, std=0.5 * width**-0.5)
        step = 1 / (levels + 1)
        self.register_buffer("levels", torch.arange(1, levels + 1) * step, persistent=False)
        # A new model predicts the quantiles of a standard normal, which is how the scores of a column are distributed.
        normal = torch.special.ndtri(self.levels.double())
        gaps = torch.expm1(normal.diff()).log().float()
        with torch.no_grad():
            bias = torch.cat([gaps[: self.n_below], torch.zeros(1), gaps[self.n_below :]])
            self.head.bias.copy_(bias.repeat(tokens.width))
        self.register_buffer("widening", torch.zeros(len(self.covers), tokens.width))

    @classmethod
    def fits(cls, tokens: Tokens) -> bool:
        return tokens.width > 0 and tokens.length == 1 and not tokens.ordered

    def asked_tokens(self, target: Float[Tensor, "n 1 size"]) -> Float[Tensor, "n 1 width"]:
        return self.query.expand(len(target), 1, -1)

    def quantiles(
        self, hidden: Float[Tensor, "n 1 width"], recalled: MemoryAnswer | None = None
    ) -> Float[Tensor, "n size levels"]:
        """Rising quantiles [n, token width, levels] of hidden [n, 1, width].

        Those of remembered rows are averaged with them, level by level ("Is it better to average probabilities or
        quantiles?", Lichtendahl et al. 2013).
        """
        x = self.head(hidden[:, 0]).float().view(len(hidden), self.output_tokens.width, len(self.levels))
        middle = x[..., self.n_below, None]
        down = F.softplus(x[..., : self.n_below]).flip(-1).cumsum(-1).flip(-1)
        up = F.softplus(x[..., self.n_below + 1 :]).cumsum(-1)
        own = torch.cat([middle - down, middle, middle + up], -1)
        if recalled is None:
            return own
        share = recalled.share * recalled.weights.sum(1).view(-1, 1, 1)
        return (1 - share) * own + share * self.weighted_quantiles(recalled)

    def distribution(
        self, hidden: Float[Tensor, "n 1 width"], recalled: MemoryAnswer | None = None
    ) -> tuple[Float[Tensor, "n size levels"], Tensor]:
        """Quantiles before calibration, and their calibration (``margin``)."""
        margin = self.widening if recalled is None or recalled.margin is None else recalled.margin
        return self.quantiles(hidden, recalled), margin

    def weighted_quantiles(self, recalled: MemoryAnswer) -> Tensor:
        """Weighted quantiles [n, token width, levels] of remembered vectors."""
        values, order = recalled.targets[:, 0].float().T.sort(1)
        reached = recalled.weights[:, order].cumsum(-1)
        levels = self.levels.expand(*reached.shape[:2], -1).contiguous()
        at = torch.searchsorted(reached, levels).clamp(max=values.shape[1] - 1)
        return values.expand(len(at), -1, -1).gather(2, at)

    def loss(
        self,
        hidden: Float[Tensor, "n 1 width"],
        target: Float[Tensor, "n 1 size"],
        recalled: MemoryAnswer | None = None,
    ) -> Float[Tensor, " n"]:
        return self.loss_of(self.quantiles(hidden, recalled), target)

    def loss_of(
        self, quantiles: Float[Tensor, "n size levels"], target: Float[Tensor, "n 1 size"]
    ) -> Float[Tensor, " n"]:
        """Pinball loss of each row [n] from its quantiles."""
        off = target[:, 0].float().unsqueeze(-1) - quantiles
        return 2 * torch.maximum(self.levels * off, (self.levels - 1) * off).mean((1, 2))

    def bounds(self, quantiles: Float[Tensor, "n size levels"], cover: float) -> Float[Tensor, "n 2 size"]:
        """Interval before calibration, [n, 2, token width], from quantiles [n, token width, levels]."""
        ends = [self._at(quantiles, torch.full_like(quantiles[..., 0], p)) for p in ((1 - cover) / 2, (1 + cover) / 2)]
        return torch.stack(ends, 1)

    def residual(
        self,
        hidden: Float[Tensor, "n 1 width"],
        target: Float[Tensor, "n 1 size"],
        recalled: MemoryAnswer | None = None,
    ) -> Float[Tensor, "n coverages size"]:
        """Conformity scores: distance of the truth from the uncalibrated interval of each coverage (negative: inside),
        [n, coverages, token width]."""
        return self.residual_of(self.quantiles(hidden, recalled), target)

    def residual_of(
        self, quantiles: Float[Tensor, "n size levels"], target: Float[Tensor, "n 1 size"]
    ) -> Float[Tensor, "n coverages size"]:
        """Residuals as of ``residual`` from quantiles."""
        truth, found = target[:, 0].float(), []
        for cover in self.covers:
            low, high = self.bounds(quantiles, cover).unbind(1)
            found.append(torch.maximum(low - truth, truth - high))
        return torch.stack(found, 1)

    def margin(self, residual: Float[Tensor, "n coverages size"]) -> Float[Tensor, "coverages size"]:
        """Margins by which intervals of each coverage are to be widened (or narrowed) so that as many of the rows like
        these lie inside, [coverages, token width].

        Conformalized quantile regression (Romano et al. 2019, arXiv 1905.03222, eq. 6–8).

        Args:
            residual: from ``residual`` on rows that the model wasn't trained on; none: no widening.
        """
        if not len(residual):
            return torch.zeros_like(self.widening)
        ranks = [min(math.ceil((len(residual) + 1) * cover), len(residual)) - 1 for cover in self.covers]
        ordered = residual.float().sort(0).values
        return torch.stack([ordered[rank, number] for number, rank in enumerate(ranks)])

    @torch.no_grad()
    def calibrate(self, residual: Tensor) -> None:
        """Set the ``margin`` by which later intervals of the network without a memory are widened."""
        self.widening.copy_(self.margin(residual))

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
        coverage: float = 0.0,
    ) -> GeneratorOutput:
        """Predict the median (or with ``sample`` a sample), its log-density, and the calibrated interval.

        Args:
            coverage: share of the truth that the interval should hold, rounded up to one of ``covers``; 0: ``cover``.

        Raises:
            UserError: a coverage for which intervals are not calibrated.
        """
        quantiles, margin = self.distribution(trunk(self.query.expand(rows, 1, -1).to(device), 0), recalled)
        return self.answer(quantiles, margin, generator, sample=sample, coverage=coverage)

    def answer(
        self,
        quantiles: Float[Tensor, "n size levels"],
        margin: Float[Tensor, "coverages size"],
        generator: torch.Generator | None = None,
        *,
        sample: bool = False,
        coverage: float = 0.0,
    ) -> GeneratorOutput:
        """Answers from quantiles and their calibration (``margin``); options and errors as of ``sample``."""
        if not 0 <= coverage <= self.covers[-1]:
            raise UserError(
                f"coverage={coverage}: intervals are calibrated for shares of up to {self.covers[-1]}: "
                f"{', '.join(map(str, self.covers))}."
            )
        number = next(n for n, cover in enumerate(self.covers) if cover >= (coverage or self.cover))
        level = torch.full((len(quantiles), self.output_tokens.width), 0.5)
        if sample:
            level = torch.rand(*level.shape, generator=generator).clamp(1e-4, 1 - 1e-4)
        level, middle = level.to(quantiles.device), quantiles[..., self.n_below]
        value = self._at(quantiles, level)
        low, high = self.bounds(quantiles, self.covers[number]).unbind(1)
        wider = margin[number]
        interval = torch.stack([torch.minimum(low - wider, middle), torch.maximum(high + wider, middle)], 1)
        return GeneratorOutput(
            tokens=value.unsqueeze(1), score=self._density(quantiles, level).sum(-1), interval=interval
        )

    def _at(self, quantiles: Float[Tensor, "n size levels"], level: Float[Tensor, "n size"]) -> Float[Tensor, "n size"]:
        """Quantile function [n, w] at probabilities [n, w]: linear inside, exponential tails outside."""
        last, step = quantiles.shape[-1] - 1, float(self.levels[0])
        place = level / step - 1
        at = place.floor().long().clamp(0, last - 1).unsqueeze(-1)
        below, above = (quantiles.gather(-1, i).squeeze(-1) for i in (at, at + 1))
        share = (place - at.squeeze(-1)).clamp(0, 1)
        inside = below + share * (above - below)
        first_gap, last_gap = quantiles[..., 1] - quantiles[..., 0], quantiles[..., -1] - quantiles[..., -2]
        low = first_gap * torch.log((level / step).clamp(1e-6, 1))
        high = last_gap * torch.log(((1 - level) / step).clamp(1e-6, 1))
        return inside + low - high

    def _density(
        self, quantiles: Float[Tensor, "n size levels"], level: Float[Tensor, "n size"]
    ) -> Float[Tensor, "n size"]:
        """Log-density dp / dx around those probabilities, [n, w]."""
        half = float(self.levels[0]) / 2
        low, high = (level - half).clamp(1e-3, 1 - 2e-3), (level + half).clamp(2e-3, 1 - 1e-3)
        rise = self._at(quantiles, high) - self._at(quantiles, low)
        return torch.log((high - low) / rise.clamp_min(1e-5))
