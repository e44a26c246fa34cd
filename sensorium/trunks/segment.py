"""Segment transformer: full attention among the tokens of all seen columns, and from asked segments to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer, pack
from sensorium.trunks import Seen, Trunk


class Segment(Trunk):
    """Early fusion of packed tokens. Any set of columns may be missing, and costs nothing then.

    Args:
        depth: number of layers. heads: of attention. expand: hidden size of the feed-forward layers, relative to the
            width. dropout: of each branch; costly on a CPU.
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
        self,
        seen: Seen,
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
        generative: Sequence[bool] = (),
    ) -> list[Float[Tensor, "n _ width"]]:
        tokens, masks = map(list, zip(*seen.values(), strict=True))
        return self.body(*pack(tokens, masks, sum(segment.shape[1] for segment in asked)), asked, causal)

    def prefill(self, seen: Seen) -> KeyValueCache:
        tokens, masks = map(list, zip(*seen.values(), strict=True))
        return self.body.prefill(*pack(tokens, masks))

    def decode(
        self, state: KeyValueCache, tokens: Float[Tensor, "n k width"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k width"], KeyValueCache]:
        return self.body.decode(state, tokens)

    def reorder(self, state: KeyValueCache, rows: Int[Tensor, " m"]) -> KeyValueCache:
        return state.rows(rows)
