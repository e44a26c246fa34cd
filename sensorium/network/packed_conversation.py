"""Packed conversations: the words of several rows in few long sequences, with tokens of cells that they refer to.

It knows encoded columns and lines of tokens, no table and no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.nn.losses import chunked_cross_entropy
from sensorium.nn.packing import NO_GROUP, PackedSequences


@runtime_checkable
class PackedCell(Protocol):
    """Encoded column as conversations need it: see ``network.types.Encoded``."""

    place: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    entered: bool


@dataclasses.dataclass
class PackedConversation:
    """Packed conversations of several rows: token i is ``pool[index[i]]``, in ``lines``.

    ``targets``: the id that a token is, where that is to be learned, or -1. ``recalled``: for each line what rows that
    are like its cells are called. ``near``: how near the nearest of them is, [lines, 2] (``nn.online_memory``), NaN
    where nothing was looked up.
    """

    pool: torch.Tensor
    index: np.ndarray
    lines: PackedSequences
    targets: np.ndarray
    recalled: list[list[str]] = dataclasses.field(default_factory=list)
    near: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens [n, k, width], which are there [n, k], and their groups."""
        n, k = int(self.lines.row.max()) + 1, int(self.lines.place.max()) + 1
        index, groups, there = np.zeros((n, k), np.int64), np.full((n, k), NO_GROUP), np.zeros((n, k), bool)
        at = self.lines.row, self.lines.place
        index[at], groups[at], there[at] = self.index, self.lines.group, True
        device = self.pool.device
        tokens = self.pool.index_select(0, torch.from_numpy(index.ravel()).to(device)).view(n, k, -1)
        return tokens, torch.from_numpy(there).to(device), torch.from_numpy(groups).to(device)


def pack(
    trunk: Any,
    lines: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    rows: np.ndarray,
    encoded: Mapping[str, PackedCell],
    columns: Mapping[int, tuple[str, int]],
    most: int = 0,
    beside: Mapping[tuple[int, int], int] | None = None,
) -> PackedConversation:
    """Packed conversation of lines of ids, which are below 0 where a cell stands, with the batch's rows they are of.

    Args:
        targets: for each line which ids are to be learned.
        columns: for each number below 0 the column it stands for, and how many rows after the line's the cell is. A
            cell that its row lacks is left out.
        most: tokens of a cell that are taken, the first ones; 0: all.
        beside: where rows after these stand, by a row and how many after it; None: they follow one another.
    """
    used = [
        column
        for column in dict.fromkeys(column for column, _ in columns.values())
        if column in encoded and encoded[column].tokens.shape[1]
    ]
    whole = np.concatenate(lines) if lines else np.zeros(0, np.int64)
    pool = [trunk.words(torch.from_numpy(whole.clip(min=0).astype(np.int64)).to(trunk.loud.device))]
    starts, start, first_of = {}, len(whole), np.cumsum([0, *map(len, lines)])
    for column in used:
        starts[column], start = start, start + encoded[column].tokens.shape[0] * encoded[column].tokens.shape[1]
        part = encoded[column]
        pool.append((part.tokens if part.entered else trunk.enter(part.tokens)).flatten(0, 1).to(pool[0].dtype))
    places = {column: encoded[column].place.cpu().numpy() for column in used}
    masks = {column: encoded[column].mask.cpu().numpy() for column in used}
    index, row_of, place, group, wanted = [], [], [], [], []
    for number, line in enumerate(lines):
        pieces, groups, marks, first = [], [], [], 0
        for at in [*np.flatnonzero(line < 0), len(line)]:
            pieces.append(first_of[number] + np.arange(first, at))
            groups.append(np.full(at - first, NO_GROUP))
            marks.append(np.where(targets[number][first:at], line[first:at], -1))
            first = at + 1
            column, later = columns.get(int(line[at]), ("", 0)) if at < len(line) else ("", 0)
            if column in starts and (cell := cell_of(places[column], int(rows[number]), later, beside)) >= 0:
                whole = encoded[column].entered  # a picture as LLaVA hears it: each of its patches after those before
                there = np.flatnonzero(masks[column][cell])[: None if whole else most or None]
                pieces.append(starts[column] + cell * masks[column].shape[1] + there)
                groups.append(np.full(len(there), NO_GROUP if whole else at))
                marks.append(np.full(len(there), -1))
        together = np.concatenate(pieces)
        index.append(together)
        row_of.append(np.full(len(together), number))
        place.append(np.arange(len(together)))
        group.append(np.concatenate(groups))
        wanted.append(np.concatenate(marks))
    row = np.concatenate(row_of)
    return PackedConversation(
        torch.cat(pool),
        np.concatenate(index),
        PackedSequences(row, np.concatenate(place), np.ones(len(row), np.int64), np.concatenate(group)),
        np.concatenate(wanted),
    )


