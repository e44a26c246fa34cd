"""Late fusion: every seen column answers alone and the answers are averaged, so columns never meet before the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from sensorium.nn.segment_transformer import KeyValueCache, SegmentTransformer
from sensorium.trunks import Seen, Trunk


@dataclasses.dataclass
class VoteState:
    """One remembered past for each column, and which rows have the column, [columns, n]."""

    pasts: list[KeyValueCache]
    present: torch.Tensor


class Late(Trunk):
    """One transformer, shared by all columns, hears one column at a time; hidden states are averaged over those present.

    Where no column is present, the empty column answers.
    """

    def __init__(self, width: int, columns: list[str], *, depth: int = 2, heads: int = 6, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = SegmentTransformer(width, depth, heads, dropout)

    @staticmethod
    def present(seen: Seen) -> torch.Tensor:
        """Which columns vote in which row, [columns, n]: the empty one only where there is no other."""
        votes = torch.stack([mask.any(1) for mask in (m for _, m in seen.values())])
        empty = list(seen).index("")
        votes[empty] = votes.sum(0) == 1
        return votes

    def forward(
        self, seen: Seen, asked: list[torch.Tensor], causal: list[bool], drawn: Sequence[bool] = ()
    ) -> list[torch.Tensor]:
        votes = self.present(seen)
        answers = [self.body(tokens, mask, asked, causal) for tokens, mask in seen.values()]
        return [average([answer[i] for answer in answers], votes) for i in range(len(asked))]

    def prefill(self, seen: Seen) -> VoteState:
        return VoteState([self.body.prefill(tokens, mask) for tokens, mask in seen.values()], self.present(seen))

    def decode(self, state: VoteState, tokens: torch.Tensor, drawn: bool = False) -> tuple[torch.Tensor, VoteState]:
        answers = [self.body.decode(past, tokens) for past in state.pasts]
        return average([hidden for hidden, _ in answers], state.present), VoteState(
            [p for _, p in answers], state.present
        )

    def reorder(self, state: VoteState, rows: torch.Tensor) -> VoteState:
        return VoteState([past.rows(rows) for past in state.pasts], state.present[:, rows])


def average(answers: list[torch.Tensor], votes: torch.Tensor) -> torch.Tensor:
    """Mean of hidden states [n, k, width] over the columns that vote, ``votes`` [columns, n]."""
    weights = (votes / votes.sum(0).clamp(min=1)).to(answers[0].dtype)
    return torch.einsum("cnkw,cn->nkw", torch.stack(answers), weights)
