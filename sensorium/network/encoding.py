"""Encoding: the columns of a batch through their stems, to tokens and gists."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.network.batch import Batch
from sensorium.network.types import Encoded
from sensorium.nn.feature_projection import PatchProjector
from sensorium.nn.stem import Cells, Stem


class GistHead(nn.Module):
    """Pooling head: mean of a segment's tokens, then a small residual MLP, to the gist of one column."""

    def __init__(self, width: int, gist: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, gist)
        self.skip = nn.Linear(width, gist)

    def forward(self, tokens: Float[Tensor, "n k width"], mask: Bool[Tensor, "n k"]) -> Float[Tensor, "n gist"]:
        """Gists of tokens under their mask."""
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        x = self.norm((tokens * weight).sum(1) / weight.sum(1).clamp(min=1))
        return self.skip(x) + self.down(F.gelu(self.up(x)))


def encode_columns(
    batch: Batch,
    columns: Sequence[str],
    stem: Stem,
    head: nn.Module | None,
    gist_token: nn.Module | None,
    marks: Sequence[Tensor],
    *,
    drop: float = 0.0,
    projector: PatchProjector | None = None,
    similarity: bool = False,
) -> dict[str, Encoded]:
    """Encoded columns of a batch that share a stem, in one pass of it.

    Args:
        head: pools the gist; None where the columns aren't matched. gist_token: makes a token of it that comes first.
        marks: of each column the vector [width] that says which one it is. drop: share of tokens to hide.
        projector: of pictures that stand in conversations as their patches. similarity: with the features by which
            conversations look cells up.
    """
    sizes = [len(batch.index[column]) for column in columns]
    cells = stem.features(concat_cells([batch.cells[column] for column in columns]))
    tokens, mask = stem(cells)
    patches = projector.patches(cells) if projector is not None else None
    features = stem.similarity_features(cells) if similarity else None
    similarities: Sequence[Tensor | None] = [None] * len(columns) if features is None else features.split(sizes)
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if drop:
        mask = drop_tokens(mask, drop)
    gists: Sequence[Tensor | None] = [None] * len(columns)
    if head is not None:
        gist = F.normalize(head(tokens, mask).float(), dim=-1)
        if gist_token is not None:
            tokens = torch.cat([gist_token(gist.to(tokens.dtype)).unsqueeze(1).to(tokens.dtype), tokens], 1)
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        gists = gist.split(sizes)
    encoded = {}
    for column, part, part_mask, own_gist, own_similarity, mark in zip(
        columns, tokens.split(sizes), mask.split(sizes), gists, similarities, marks, strict=True
    ):
        index = batch.index[column]
        place = torch.full((batch.rows,), -1, dtype=torch.int64, device=index.device)
        place[index] = torch.arange(len(index), device=index.device)
        encoded[column] = Encoded(
            index, place, part + mark.to(part.dtype), part_mask, own_gist, own_similarity, patches
        )
    return encoded


def drop_tokens(mask: Bool[Tensor, "n k"], share: float) -> Bool[Tensor, "n k"]:
    """Token dropout: a mask without a random share of its tokens; at least one is left of each row."""
    chance = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return mask & ((chance >= share) | (chance == chance.amax(1, keepdim=True)))


def concat_cells(parts: Sequence[Cells]) -> Cells:
    """Cells of columns that share a stem, one column's rows after another's, padded with zeros to the longest."""
    if len(parts) == 1:
        return parts[0]
    result = {}
    for key in set.intersection(*map(set, parts)):
        values = [part[key] for part in parts]
        longest = max(value.shape[1] if value.ndim > 1 else 0 for value in values)
        if longest:
            values = [F.pad(v, (0, 0) * (v.ndim - 2) + (0, longest - v.shape[1])) for v in values]
        result[key] = torch.cat(values)
    return result


def rows_of(cells: Cells, rows: Tensor) -> Cells:
    """Collated cells of some rows."""
    return {key: value[rows] for key, value in cells.items()}


def concat_encoded(parts: Sequence[Encoded], rows: int) -> Encoded:
    """Encoded parts of one column, one after the other, padded to the longest."""
    longest = max(part.tokens.shape[1] for part in parts)
    index = torch.cat([part.index for part in parts])
    place = torch.full((rows,), -1, dtype=torch.int64, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    return Encoded(
        index,
        place,
        torch.cat([F.pad(part.tokens, (0, 0, 0, longest - part.tokens.shape[1])) for part in parts]),
        torch.cat([F.pad(part.mask, (0, longest - part.mask.shape[1])) for part in parts]),
        concat_present([part.gist for part in parts]),
        concat_present([part.similarity for part in parts]),
        concat_present([part.patches for part in parts]),
    )


def concat_present(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors that are there, one after the other; None where there are none."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
