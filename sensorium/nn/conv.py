"""Building blocks of convolutional stems in two dimensions (pictures, spectrograms) and one (series).

One class serves both: a series is a picture of height 1, because that keeps the channels-last layout, which the CPU
kernels want and which torch has for four dimensions only. No block mixes rows unless ``norm="batch"`` is asked for.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.types import Norm

GELU_GAIN = 1.7015
"""Factor that makes GELU keep the variance of a unit Gaussian (Brock et al. 2021, arXiv 2101.08692, section 4)."""


class ConvBlock(nn.Module):
    """Convolution, norm and GELU. As a residual branch ``x + gelu(norm(conv(x)))`` a new one is the identity.

    Args:
        inputs, outputs: channels; equal where ``residual``.
        kernel: (height, width); (1, k) for a series. Where padded (with zeros, to half of it) odd numbers.
        stride: (height, width); where padded, n positions give ceil(n / stride).
        norm: normalisation of activations.
            "group": over all channels and positions of a row (GroupNorm with one group, arXiv 1803.08494): what is
                faint beside the rest of its picture stays faint. Only for rows without padding.
            "layer": LayerNorm over the channels of each position (arXiv 1607.06450), as ConvNeXt has it.
            "weight": no norm of activations; weights standardised with a learned gain (NF-Nets, arXiv 2102.06171).
            "batch": statistics over the rows of the batch: a row's output then depends on its neighbours in training.
            "none": nothing.
        residual: add the input. The gain (of the norm or of the weights) starts at zero, so that the branch does.
        groups: as in ``nn.Conv2d``.
        pad: along height and width; without it what no kernel fits on is left out.
        act: False leaves GELU out.
    """

    mean: Tensor
    var: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        norm: Norm = "layer",
        residual: bool = False,
        groups: int = 1,
        pad: tuple[bool, bool] = (True, True),
        act: bool = True,
    ) -> None:
        super().__init__()
        if residual and (inputs != outputs or stride != (1, 1) or pad != (True, True)):
            raise ValueError("a residual convolution keeps its channels and its size")
        self.stride, self.norm, self.residual, self.groups, self.act = stride, norm, residual, groups, act
        self.shape = (outputs, *kernel, inputs // groups)
        self.padding = (kernel[0] // 2 if pad[0] else 0, kernel[1] // 2 if pad[1] else 0)
        fan = inputs // groups * kernel[0] * kernel[1]
        # A matrix, as optimizers see it; in the order of memory that the kernels want.
        self.weight = nn.Parameter(torch.randn(outputs, fan) * (GELU_GAIN / math.sqrt(fan)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = nn.Parameter(torch.zeros(outputs) if residual else torch.ones(outputs)) if norm != "none" else None
        if norm == "none" and residual:
            nn.init.zeros_(self.weight)
        if norm == "batch":
            self.register_buffer("mean", torch.zeros(outputs))
            self.register_buffer("var", torch.ones(outputs))

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """Activations [n, inputs, h, w], channels last in memory, to [n, outputs, h', w']."""
        y = self._normalise(self._convolved(x))
        if self.act:
            y = F.gelu(y)  # In bf16 on a CPU torch takes 3.5 times as long for the tanh approximation.
        return x + y if self.residual else y

    def _convolved(self, x: Tensor) -> Tensor:
        weight, bias = self._weights()
        kernel = self.shape[1:3]
        if kernel != self.stride or self.padding != (0, 0) or self.groups > 1 or kernel == (1, 1):
            return F.conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups)
        # Steps as long as the kernel make it one matrix product, whose backward is several times faster on a CPU.
        n, c, h, w = x.shape
        (kh, kw), rows, columns = kernel, h // kernel[0], w // kernel[1]
        patches = x.permute(0, 2, 3, 1)[:, : rows * kh, : columns * kw].reshape(n, rows, kh, columns, kw * c)
        patches = patches.transpose(2, 3).reshape(n, rows, columns, kh * kw * c)
        return F.linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        if self.norm != "weight":
            # A bias before a norm of its own would be taken out again by "batch" and doubled by "layer".
            weight, bias = self.weight, self.bias if self.norm == "none" else None
        else:
            assert self.gain is not None
            var, mean = torch.var_mean(self.weight.float(), 1, correction=0, keepdim=True)
            scale = self.gain.view(-1, 1) * (GELU_GAIN * (var * self.weight.shape[1] + 1e-6).rsqrt())
            weight, bias = ((self.weight - mean) * scale).to(self.weight.dtype), self.bias
        return weight.view(self.shape).permute(0, 3, 1, 2), bias

    def _normalise(self, x: Tensor) -> Tensor:
        if self.norm == "group":
            assert self.gain is not None
            return F.group_norm(x, 1, self.gain.to(x.dtype), self.bias.to(x.dtype))
        if self.norm == "layer":
            return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.gain, self.bias).permute(0, 3, 1, 2)
        if self.norm == "batch":
            return F.batch_norm(x, self.mean, self.var, self.gain, self.bias, self.training, 0.1)
        return x


def sinusoid(length: int, width: int, device: torch.device | None = None) -> Float[Tensor, "length width"]:
    """Sinusoidal position encoding, [length, width], for stems of any length (Vaswani et al. 2017, section 3.5)."""
    return waves(torch.arange(length, device=device), width)


def waves(at: Shaped[Tensor, " n"], width: int) -> Float[Tensor, "n width"]:
    """Sinusoidal encoding [n, width] of any numbers [n]."""
    half = -(-width // 2)
    speed = torch.exp(torch.arange(half, device=at.device) * (-math.log(10_000.0) / half))
    angle = at[:, None] * speed
    return torch.cat([angle.sin(), angle.cos()], -1)[:, :width]


def present(length: Int[Tensor, " n"], size: int) -> Bool[Tensor, "n size"]:
    """Padding mask: which of ``size`` positions lie within each length, bool [n, size]."""
    return torch.arange(size, device=length.device) < length[:, None]


def working_dtype(weight: Tensor) -> torch.dtype:
    """Dtype to which activations are best cast before a first layer: autocast's where it is on, else the weights'."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
