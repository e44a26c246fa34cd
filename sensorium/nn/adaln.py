"""Transformer block with adaptive layer norm (adaLN-Zero): a vector scales, shifts and gates its branches."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.attention import Attention


class AdaLNBlock(nn.Module):
    """Pre-norm transformer block with adaLN-Zero (Peebles & Xie 2023, arXiv 2212.09748). A new one is the identity."""

    def __init__(self, width: int, heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        nn.init.normal_(self.attention.out.weight, std=width**-0.5)  # the gate is what starts at zero
        self.up, self.down = nn.Linear(width, hidden or 4 * width), nn.Linear(hidden or 4 * width, width)
        self.steer = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Float[Tensor, "n k width"], by: Float[Tensor, "n width"]) -> Float[Tensor, "n k width"]:
        """Tokens [n, k, width] and conditioning vectors [n, width] to tokens [n, k, width]."""
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = self.steer(F.silu(by)).unsqueeze(1).chunk(6, -1)
        y, _ = self.attention(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)
        x = x + gate * y
        y = self.down(F.gelu(self.up(F.layer_norm(x, x.shape[-1:]) * (1 + scale_mlp) + shift_mlp)))
        return x + gate_mlp * y
