"""Dialogue head: what conversations need of a network, as cells among the language model's tokens, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import unknown
from sensorium.core.registry import name_of
from sensorium.modalities._capabilities import Dialogue, Generable
from sensorium.network.batch import Batch
from sensorium.network.encoding import rows_of
from sensorium.network.packed_conversation import PackedConversation, cell_of, mean_losses, pack, resolve_references
from sensorium.network.types import Encoded, SegmentLoss
from sensorium.nn.feature_projection import PatchProjector
from sensorium.nn.online_memory import OnlineMemory
from sensorium.nn.packing import reference
from sensorium.nn.stem import Cells, Stem
from sensorium.trunks import Trunk

Later = Mapping[tuple[int, int], int]
"""Where in a batch the rows after a conversation's own stand, by its row and how many rows after it."""


class DialogueHead(nn.Module):
    """Dialogue head: projectors of pictures' patches, and online memories of what rows are called.

    Args:
        modalities: the network's columns. stem_key, stems: of each column its stem. trunk: the language model.
        gist: size of a gist.
    """

    def __init__(
        self,
        modalities: Mapping[str, Any],
        stem_key: Mapping[str, str],
        stems: nn.ModuleDict,
        trunk: Trunk,
        gist: int,
    ) -> None:
        super().__init__()
        self.modalities, self.stem_key, self.columns = dict(modalities), dict(stem_key), list(modalities)
        self.shared = (trunk, stems)  # in a tuple, as these are modules of the network, not of this head
        self.projectors = nn.ModuleDict(
            {
                stem_key[column]: PatchProjector(
                    modality.encoder.width,
                    trunk.embedding_size,
                    first_tokens(stems[stem_key[column]]),
                    modality.encoder.patches,
                )
                for column, modality in modalities.items()
                if modality.llava
            }
        )
        self.online_memories = nn.ModuleDict(
            {
                stem_key[name]: OnlineMemory(gist, modality.remembered, as_stem(stems[stem_key[name]]).similarity_size)
                for column, modality in modalities.items()
                if isinstance(modality, Dialogue)
                for name in self.lookup_columns(column)
            }
        )
        self.reference_cache: dict[int, dict[int, tuple[str, int]]] = {}

    def dialogue_modality(self, column: str) -> Dialogue:
        """Modality of a column of conversations."""
        modality = self.modalities[column]
        assert isinstance(modality, Dialogue), f"column '{column}' holds no conversations"
        return modality

    def projector(self, key: str) -> PatchProjector | None:
        """Projector of the patches of a stem's pictures; None where they don't stand so in conversations."""
        found = self.projectors[key] if key in self.projectors else None  # noqa: SIM401  # a ModuleDict has no get
        assert found is None or isinstance(found, PatchProjector)
        return found

    def online_memory(self, column: str) -> OnlineMemory:
        """Memory of what rows with similar cells of a column are called."""
        found = self.online_memories[self.stem_key[column]]
        assert isinstance(found, OnlineMemory)
        return found

    def lookup_columns(self, column: str) -> list[str]:
        """Columns whose cells bring along, where conversations of ``column`` refer to them, the names of
        similar rows."""
        dialogue = self.dialogue_modality(column)
        if not dialogue.recall:
            return []
        if dialogue.recall not in self.columns:
            raise unknown(f"column in column.{column}.recall:", dialogue.recall, self.columns)
        return [
            c
            for c in self.columns
            if c != dialogue.recall
            and self.modalities[c].matched
            and {c, name_of(self.modalities[c])} & dialogue.referred
        ]

    def remember_batch(self, column: str, batch: Batch, encoded: Mapping[str, Encoded]) -> None:
        """Store what the rows of a batch are called, by the gists of their cells."""
        named_by = self.dialogue_modality(column).recall
        names = encoded.get(named_by)
        for looked_up in self.lookup_columns(column) if names is not None else ():
            part = encoded.get(looked_up)
            if part is None or names is None:
                continue
            assert part.gist is not None, f"column '{looked_up}' has no gist to be looked up by"
            rows = ((part.place >= 0) & (names.place >= 0)).nonzero().squeeze(1)
            here, there = part.place[rows], names.place[rows]
            modality, cells = self.modalities[named_by], batch.cells[named_by]
            assert isinstance(modality, Generable), f"column '{named_by}' has no names to recall"
            words = [
                str(modality.decode(tokens))
                for tokens in modality.target({key: value[there] for key, value in cells.items()}).cpu().numpy()
            ]
            self.online_memory(looked_up).store(
                batch.keys[looked_up][here],
                part.gist[here],
                None if names.gist is None else names.gist[there],
                words,
                None if part.similarity is None else part.similarity[here],
            )

    def nearest_names(
        self,
        column: str,
        looked_up: str,
        encoded: Mapping[str, Encoded],
        places: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> tuple[list[list[str]], torch.Tensor]:
        """Names of the rows most similar to some cells of ``looked_up``, for conversations of ``column``, and how near
        the nearest is, [n, 2]."""
        own, part = None if keys is None else keys[places], encoded[looked_up]
        assert part.gist is not None, f"column '{looked_up}' has no gist to be looked up by"
        return self.online_memory(looked_up).most_similar(
            part.gist[places],
            self.dialogue_modality(column).recalled,
            own,
            None if part.similarity is None else part.similarity[places],
            as_stem(self.shared[1][self.stem_key[looked_up]]).compare,
        )

    def losses(
        self, column: str, encoded: Mapping[str, Encoded], cells: Cells, rows: torch.Tensor, batch: Batch
    ) -> list[SegmentLoss]:
        """Losses of the assistant's words in the conversations of some rows, each word from all before it."""
        place = encoded[column].place[rows]
        rows, place = rows[place >= 0], place[place >= 0]
        if not len(rows):
            return []
        packed = self.pack_conversations(column, encoded, rows_of(cells, place), rows, batch.keys, batch.beside)
        return [SegmentLoss(column, (), mean_losses(self.shared[0], packed))]

    def pack_conversations(
        self,
        column: str,
        encoded: Mapping[str, Encoded],
        cells: Cells,
        rows: torch.Tensor,
        keys: Mapping[str, torch.Tensor] | None = None,
        later: Later | None = None,
    ) -> PackedConversation:
        """Conversations packed into sequences, with the cells that they refer to in their midst, and similar rows'
        names.

        Args:
            cells: collated conversations. rows: the batch's rows that they are of, [n].
            keys: of the cells of the batch, by which training looks nobody up by himself.
            later: None where rows after a conversation's own follow it in the batch.
        """
        modality, ids = self.dialogue_modality(column), cells["ids"].cpu().numpy()
        lines = [ids[number, :length] for number, length in enumerate(cells["length"].tolist())]
        learned = [own[: len(line)].astype(bool) for own, line in zip(cells["said"].cpu().numpy(), lines, strict=True)]
        columns, own = self.references(MAX_ROWS), rows.cpu().numpy()
        recalled: list[list[str]] = [[] for _ in lines]
        nearest = np.full((len(lines), 2), np.nan)
        for looked_up in self.lookup_columns(column):
            if looked_up not in encoded:
                continue
            mentions = self.first_mentions(looked_up, encoded[looked_up], lines, own, columns, later)
            device = encoded[looked_up].place.device
            places = torch.tensor([cell for _, _, cell in mentions], dtype=torch.int64, device=device)
            found, near = self.nearest_names(
                column, looked_up, encoded, places, None if keys is None else keys[looked_up]
            )
            for (number, i, _), words, distance in zip(mentions, found, near.numpy(), strict=True):
                at = int(np.flatnonzero(lines[number] == i)[0])
                more = modality.language.ids(f" like {', '.join(words)}.\n") if words else []
                lines[number] = np.insert(lines[number], at + 1, more)
                learned[number] = np.insert(learned[number], at + 1, [False] * len(more))
                # Of the cell that is referred to last.
                recalled[number], nearest[number] = words + recalled[number], distance
        referred = {
            (int(row), *columns[i])
            for row, line in zip(own, lines, strict=True)
            for i in line[line < 0].tolist()
            if i in columns
        }
        entered = {
            name: part if part.patches is None else self.enter_patches(name, part, referred, later)
            for name, part in encoded.items()
        }
        packed = pack(self.shared[0], lines, learned, own, entered, columns, modality.tokens_of_cells, later)
        packed.recalled, packed.near = recalled, nearest
        return packed

    def first_mentions(
        self,
        looked_up: str,
        part: Encoded,
        lines: Sequence[np.ndarray],
        rows: np.ndarray,
        columns: Mapping[int, tuple[str, int]],
        later: Later | None,
    ) -> list[tuple[int, int, int]]:
        """First mention of each cell of a column: its line, its id, its place among the cells."""
        places, mentions = part.place.cpu().numpy(), []
        for number, line in enumerate(lines):
            for i in dict.fromkeys(line[line < 0].tolist()):
                name, offset = columns.get(i, ("", 0))
                if name == looked_up and (cell := cell_of(places, int(rows[number]), offset, later)) >= 0:
                    mentions.append((number, i, cell))
        return mentions

    def enter_patches(
        self, column: str, part: Encoded, referred: set[tuple[int, str, int]], later: Later | None
    ) -> Encoded:
        """Pictures that stand in conversations as all their patches (``Image.llava``), in the language model's width.

        Args:
            referred: the cells referred to, by row, column and how many rows after it; only these are entered.
        """
        assert part.patches is not None, f"column '{column}' has no patches"
        known = part.place.cpu().numpy()
        cells = sorted(
            {
                cell
                for row, name, offset in referred
                if name == column and (cell := cell_of(known, row, offset, later)) >= 0
            }
        )
        index = torch.tensor(cells, dtype=torch.int64, device=part.place.device)
        tokens, place = self.projectors[self.stem_key[column]](part.patches[index]), torch.full_like(part.place, -1)
        place[part.index[index]] = torch.arange(len(cells), device=index.device)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return dataclasses.replace(part, place=place, tokens=tokens, mask=mask, entered=True)

    def references(self, rows: int) -> dict[int, tuple[str, int]]:
        """Columns by the negative numbers that stand for cells among ids, each with how many rows after the
        conversation's own the cell is, below ``rows``.
        """
        if rows not in self.reference_cache:
            kinds = {c: name_of(m) for c, m in self.modalities.items()}
            names = (*self.columns, *set(kinds.values()))
            self.reference_cache[rows] = resolve_references(
                self.columns,
                kinds,
                {reference(name, offset): (name, offset) for name in names for offset in range(rows)},
            )
        return self.reference_cache[rows]


def as_stem(module: nn.Module) -> Stem:
    """Module of a ``ModuleDict`` of stems."""
    assert isinstance(module, Stem)
    return module


def first_tokens(stem: nn.Module) -> int:
    """Number of tokens of a pretrained stem's features that come before its patches."""
    assert isinstance(stem.n_placed, int)
    return stem.n_placed
