"""Convolutional stem of time series."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Ragged
from sensorium.nn.conv import ConvBlock, present, sinusoid, working_dtype
from sensorium.nn.stem import Cells, Stem


class SeriesStem(Stem):
    """Convolutional stem: short, middle and long kernels side by side, then convolutions that halve time; a token for
    every 16 steps.

    Kernels of several lengths see fast and slow movements alike (InceptionTime, arXiv 1909.04939).
    """

    def __init__(self, width: int, channels: int, norm: Ragged) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            ConvBlock(3 * channels, 32, kernel=(1, kernel), stride=(1, 2), norm=norm) for kernel in (3, 9, 27)
        )
        self.body = nn.ModuleList(
            [
                ConvBlock(96, 96, kernel=(1, 5), stride=(1, 2), norm=norm),
                ConvBlock(96, 96, kernel=(1, 5), residual=True, norm=norm),
                ConvBlock(96, 128, kernel=(1, 5), stride=(1, 2), norm=norm),
                ConvBlock(128, 128, kernel=(1, 5), residual=True, norm=norm),
                ConvBlock(128, width, kernel=(1, 3), stride=(1, 2), norm=norm),
                ConvBlock(width, width, kernel=(1, 3), residual=True, norm=norm),
            ]
        )
        self.place = nn.Parameter(torch.tensor(0.1))

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], Bool[Tensor, "rows tokens"]]:
        """``series`` [n, steps, 2 · channels] and ``length`` [n] to tokens [n, steps / 16, width] and their mask.

        Padding is set to zero before each convolution, so a series' tokens don't depend on how far its batch was
        padded.
        """
        series, length = cells["series"], cells["length"]
        values, there = series.chunk(2, -1)
        # Change from step to step, 0 at the start and at gaps.
        change = F.pad((values[:, 1:] - values[:, :-1]) * there[:, 1:] * there[:, :-1], (0, 0, 1, 0))
        x = torch.cat([values, change, there], -1).to(working_dtype(self.place))[:, None].permute(0, 3, 1, 2)
        x = torch.cat([scale(x) for scale in self.scales], 1)
        length = -(-length // 2)
        for layer in self.body:
            assert isinstance(layer, ConvBlock)
            x = layer(x * present(length, x.shape[3]).to(x.dtype)[:, None, None])
            length = -(-length // layer.stride[1])
        tokens = x.flatten(2).transpose(1, 2)
        place = sinusoid(tokens.shape[1], tokens.shape[2], tokens.device) * self.place
        return tokens + place.to(tokens.dtype), present(length, tokens.shape[1])


def rotated(
    values: Float[Tensor, "n steps channels"],
    generator: torch.Generator,
    mean: np.ndarray,
    std: np.ndarray,
    limit: float,
) -> Float[Tensor, "n steps channels"]:
    """Triples of channels rotated about a random axis, in the units of the table (Rodrigues' formula).

    Args:
        mean, std: of each channel, [channels]. limit: largest angle, in radians.
    """
    n, steps, c = values.shape
    triples = c // 3
    middle, spread = (torch.from_numpy(x).to(values.device) for x in (mean, std))
    axis = F.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    angle = (torch.rand(n, 1, 1, generator=generator) * 2 - 1) * limit
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(n, 3, 3)
    turn = torch.eye(3) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    raw = (values * spread + middle)[..., : 3 * triples].reshape(n, steps * triples, 3)
    raw = (raw @ turn.to(values.device)).view(n, steps, 3 * triples)
    return torch.cat([(raw - middle[: 3 * triples]) / spread[: 3 * triples], values[..., 3 * triples :]], -1)
