"""Convolutional stem of videos."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Norm
from sensorium.nn.conv import ConvBlock, working_dtype
from sensorium.nn.stem import Cells, Stem

SPAN = 80.0
"""Divisor of ink, as in pictures: then it is about one in size."""


class VideoStem(Stem):
    """Convolutional stem over each frame and its change since the frame before, then over time, where two frames become
    one."""

    def __init__(self, width: int, size: int, frames: int, pair: int, norm: Norm) -> None:
        super().__init__()
        self.frames_per_token, half = pair, (2, 2)
        self.body = nn.Sequential(
            ConvBlock(6, 32, stride=half, norm=norm),
            ConvBlock(32, 64, stride=half, norm=norm),
            ConvBlock(64, 128, stride=half, norm=norm),
            ConvBlock(128, 128, residual=True, norm=norm),
            ConvBlock(128, width, stride=half, norm=norm),
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)])
        self.mix, self.pair = (
            nn.ModuleList([nn.Linear(3 * width, width), nn.Linear(3 * width, width)]),
            nn.Linear(pair * width, width),
        )
        for layer in self.mix:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
        self.place = nn.Parameter(torch.randn(size // 16 * (size // 16), width) * 0.02)
        self.moment = nn.Parameter(torch.randn(frames // pair, 1, width) * 0.02)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], None]:
        """``pixels`` [n, frames, 3, size, size] in 0..255 to tokens [n, frames / 2 · (size / 16)², width]."""
        x = (255.0 - cells["pixels"].to(working_dtype(self.place))) * (1 / SPAN)
        n, frames = x.shape[:2]
        change = torch.diff(x, dim=1, prepend=x[:, :1])
        x = torch.cat([x, change], 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.body(x).flatten(2).transpose(1, 2)
        places, width = x.shape[1:]
        x = x.view(n, frames, places, width).transpose(1, 2)  # time next to channels
        for norm, layer in zip(self.norms, self.mix, strict=True):
            y = norm(x)
            around = torch.cat([F.pad(y, (0, 0, 1, 0))[:, :, :-1], y, F.pad(y, (0, 0, 0, 1))[:, :, 1:]], -1)
            x = x + layer(F.gelu(around))
        x = self.pair(x.reshape(n, places, -1, self.frames_per_token * width)).transpose(1, 2)
        x = x + self.place.to(x.dtype) + self.moment.to(x.dtype)
        return x.reshape(n, -1, width), None