def mean_losses(trunk: Any, made: PackedConversation) -> torch.Tensor:
    """Mean loss of each row's target tokens [n], each from all before it; 0 where a row has none."""
    sums, counts = summed_losses(trunk, made)
    return sums / counts.clamp_min(1)


def summed_losses(trunk: Any, made: PackedConversation) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss of each row's target tokens [n], and their number [n]."""
    count = int(made.lines.row.max()) + 1
    each, rows = token_losses(trunk, made)
    return each.new_zeros(count).index_add(0, rows, each), each.new_zeros(count).index_add(
        0, rows, torch.ones_like(each)
    )


def token_losses(trunk: Any, made: PackedConversation) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each target token [tokens], line by line, and the rows they are of [tokens]."""
    at = np.flatnonzero((made.targets >= 0) & (made.lines.place > 0))
    hidden = trunk.run(made.pool, made.index, made.lines).index_select(
        0, torch.from_numpy(at - 1).to(made.pool.device)
    )  # a line's tokens follow one another
    wanted, rows = (
        torch.from_numpy(made.targets[at]).to(hidden.device),
        torch.from_numpy(made.lines.row[at]).to(hidden.device),
    )
    return cross_entropy(trunk, hidden, wanted), rows


def last_hidden(trunk: Any, made: PackedConversation) -> torch.Tensor:
    """Hidden state of each line's last token, behind the language model [n, width]."""
    last = np.zeros(int(made.lines.row.max()) + 1, np.int64)
    last[made.lines.row] = np.arange(len(made.index))  # a line's tokens follow one another
    return trunk.run(made.pool, made.index, made.lines).index_select(0, torch.from_numpy(last).to(made.pool.device))


def cross_entropy(trunk: Any, hidden: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token [n]."""
    head = trunk.head[0]
    if type(head) is nn.Linear and head.bias is None:
        return chunked_cross_entropy.cross_entropy(hidden, head.weight, wanted, trunk.scale, trunk.cap)
    return chunked_cross_entropy.in_pieces(
        lambda h, w: F.cross_entropy(trunk.logits(h), w, reduction="none"),
        hidden,
        wanted,
        max(1, chunked_cross_entropy.MAX_LOGITS // trunk.vocabulary),
    )


def cell_of(places: np.ndarray, row: int, later: int, beside: Mapping[tuple[int, int], int] | None) -> int:
    """Index of the cell that a row, or one so many after it, has of a column; -1 where it has none, or there is no such
    row."""
    row = row + later if beside is None or not later else beside.get((row, later), -1)
    return int(places[row]) if 0 <= row < len(places) else -1


def resolve_references(
    names: Sequence[str], kinds: Mapping[str, str], referred: Mapping[int, tuple[str, int]]
) -> dict[int, tuple[str, int]]:
    """Columns that numbers below 0 stand for: the one of that name or the first of that kind, and how many rows
    later."""
    result = {}
    for number, (name, later) in referred.items():
        column = name if name in names else next((c for c in names if kinds[c] == name), None)
        if column is not None:
            result[number] = column, later
    return result
