"""Conditioning: a linear path around the trunk from what is seen to what is asked, and the gists of several columns.

So the trunk begins at a linear model of the sum of what is seen, and can only learn to be better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.network.types import Encoded


class Conditioning(nn.Module):
    """Linear maps between gists, tokens and the condition vector that asked tokens begin with.

    Args:
        width: size of a token; gist: size of a gist. summary: give the trunk each matched column's gist as one more
            token, and let asked tokens begin with the condition vector. timed: some column is asked by a token for each
            moment and some other one is a text, whose tokens then condition those at their places.
    """

    def __init__(self, width: int, gist: int, summary: bool, timed: bool) -> None:
        super().__init__()
        self.width = width
        self.gist_token = nn.Linear(gist, width) if summary else None
        self.gist_to_condition = nn.Linear(gist, width, bias=False) if summary else None
        self.token_to_condition = nn.Linear(width, width, bias=False) if summary else None
        self.to_gist = nn.Linear(width, gist)
        # Small beside the gists it is added to; not zero, so that what has none of them gets a unit vector as well.
        nn.init.normal_(self.to_gist.weight, std=0.05 / width)
        nn.init.zeros_(self.to_gist.bias)
        # Last, so that all other weights are the same without it.
        self.text_to_condition = nn.Linear(width, width, bias=False) if summary and timed else None

    def of_gist(self, gist: Float[Tensor, "n gist"]) -> Float[Tensor, "n width"] | None:
        """Condition vector where gists are all that is seen; None without ``summary``."""
        return None if self.gist_to_condition is None else self.gist_to_condition(F.normalize(gist, dim=-1))

    def of_columns(
        self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: Tensor
    ) -> Float[Tensor, "n width"] | None:
        """Condition vector of what some rows show of ``columns``. It is made of the sum of their gists, and of the sum
        of the tokens of columns without gists. None without ``summary``.
        """
        result, tokens = self.of_gist(self.total_gist(encoded, columns, rows)), []
        for column in columns:
            part = encoded.get(column)
            if part is not None and part.gist is None:
                place = part.place[rows]
                mask = (part.mask[place.clamp(min=0)] & (place >= 0).unsqueeze(1)).unsqueeze(-1)
                tokens.append((part.tokens.index_select(0, place.clamp(min=0)) * mask).sum(1))
        if result is None or not tokens or self.token_to_condition is None:
            return result
        return result + self.token_to_condition(F.layer_norm(sum(tokens[1:], tokens[0]), (self.width,)))

    def of_text(self, part: Encoded, rows: Tensor, length: int) -> Float[Tensor, "n length width"]:
        """Condition of a text's tokens for the asked tokens at their places; zero beyond the text's end."""
        assert self.text_to_condition is not None
        place = part.place[rows]
        first = int(part.gist is not None and self.gist_token is not None)  # a gist comes before the tokens
        mask = (part.mask[place.clamp(min=0)] & (place >= 0).unsqueeze(1))[:, first : first + length]
        tokens = part.tokens.index_select(0, place.clamp(min=0))[:, first : first + length]
        condition = self.text_to_condition(F.layer_norm(tokens, (self.width,))) * mask.unsqueeze(-1)
        return F.pad(condition, (0, 0, 0, length - tokens.shape[1]))

    def total_gist(
        self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: Tensor
    ) -> Float[Tensor, "n gist"]:
        """Sum of the gists that some rows have of ``columns``; 0 where they have none."""
        total = torch.zeros(len(rows), self.to_gist.out_features, device=rows.device)
        for column in columns:
            part = encoded.get(column)
            if part is not None and part.gist is not None:
                place = part.place[rows]
                total = total + part.gist.index_select(0, place.clamp(min=0)) * (place >= 0).unsqueeze(1)
        return total

    def fused_gist(self, total: Float[Tensor, "n gist"], hidden: Float[Tensor, "n k width"]) -> Float[Tensor, "n gist"]:
        """Gist of several columns: the mean of their own gists, and what the trunk adds to it.

        Starting from the mean, fusion begins at a strong plain model and can only learn to be better.
        """
        return F.normalize(total + self.to_gist(hidden[:, 0]).float(), dim=-1)
