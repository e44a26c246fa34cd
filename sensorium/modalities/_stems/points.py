"""Stem of point clouds and routes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.conv import present, working_dtype
from sensorium.nn.stem import Cells, Stem


class PointsStem(Stem):
    """Point set encoder: each point through a small network, then attention of a few learned queries to all of them.

    It depends on no order, and takes any number of points (PointNet, arXiv 1612.00593; queries as in the Set
    Transformer, arXiv 1810.00825).
    """

    def __init__(self, width: int, size: int, tokens: int) -> None:
        super().__init__()
        self.enter, self.up, self.down = nn.Linear(3 * size, 128), nn.Linear(128, 256), nn.Linear(256, width)
        self.norm, self.values = nn.LayerNorm(width, bias=False), nn.Linear(width, 2 * width)
        self.questions = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.out = nn.Linear(2 * width, width)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], None]:
        """``points`` [n, points, size] and ``length`` [n] to tokens [n, tokens, width]."""
        points, here = (
            cells["points"].to(working_dtype(self.questions)),
            present(cells["length"], cells["points"].shape[1]),
        )
        x = self.enter(torch.cat([points, torch.sin(math.pi * points), torch.cos(math.pi * points)], -1))
        x = self.norm(self.down(F.gelu(self.up(F.gelu(x)))))
        keys, values = self.values(x).chunk(2, -1)
        attention = (
            (self.questions.to(keys.dtype) @ keys.transpose(1, 2))
            .float()
            .masked_fill(~here.unsqueeze(1), -1e4)
            .softmax(-1)
        )
        most = values.masked_fill(~here.unsqueeze(-1), -1e4).amax(1, keepdim=True).expand(-1, len(self.questions), -1)
        return self.out(torch.cat([attention.to(values.dtype) @ values, most], -1)), None
