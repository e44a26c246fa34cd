"""Stem of numbers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sensorium.nn.stem import Cells, Stem


class NumberStem(Stem):
    """MLP stem: one token from the score, the compressed raw value, waves of the score and the bins below it."""

    def __init__(self, width: int, waves: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi / 4 * 2.0 ** torch.arange(waves), persistent=False)
        self.enter, self.leave = nn.Linear(2 + 2 * waves + bins, width), nn.Linear(width, width)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows 1 width"], None]:
        score, raw = cells["score"].float().clamp(-8, 8), cells["raw"].clamp(-16, 16)
        angle = score * self.frequencies
        filled = (torch.special.ndtr(score) * self.bins - torch.arange(self.bins, device=score.device)).clamp(0, 1)
        x = torch.cat([score, raw, angle.sin(), angle.cos(), filled], 1)
        return self.leave(nn.functional.gelu(self.enter(x.to(self.enter.weight.dtype)))).unsqueeze(1), None
