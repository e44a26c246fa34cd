"""Multi-head attention over short mixed segments, and the additive mask that separates seen from asked tokens.

For the few dozen tokens of a row two batched matrix products are several times faster on a CPU than the fused kernel,
which wins on GPUs and on long sequences. ``attend`` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import UserError

MAX_PLAIN_KEYS = 512
"""Number of keys up to which a CPU takes the plain products."""


Keys = tuple[Float[Tensor, "_ heads _ d"], Float[Tensor, "_ heads _ d"]]
"""Keys and values [n, heads, b, d] of some tokens."""


def attend(
    q: Float[Tensor, "n heads a d"], parts: Sequence[Keys], allow: Float[Tensor, "#n 1 #a keys"] | None
) -> Float[Tensor, "n heads a d"]:
    """Scaled dot-product attention.

    Args:
        q: queries [n, heads, a, d].
        parts: keys and values [n, heads, b, d] of one or more sets of tokens, one after the other. On a CPU they are
            not concatenated, so that a cache shared by many steps isn't copied in each.
        allow: attention bias added to the logits, [n or 1, 1, a, b]: 0 where allowed, very negative where not.

    Returns:
        [n, heads, a, d]
    """
    lengths = [k.shape[2] for k, _ in parts]
    (n, heads, a, d), b = q.shape, sum(lengths)
    if q.device.type != "cpu" or b > MAX_PLAIN_KEYS:
        k, v = parts[0] if len(parts) == 1 else (torch.cat(both, 2) for both in zip(*parts, strict=True))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if allow is None else allow.to(q.dtype))
    q = (q * (1.0 / math.sqrt(d))).reshape(n * heads, a, d)
    products = [q @ k.flatten(0, 1).transpose(1, 2) for k, _ in parts]
    logits = (products[0] if len(parts) == 1 else torch.cat(products, -1)).view(n, heads, a, b)
    if allow is not None:
        logits = logits + allow.to(logits.dtype)
    weights = logits.softmax(-1).view(n * heads, a, b).to(q.dtype).split(lengths, -1)
    first, *others = (w @ v.flatten(0, 1) for w, (_, v) in zip(weights, parts, strict=True))
    return sum(others, first).view(n, heads, a, d)


FORBIDDEN_LOGIT = -1e4
"""Bias of a forbidden logit: small enough to vanish in a softmax, representable in bf16 and fp16, never a NaN."""


def forbid(allowed: Bool[Tensor, "n a b"]) -> Float[Tensor, "n 1 a b"]:
    """Attention bias [n, 1, a, b], as ``attend`` adds it, of a boolean mask [n, a, b] that is True where attention is
    allowed."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, FORBIDDEN_LOGIT).unsqueeze(1)


def additive_mask(allowed: Bool[Tensor, "n q k"], dtype: torch.dtype) -> Float[Tensor, "n 1 q k"]:
    """Additive attention mask [n, 1, q, k] of a boolean one [n, q, k]: 0 where allowed, else the smallest number."""
    return (
        torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        .masked_fill(~allowed, torch.finfo(dtype).min)
        .unsqueeze(1)
    )


def heads_of(width: int, size: int) -> int:
    """Number of heads, of about ``size`` each, that divides a width evenly."""
    return next(heads for heads in range(max(1, width // size), 0, -1) if width % heads == 0)


class Attention(nn.Module):
    """Multi-head self-attention with an optional key-value cache."""

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
        x: Float[Tensor, "n s width"],
        allow: Float[Tensor, "#n 1 #s keys"] | None = None,
        past: Sequence[Keys] = (),
    ) -> tuple[Float[Tensor, "n s width"], Keys]:
        """Tokens ``x`` [n, s, width] to [n, s, width], and their own keys and values, each [n, heads, s, d]."""
        n, s, w = x.shape
        q, k, v = self.qkv(x).view(n, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = attend(q, (*past, (k, v)), allow)
        return self.out(y.transpose(1, 2).reshape(n, s, w)), (k, v)
