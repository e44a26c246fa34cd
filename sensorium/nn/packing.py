"""Lines of tokens side by side: many rows, each a line of its own length, in few long ones, so that padding costs nothing and nobody looks across.

It knows tokens, places and who may look at whom, nothing of columns.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch

NO_GROUP = -1
"""The group of a token that doesn't see those after it."""


@dataclasses.dataclass
class PackedSequences:
    """For each token [n]: the line it belongs to; its place in it; its segment, 0 for what is seen; and its group, whose tokens see one another both ways."""

    row: np.ndarray
    place: np.ndarray
    segment: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def place_in_line(self) -> np.ndarray:
        """Which token of its line each one is: asked segments stand one after the other, though each is placed right after what is seen."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.row))[:-1]])
        order = np.argsort(self.row, kind="stable")
        result = np.empty(len(self.row), np.int64)
        result[order] = np.arange(len(order)) - starts[self.row[order]]
        return result


def binned(lengths: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Lines of these lengths dealt out to bins, the longest first, each where it still fits: (bin of each line, where it begins there, size of a bin)."""
    size = max(int(lengths.max(initial=1)), least)
    order, bins, starts = (
        np.argsort(-lengths, kind="stable"),
        np.zeros(len(lengths), np.int64),
        np.zeros(len(lengths), np.int64),
    )
    filled: list[int] = []
    for line in order:
        found = next((number for number, used in enumerate(filled) if used + lengths[line] <= size), len(filled))
        if found == len(filled):
            filled.append(0)
        bins[line], starts[line] = found, filled[found]
        filled[found] += int(lengths[line])
    return bins, starts, max(filled, default=1)


@dataclasses.dataclass
class Packed:
    """Where each token goes [n] in bins of a size, positions [bins, size] and what may be looked at, bool [bins, size, size]."""

    to: torch.Tensor
    bins: int
    size: int
    positions: torch.Tensor
    allowed: torch.Tensor

    def fill(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [n, width] to bins [bins, size, width]."""
        return (
            tokens.new_zeros(self.bins * self.size, tokens.shape[1])
            .index_copy(0, self.to, tokens)
            .view(self.bins, self.size, -1)
        )

    def marked(self, which: np.ndarray) -> torch.Tensor:
        """The places of tokens [k], by number, bool [bins, size]."""
        marks = torch.zeros(self.bins * self.size, dtype=torch.bool, device=self.to.device)
        marks[self.to[torch.from_numpy(which).to(self.to.device)]] = True
        return marks.view(self.bins, self.size)

    def back(self, hidden: torch.Tensor) -> torch.Tensor:
        """The inverse of ``fill``."""
        return hidden.reshape(self.bins * self.size, -1).index_select(0, self.to)


def pack_lines(lines: PackedSequences, device: torch.device, least: int = 192) -> Packed:
    """Lines in bins of at least ``least`` tokens. A token sees what is seen of its line and stands before it, what of its own segment stands before it, and its group."""
    lengths = np.bincount(lines.row)
    bins, starts, size = binned(lengths, least)
    to = bins[lines.row] * size + starts[lines.row] + lines.place_in_line()
    count = int(bins.max(initial=0)) + 1
    columns = np.full((4, count * size), -1, np.int64)
    for number, values in enumerate((lines.row, lines.place, lines.segment, lines.group)):
        columns[number, to] = values
    row, place, segment, group = (torch.from_numpy(values).view(count, size).to(device) for values in columns)
    mine, other = (lambda x: x.unsqueeze(2)), (lambda x: x.unsqueeze(1))
    together = (mine(group) == other(group)) & (mine(group) >= 0)
    allowed = (
        (mine(row) == other(row))
        & ((other(segment) <= 0) | (mine(segment) == other(segment)))
        & ((other(place) <= mine(place)) | together)
    )
    return Packed(torch.from_numpy(to).to(device), count, size, place.clamp(min=0), allowed)


def reference(column: str, row: int = 0) -> int:
    """What stands among ids for a cell of a column, or of the first column of a kind: a number below 0. ``row``: so many rows after the one that the line is of."""
    return -1 - zlib.crc32(f"{column}\0{row}".encode() if row else column.encode()) % (1 << 30)
