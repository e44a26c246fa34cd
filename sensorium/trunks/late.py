"""Late fusion: the mean of the hidden states that each seen column gives by itself, so columns meet only at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer
from sensorium.trunks import Seen, Trunk


@dataclasses.dataclass
class VoteState:
    """Key-value cache of each column, and which rows have the column, [columns, n]."""

    pasts: list[KeyValueCache]
    present: Bool[Tensor, "columns n"]


class Late(Trunk):
    """One transformer, shared by all columns, sees one column at a time; hidden states are averaged over those present.

    Where no column is present, the empty column takes their place.
    """

    def __init__(self, width: int, columns: list[str], *, depth: int = 2, heads: int = 6, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = SegmentTransformer(width, depth, heads, dropout)

    @staticmethod
    def present(seen: Seen) -> Bool[Tensor, "columns n"]:
        """Mask of the columns that vote in each row, [columns, n]: the empty one only where there is no other."""
        votes = torch.stack([mask.any(1) for mask in (m for _, m in seen.values())])
        empty = list(seen).index("")
        votes[empty] = votes.sum(0) == 1
        return votes

    def forward(
        self,
        seen: Seen,
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
        generative: Sequence[bool] = (),
    ) -> list[Float[Tensor, "n _ width"]]:
        votes = self.present(seen)
        answers = [self.body(tokens, mask, asked, causal) for tokens, mask in seen.values()]
        return [average([answer[i] for answer in answers], votes) for i in range(len(asked))]

    def prefill(self, seen: Seen) -> VoteState:
        return VoteState([self.body.prefill(tokens, mask) for tokens, mask in seen.values()], self.present(seen))

    def decode(
        self, state: VoteState, tokens: Float[Tensor, "n k width"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k width"], VoteState]:
        answers = [self.body.decode(past, tokens) for past in state.pasts]
        return average([hidden for hidden, _ in answers], state.present), VoteState(
            [p for _, p in answers], state.present
        )

    def reorder(self, state: VoteState, rows: Int[Tensor, " m"]) -> VoteState:
        return VoteState([past.rows(rows) for past in state.pasts], state.present[:, rows])


def average(answers: list[Float[Tensor, "n k width"]], votes: Bool[Tensor, "columns n"]) -> Float[Tensor, "n k width"]:
    """Mean of hidden states [n, k, width] over the columns that vote, ``votes`` [columns, n]."""
    weights = (votes / votes.sum(0).clamp(min=1)).to(answers[0].dtype)
    return torch.einsum("cnkw,cn->nkw", torch.stack(answers), weights)
