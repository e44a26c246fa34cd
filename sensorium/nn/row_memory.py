"""Retrieval memory of rows: refines a gist by what similar rows hold in their other columns, and an answer by their
answers.

"Retrieval-enhanced contrastive vision-text models" (Iscen et al. 2023, arXiv 2306.07196) looks for neighbours in the
query's own modality and fuses what they hold in the other one; attention over stored patterns is that of "Hopfield
networks is all you need" (arXiv 2008.02217). Here nothing is trained: gists of one training share one space, so what
the neighbours hold is added.

Neighbours are sought by gist, and where cells have a sketch (an untrained similarity, as of the words of a text) by
that as well: of a new thing the gist is a guess, its words are not. Search does best with both, as in "BEIR" (Thakur et
al. 2021, arXiv 2104.08663). The rows' tokens of an asked column are mixed into its answer as in "Generalization through
memorization" (Khandelwal et al. 2020, arXiv 1911.00172, eq. 3). This file knows gists, sketches and tokens by column,
nothing of cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

MAX_QUERY_ROWS = 512
"""Gists that query at once, so that memory doesn't grow with their number."""


@dataclasses.dataclass(frozen=True)
class MemoryAnswer:
    """Answer of remembered rows to one asked column of n rows.

    Attributes:
        targets: the column's tokens in the remembered rows, [m, ...].
        weights: similarity weight of each of these for each row, [n, m]: 0 where it lacks the column; a row's sum is 1,
            or 0 where nothing of it is seen to go by.
        share: weight in the mixture, the network has the rest.
        margin: calibration of such answers, in place of the generator's own; None: that one.
    """

    targets: Shaped[Tensor, "m ..."]
    weights: Float[Tensor, "n m"]
    share: float
    margin: Float[Tensor, " ..."] | None = None


class RowMemory(nn.Module):
    """Gists of some rows, by column.

    Args:
        gists: for each column unit vectors [rows, gist], zeros where a row lacks it.
        sharpness: inverse temperature of the softmax over cosines.
        strength: weight of what is retrieved by gists beside the querying gist.
        sketches: for some of the columns unit vectors [rows, sketch].
        trust: the same as ``strength`` for what is retrieved by sketches.
        targets: for columns that can be asked their tokens [rows, ...], and which rows have them [rows].
        shares: for some of these the weight of the rows' tokens in an answer, 0 to 1.
        by: the columns by which rows are compared for it.
        margins: see ``MemoryAnswer``.
    """

    known: Tensor
    present: Tensor

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
        """Stored sketches, by column."""
        return {column: getattr(self, f"sketches_{number}") for number, column in enumerate(self.sketched)}

    def targets(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Stored tokens and which rows have them, by column."""
        return {
            column: (getattr(self, f"tokens_{number}"), getattr(self, f"have_{number}"))
            for number, column in enumerate(self.asked_columns)
        }

    def needed(self) -> RowMemory | None:
        """Smallest memory that gives the same results; None where an empty one does."""
        targets = {c: stored for c, stored in self.targets().items() if self.shares.get(c) and self.by.get(c)}
        if not (self.strength or self.trust or targets):
            return None
        return RowMemory(
            dict(zip(self.columns, self.known, strict=True)),
            self.sharpness,
            self.strength,
            self.sketches() if self.trust else None,
            self.trust,
            targets,
            {c: share for c, share in self.shares.items() if c in targets},
            {c: names for c, names in self.by.items() if c in targets},
            {c: margin for c, margin in self.margins.items() if c in targets},
        )

    def answer(
        self, column: str, seen: Mapping[str, tuple[Tensor, Tensor]], share: float | None = None
    ) -> MemoryAnswer | None:
        """Answer of the remembered rows to an asked column; None where they don't count.

        The similarity of a row and a remembered one is the mean cosine of those columns in ``by`` that are seen of it.
        Where the remembered one lacks a column, the mean of such cells' cosines stands in; one that lacks them all
        counts nothing.

        Args:
            column: the asked column.
            seen: gists [n, gist] by column, and in which of the n rows it is seen [n].
            share: in place of ``shares``.
        """
        share = self.shares.get(column, 0.0) if share is None else share
        looked = {c: part for c, part in seen.items() if c in self.by.get(column, ())}
        if not share or column not in self.asked_columns or not looked:
            return None
        tokens, have = self.targets()[column]
        like, both = 0.0, torch.zeros_like(have).unsqueeze(0)
        for name, (gist, here) in looked.items():
            known, has = self.known[self.columns.index(name)].float(), self.present[self.columns.index(name)]
            cosine = gist.float() @ known.T
            mean = cosine.sum(1, keepdim=True) / has.sum().clamp(min=1)
            like = like + torch.where(has, cosine, mean) * here.unsqueeze(1)
            both = both | (here.unsqueeze(1) & has & have)
        n_seen = torch.stack([here for _, here in looked.values()]).sum(0).unsqueeze(1)
        margin = self.margins.get(column)
        return MemoryAnswer(
            tokens,
            self.weighed(like / n_seen.clamp(min=1), both),
            share,
            None if margin is None else tokens.new_tensor(margin, dtype=torch.float32),
        )

    def weighed(self, like: Float[Tensor, "n rows"], both: Bool[Tensor, "n rows"]) -> Float[Tensor, "n rows"]:
        """Weights of cosines [n, rows]: 0 where not ``both`` have anything to compare, else a softmax."""
        return (self.sharpness * like).masked_fill(~both, -1e9).softmax(1) * both

    def among_themselves(self, column: str, by: str, most: int) -> Iterator[tuple[Tensor, MemoryAnswer, Tensor]]:
        """Leave-one-out answers of the remembered rows to one another, compared by one column, in parts.

        Yields:
            Rows that have both columns, evenly spread over all and about ``most`` of them together; the other rows'
                answer to them; and which rows those are [rows, m].
        """
        tokens, have = self.targets()[column]
        both, keys = self.present[self.columns.index(by)] & have, self.known[self.columns.index(by)].float()
        asked = both.nonzero().squeeze(1)
        for rows in asked[:: max(1, len(asked) // most)].split(MAX_QUERY_ROWS):
            others = both.expand(len(rows), -1).scatter(1, rows.unsqueeze(1), False)
            yield rows, MemoryAnswer(tokens, self.weighed(keys[rows] @ keys.T, others), 1.0), others

    def forward(
        self, column: str, gist: Float[Tensor, "n gist"], sketch: Float[Tensor, "n sketch"] | None = None
    ) -> Float[Tensor, "n gist"]:
        """Refined unit vectors [n, gist] of a column; unchanged where no remembered row has it and others.

        Args:
            column: of the gists.
            gist: unit vectors [n, gist].
            sketch: unit vectors [n, sketch] of the same cells, zeros where a cell has none.
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
