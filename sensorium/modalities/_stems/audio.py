"""Convolutional stem of log-mel spectrograms."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Ragged
from sensorium.modalities._audio_frames import SILENCE, STRIDE
from sensorium.nn.conv import ConvBlock, present, sinusoid, working_dtype
from sensorium.nn.stem import Cells, Stem


class AudioStem(Stem):
    """Convolutional stem: patches of 4 frames by 4 bands, then convolutions; [frames, mels] → [frames / 16, width],
    bands become channels.

    Where a layer is a matrix product in disguise (patches, convolutions over time alone) it is written as one: oneDNN's
    convolution of one input channel, or of width 1, reaches a tenth to a quarter of the speed on a CPU.
    """

    def __init__(self, width: int, mels: int, norm: Ragged) -> None:
        super().__init__()
        self.bands = -(-mels // STRIDE) * STRIDE
        self.patch = nn.Linear(16, 32)
        half = (2, 2)
        self.flat = nn.ModuleList(
            [
                ConvBlock(32, 64, stride=half, norm=norm),
                ConvBlock(64, 64, residual=True, norm=norm),
                ConvBlock(64, 128, stride=half, norm=norm),
            ]
        )
        self.enter = nn.Linear(3 * 128 * (self.bands // 16), width)
        self.norms = nn.ModuleList([nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)])
        self.mix = nn.ModuleList([nn.Linear(3 * width, width), nn.Linear(3 * width, width)])
        for layer in self.mix:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
        self.place = nn.Parameter(torch.tensor(0.1))

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], Bool[Tensor, "rows tokens"]]:
        """``mel`` [n, frames, mels] and ``length`` [n] to tokens [n, frames / 16, width] and their mask.

        Padding is set to zero before each layer, as beyond the edge: so a sound's tokens don't depend on how far its
        batch was padded.
        """
        x, length = cells["mel"] - SILENCE, cells["length"]
        n, frames, mels = x.shape
        dtype = working_dtype(self.place)
        x = F.pad(x.to(dtype) * present(length, frames).to(dtype)[:, :, None], (0, self.bands - mels))
        x = x.view(n, frames // 4, 4, self.bands // 4, 4).transpose(2, 3).flatten(3)
        x = F.gelu(self.patch(x)).permute(0, 3, 1, 2)  # Channels stay last in memory.
        length = -(-length // 4)
        for layer in self.flat:
            assert isinstance(layer, ConvBlock)
            x = layer(x * present(length, x.shape[2]).to(x.dtype)[:, None, :, None])
            length = -(-length // layer.stride[0])
        x = x.permute(0, 2, 3, 1).flatten(2)
        here = present(length, x.shape[1]).unsqueeze(-1)
        x = self.enter(neighbours(x * here.to(x.dtype)))
        for norm, layer in zip(self.norms, self.mix, strict=True):
            x = x + layer(F.gelu(neighbours(norm(x) * here.to(x.dtype))))
        place = sinusoid(x.shape[1], x.shape[2], x.device) * self.place
        return x + place.to(x.dtype), here.squeeze(-1)


def neighbours(x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c3"]:
    """Each position beside its two neighbours, [n, t, c] to [n, t, 3 c]: with a linear layer a convolution."""
    return torch.cat([F.pad(x, (0, 0, 1, 0))[:, :-1], x, F.pad(x, (0, 0, 0, 1))[:, 1:]], -1)
