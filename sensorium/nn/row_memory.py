"""A memory of rows: a gist leans towards what rows like it hold in their other columns, and an answer towards what they say.

"Retrieval-enhanced contrastive vision-text models" (Iscen et al. 2023, arXiv 2306.07196) looks for neighbours in the query's own
modality and fuses what they hold in the other one; attention over stored patterns is that of "Hopfield networks is all you
need" (arXiv 2008.02217). Here it learns nothing: gists of one training share one space, so what the neighbours hold is added.

Neighbours are sought by gist, and where cells have a sketch (what they are alike by before anything is learned, as the words
of a text) by that as well: of a new thing the gist is a guess, its words are not. Search does best with both, as in "BEIR"
(Thakur et al. 2021, arXiv 2104.08663). What the rows say of an asked column is mixed into its answer as in "Generalization through
memorization" (Khandelwal et al. 2020, arXiv 1911.00172, eq. 3). This file knows gists, sketches and tokens by column, nothing of cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_QUERY_ROWS = 512
"""Gists that look around at once, so that memory doesn't grow with their number."""


@dataclasses.dataclass(frozen=True)
class MemoryAnswer:
    """What remembered rows say of one asked column of n rows.

    Attributes:
        targets: the column's tokens in the remembered rows, [m, ...].
        weights: how much each of these is like each row, [n, m]: 0 where it lacks the column; a row's sum is 1, or 0 where it shows
            nothing to go by.
        share: what they count in the answer, the network the rest.
        margin: how such answers are calibrated, in place of how the generator does it without; None: as that.
    """

    targets: Tensor
    weights: Tensor
    share: float
    margin: Tensor | None = None


