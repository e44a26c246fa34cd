"""Concatenation fusion: one vector a column, side by side, through an MLP to one fused token (the classical baseline).

A missing column has a learned vector in its place, as is usual for this kind of model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer
from sensorium.trunks import Seen, Trunk


class Concat(Trunk):
    """Mean of each column's tokens, concatenated, two layers, one fused token; asked segments hear that token alone."""

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

    def fused(self, seen: Seen) -> tuple[torch.Tensor, torch.Tensor]:
        """The fused token [n, 1, width] and its mask [n, 1]."""
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
        self, seen: Seen, asked: list[torch.Tensor], causal: list[bool], drawn: Sequence[bool] = ()
    ) -> list[torch.Tensor]:
        return self.body(*self.fused(seen), asked, causal)

    def prefill(self, seen: Seen) -> KeyValueCache:
        return self.body.prefill(*self.fused(seen))

    def decode(
        self, state: KeyValueCache, tokens: torch.Tensor, drawn: bool = False
    ) -> tuple[torch.Tensor, KeyValueCache]:
        return self.body.decode(state, tokens)

    def reorder(self, state: KeyValueCache, rows: torch.Tensor) -> KeyValueCache:
        return state.rows(rows)
