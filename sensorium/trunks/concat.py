"""Concatenation fusion: an MLP turns the columns' concatenated vectors into one fused token (the classical baseline).

A missing column has a learned vector in its place, as is usual for this kind of model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer
from sensorium.trunks import Seen, Trunk


class Concat(Trunk):
    """Mean of each column's tokens, concatenated, through two layers; asked segments attend to that one token only."""

    def __init__(
        self, width: int, columns: list[str], *, hidden: int = 512, depth: int = 1, heads: int = 6, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.columns = list(columns)
        self.missing = nn.Parameter(torch.zeros(max(len(columns), 1), width))
        self.fuse = nn.Sequential(
            nn.Linear(max(len(columns), 1) * width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.body = SegmentTransformer(width, depth, heads, dropout)

    def fused(self, seen: Seen) -> tuple[Float[Tensor, "n 1 width"], Bool[Tensor, "n 1"]]:
        """Fused token [n, 1, width] and its mask [n, 1]."""
        rows = seen[""][0].shape[0]
        parts = []
        for column, missing in zip(self.columns or [""], self.missing, strict=True):
            if column in seen:
                tokens, mask = seen[column]
                total = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
                parts.append(torch.where(mask.any(1, keepdim=True), total, missing.to(total.dtype)))
            else:
                parts.append(missing.expand(rows, -1))
        token = self.fuse(torch.cat(parts, -1)).unsqueeze(1)
        return token, torch.ones(token.shape[:2], dtype=torch.bool, device=token.device)

    def forward(
        self,
        seen: Seen,
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
        generative: Sequence[bool] = (),
    ) -> list[Float[Tensor, "n _ width"]]:
        return self.body(*self.fused(seen), asked, causal)

    def prefill(self, seen: Seen) -> KeyValueCache:
        return self.body.prefill(*self.fused(seen))

    def decode(
        self, state: KeyValueCache, tokens: Float[Tensor, "n k width"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k width"], KeyValueCache]:
        return self.body.decode(state, tokens)

    def reorder(self, state: KeyValueCache, rows: Int[Tensor, " m"]) -> KeyValueCache:
        return state.rows(rows)
