"""Shared types: the specification of a segment's tokens, the profile of a column, and a modality's claim on one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

LAST_RANK = 9
"""``Modality.display_rank`` of columns that people look at last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Specification of the tokens of an asked segment.

    A modality gives one of these; a generator is built from it. Either ``vocabulary`` (ids) or ``width`` (vectors)
    is set, never both.

    Attributes:
        length: how many tokens a segment has (the longest, for ragged ones).
        vocabulary: number of ids, 0 for vectors. Id 0 is padding for sequences, "unseen" for categories.
        width: size of a vector token, 0 for ids.
        ordered: True where each token follows from those before (text), False where all stand side by side.
        timed: True where they follow one another in time, so that the rest may be asked from a beginning (vectors
            only).
        end: id that ends a sequence, -1 where there is none.
        grid, patch: for vectors that are patches side by side, how many there are along each dimension and how large
            each is; a vector's numbers are those of its patch, row by row, channels last. Empty where they have no
            such order.
    """

    length: int
    vocabulary: int = 0
    width: int = 0
    ordered: bool = False
    timed: bool = False
    end: int = -1
    grid: tuple[int, ...] = ()
    patch: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.grid and (
            math.prod(self.grid) != self.length
            or len(self.grid) != len(self.patch)
            or self.width % math.prod(self.patch)
        ):
            raise ValueError(
                f"a grid of {self.grid} patches of {self.patch} has not {self.length} vectors of {self.width}"
            )
        if bool(self.vocabulary) == bool(self.width):
            raise ValueError("tokens are ids of a vocabulary or vectors of a width: give exactly one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Profile of a column before its modality is known: a sample of its cells and counts over all that was looked at.

    Attributes:
        name: the column's name.
        type: the Arrow type in words, such as "string", "int64", "list<double>", "binary".
        sample: up to a few thousand cells that are present, as Python objects; a media path stays a string.
        present: cells present among ``rows``.
        rows: rows looked at.
        distinct: distinct values among the present ones (0 where values can't be hashed).
        heads: first bytes of media cells in the sample (of the file, where the cell is a path), empty else.
    """

    name: str
    type: str
    sample: list[Any]
    present: int
    rows: int
    distinct: int
    heads: list[bytes] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A modality's claim on a column: how sure it is (0 to 1) and the reason in words, shown to the user.

    ``settings``: those that suit the cells seen, where the user sets nothing for the column. ``form``: how its cells
    are written, which holds whatever else the user sets.
    """

    sure: float
    why: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    form: dict[str, Any] = dataclasses.field(default_factory=dict)


Norm = Literal["group", "layer", "weight", "batch", "none"]
"""Norms of convolutions (``nn.conv``)."""
Ragged = Literal["layer", "weight", "batch", "none"]
"""Norms for rows of different lengths: one over all positions would make a row's tokens depend on its padding."""
