"""Stem of texts, and the special ids of their vocabulary."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.modalities._text_tokens import PAD
from sensorium.nn.conv import working_dtype
from sensorium.nn.shape_buckets import places, recurring
from sensorium.nn.stem import Cells, Stem

START = 0.1
"""Deviation of the initial embeddings of words and trigrams: small, so that what is learned of a rare word soon
outweighs it."""


def _trigrams(spelled: list[bytes], buckets: int) -> np.ndarray:
    """Hashed trigrams of each token, folded to lower case, int64 [vocabulary, most]; 0 where there are no more."""
    rows = []
    for raw in spelled:
        text = raw.decode("utf-8", "ignore").casefold()  # half a character has no spelling
        grams = dict.fromkeys([text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1)] or [text])
        rows.append([1 + zlib.crc32(gram.encode()) % (buckets - 1) for gram in grams if gram][:24])
    table = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
    for row, grams in zip(table, rows, strict=True):
        row[: len(grams)] = grams
    return table


class TextStem(Stem):
    """Token embeddings with spelling and position, and a convolution over neighbours that starts as the identity."""

    grams: Tensor
    share: Tensor

    def __init__(self, width: int, length: int, spelled: list[bytes], buckets: int) -> None:
        super().__init__()
        self.words = nn.Embedding(len(spelled), width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        nn.init.normal_(self.words.weight, std=START)
        self.letters = None
        if buckets:
            table = torch.from_numpy(_trigrams(spelled, buckets))
            self.register_buffer("grams", table, persistent=False)
            self.register_buffer("share", 1 / (table > 0).sum(1, keepdim=True).clamp_min(1).sqrt(), persistent=False)
            self.letters = nn.Embedding(buckets, width, padding_idx=0)
            nn.init.normal_(self.letters.weight, std=START)
            with torch.no_grad():
                self.letters.weight[0] = 0
        self.near, self.out = nn.Linear(3 * width, width), nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows tokens width"], Bool[Tensor, "rows tokens"]]:
        ids = cells["ids"]
        (n, k), mask = ids.shape, ids != PAD
        at, real = places(mask)  # padding is most of a batch; it costs nothing until the end
        used, place = ids.flatten()[at].unique(return_inverse=True)
        words = self.words(used)
        if self.letters is not None:  # each distinct token of the batch is spelled once
            words = words + self.letters(self.grams[used]).sum(1) * self.share[used]
        order, last = at % k, mask.sum(1)[at // k] - 1
        x = F.embedding(place, words) + self.positions[order]
        if "keep" in cells:
            x = x * cells["keep"].flatten()[at].unsqueeze(1)
        before, after = F.pad(x, (0, 0, 1, 0))[:-1], F.pad(x, (0, 0, 0, 1))[1:]
        near = torch.cat([before * (order > 0).unsqueeze(1), x, after * (order < last).unsqueeze(1)], 1)
        x = (x + self.out(F.gelu(self.near(near)))).to(working_dtype(self.positions))[:real]
        return x.new_zeros(n * k, x.shape[1]).index_copy(0, at[:real], x).view(n, k, -1), mask


def dropped(
    ids: Int[Tensor, "n tokens"], share: float, generator: torch.Generator
) -> tuple[Int[Tensor, "n fewer"], Int[Tensor, " n"]]:
    """Ids without a random share of each row's tokens, of which one stays at least, and their numbers."""
    chance = torch.rand(ids.shape, generator=generator).to(ids.device)
    chance = chance.masked_fill(ids == PAD, -1.0)
    keep = (chance > share) | (chance == chance.amax(1, keepdim=True)) & (ids != PAD)
    lengths = keep.sum(1)
    order = keep.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    longest = recurring(int(lengths.max()) if len(ids) else 1)
    return ids.masked_fill(~keep, PAD).gather(1, order)[:, :longest], lengths
