"""Multi-head attention over short mixed segments, and the mask that tells what is seen from what is asked.

For the few dozen tokens of a row two batched matrix products are several times faster on a CPU than the fused kernel,
which wins on GPUs and on long sequences; ``attend`` chooses.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.core.errors import UserError

SHORT = 512
"""Up to this many keys, a CPU takes the plain products."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allow: torch.Tensor | None) -> torch.Tensor:
    """Scaled dot-product attention.

    Args:
        q: queries [n, heads, a, d]; k, v: keys and values [n, heads, b, d].
        allow: what may be looked at, added to the logits: [n or 1, 1, a, b], 0 where allowed, very negative where not.

    Returns:
        [n, heads, a, d]
    """
    if q.device.type != "cpu" or k.shape[2] > SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if allow is None else allow.to(q.dtype))
    (n, heads, a, d), b = q.shape, k.shape[2]
    logits = (q * (1.0 / math.sqrt(d))).reshape(n * heads, a, d) @ k.reshape(n * heads, b, d).transpose(1, 2)
    logits = logits.view(n, heads, a, b)
    if allow is not None:
        logits = logits + allow.to(logits.dtype)
    weights = logits.softmax(-1).view(n * heads, a, b)
    return (weights.to(v.dtype) @ v.reshape(n * heads, b, d)).view(n, heads, a, d)


FORBIDDEN = -1e4
"""Added to a forbidden logit: small enough to vanish in a softmax, representable in bf16 and fp16, never a NaN."""


def forbid(allowed: torch.Tensor) -> torch.Tensor:
    """A boolean "may look" [n, a, b] as what ``attend`` adds to its logits, [n, 1, a, b]."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, FORBIDDEN).unsqueeze(1)


class Attention(nn.Module):
    """Self-attention with optional remembered keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"network.width={width} is not a multiple of trunk.heads={heads}. Change one of them.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        x: torch.Tensor,
        allow: torch.Tensor | None = None,
        past: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """``x`` [n, s, width] to [n, s, width], and all keys and values so far, each [n, heads, past + s, d]."""
        n, s, w = x.shape
        q, k, v = self.qkv(x).view(n, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = attend(q, k, v, allow)
        return self.out(y.transpose(1, 2).reshape(n, s, w)), (k, v)