class RowMemory(nn.Module):
    """Gists of some rows, by column.

    Args:
        gists: for each column unit vectors [rows, gist], zeros where a row lacks it.
        sharpness: of the softmax over cosines.
        strength: what is found by gists counts so much beside the gist that looks.
        sketches: for some of the columns unit vectors [rows, sketch].
        trust: the same as ``strength`` for what is found by sketches.
        targets: for columns that can be asked their tokens [rows, ...], and which rows have them [rows].
        shares: for some of these what the rows' tokens count in an answer, 0 to 1; by: the columns by which a row is like them then;
            margins: see ``Recalled``.
    """

    def __init__(
        self,
        gists: Mapping[str, Tensor],
        sharpness: float,
        strength: float,
        sketches: Mapping[str, Tensor] | None = None,
        trust: float = 0.0,
        targets: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        shares: Mapping[str, float] | None = None,
        by: Mapping[str, Sequence[str]] | None = None,
        margins: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.columns, self.sharpness, self.strength, self.trust = (
            list(gists),
            float(sharpness),
            float(strength),
            float(trust),
        )
        self.asked_columns, self.shares, self.by = (
            list(targets or ()),
            dict(shares or {}),
            {c: list(names) for c, names in (by or {}).items()},
        )
        self.margins = {column: list(margin) for column, margin in (margins or {}).items()}
        self.register_buffer("known", torch.stack([gists[column].half() for column in self.columns]), persistent=False)
        self.register_buffer("present", self.known.abs().sum(2) > 0, persistent=False)
        self.sketched = list(sketches or ())
        for number, column in enumerate(self.sketched):
            self.register_buffer(f"sketches_{number}", (sketches or {})[column].half(), persistent=False)
        for number, column in enumerate(self.asked_columns):
            tokens, have = (targets or {})[column]
            self.register_buffer(f"tokens_{number}", tokens, persistent=False)
            self.register_buffer(f"have_{number}", have, persistent=False)

    def sketches(self) -> dict[str, Tensor]:
        """The sketches that are remembered, by column."""
        return {column: getattr(self, f"sketches_{number}") for number, column in enumerate(self.sketched)}

    def targets(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The tokens that are remembered and which rows have them, by column."""
        return {
            column: (getattr(self, f"tokens_{number}"), getattr(self, f"have_{number}"))
            for number, column in enumerate(self.asked_columns)
        }

    def needed(self) -> RowMemory | None:
        """A memory of no more than what changes anything; None where nothing does."""
        targets = {c: stored for c, stored in self.targets().items() if self.shares.get(c) and self.by.get(c)}
        if not (self.strength or self.trust or targets):
            return None
        mine = [
            {c: value for c, value in all_.items() if c in targets} for all_ in (self.shares, self.by, self.margins)
        ]
        return RowMemory(
            dict(zip(self.columns, self.known, strict=True)),
            self.sharpness,
            self.strength,
            self.sketches() if self.trust else None,
            self.trust,
            targets,
            *mine,
        )

    def answer(
        self, column: str, seen: Mapping[str, tuple[Tensor, Tensor]], share: float | None = None
    ) -> MemoryAnswer | None:
        """What the remembered rows say of an asked column; None where they don't count.

        A row is as like a remembered one as the mean cosine of those columns in ``by`` that it shows says; what the remembered one
        lacks is taken to be as like as such cells are on average, and one that lacks them all says nothing.

        Args:
            seen: gists [n, gist] by column, and which of the n rows show it [n].
            share: in place of ``shares``.
        """
        share = self.shares.get(column, 0.0) if share is None else share
        looked = {c: part for c, part in seen.items() if c in self.by.get(column, ())}
        if not share or column not in self.asked_columns or not looked:
            return None
        tokens, have = self.targets()[column]
        like, n_seen, both = 0.0, 0, torch.zeros_like(have).unsqueeze(0)
        for name, (gist, here) in looked.items():
            known, has = self.known[self.columns.index(name)].float(), self.present[self.columns.index(name)]
            cosine = gist.float() @ known.T
            mean = cosine.sum(1, keepdim=True) / has.sum().clamp(min=1)
            like = like + torch.where(has, cosine, mean) * here.unsqueeze(1)
            n_seen = n_seen + here.unsqueeze(1)
            both = both | (here.unsqueeze(1) & has & have)
        margin = self.margins.get(column)
        return MemoryAnswer(
            tokens,
            self.weighed(like / n_seen.clamp(min=1), both),
            share,
            None if margin is None else tokens.new_tensor(margin, dtype=torch.float32),
        )

    def weighed(self, like: Tensor, both: Tensor) -> Tensor:
        """Cosines [n, rows] to weights: 0 where not ``both`` have anything to compare, else a softmax."""
        return (self.sharpness * like).masked_fill(~both, -1e9).softmax(1) * both

    def among_themselves(self, column: str, by: str, most: int) -> Iterator[tuple[Tensor, MemoryAnswer, Tensor]]:
        """What the other remembered rows, likened by one column, say of an asked one to each that has both, by parts: which rows are
        spoken to, evenly spread over all and about ``most`` of them, what they are told, and by whom [rows, m]."""
        tokens, have = self.targets()[column]
        both, keys = self.present[self.columns.index(by)] & have, self.known[self.columns.index(by)].float()
        asked = both.nonzero().squeeze(1)
        for rows in asked[:: max(1, len(asked) // most)].split(MAX_QUERY_ROWS):
            others = both.expand(len(rows), -1).scatter(1, rows.unsqueeze(1), False)
            yield rows, MemoryAnswer(tokens, self.weighed(keys[rows] @ keys.T, others), 1.0), others

    def forward(self, column: str, gist: Tensor, sketch: Tensor | None = None) -> Tensor:
        """Unit vectors [n, gist] of a column, refined; as they are where no row that is remembered has it and others.

        Args:
            gist: unit vectors [n, gist]; sketch: unit vectors [n, sketch] of the same cells, zeros where a cell has none.
        """
        looked = (
            [(self.strength, gist, self.known[self.columns.index(column)])]
            if self.strength and column in self.columns
            else []
        )
        if self.trust and sketch is not None and column in self.sketched:
            looked.append((self.trust, sketch, self.sketches()[column]))
        if not looked or not len(gist):
            return gist
        own = self.known[self.columns.index(column)].float()
        others = self.known.sum(0, dtype=torch.float32) - own
        able = self.present[self.columns.index(column)] & (others.abs().sum(1) > 1e-3)
        if not able.any():
            return gist
        values, result = F.normalize(others[able], dim=1), gist.float()
        for strength, query, keys in looked:
            keys = keys[able].float()
            found = torch.cat(
                [(self.sharpness * part.float() @ keys.T).softmax(1) @ values for part in query.split(MAX_QUERY_ROWS)]
            )
            has = query.abs().sum(1, keepdim=True) > 0
            result = result + strength * has * F.normalize(found, dim=1)
        return F.normalize(result, dim=1)
