"""Sequence packing: variable-length rows in few long sequences, so that padding costs nothing and attention never
crosses rows.

It knows tokens, positions and masks, nothing of columns.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NO_GROUP = -1
"""Group of a token that doesn't see those after it."""


@dataclasses.dataclass
class PackedSequences:
    """Layout of packed tokens, for each token [n]: ``row``, the sequence it belongs to; ``place``, its position in it;
    ``segment``, 0 for what is seen; and ``group``, whose tokens see one another both ways."""

    row: np.ndarray
    place: np.ndarray
    segment: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def place_in_line(self) -> np.ndarray:
        """Rank of each token in its sequence: asked segments stand one after the other, though each is placed right
        after what is seen."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.row))[:-1]])
        order = np.argsort(self.row, kind="stable")
        result = np.empty(len(self.row), np.int64)
        result[order] = np.arange(len(order)) - starts[self.row[order]]
        return result


def binned(lengths: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, int]:
    """First-fit-decreasing bin packing: sequences of these lengths put into bins, the longest first.

    Returns:
        The bin of each sequence, its start there, and the size of a bin.
    """
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
    """Packed batch: index of each token [n] in bins of a size, positions [bins, size] and attention mask, bool [bins,
    size, size]."""

    to: Int[Tensor, " n"]
    bins: int
    size: int
    positions: Int[Tensor, "bins size"]
    allowed: Bool[Tensor, "bins size size"]

    def fill(self, tokens: Float[Tensor, "n width"]) -> Float[Tensor, "bins size width"]:
        """Tokens [n, width] to bins [bins, size, width]."""
        return (
            tokens.new_zeros(self.bins * self.size, tokens.shape[1])
            .index_copy(0, self.to, tokens)
            .view(self.bins, self.size, -1)
        )

    def marked(self, which: np.ndarray) -> Bool[Tensor, "bins size"]:
        """Mask, bool [bins, size], of tokens by number [k]."""
        marks = torch.zeros(self.bins * self.size, dtype=torch.bool, device=self.to.device)
        marks[self.to[torch.from_numpy(which).to(self.to.device)]] = True
        return marks.view(self.bins, self.size)

    def back(self, hidden: Float[Tensor, "bins size width"]) -> Float[Tensor, "n width"]:
        """The inverse of ``fill``."""
        return hidden.reshape(self.bins * self.size, -1).index_select(0, self.to)


def pack_lines(lines: PackedSequences, device: torch.device, least: int = 192) -> Packed:
    """Packed batch of sequences in bins of at least ``least`` tokens.

    A token sees the seen tokens of its sequence that stand before it, those of its own segment before it, and its
    group.
    """
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
    """Placeholder id, below 0, of a cell of a column, or of the first column of a kind, among token ids.

    Args:
        row: so many rows after the one that the sequence is of.
    """
    return -1 - zlib.crc32(f"{column}\0{row}".encode() if row else column.encode()) % (1 << 30)
