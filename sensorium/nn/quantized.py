"""Quantised linear layers of eight or four bits, dequantised for each product: a large model's frozen weights in a
quarter or an eighth of the memory.

Low-rank updates are trained beside them in full precision, as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314): its
section 3 has NormalFloat and the double quantisation of its scales.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError

BLOCK_SIZE, SCALES_PER_BLOCK = 64, 256
"""Weights of four bits that share a scale, and scales that share theirs."""
MAX_INT8_TOKENS, INT8_ALIGNMENT = 8, 32
"""Tokens that are multiplied by eight bits without dequantising, at most; and the number of which their width must be a
multiple: torch reads beyond the end of others."""
INT8_MATMUL = getattr(torch, "_weight_int8pack_mm", None)
"""Product of [n, d] in bf16, int8 [m, d] and scales [m], to [n, m]: bound by reading alone. Inside torch, so it may
go."""


def normal_float() -> Tensor:
    """Sixteen values of NF4, which normal weights take equally often; zero is one of them (appendix E)."""
    above, below = (
        torch.special.ndtri(torch.linspace(0.9677083, 0.5, count, dtype=torch.float64)[:-1]) for count in (9, 8)
    )
    values = torch.cat([above, -below, torch.zeros(1, dtype=torch.float64)]).sort().values
    return (values / values.max()).float()


class QuantizedLinear(nn.Linear):
    """Frozen linear layer in fewer bits.

    Args:
        linear: the layer to quantise; it is not kept.
        bits: 8, a scale for each output; or 4, as NF4.
    """

    numbers: Tensor
    scales: Tensor
    steps: Tensor
    mean: Tensor
    levels: Tensor

    def __init__(self, linear: nn.Linear, bits: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = linear.in_features, linear.out_features, bits
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        weight = linear.weight.detach().float()
        for name, part in (eighths(weight) if bits == 8 else quarters(weight)).items():
            self.register_buffer(name, part)

    @property
    def weight(self) -> Tensor:  # ty: ignore[incompatible-property-override]  # computed, as it isn't stored
        """Dequantised weights, [out, in]; made anew, so that changing them changes nothing."""
        return self.in_full(torch.float32)

    def in_full(self, dtype: torch.dtype) -> Tensor:
        """Dequantised weights in ``dtype``, [out, in]."""
        if self.bits == 8:
            return self.numbers.to(dtype) * self.scales.to(dtype).unsqueeze(1)
        most = (self.scales.to(torch.float32) * self.steps.unsqueeze(1)).flatten()[: len(self.numbers)] + self.mean
        pairs = torch.cartesian_prod(self.levels, self.levels).to(dtype)
        values = F.embedding(self.numbers.int(), pairs).flatten(1) * most.to(dtype).unsqueeze(1)
        return values.flatten()[: self.out_features * self.in_features].view(self.out_features, self.in_features)

    def forward(self, input: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Tokens [..., in] to [..., out]."""
        x, kind = input, input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        few = (
            kind == "cpu"
            and self.bits == 8
            and x.numel() <= MAX_INT8_TOKENS * self.in_features
            and as_they_are(self.in_features)
        )
        with torch.autocast(kind, enabled=False):
            if few and not (torch.is_grad_enabled() and x.requires_grad):
                found = (
                    times(x.reshape(-1, self.in_features), self.numbers, self.scales)
                    .view(*x.shape[:-1], self.out_features)
                    .to(dtype)
                )
            else:
                found = QuantizedMatmul.apply(x.to(dtype), self)
            return found if bias is None else found + bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={self.bits}"

    def as_linear(self) -> nn.Linear:
        """Ordinary layer of the dequantised weights."""
        made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device=self.numbers.device)
        made.weight.data.copy_(self.weight)
        if self.bias is not None:
            made.bias.data.copy_(self.bias)
        return made.requires_grad_(False)


def as_they_are(inside: int) -> bool:
    """True where tokens of this width are multiplied by eight bits without dequantising these."""
    return INT8_MATMUL is not None and inside % INT8_ALIGNMENT == 0


def times(x: Float[Tensor, "n inputs"], numbers: Tensor, scales: Tensor) -> Float[Tensor, "n outputs"]:
    """Product, float [n, m], of tokens [n, d] and quantised weights [m, d]; x in bf16, on a CPU."""
    assert INT8_MATMUL is not None
    ones = torch.ones(len(numbers), dtype=torch.bfloat16)
    return INT8_MATMUL(x.bfloat16(), numbers, ones) * scales  # which it would round to bf16


class QuantizedMatmul(torch.autograd.Function):
    """Product with a quantised layer. Dequantised weights are saved neither forward nor backward, so that memory holds
    those of one layer at a time."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*batch inputs"], layer: QuantizedLinear) -> Float[Tensor, "*batch outputs"]:
        ctx.layer = layer
        return F.linear(x, layer.in_full(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.in_full(gradient.dtype), None


def eighths(weight: Tensor) -> dict[str, Tensor]:
    """Eight-bit quantisation of weights [out, in]: whole numbers, and a scale for each output."""
    scales = weight.abs().amax(1) / 127
    return {"numbers": (weight / scales.clamp_min(1e-30).unsqueeze(1)).round().to(torch.int8), "scales": scales}


def quarters(weight: Tensor) -> dict[str, Tensor]:
    """Four-bit quantisation of weights [out, in]: the nearest of sixteen values, two in a byte, [blocks, 32]. Each
    block's scale is itself quantised to eight bits: steps of its group of ``SCALES_PER_BLOCK``, from the mean scale up
    or down."""
    flat = weight.flatten()
    blocks = F.pad(flat, (0, -len(flat) % BLOCK_SIZE)).view(-1, BLOCK_SIZE)
    most = blocks.abs().amax(1)
    mean = most.mean()
    deviations = F.pad(most - mean, (0, -len(most) % SCALES_PER_BLOCK)).view(-1, SCALES_PER_BLOCK)
    steps = deviations.abs().amax(1) / 127
    scales = (deviations / steps.clamp_min(1e-30).unsqueeze(1)).round().to(torch.int8)
    restored = (scales.float() * steps.unsqueeze(1)).flatten()[: len(most)] + mean
    levels = normal_float().to(weight.device)
    codes = torch.bucketize(blocks / restored.clamp_min(1e-30).unsqueeze(1), (levels[1:] + levels[:-1]) / 2)
    return {
        "numbers": (codes[:, ::2] * 16 + codes[:, 1::2]).to(torch.uint8),
        "scales": scales,
        "steps": steps,
        "mean": mean,
        "levels": levels,
    }


def round_linears(model: nn.Module, bits: int, but: nn.Module | None = None) -> None:
    """Replace a model's linear layers, except for one, by quantised ones.

    Raises:
        UserError: there are none.
    """
    found = [(name, part) for name, part in model.named_modules() if type(part) is nn.Linear and part is not but]
    if not found:
        raise UserError(
            f"trunk.bits={bits}: the language model has no linear layers that could be rounded. Leave it out."
        )
    for name, part in found:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, QuantizedLinear(part, bits))


def weights_in(model: nn.Module) -> int:
    """Number of a model's weights, with quantised ones, which are no parameters."""
    return sum(p.numel() for p in model.parameters()) + sum(
        part.in_features * part.out_features for part in model.modules() if isinstance(part, QuantizedLinear)
    )


def in_full(model: nn.Module) -> nn.Module:
    """Replace a model's quantised layers by ordinary ones, and return the model."""
    for name, part in list(model.named_modules()):
        if isinstance(part, QuantizedLinear):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, part.as_linear())
    return model
