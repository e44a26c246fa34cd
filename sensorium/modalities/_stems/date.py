"""Stem of dates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sensorium.nn.stem import Cells, Stem


class DateStem(Stem):
    """MLP stem: one token from the score, its waves, and the cyclic features."""

    def __init__(self, width: int, cycles: int, waves: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi / 4 * 2.0 ** torch.arange(waves), persistent=False)
        self.enter, self.leave = nn.Linear(1 + cycles + 2 * waves, width), nn.Linear(width, width)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows 1 width"], None]:
        score = cells["score"].clamp(-8, 8)
        angle = score * self.frequencies.to(score.dtype)
        x = torch.cat([score, cells["cycles"], angle.sin(), angle.cos()], 1)
        return self.leave(nn.functional.gelu(self.enter(x.to(self.enter.weight.dtype)))).unsqueeze(1), None
