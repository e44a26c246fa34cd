"""Cell gallery of a report: each cell is stored once, and no more of them than the file may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from sensorium.report.types import Retrieval, Show

LIGHT = 1500
"""Characters up to which a cell is written inline; a heavier one is stored once and put in place by the page."""
HEAVIEST = 1_500_000
"""Characters of the heaviest cell that is stored."""


class CellGallery:
    """Gallery of cells as HTML: ``place`` each where it is shown, ``settle`` which are stored, then write the page.

    Args:
        costs: ``Modality.display_cost`` of columns.

    Attributes:
        library: the heavy cells that were kept, by their name in the page.
        left_out: how many cells the file had no room for.
    """

    def __init__(self, show: Show, costs: Mapping[str, int]) -> None:
        self.show, self.costs = show, costs
        self.asked: dict[tuple[int, str], int] = {}
        self.made: dict[tuple[int, str], Markup] = {}
        self.library: dict[str, Markup] = {}
        self.left_out = 0

    def place(self, row: int, column: str, turn: int = 0) -> CellSlot:
        """Slot for a cell where it is to be shown; the lower its turn, the more important."""
        key = (int(row), column)
        self.asked[key] = min(turn, self.asked.get(key, turn))
        return CellSlot(self, key)

    def settle(self, room: int) -> None:
        """Make the cells that were asked for, the least costly first, then by turn, until so many letters are used."""
        usual: dict[str, float] = {}
        order = sorted(self.asked, key=lambda key: (self.costs.get(key[1], 0), self.asked[key]))
        for row, column in order:
            # A cell that will hardly fit isn't even made: sounds are slow to make.
            text = self.show(row, column) if usual.get(column, 0) <= max(room, LIGHT) else None
            if text is not None and len(text) <= LIGHT:
                room -= len(text)
                self.made[row, column] = Markup(text or '<span class="none">missing</span>')
                continue
            if text is not None:
                usual[column] = 0.75 * usual.get(column, len(text)) + 0.25 * len(text)
            if text is None or len(text) > min(room, HEAVIEST):
                self.left_out += 1
                self.made[row, column] = Markup('<span class="none">left out, to keep this file small</span>')
                continue
            room -= len(text)
            name = f"cell{len(self.library)}"
            self.library[name] = Markup(text)
            self.made[row, column] = Markup(f'<span data-cell="{name}"></span>')


@dataclasses.dataclass
class CellSlot:
    """Slot of a cell in the page; as HTML it is what was settled for it."""

    cells: CellGallery
    key: tuple[int, str]

    def __html__(self) -> str:
        return self.cells.made[self.key]


def split(direction: str, columns: Sequence[str]) -> tuple[str, str]:
    """The two columns of "a>b"; a name may hold the sign itself."""
    for at in (i for i, letter in enumerate(direction) if letter == ">"):
        if direction[:at] in columns and direction[at + 1 :] in columns:
            return direction[:at], direction[at + 1 :]
    a, _, b = direction.partition(">")
    return a, b


def examples(found: Retrieval, wanted: int = 12) -> list[int]:
    """Example queries that succeed, nearly succeed and fail.

    A third each where there are so many, evenly spread in each.
    """
    rank = np.asarray(found.rank)
    groups = [np.flatnonzero(rank <= 1), np.flatnonzero((rank > 1) & (rank <= 10)), np.flatnonzero(rank > 10)]
    shares, left = [0, 0, 0], min(wanted, len(rank))
    while left:
        for number, group in enumerate(groups):
            if left and shares[number] < len(group):
                shares[number] += 1
                left -= 1
    chosen = []
    for group, share in zip(groups, shares, strict=True):
        if share:
            group = group[np.argsort(rank[group], kind="stable")]
            chosen += (
                group[np.linspace(0, len(group) - 1, share).astype(int)].tolist()
                if share > 1
                else [int(group[len(group) // 2])]
            )
    return chosen
