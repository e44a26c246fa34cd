"""The segment transformer: every token of every seen column meets every other, and asked segments listen to all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer, pack
from sensorium.trunks import Seen, Trunk


class Segment(Trunk):
    """Early fusion of packed tokens. Any set of columns may be missing; nothing stands in for them.

    Args:
        depth: layers; heads: of attention; expand: hidden size of the feed-forward layers, relative to the width.
        dropout: of each branch; costly on a CPU.
    """

    early: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        columns: list[str],
        *,
        depth: int = 3,
        heads: int = 3,
        expand: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.body = SegmentTransformer(width, depth, heads, dropout, round(expand * width))

    def forward(
        self, seen: Seen, asked: list[torch.Tensor], causal: list[bool], drawn: Sequence[bool] = ()
    ) -> list[torch.Tensor]:
        tokens, masks = map(list, zip(*seen.values(), strict=True))
        return self.body(*pack(tokens, masks, sum(segment.shape[1] for segment in asked)), asked, causal)

    def prefill(self, seen: Seen) -> KeyValueCache:
        return self.body.prefill(*pack(*map(list, zip(*seen.values(), strict=True))))

    def decode(
        self, state: KeyValueCache, tokens: torch.Tensor, drawn: bool = False
    ) -> tuple[torch.Tensor, KeyValueCache]:
        return self.body.decode(state, tokens)

    def reorder(self, state: KeyValueCache, rows: torch.Tensor) -> KeyValueCache:
        return state.rows(rows)
