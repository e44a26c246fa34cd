"""Transformer block: attention and a feed-forward layer, each behind a norm, initialised as the identity."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.attention import Attention, Keys


class TransformerBlock(nn.Module):
    """Pre-norm transformer block. Both branches end in zeros, so that a new one is the identity (arXiv 2003.04887).

    The norm is LayerNorm without a bias: torch has it as one kernel on CPUs, where its RMSNorm is six passes over
    memory.
    """

    def __init__(self, width: int, heads: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads)
        self.up = nn.Linear(width, hidden or 4 * width)
        self.down = nn.Linear(hidden or 4 * width, width)
        self.dropout = dropout
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(
        self,
        x: Float[Tensor, "n s width"],
        allow: Float[Tensor, "#n 1 #s keys"] | None = None,
        past: Sequence[Keys] = (),
    ) -> tuple[Float[Tensor, "n s width"], Keys]:
        """Tokens [n, s, width] to [n, s, width], and their keys and values."""
        y, keys = self.attention(self.norm_attention(x), allow, past)
        x = x + F.dropout(y, self.dropout, self.training)
        y = self.down(F.gelu(self.up(self.norm_mlp(x))))
        return x + F.dropout(y, self.dropout, self.training), keys
