"""Segments, a trunk, and what each asked segment says: the one module that meets all parts.

A column alone gives its gist straight from its stem. Several columns, and all that is predicted or generated, go
through the trunk. The network is single-device code; precision, schedules and checkpoints are put on from outside.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import unknown
from sensorium.core.registry import name_of
from sensorium.generators import Generator, GeneratorOutput
from sensorium.modalities import Cells, Modality
from sensorium.network.batch import Batch
from sensorium.network.packed_conversation import PackedConversation, cell_of, script, stands_for
from sensorium.network.packed_conversation import told as converse
from sensorium.network.types import ColumnFacts, Encoded, FusedGist, IgnoredColumns, Plan, SegmentLoss
from sensorium.nn.feature_projection import PatchProjector
from sensorium.nn.online_memory import OnlineMemory
from sensorium.nn.out_of_distribution import OutOfDistribution
from sensorium.nn.packing import reference
from sensorium.nn.refiner import Refiner
from sensorium.nn.row_memory import MemoryAnswer, RowMemory
from sensorium.trunks import Seen, Trunk


@dataclasses.dataclass
class StepOutput:
    """All that the objectives look at: one batch, once through the stems and each plan once through the trunk."""

    network: Network
    batch: Batch
    encoded: dict[str, Encoded]
    told: list[SegmentLoss]
    fused: list[FusedGist]


class Network(nn.Module):
    """Stems, gist heads, trunk and generators for a set of columns.

    Args:
        modalities: the columns, with what they learned.
        trunk: how columns are fused; its width is ``width``.
        generators: for each column that can be asked, how it is said. Columns may share one. more: other ways of saying a column, which
            are learned beside it.
        width: size of a token; gist: size of a gist.
        summary: give the trunk each matched column's gist as one more token, and let asked tokens begin with what all that is
            seen says in sum (``overview``).
        drop: share of the tokens of a picture, a video, a sound or a series that training hides, never all of a cell.

    Attributes:
        targets: columns the user wants predicted first of all.
        matches: whether training matches gists, so that they say something of one another.
        unheeded: for each asked column what its answer leaves out, as rows held out are answered no worse without it.
        domain: gists of training rows, by which it is told how far others lie from them; None where too few rows were held out.
        usual: how little cells go with their rows' others in rows held out, quantiles by column: see ``misfit``.
        finishers: for drawn columns whose cells have more than their tokens say, what gives it back; none before training has ended.
        memory: gists and sketches of training rows, by which gists that are compared are refined, and what the rows say in short
            columns, which is mixed into answers; None before training has ended.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        trunk: Trunk,
        generators: Mapping[str, Generator],
        width: int,
        gist: int,
        summary: bool = True,
        drop: float = 0.0,
        more: Mapping[str, Sequence[Generator]] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = dict(modalities)
        self.columns = list(modalities)
        self.targets: tuple[str, ...] = ()
        self.matches = True
        self.ignored: dict[str, IgnoredColumns] = {}
        self.surprise_quantiles: dict[str, list[float]] = {}
        self.out_of_distribution: OutOfDistribution | None = None
        self.memory: RowMemory | None = None
        self.counts: dict[str, object] = {}  # of some columns in how many training rows each value is; see withheld
        self.width, self.summary, self.drop = width, summary, drop
        self.stem_key = {
            column: modality.shared() or slug(column, i) for i, (column, modality) in enumerate(modalities.items())
        }
        self.stems, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for column, key in self.stem_key.items():
            if key not in self.stems:
                self.stems[key] = modalities[column].stem(width)
                if modalities[column].matched:
                    self.heads[key] = GistHead(width, gist)
        self.trunk = trunk
        self.generator_key = {
            column: modalities[column].shared() or slug(column, i) for i, column in enumerate(modalities)
        }
        self.generators = nn.ModuleDict(
            {self.generator_key[column]: generator for column, generator in generators.items()}
        )
        self.generator_keys = {
            column: {name_of(generator): self.generator_key[column]} for column, generator in generators.items()
        }
        for column, others in (more or {}).items():
            for generator in others:
                self.add_generator(column, generator)
        self.refiners = nn.ModuleDict()
        self.projectors = nn.ModuleDict(
            {
                self.stem_key[column]: PatchProjector(
                    modality.encoder.width,
                    trunk.embedding_size,
                    self.stems[self.stem_key[column]].n_placed,
                    modality.encoder.patches,
                )
                for column, modality in modalities.items()
                if modality.llava
            }
        )
        self.reference_cache: dict[int, dict[int, tuple[str, int]]] = {}
        self.online_memories = nn.ModuleDict(
            {
                self.stem_key[shown]: OnlineMemory(
                    gist, self.modalities[column].remembered, self.stems[self.stem_key[shown]].similarity_size
                )
                for column in self.dialogue_columns
                for shown in self.lookup_columns(column)
            }
        )
        self.seen_mark = nn.Embedding(len(self.columns) + 1, width)
        self.asked_mark = nn.Embedding(len(self.columns) + 1, width)
        nn.init.normal_(self.seen_mark.weight, std=0.02)
        nn.init.normal_(self.asked_mark.weight, std=0.02)
        self.gist_token = nn.Linear(gist, width) if summary else None
        self.gist_to_condition = nn.Linear(gist, width, bias=False) if summary else None
        self.token_to_condition = nn.Linear(width, width, bias=False) if summary else None
        spoken = any(part.one_token_per_vector and self.timed(c) for c, part in generators.items()) and any(
            map(self.ordered, self.columns)
        )
        self.to_gist = nn.Linear(width, gist)
        # Small beside the gists it is added to; not zero, so that what has none of them gets a unit vector as well.
        nn.init.normal_(self.to_gist.weight, std=0.05 / width)
        nn.init.zeros_(self.to_gist.bias)
        self.text_to_condition = (
            nn.Linear(width, width, bias=False) if summary and spoken else None
        )  # last, so that nothing else begins differently for it

    def timed(self, column: str) -> bool:
        """Whether a column's vectors follow one another in time, as a sound's do."""
        tokens = self.modalities[column].tokens()
        return tokens is not None and tokens.timed and tokens.width > 0

    def ordered(self, column: str) -> bool:
        """Whether a column's ids follow one another, as a text's do."""
        tokens = self.modalities[column].tokens()
        return tokens is not None and tokens.ordered and tokens.vocabulary > 0

    @property
    def asked_columns(self) -> list[str]:
        """Columns that can be asked."""
        return [column for column in self.columns if self.generator_key[column] in self.generators]

    @property
    def dialogue_columns(self) -> list[str]:
        """Columns of conversations."""
        return [column for column in self.columns if self.modalities[column].is_dialogue]

    @property
    def generative_columns(self) -> list[str]:
        """Columns that are drawn and not predicted: pictures, sounds, series."""
        return [c for c in self.asked_columns if self.generator(c).is_generative]

    def column_facts(self) -> ColumnFacts:
        """Facts about the columns, for who samples questions about them."""
        asked, generative = self.asked_columns, self.generative_columns
        predicted = [c for c in asked if c not in generative]
        short = [c for c in predicted if self.modalities[c].tokens().length == 1]
        return ColumnFacts(
            columns=tuple(self.columns),
            matched=tuple(c for c in self.columns if self.modalities[c].matched),
            asked=tuple(asked),
            short=tuple(short),
            long=tuple(c for c in predicted if c not in short),
            generators={c: tuple(self.generator_keys[c]) for c in generative},
            dialogue=tuple(self.dialogue_columns),
            modality={c: name_of(modality) for c, modality in self.modalities.items()},
            language_model=self.trunk.is_language_model,
        )

    def generator(self, column: str, way: str | None = None) -> Generator:
        """How a column is said: by its first generator, or by the one of that name.

        Raises:
            UserError: this network has not learned to say it so.
        """
        if way is not None and way not in self.generator_keys[column]:
            raise unknown(f"generator of '{column}' in this model:", way, self.generator_keys[column])
        return self.generators[self.generator_key[column] if way is None else self.generator_keys[column][way]]

    def add_generator(self, column: str, generator: Generator) -> None:
        """One more way of saying a column, in place of one of its kind."""
        key = f"{self.generator_key[column]}_{name_of(generator)}"
        self.generator_keys[column][name_of(generator)], self.generators[key] = key, generator

    def add_refiner(self, column: str) -> Refiner | None:
        """A fresh module that finishes drawn cells of a column, from now on asked wherever they are decoded; None where there is nothing to finish."""
        finisher = self.modalities[column].make_refiner()
        if finisher is not None:
            self.refiners[self.generator_key[column]] = self.modalities[column].refiner = finisher.to(
                self.seen_mark.weight.device
            )
        return finisher

    def remove_refiner(self, column: str) -> None:
        """Do without it again."""
        self.refiners.pop(self.generator_key[column])
        self.modalities[column].refiner = None

    def forward(self, batch: Batch, plans: Sequence[Plan]) -> StepOutput:
        """Everything one step of training needs, in one pass."""
        encoded = self.encode_all(batch)
        for column in self.dialogue_columns if self.training else ():
            self.remember_batch(column, batch, encoded)
        told, fused = [], []
        for plan in plans:
            asked = [column for column in plan.asked if column in encoded]
            for column in [column for column in asked if self.modalities[column].is_dialogue]:
                told += self.dialogue_loss(column, encoded, batch.cells[column], plan.rows, batch)
                asked.remove(column)
            if not asked and plan.asked:
                continue
            targets, places, segments = [], [], [self.ask_gist(len(plan.rows))]
            overview = self.condition_vector(encoded, plan.seen, plan.rows)
            for column in asked:
                place = encoded[column].place[plan.rows]
                target = self.modalities[column].target(rows_of(batch.cells[column], place.clamp(min=0)))
                target = self.generator(column, plan.generator_name).with_noise(target)
                targets.append(target)
                places.append(place >= 0)
                segments.append(
                    self.asked_tokens(
                        column,
                        target,
                        self.condition(overview, encoded, plan.seen, plan.rows, column, plan.generator_name),
                        plan.generator_name,
                    )
                )
            generator_key = [self.generator(column, plan.generator_name) for column in asked]
            seen = self.seen_tokens(encoded, plan.seen, plan.rows)
            hidden = self.trunk(
                seen,
                segments,
                [False, *(by.causal for by in generator_key)],
                [False, *(by.is_generative for by in generator_key)],
            )
            total = self.total_gist(encoded, plan.seen, plan.rows)
            if not plan.detached:
                fused.append(FusedGist(plan.rows, plan.seen, self.fused_gist(total, hidden[0])))
            for column, said, target, present in zip(asked, hidden[1:], targets, places, strict=True):
                if present.any():
                    told.append(
                        SegmentLoss(
                            column,
                            plan.seen,
                            self.generator(column, plan.generator_name).loss(said, target)[present],
                            plan.generator_name,
                        )
                    )
        return StepOutput(self, batch, encoded, told, fused)

    def lookup_columns(self, column: str) -> list[str]:
        """The columns whose cells, where conversations of ``column`` refer to them, bring along what rows that are like them are called."""
        talk = self.modalities[column]
        if not talk.recall:
            return []
        if talk.recall not in self.columns:
            raise unknown(f"column in column.{column}.recall:", talk.recall, self.columns)
        return [
            c
            for c in self.columns
            if c != talk.recall and self.modalities[c].matched and {c, name_of(self.modalities[c])} & talk.referred
        ]

    def remember_batch(self, column: str, batch: Batch, encoded: Mapping[str, Encoded]) -> None:
        """Keep what the rows of a batch are called, by the gists of their cells."""
        called = encoded.get(self.modalities[column].recall)
        for shown in self.lookup_columns(column) if called is not None else ():
            part = encoded.get(shown)
            if part is None:
                continue
            rows = ((part.place >= 0) & (called.place >= 0)).nonzero().squeeze(1)
            here, there = part.place[rows], called.place[rows]
            modality, cells = (
                self.modalities[self.modalities[column].recall],
                batch.cells[self.modalities[column].recall],
            )
            words = [
                str(modality.decode(tokens))
                for tokens in modality.target({key: value[there] for key, value in cells.items()}).cpu().numpy()
            ]
            self.online_memories[self.stem_key[shown]].store(
                batch.keys[shown][here],
                part.gist[here],
                None if called.gist is None else called.gist[there],
                words,
                None if part.similarity is None else part.similarity[here],
            )

    def nearest_names(
        self,
        column: str,
        shown: str,
        encoded: Mapping[str, Encoded],
        places: torch.Tensor,
        keys: torch.Tensor | None = None,
    ) -> tuple[list[list[str]], torch.Tensor]:
        """What rows are called that are like some cells of ``shown``, for conversations of ``column``, and how near the nearest is, [n, 2]."""
        own, part = None if keys is None else keys[places], encoded[shown]
        return self.online_memories[self.stem_key[shown]].most_similar(
            part.gist[places],
            self.modalities[column].recalled,
            own,
            None if part.similarity is None else part.similarity[places],
            self.stems[self.stem_key[shown]].compare,
        )

    def dialogue_loss(
        self, column: str, encoded: Mapping[str, Encoded], cells: Cells, rows: torch.Tensor, batch: Batch
    ) -> list[SegmentLoss]:
        """What the assistant says in the conversations of some rows, each word from all before it."""
        place = encoded[column].place[rows]
        rows, place = rows[place >= 0], place[place >= 0]
        if not len(rows):
            return []
        losses = converse(
            self.trunk, self.pack_conversations(column, encoded, rows_of(cells, place), rows, batch.keys, batch.beside)
        )
        return [SegmentLoss(column, (), losses)]

    def pack_conversations(
        self,
        column: str,
        encoded: Mapping[str, Encoded],
        cells: Cells,
        rows: torch.Tensor,
        keys: Mapping[str, torch.Tensor] | None = None,
        beside: Mapping[tuple[int, int], int] | None = None,
    ) -> PackedConversation:
        """Collated conversations, and the batch's rows that they are of [n], with the cells that they refer to in their midst, and what rows like these are called.

        ``keys``: of the cells of the batch, which training looks nobody up by himself with. ``beside``: where rows after these stand, by a row and how many after it; None: they follow one another.
        """
        modality, ids = self.modalities[column], cells["ids"].cpu().numpy()
        lines = [ids[number, :length] for number, length in enumerate(cells["length"].tolist())]
        said = [own[: len(line)].astype(bool) for own, line in zip(cells["said"].cpu().numpy(), lines, strict=True)]
        columns, own = self.references(MAX_ROWS), rows.cpu().numpy()
        recalled: list[list[str]] = [[] for _ in lines]
        nearest = np.full((len(lines), 2), np.nan)
        for shown in self.lookup_columns(column):
            if shown not in encoded:
                continue
            places, about = (
                encoded[shown].place.cpu().numpy(),
                [],
            )  # the first mention of each cell: its line, its id, its place among the cells
            for number, line in enumerate(lines):
                for i in dict.fromkeys(line[line < 0].tolist()):
                    name, later = columns.get(i, ("", 0))
                    if name == shown and (cell := cell_of(places, int(own[number]), later, beside)) >= 0:
                        about.append((number, i, cell))
            found, near = self.nearest_names(
                column,
                shown,
                encoded,
                torch.tensor([cell for _, _, cell in about], dtype=torch.int64, device=encoded[shown].place.device),
                None if keys is None else keys[shown],
            )
            for (number, i, _), words, how in zip(about, found, near.numpy(), strict=True):
                at = int(np.flatnonzero(lines[number] == i)[0])
                more = modality.language.ids(f" like {', '.join(words)}.\n") if words else []
                lines[number], said[number] = (
                    np.insert(lines[number], at + 1, more),
                    np.insert(said[number], at + 1, [False] * len(more)),
                )
                recalled[number], nearest[number] = words + recalled[number], how  # of what was shown last
        told = {
            (int(row), *columns[i])
            for row, line in zip(own, lines, strict=True)
            for i in line[line < 0].tolist()
            if i in columns
        }
        entered = {
            name: part if part.patches is None else self.enter_patches(name, part, told, beside)
            for name, part in encoded.items()
        }
        made = script(self.trunk, lines, said, own, entered, columns, modality.tokens_of_cells, beside)
        made.recalled, made.near = recalled, nearest
        return made

    def enter_patches(
        self, column: str, part: Encoded, told: set[tuple[int, str, int]], beside: Mapping[tuple[int, int], int] | None
    ) -> Encoded:
        """A column of pictures that stand in conversations as all their patches (``Image.llava``), in the language model's width: those alone that are told of, by row, column and how many rows after it."""
        known = part.place.cpu().numpy()
        cells = sorted(
            {cell for row, name, later in told if name == column and (cell := cell_of(known, row, later, beside)) >= 0}
        )
        index = torch.tensor(cells, dtype=torch.int64, device=part.place.device)
        tokens, place = self.projectors[self.stem_key[column]](part.patches[index]), torch.full_like(part.place, -1)
        place[part.index[index]] = torch.arange(len(cells), device=index.device)
        return dataclasses.replace(
            part,
            place=place,
            tokens=tokens,
            mask=torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
            entered=True,
        )

    def references(self, rows: int) -> dict[int, tuple[str, int]]:
        """For each number that stands for a cell among ids its column, and how many rows after the conversation's, below ``rows``."""
        if rows not in self.reference_cache:
            names = (*self.columns, *{name_of(m) for m in self.modalities.values()})
            self.reference_cache[rows] = stands_for(
                self.columns,
                {c: name_of(m) for c, m in self.modalities.items()},
                {reference(name, later): (name, later) for name in names for later in range(rows)},
            )
        return self.reference_cache[rows]

    def encode_all(self, batch: Batch) -> dict[str, Encoded]:
        """Every column of a batch through its stem; columns that share one go through it together."""
        together: dict[str, list[str]] = {}
        for column in batch.cells:
            together.setdefault(self.stem_key[column], []).append(column)
        found: dict[str, Encoded] = {}
        for columns in together.values():
            found |= self.encode_together(columns, batch)
        return {column: found[column] for column in batch.cells}

    def encode(self, column: str, batch: Batch) -> Encoded:
        """One column of a batch through its stem."""
        return self.encode_together([column], batch)[column]

    def encode_together(self, columns: Sequence[str], batch: Batch) -> dict[str, Encoded]:
        """Columns of a batch that share a stem, in one pass of it."""
        key, sizes = self.stem_key[columns[0]], [len(batch.index[column]) for column in columns]
        cells = self.stems[key].features(concat_cells([batch.cells[column] for column in columns]))
        tokens, mask = self.stems[key](cells)
        patches = self.projectors[key].patches(cells) if key in self.projectors else None
        kin = self.stems[key].similarity_features(cells) if key in self.online_memories else None
        kins = [None] * len(columns) if kin is None else kin.split(sizes)
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if self.training and self.drop and key in self.heads and self.modalities[columns[0]].shared() is None:
            mask = drop_tokens(mask, self.drop)  # texts, which share a stem, leave words out before it
        gists: Sequence[torch.Tensor | None] = [None] * len(columns)
        if key in self.heads:
            gist = F.normalize(self.heads[key](tokens, mask).float(), dim=-1)
            if self.gist_token is not None:
                tokens = torch.cat([self.gist_token(gist.to(tokens.dtype)).unsqueeze(1).to(tokens.dtype), tokens], 1)
                mask = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
            gists = gist.split(sizes)
        found = {}
        for column, part, here, gist, own in zip(
            columns, tokens.split(sizes), mask.split(sizes), gists, kins, strict=True
        ):
            index, mark = batch.index[column], self.seen_mark.weight[self.columns.index(column)]
            place = torch.full((batch.rows,), -1, dtype=torch.int64, device=index.device)
            place[index] = torch.arange(len(index), device=index.device)
            found[column] = Encoded(index, place, part + mark.to(part.dtype), here, gist, own, patches)
        return found

    def seen_tokens(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: torch.Tensor) -> Seen:
        """The seen tokens of some rows of a batch; column "" is one token that every row has."""
        mark = self.seen_mark.weight[len(self.columns)]
        result = {"": (mark.expand(len(rows), 1, -1), torch.ones(len(rows), 1, dtype=torch.bool, device=mark.device))}
        for column in columns:
            if column in encoded:
                part = encoded[column]
                place = part.place[rows]
                at = place.clamp(min=0)
                result[column] = (part.tokens.index_select(0, at), part.mask[at] & (place >= 0).unsqueeze(1))
        dtype = next((tokens.dtype for column, (tokens, _) in result.items() if column), mark.dtype)
        result[""] = (result[""][0].to(dtype), result[""][1])
        return result

    def gist_as_seen(self, gist: torch.Tensor, column: str) -> Seen:
        """Gists [n, gist] as all that is seen: one token each, in the place of ``column``."""
        mark, here = self.seen_mark.weight, torch.ones(len(gist), 1, dtype=torch.bool, device=gist.device)
        token = self.gist_token(gist).unsqueeze(1)
        begin = mark[len(self.columns)].to(token.dtype).expand(len(gist), 1, -1)
        return {"": (begin, here), column: (token + mark[self.columns.index(column)].to(token.dtype), here)}

    def tokens_from_gist(self, gist: torch.Tensor, column: str, target: torch.Tensor) -> torch.Tensor:
        """What the segment of ``column`` hears from gists [n, gist] where there is no trunk: [n, k, width]."""
        return F.layer_norm(self.asked_tokens(column, target, self.gist_condition(gist)), (self.width,))

    def asked_tokens(
        self, column: str, target: torch.Tensor, overview: torch.Tensor | None, way: str | None = None
    ) -> torch.Tensor:
        """Input tokens [n, k, width] of an asked segment: see ``begin_asked``."""
        return self.mark_asked(column, self.generator(column, way).asked_tokens(target), overview)

    def mark_asked(self, column: str, tokens: torch.Tensor, overview: torch.Tensor | None) -> torch.Tensor:
        """Asked tokens [n, k, width] with the column's mark and the overview of what is seen, [n, width] or [n, k, width].

        That is a way past the trunk from what is seen to what is said: the trunk begins at a linear model of the sum and
        can only learn to be better, and its first layer meets all columns in one token.
        """
        tokens = tokens + self.asked_mark.weight[self.columns.index(column)].to(tokens.dtype)
        if overview is None:
            return tokens
        return tokens + (overview if overview.ndim == 3 else overview.unsqueeze(1)).to(tokens.dtype)

    def gist_condition(self, gist: torch.Tensor) -> torch.Tensor | None:
        """The overview [n, width] where gists [n, gist] are all that is seen; None without ``summary``."""
        return None if self.gist_to_condition is None else self.gist_to_condition(F.normalize(gist, dim=-1))

    def condition_vector(
        self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: torch.Tensor
    ) -> torch.Tensor | None:
        """What some rows show of ``columns`` in one vector [n, width]: from the sum of their gists, and the sum of the tokens of
        what has none. None without ``summary``, and where columns must not meet before the trunk."""
        if not self.trunk.early:
            return None
        result, tokens = self.gist_condition(self.total_gist(encoded, columns, rows)), []
        for column in columns:
            part = encoded.get(column)
            if part is not None and part.gist is None:
                place = part.place[rows]
                here = (part.mask[place.clamp(min=0)] & (place >= 0).unsqueeze(1)).unsqueeze(-1)
                tokens.append((part.tokens.index_select(0, place.clamp(min=0)) * here).sum(1))
        return (
            result
            if result is None or not tokens
            else result + self.token_to_condition(F.layer_norm(sum(tokens), (self.width,)))
        )

    def condition(
        self,
        overview: torch.Tensor | None,
        encoded: Mapping[str, Encoded],
        columns: Sequence[str],
        rows: torch.Tensor,
        asked: str,
        way: str | None = None,
    ) -> torch.Tensor | None:
        """The overview as ``asked`` hears it. Where that is placed in time it is a vector for each of its tokens, [n, k, width], with the texts'
        tokens at the same places: a voice goes through the letters in their order (arXiv 2406.18009), which attention would have to find out."""
        if (
            overview is None
            or self.text_to_condition is None
            or not self.timed(asked)
            or not self.generator(asked, way).one_token_per_vector
        ):
            return overview
        length = self.modalities[asked].tokens().length
        texts = [self.text_condition(encoded[c], rows, length) for c in columns if c in encoded and self.ordered(c)]
        return sum(texts, overview.unsqueeze(1).expand(-1, length, -1))

    def conditioned_trunk(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: torch.Tensor,
        way: str | None = None,
    ) -> ConditionedTrunk:
        """The trunk as who says ``column`` to some rows hears it."""
        return ConditionedTrunk(
            self,
            column,
            self.seen_tokens(encoded, seen, rows),
            self.condition(self.condition_vector(encoded, seen, rows), encoded, seen, rows, column, way),
            self.generator(column, way).is_generative,
        )

    def text_condition(self, part: Encoded, rows: torch.Tensor, length: int) -> torch.Tensor:
        """What a text's tokens say to the asked tokens at their places, [n, length, width]; nothing beyond its end."""
        place, first = (
            part.place[rows],
            int(part.gist is not None and self.gist_token is not None),
        )  # a gist comes before the tokens
        here = (part.mask[place.clamp(min=0)] & (place >= 0).unsqueeze(1))[:, first : first + length]
        tokens = part.tokens.index_select(0, place.clamp(min=0))[:, first : first + length]
        return F.pad(
            self.text_to_condition(F.layer_norm(tokens, (self.width,))) * here.unsqueeze(-1),
            (0, 0, 0, length - tokens.shape[1]),
        )

    def ask_gist(self, rows: int) -> torch.Tensor:
        """The one token that asks for the gist, for each of ``rows`` rows."""
        return self.asked_mark.weight[len(self.columns)].expand(rows, 1, -1)

    def total_gist(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: torch.Tensor) -> torch.Tensor:
        """The sum [n, gist] of the gists that some rows have of ``columns``, 0 where they have none."""
        total = torch.zeros(len(rows), self.to_gist.out_features, device=rows.device)
        for column in columns:
            part = encoded.get(column)
            if part is not None and part.gist is not None:
                place = part.place[rows]
                total = total + part.gist.index_select(0, place.clamp(min=0)) * (place >= 0).unsqueeze(1)
        return total

    def fused_gist(self, total: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The gist [n, gist] of several columns: the mean of their own gists, and what the trunk adds to it.

        Starting from the mean, fusion begins at a strong plain model and can only learn to be better.
        """
        return F.normalize(total + self.to_gist(hidden[:, 0]).float(), dim=-1)

    def refine_gists(self, column: str, part: Encoded, cells: Sequence[np.ndarray]) -> Encoded:
        """A column whose gists are refined by what is remembered; tokens, which the trunk learned from, stay as they are.

        ``cells``: what ``part`` was made of, prepared.
        """
        if self.memory is None or part.gist is None:
            return part
        sketch = self.modalities[column].sketch(cells) if self.memory.trust and column in self.memory.sketched else None
        drawn = None if sketch is None else torch.from_numpy(sketch).to(part.gist)
        return dataclasses.replace(part, gist=self.memory(column, part.gist, drawn))

    def memory_answer(
        self, encoded: Mapping[str, Encoded], column: str, rows: torch.Tensor, share: float | None = None
    ) -> MemoryAnswer | None:
        """What remembered rows say of ``column`` to some rows, by the gists of what these show; None where that doesn't count."""
        if self.memory is None or not self.generator(column).uses_memory:
            return None
        seen = {}
        for name, part in encoded.items():
            if part.gist is not None and len(part.gist):
                place = part.place[rows]
                seen[name] = part.gist.index_select(0, place.clamp(min=0)), place >= 0
        return self.memory.answer(column, seen, share)

    def gists(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: torch.Tensor) -> torch.Tensor:
        """Unit vectors [n, gist] of what some rows have of ``columns``, which may have been recalled.

        A row with one matched column alone takes that column's gist; the others go through the trunk.
        """
        hidden = self.trunk(self.seen_tokens(encoded, columns, rows), [self.ask_gist(len(rows))], [False])
        result = self.fused_gist(self.total_gist(encoded, columns, rows), hidden[0])
        places = {column: encoded[column].place[rows] for column in columns if column in encoded}
        count = sum(((place >= 0).long() for place in places.values()), torch.zeros_like(rows))
        for column, place in places.items():
            gist, alone = encoded[column].gist, (place >= 0) & (count == 1)
            if gist is not None:
                result[alone] = gist[place[alone]].to(result.dtype)
        return result

    def sample(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: torch.Tensor,
        generator: torch.Generator | None = None,
        again: torch.Tensor | None = None,
        way: str | None = None,
        **options: object,
    ) -> GeneratorOutput:
        """Ask ``column`` of some rows, from what each has of ``seen``; ``again`` may say which of ``rows`` (by number) to ask, some
        of them several times: what they show is looked at once. ``way``: by which of its generators."""
        how, listeners = self.generator(column, way), [self.conditioned_trunk(encoded, column, seen, rows, way)]
        if how.is_generative:
            listeners.append(self.conditioned_trunk(encoded, column, (), rows, way))
            options["blank"] = listeners[1]
        for listener in listeners if again is not None else ():
            listener.reorder(again)
        return how.sample(
            listeners[0], len(rows if again is None else again), rows.device, generator=generator, **options
        )

    def nll(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: torch.Tensor,
        target: torch.Tensor,
        way: str | None = None,
    ) -> torch.Tensor:
        """The loss [n, tokens] of a segment of ``column`` that is known, from what some rows have of ``seen``."""
        generator, overview = (
            self.generator(column, way),
            self.condition(self.condition_vector(encoded, seen, rows), encoded, seen, rows, column, way),
        )
        (hidden,) = self.trunk(
            self.seen_tokens(encoded, seen, rows),
            [self.asked_tokens(column, target, overview, way)],
            [generator.causal],
            [generator.is_generative],
        )
        return generator.token_nll(hidden, target)


class ConditionedTrunk:
    """The trunk as a generator sees it: asked tokens in, hidden out; what was seen is run once and remembered.

    At ``start`` 0 the segment begins anew; whoever has gone on from there doesn't come back.
    """

    def __init__(
        self, network: Network, column: str, seen: Seen, overview: torch.Tensor | None, drawn: bool = False
    ) -> None:
        self.network, self.column, self.overview, self.drawn = network, column, overview, drawn
        self.state = self.begun = network.trunk.prefill(seen)

    def __call__(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        if start:
            self.begun = None  # else beams would copy it in each step
        state = self.state if start else self.begun
        hidden, self.state = self.network.trunk.decode(
            state, self.network.mark_asked(self.column, tokens, self.overview), self.drawn
        )
        return hidden

    def reorder(self, rows: torch.Tensor) -> None:
        """Take the remembered rows by index (beams, samples)."""
        self.state, first = self.network.trunk.reorder(self.state, rows), self.state is self.begun
        self.begun = self.state if first else None
        self.overview = None if self.overview is None else self.overview[rows]


class GistHead(nn.Module):
    """Mean of a segment's tokens, then a small residual MLP: the gist of a column alone."""

    def __init__(self, width: int, gist: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, gist)
        self.skip = nn.Linear(width, gist)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens [n, k, width] and mask [n, k] to vectors [n, gist]."""
        weight = mask.unsqueeze(-1).to(tokens.dtype)
        x = self.norm((tokens * weight).sum(1) / weight.sum(1).clamp(min=1))
        return self.skip(x) + self.down(F.gelu(self.up(x)))


def drop_tokens(mask: torch.Tensor, share: float) -> torch.Tensor:
    """A mask [n, k] without a random share of what is there; something is left of each row."""
    chance = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return mask & ((chance >= share) | (chance == chance.amax(1, keepdim=True)))


def concat_cells(parts: Sequence[Cells]) -> Cells:
    """Cells of columns that share a stem, one column's rows after another's, padded with zeros to the longest."""
    if len(parts) == 1:
        return parts[0]
    result = {}
    for key in set.intersection(*map(set, parts)):
        values = [part[key] for part in parts]
        longest = max(value.shape[1] if value.ndim > 1 else 0 for value in values)
        if longest:
            values = [F.pad(v, (0, 0) * (v.ndim - 2) + (0, longest - v.shape[1])) for v in values]
        result[key] = torch.cat(values)
    return result


def rows_of(cells: Cells, rows: torch.Tensor) -> Cells:
    """Some rows of collated cells."""
    return {key: value[rows] for key, value in cells.items()}


def slug(column: str, number: int) -> str:
    """A module name for a column: readable, unique, without dots."""
    return f"{number}_" + re.sub(r"\W+", "_", column)[:40]
