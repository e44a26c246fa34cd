"""Online memory: trained rows that can be looked up while training goes on, gists of cells with the words of their
rows.

It knows unit vectors, keys and bytes, nothing of columns. It consists of buffers, so that they are saved with the
model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SIMILARITY_WEIGHT = 6.0
"""Weight of the untrained similarity, in standard deviations over the known rows, beside the trained one."""
MAX_BYTES = 64
"""Bytes of a text that are stored."""


class OnlineMemory(nn.Module):
    """Ring buffer of rows by the gist of one of their cells, each with the gist and the words of another.

    Args:
        gist: size of a gist.
        size: rows that are stored, the newest ones where there are more.
        similarity_size: size of vectors by which cells are alike before training; 0: there are none.
    """

    seen_gists: Tensor
    answer_gists: Tensor
    similarity_features: Tensor
    letters: Tensor
    keys: Tensor
    count: Tensor

    def __init__(self, gist: int, size: int, similarity_size: int = 0) -> None:
        super().__init__()
        self.register_buffer("seen_gists", torch.zeros(size, gist))
        self.register_buffer("answer_gists", torch.zeros(size, gist))
        self.register_buffer("similarity_features", torch.zeros(size, similarity_size))
        self.register_buffer("letters", torch.zeros(size, MAX_BYTES, dtype=torch.uint8))
        self.register_buffer("keys", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.where: dict[int, int] | None = None

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        super()._load_from_state_dict(*given, **named)
        self.where = None

    @torch.no_grad()
    def store(
        self,
        keys: Int[Tensor, " n"],
        seen_gists: Float[Tensor, "n gist"],
        answer_gists: Float[Tensor, "n gist"] | None,
        words: list[str],
        similarity_features: Float[Tensor, "n size"] | None = None,
    ) -> None:
        """Store rows by the keys [n] of their cells, in place of those of the same key.

        Args:
            keys: [n].
            seen_gists: gists [n, gist] of the cells that are looked up.
            answer_gists: gists [n, gist] of the cells that hold the words, where they have one.
            words: the words of each row.
            similarity_features: [n, similarity_size].
        """
        if self.where is None:
            self.where = {
                int(key): place for place, key in enumerate(self.keys[: min(int(self.count), len(self.keys))])
            }
        places = []
        for key in keys.tolist():
            place = self.where.get(key)
            if place is None:
                place = int(self.count) % len(self.keys)
                if int(self.count) >= len(self.keys):
                    self.where.pop(int(self.keys[place]), None)
                self.count += 1
                self.where[key], self.keys[place] = place, key
            places.append(place)
        at = torch.tensor(places, device=self.seen_gists.device)
        self.seen_gists[at] = seen_gists.float()
        self.answer_gists[at] = 0.0 if answer_gists is None else answer_gists.float()
        if similarity_features is not None:
            self.similarity_features[at] = similarity_features.float()
        raw = [word.encode()[:MAX_BYTES] for word in words]
        self.letters[at] = torch.tensor(
            [[*text, *[0] * (MAX_BYTES - len(text))] for text in raw], dtype=torch.uint8, device=at.device
        )

    @torch.no_grad()
    def most_similar(
        self,
        seen_gists: Float[Tensor, "n gist"],
        count: int,
        keys: Int[Tensor, " n"] | None = None,
        similarity_features: Float[Tensor, "n size"] | None = None,
        alike: Callable[[Tensor, Tensor], Tensor] = torch.inner,
    ) -> tuple[list[list[str]], Float[Tensor, "n 2"]]:
        """Words of the rows nearest to some gists, most similar first, without duplicates.

        Args:
            seen_gists: [n, gist].
            count: words of a gist, at most.
            keys: [n]; a row of the same key is left out.
            similarity_features: [n, similarity_size], compared by ``alike``.

        Returns:
            The words; and the largest similarity, [n, 2], by gist and by ``alike``: NaN where no row is known.
        """
        filled = min(int(self.count), len(self.keys))
        if not filled or not len(seen_gists):
            return [[] for _ in seen_gists], torch.full((len(seen_gists), 2), float("nan"))
        near = seen_gists.float() @ (self.seen_gists[:filled] + self.answer_gists[:filled]).T
        akin = (
            None
            if similarity_features is None
            else alike(similarity_features.float(), self.similarity_features[:filled])
        )
        own = torch.zeros_like(near, dtype=torch.bool) if keys is None else keys.unsqueeze(1) == self.keys[:filled]
        nearest = torch.stack(
            [
                torch.zeros(len(near), device=near.device)
                if each is None
                else each.masked_fill(own, float("-inf")).amax(1)
                for each in (near, akin)
            ],
            1,
        ).cpu()
        nearest = nearest.where(nearest.isfinite(), torch.tensor(float("nan")))
        if akin is not None:
            near = standard(near) + SIMILARITY_WEIGHT * standard(akin)
        best = near.masked_fill(own, float("-inf")).topk(min(filled, 4 * count), 1)
        result = []
        for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            words = [self.words(place) for place, value in zip(places, values, strict=True) if value > float("-inf")]
            result.append(list(dict.fromkeys(word for word in words if word))[:count])
        return result, nearest

    def words(self, place: int) -> str:
        """Words of a stored row."""
        return bytes(self.letters[place].tolist()).rstrip(b"\0").decode("utf-8", "ignore")


def standard(near: Float[Tensor, "n known"]) -> Float[Tensor, "n known"]:
    """Rows [n, known] standardised to mean 0 and deviation 1."""
    return (near - near.mean(1, keepdim=True)) / near.std(1, keepdim=True, correction=0).clamp_min(1e-6)
