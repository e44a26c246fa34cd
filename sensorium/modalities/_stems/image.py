"""Stems of pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from sensorium.core.types import Norm
from sensorium.nn.attention import heads_of
from sensorium.nn.conv import ConvBlock, working_dtype
from sensorium.nn.stem import Cells, Stem
from sensorium.nn.transformer import TransformerBlock

N_RESTYLED = 3
"""Number of the first layers whose feature maps are restyled: they see how a thing is drawn, rather than what it is."""


class ImageStem(Stem):
    """Convolutional stem: six 3 × 3 convolutions to (size / 16)² tokens, with a learned position added to each."""

    def __init__(self, width: int, size: int, norm: Norm, restyle: float = 0.0) -> None:
        super().__init__()
        self.restyle = restyle
        half = (2, 2)
        self.body = nn.Sequential(
            ConvBlock(3, 32, stride=half, norm=norm),
            ConvBlock(32, 64, stride=half, norm=norm),
            ConvBlock(64, 64, residual=True, norm=norm),
            ConvBlock(64, 128, stride=half, norm=norm),
            ConvBlock(128, 128, residual=True, norm=norm),
            ConvBlock(128, width, stride=half, norm=norm),
        )
        self.position = nn.Parameter(torch.randn((size // 16) ** 2, width) * 0.02)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], None]:
        """``pixels`` [n, 3, size, size] in 0..255 to tokens [n, (size / 16)², width]."""
        x = ink(cells["pixels"], self.position)
        for number, layer in enumerate(self.body):
            x = layer(x)
            if self.restyle and self.training and number < N_RESTYLED:
                x = restyled(x, self.restyle)
        tokens = x.flatten(2).transpose(1, 2)
        return tokens + self.position.to(tokens.dtype), None


def restyled(x: Float[Tensor, "n c h w"], strength: float) -> Float[Tensor, "n c h w"]:
    """Feature maps [n, c, h, w], each scaled and shifted at random, the same at all its places."""
    spread = x.float().std((2, 3), keepdim=True)
    scale, shift = torch.randn(2, *spread.shape, device=x.device) * strength
    return x * (1 + scale).to(x.dtype) + (shift * spread).to(x.dtype)


class FullSizePatches(Stem):
    """Vision transformer on patches (ViT, arXiv 2010.11929), for comparison."""

    def __init__(self, width: int, size: int, patch: int, depth: int = 4) -> None:
        super().__init__()
        side = (patch, patch)
        self.embed = ConvBlock(3, width, kernel=side, stride=side, pad=(False, False), norm="none", act=False)
        self.position = nn.Parameter(torch.randn((size // patch) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads_of(width, 32)) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], None]:
        """``pixels`` [n, 3, size, size] in 0..255 to tokens [n, (size / patch)², width]."""
        x = self.embed(ink(cells["pixels"], self.position)).flatten(2).transpose(1, 2)
        x = x + self.position.to(x.dtype)
        for block in self.blocks:
            x = block(x)[0]
        return self.norm(x), None


def ink(pixels: Num[Tensor, "*shape"], like: Tensor) -> Float[Tensor, "*shape"]:
    """Pixels in 0..255 as distance from white, about one in size: what a convolution pads with (0) is white too."""
    return (255.0 - pixels.to(working_dtype(like))) * (1 / 80)
