"""Transformer over seen and asked segments: seen tokens see one another, each asked segment sees all that is seen and
itself.

It knows tokens and masks, nothing of columns: positions inside a segment and the column's embedding are already in
them.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.attention import Keys, forbid
from sensorium.nn.shape_buckets import recurring
from sensorium.nn.transformer import TransformerBlock


@dataclasses.dataclass
class KeyValueCache:
    """Key-value cache: of every layer those of what is seen, then of what was asked so far; and the mask of what may be
    attended to, [n, s]."""

    layers: list[list[Keys]]
    mask: Bool[Tensor, "n s"]

    def rows(self, index: Int[Tensor, " m"]) -> KeyValueCache:
        """Cache of the rows ``index``."""
        return KeyValueCache(
            [[contiguous((k[index], v[index])) for k, v in layer] for layer in self.layers], self.mask[index]
        )


class SegmentTransformer(nn.Module):
    """Pre-norm transformer blocks under the seen/asked mask."""

    def __init__(self, width: int, depth: int, heads: int, dropout: float = 0.0, hidden: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(
        self,
        seen: Float[Tensor, "n s width"],
        mask: Bool[Tensor, "n s"],
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
    ) -> list[Float[Tensor, "n _ width"]]:
        """Seen tokens [n, s, width] with mask [n, s], and asked segments [n, k, width], to hidden [n, k, width] of
        each."""
        lengths = [tokens.shape[1] for tokens in asked]
        x = torch.cat([seen, *asked], 1)
        allow = forbid(seen_asked(mask, lengths, causal))
        for block in self.blocks:
            x, _ = block(x, allow)
        return list(self.norm(x[:, seen.shape[1] :]).split(lengths, 1))

    def prefill(self, seen: Float[Tensor, "n s width"], mask: Bool[Tensor, "n s"]) -> KeyValueCache:
        """Key-value cache of the seen tokens [n, s, width] with mask [n, s]."""
        allow, layers = forbid(mask[:, None, :].expand(-1, mask.shape[1], -1)), []
        for block in self.blocks:
            seen, keys = block(seen, allow)
            layers.append([contiguous(keys)])
        return KeyValueCache(layers, mask)

    def decode(
        self, past: KeyValueCache, tokens: Float[Tensor, "n k width"]
    ) -> tuple[Float[Tensor, "n k width"], KeyValueCache]:
        """Hidden of asked tokens [n, k, width] after all before, and the longer cache; tokens of one call see one
        another."""
        n, k, _ = tokens.shape
        mask = torch.cat([past.mask, past.mask.new_ones(n, k)], 1)
        allow, layers = forbid(mask[:, None, :].expand(-1, k, -1)), []
        for block, layer in zip(self.blocks, past.layers, strict=True):
            tokens, keys = block(tokens, allow, layer)
            asked = [*layer[1:], keys]  # at most two, joined: they are few beside what is seen
            layers.append([layer[0], tuple(torch.cat(both, 2) for both in zip(*asked, strict=True))])
        return self.norm(tokens), KeyValueCache(layers, mask)


def contiguous(keys: Keys) -> Keys:
    """Keys and values in the order of memory that products want, so that they are not copied in each step."""
    return keys[0].contiguous(), keys[1].contiguous()


def pack(
    tokens: list[Float[Tensor, "n _ width"]], masks: list[Bool[Tensor, "n _"]], beside: int = 0
) -> tuple[Float[Tensor, "n s width"], Bool[Tensor, "n s"]]:
    """Concatenation of segments [n, k, width] with masks [n, k], without holes: tokens [n, s, width] and mask [n, s].

    Missing cells and padded words cost nothing but in the row that has most tokens. Order carries no meaning here. The
    length s is such that, with ``beside`` more tokens, it is one that recurs.
    """
    x, mask = torch.cat(tokens, 1), torch.cat(masks, 1)
    longest = recurring((int(mask.sum(1).max()) if mask.numel() else 0) + beside) - beside
    more = longest - x.shape[1]
    if more >= 0:
        return F.pad(x, (0, 0, 0, more)), F.pad(mask, (0, more))
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2])), mask.gather(1, order)


def seen_asked(mask: Bool[Tensor, "n s"], lengths: list[int], causal: list[bool]) -> Bool[Tensor, "n tokens tokens"]:
    """Attention mask over seen and asked tokens, bool [n, s + k, s + k].

    Args:
        mask: which seen tokens are present, [n, s].
        lengths: tokens of each asked segment, together k.
        causal: whether a token of the segment sees only those before it.
    """
    n, s, k = *mask.shape, sum(lengths)
    allowed = torch.zeros(n, s + k, s + k, dtype=torch.bool, device=mask.device)
    allowed[:, :, :s] = mask[:, None, :]
    start = s
    for length, is_causal in zip(lengths, causal, strict=True):
        own = torch.ones(length, length, dtype=torch.bool, device=mask.device)
        allowed[:, start : start + length, start : start + length] = own.tril() if is_causal else own
        start += length
    return allowed
