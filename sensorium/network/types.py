"""Types that pass between data, trainer and network: plans, encoded columns, losses of segments."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import torch


@dataclasses.dataclass(frozen=True)
class ColumnFacts:
    """Facts about a network's columns, as a sampler of questions and a server need them.

    Attributes:
        columns: all of them, in the network's order; matched: those with a gist that is matched.
        asked: those that can be asked. short: of these, predicted by one token; long: by several.
        generators: for each column that is generated, the names of its generators, the first one first.
        dialogue: columns of conversations. modality: the name of each column's modality.
        language_model: the trunk is one.
    """

    columns: tuple[str, ...]
    matched: tuple[str, ...]
    asked: tuple[str, ...]
    short: tuple[str, ...]
    long: tuple[str, ...]
    generators: Mapping[str, tuple[str, ...]]
    dialogue: tuple[str, ...]
    modality: Mapping[str, str]
    language_model: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """Plan of one pass of the trunk: which columns some rows of a batch show, and which they are asked.

    Attributes:
        rows: which rows of the batch, [n].
        seen: columns shown; asked: columns to be predicted or generated. A column in neither is simply not there.
        generator_name: the generator, where a column has several; None: its first.
        detached: the loss trains only the generator of what is asked.
    """

    rows: torch.Tensor
    seen: tuple[str, ...]
    asked: tuple[str, ...]
    generator_name: str | None = None
    detached: bool = False

    def to(self, device: torch.device | str) -> Plan:
        """Copy on another device."""
        return dataclasses.replace(self, rows=self.rows.to(device, non_blocking=True))


@dataclasses.dataclass
class Encoded:
    """Encoded column of a batch.

    Attributes:
        index: which rows of the batch have it, [n].
        place: for every row of the batch where it stands in ``index``, -1 where the row lacks the column.
        tokens: [n, k, width] with the column's mark, ready for the trunk; mask: [n, k].
        gist: unit vectors [n, gist] of the column by itself; None where the column isn't matched.
        similarity: features [n, any] by whose similarity conversations look cells up; None where there are none.
        patches: [n, k, features] of pictures that stand so in conversations (``Image.llava``); None of all else.
        entered: tokens are in the language model's width already.
    """

    index: torch.Tensor
    place: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    gist: torch.Tensor | None
    similarity: torch.Tensor | None = None
    patches: torch.Tensor | None = None
    entered: bool = False


@dataclasses.dataclass
class SegmentLoss:
    """Losses of one plan for one asked column: one of each row that has it, and the generator where it isn't
    the first."""

    column: str
    seen: tuple[str, ...]
    loss: torch.Tensor
    generator_name: str | None = None


@dataclasses.dataclass
class FusedGist:
    """Fused gists [n, gist] of what a plan saw together, and the batch's rows they belong to."""

    rows: torch.Tensor
    seen: tuple[str, ...]
    gist: torch.Tensor


@dataclasses.dataclass(frozen=True)
class IgnoredColumns:
    """Feature selection for one answer: columns that mislead, or add nothing to others.

    They are left out in rows that have all columns that are needed to do without them.

    Attributes:
        columns: what is left out; needed: what a row must have for that.
    """

    columns: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    def left_out(self, encoded: Mapping[str, Encoded]) -> dict[str, Encoded]:
        """Encoded columns without those that an answer ignores; a row that has nothing else keeps all."""
        if not set(self.columns) & set(encoded):
            return dict(encoded)
        others = [part.place >= 0 for column, part in encoded.items() if column not in self.columns]
        nothing = torch.zeros_like(next(iter(encoded.values())).place, dtype=torch.bool)
        served = torch.stack([nothing, *others]).any(0)
        for column in self.needed:
            served = served & (encoded[column].place >= 0 if column in encoded else nothing)
        return {
            column: dataclasses.replace(part, place=part.place.masked_fill(served, -1))
            if column in self.columns
            else part
            for column, part in encoded.items()
        }


def slug(column: str, number: int) -> str:
    """Module name of a column: readable, unique, without dots."""
    return f"{number}_" + re.sub(r"\W+", "_", column)[:40]
