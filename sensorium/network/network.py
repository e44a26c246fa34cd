"""The network: stems, a trunk, generators and gist heads for a set of columns; the one module in which all parts meet.

The gist of a single column comes straight from its stem. Several columns, and all that is predicted or generated, go
through the trunk. The network is single-device code; precision, schedules and checkpoints are put on from outside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.generators import Generator, GeneratorOutput
from sensorium.modalities import Modality
from sensorium.network.batch import Batch
from sensorium.network.calibration import Calibration
from sensorium.network.conditioning import Conditioning
from sensorium.network.dialogue import DialogueHead
from sensorium.network.encoding import encode_columns, rows_of
from sensorium.network.parts import ColumnParts
from sensorium.network.session import ConditionedTrunk
from sensorium.network.types import Encoded, FusedGist, Plan, SegmentLoss
from sensorium.nn.row_memory import MemoryAnswer
from sensorium.trunks import Seen, Trunk


@dataclasses.dataclass
class StepOutput:
    """Output of one step, for the objectives: a batch, once through the stems, and each plan once through the trunk."""

    network: Network
    batch: Batch
    encoded: dict[str, Encoded]
    losses: list[SegmentLoss]
    fused: list[FusedGist]


class Network(ColumnParts):
    """Stems, gist heads, trunk and generators for a set of columns.

    Args:
        modalities: the columns, with what they learned.
        trunk: how columns are fused; its width is ``width``.
        generators: for each column that can be asked, its first generator. Columns may share one.
        width: size of a token; gist: size of a gist. summary: see ``Conditioning``.
        drop: share of the tokens of a picture, a video, a sound or a series that training hides, never all of a cell.
        more: for some columns further generators, which are learned beside the first.

    Attributes:
        targets: columns the user wants predicted first of all.
        matches: whether training matches gists, so that they say something of one another.
        calibration: what is found after training, on training and validation rows.
        refiners: for generated columns whose cells have more than their tokens say, what gives it back; none before
            training has ended.
        dialogue: what conversations need; None where there is no column of them.
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
        super().__init__(modalities, trunk, generators, width, gist, more)
        self.targets: tuple[str, ...] = ()
        self.matches = True
        self.summary, self.drop = summary, drop
        self.dialogue = (
            DialogueHead(modalities, self.stem_key, self.stems, trunk, gist) if self.dialogue_columns else None
        )
        self.seen_mark = nn.Embedding(len(self.columns) + 1, width)
        self.asked_mark = nn.Embedding(len(self.columns) + 1, width)
        nn.init.normal_(self.seen_mark.weight, std=0.02)
        nn.init.normal_(self.asked_mark.weight, std=0.02)
        timed = any(part.one_token_per_vector and self.timed(c) for c, part in generators.items())
        self.conditioning = Conditioning(width, gist, summary, timed and any(map(self.ordered, self.columns)))
        self.calibration = Calibration()

    @property
    def gist_size(self) -> int:
        """Size of a gist."""
        return self.conditioning.to_gist.out_features

    # --- training ---------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, plans: Sequence[Plan]) -> StepOutput:
        """Everything that the objectives of one training step need, in one pass."""
        encoded = self.encode_all(batch)
        if self.training and self.dialogue is not None:
            for column in self.dialogue_columns:
                self.dialogue.remember_batch(column, batch, encoded)
        losses, fused = [], []
        for plan in plans:
            asked = [column for column in plan.asked if column in encoded]
            for column in [column for column in asked if column in self.dialogue_columns]:
                assert self.dialogue is not None
                losses += self.dialogue.losses(column, encoded, batch.cells[column], plan.rows, batch)
                asked.remove(column)
            if not asked and plan.asked:
                continue
            targets, present, segments = [], [], [self.ask_gist(len(plan.rows))]
            vector = self.condition_vector(encoded, plan.seen, plan.rows)
            for column in asked:
                place = encoded[column].place[plan.rows]
                target = self.asked_modality(column).target(rows_of(batch.cells[column], place.clamp(min=0)))
                target = self.generator(column, plan.generator_name).with_noise(target)
                targets.append(target)
                present.append(place >= 0)
                condition = self.condition(vector, encoded, plan.seen, plan.rows, column, plan.generator_name)
                segments.append(self.asked_tokens(column, target, condition, plan.generator_name))
            generators = [self.generator(column, plan.generator_name) for column in asked]
            hidden = self.trunk(
                self.seen_tokens(encoded, plan.seen, plan.rows),
                segments,
                [False, *(generator.causal for generator in generators)],
                [False, *(generator.is_generative for generator in generators)],
            )
            total = self.conditioning.total_gist(encoded, plan.seen, plan.rows)
            if not plan.detached:
                gist = self.conditioning.fused_gist(total, hidden[0])
                fused.append(FusedGist(plan.rows, plan.seen, gist))
            for column, generator, out, target, mask in zip(
                asked, generators, hidden[1:], targets, present, strict=True
            ):
                if mask.any():
                    loss = generator.loss(out, target)[mask]
                    losses.append(SegmentLoss(column, plan.seen, loss, plan.generator_name))
        return StepOutput(self, batch, encoded, losses, fused)

    # --- encoding ---------------------------------------------------------------------------------------------------

    def encode_all(self, batch: Batch) -> dict[str, Encoded]:
        """Encoded columns of a batch; columns that share a stem go through it together."""
        together: dict[str, list[str]] = {}
        for column in batch.cells:
            together.setdefault(self.stem_key[column], []).append(column)
        encoded: dict[str, Encoded] = {}
        for columns in together.values():
            encoded |= self.encode_together(columns, batch)
        return {column: encoded[column] for column in batch.cells}

    def encode(self, column: str, batch: Batch) -> Encoded:
        """Encoded column of a batch."""
        return self.encode_together([column], batch)[column]

    def encode_together(self, columns: Sequence[str], batch: Batch) -> dict[str, Encoded]:
        """Encoded columns of a batch that share a stem, in one pass of it."""
        key, dialogue = self.stem_key[columns[0]], self.dialogue
        # Texts, which share a stem, leave words out before it.
        drops = self.training and key in self.heads and self.modalities[columns[0]].shared() is None
        return encode_columns(
            batch,
            columns,
            self.stem(columns[0]),
            self.heads[key] if key in self.heads else None,  # noqa: SIM401  # a ModuleDict has no get
            self.conditioning.gist_token,
            [self.seen_mark.weight[self.columns.index(column)] for column in columns],
            drop=self.drop if drops else 0.0,
            projector=None if dialogue is None else dialogue.projector(key),
            similarity=dialogue is not None and key in dialogue.online_memories,
        )

    def seen_tokens(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: Tensor) -> Seen:
        """Seen tokens of some rows of a batch; column "" is one token that every row has."""
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

    def gist_as_seen(self, gist: Float[Tensor, "n gist"], column: str) -> Seen:
        """Seen tokens where gists are all that is seen: one token each, in the place of ``column``."""
        assert self.conditioning.gist_token is not None, "network.summary is false"
        mark, present = self.seen_mark.weight, torch.ones(len(gist), 1, dtype=torch.bool, device=gist.device)
        token = self.conditioning.gist_token(gist).unsqueeze(1)
        first = mark[len(self.columns)].to(token.dtype).expand(len(gist), 1, -1)
        return {"": (first, present), column: (token + mark[self.columns.index(column)].to(token.dtype), present)}

    # --- asking -----------------------------------------------------------------------------------------------------

    def asked_tokens(
        self, column: str, target: Tensor, condition: Tensor | None, name: str | None = None
    ) -> Float[Tensor, "n k width"]:
        """Input tokens of an asked segment: see ``mark_asked``. name: of the generator."""
        return self.mark_asked(column, self.generator(column, name).asked_tokens(target), condition)

    def mark_asked(
        self, column: str, tokens: Float[Tensor, "n k width"], condition: Tensor | None
    ) -> Float[Tensor, "n k width"]:
        """Asked tokens with the column's mark and the condition, [n, width] or [n, k, width]: see ``Conditioning``."""
        tokens = tokens + self.asked_mark.weight[self.columns.index(column)].to(tokens.dtype)
        if condition is None:
            return tokens
        return tokens + (condition if condition.ndim == 3 else condition.unsqueeze(1)).to(tokens.dtype)

    def tokens_from_gist(
        self, gist: Float[Tensor, "n gist"], column: str, target: Tensor
    ) -> Float[Tensor, "n k width"]:
        """Hidden of a segment of ``column`` from gists where there is no trunk."""
        return F.layer_norm(self.asked_tokens(column, target, self.conditioning.of_gist(gist)), (self.width,))

    def condition_vector(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: Tensor) -> Tensor | None:
        """Condition vector [n, width] of what some rows show of ``columns``; None without ``summary``, and where
        columns must not meet before the trunk."""
        return self.conditioning.of_columns(encoded, columns, rows) if self.trunk.early else None

    def condition(
        self,
        vector: Tensor | None,
        encoded: Mapping[str, Encoded],
        columns: Sequence[str],
        rows: Tensor,
        asked: str,
        name: str | None = None,
    ) -> Tensor | None:
        """Condition of the asked column's tokens, from the condition vector.

        Where the column is placed in time, it is a vector for each of its tokens, [n, k, width], with the texts' tokens
        at the same places: a voice goes through the letters in their order (arXiv 2406.18009), which attention would
        have to find out.
        """
        timed = self.timed(asked) and self.generator(asked, name).one_token_per_vector
        if vector is None or self.conditioning.text_to_condition is None or not timed:
            return vector
        length = self.token_count(asked)
        texts = [
            self.conditioning.of_text(encoded[c], rows, length) for c in columns if c in encoded and self.ordered(c)
        ]
        return sum(texts, vector.unsqueeze(1).expand(-1, length, -1))

    def conditioned_trunk(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: Tensor,
        name: str | None = None,
    ) -> ConditionedTrunk:
        """Trunk as the generator of ``column`` calls it for some rows."""
        vector = self.condition_vector(encoded, seen, rows)
        return ConditionedTrunk(
            self.trunk,
            self.seen_tokens(encoded, seen, rows),
            lambda tokens, condition: self.mark_asked(column, tokens, condition),
            self.condition(vector, encoded, seen, rows, column, name),
            self.generator(column, name).is_generative,
        )

    def ask_gist(self, rows: int) -> Float[Tensor, "n 1 width"]:
        """Query token of the gist, one for each of ``rows`` rows."""
        return self.asked_mark.weight[len(self.columns)].expand(rows, 1, -1)

    def sample(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: Tensor,
        generator: torch.Generator | None = None,
        again: Tensor | None = None,
        name: str | None = None,
        **options: object,
    ) -> GeneratorOutput:
        """Samples of ``column`` for some rows, from what each has of ``seen``.

        Args:
            again: which of ``rows`` (by number) to ask, some of them several times; what they show is run once.
            name: of the column's generator. options: of its ``sample``.
        """
        chosen, trunks = self.generator(column, name), [self.conditioned_trunk(encoded, column, seen, rows, name)]
        if chosen.is_generative:
            trunks.append(self.conditioned_trunk(encoded, column, (), rows, name))
            options["unconditional"] = trunks[1]
        if again is not None:
            for trunk in trunks:
                trunk.reorder(again)
        count = len(rows if again is None else again)
        return chosen.sample(trunks[0], count, rows.device, generator=generator, **options)

    def nll(
        self,
        encoded: Mapping[str, Encoded],
        column: str,
        seen: Sequence[str],
        rows: Tensor,
        target: Tensor,
        name: str | None = None,
    ) -> Float[Tensor, "n tokens"]:
        """Negative log-likelihood of the tokens of a known segment of ``column``, from what some rows have of
        ``seen``."""
        generator, vector = self.generator(column, name), self.condition_vector(encoded, seen, rows)
        condition = self.condition(vector, encoded, seen, rows, column, name)
        (hidden,) = self.trunk(
            self.seen_tokens(encoded, seen, rows),
            [self.asked_tokens(column, target, condition, name)],
            [generator.causal],
            [generator.is_generative],
        )
        return generator.token_nll(hidden, target)

    # --- gists ------------------------------------------------------------------------------------------------------

    def gists(self, encoded: Mapping[str, Encoded], columns: Sequence[str], rows: Tensor) -> Float[Tensor, "n gist"]:
        """Unit vectors of what some rows have of ``columns``, whose own gists the row memory may have refined.

        A row with one matched column only takes that column's gist; the others go through the trunk.
        """
        hidden = self.trunk(self.seen_tokens(encoded, columns, rows), [self.ask_gist(len(rows))], [False])
        total = self.conditioning.total_gist(encoded, columns, rows)
        result = self.conditioning.fused_gist(total, hidden[0])
        places = {column: encoded[column].place[rows] for column in columns if column in encoded}
        count = sum(((place >= 0).long() for place in places.values()), torch.zeros_like(rows))
        for column, place in places.items():
            gist, single = encoded[column].gist, (place >= 0) & (count == 1)
            if gist is not None:
                result[single] = gist[place[single]].to(result.dtype)
        return result

    def refine_gists(self, column: str, part: Encoded, cells: Sequence[np.ndarray]) -> Encoded:
        """Encoded column with gists that the row memory has refined. Its tokens, which the trunk learned from, stay as
        they are.

        Args:
            cells: what ``part`` was made of, prepared.
        """
        memory = self.calibration.memory
        if memory is None or part.gist is None:
            return part
        sketch = self.modalities[column].sketch(cells) if memory.trust and column in memory.sketched else None
        features = None if sketch is None else torch.from_numpy(sketch).to(part.gist)
        return dataclasses.replace(part, gist=memory(column, part.gist, features))

    def memory_answer(
        self, encoded: Mapping[str, Encoded], column: str, rows: Tensor, share: float | None = None
    ) -> MemoryAnswer | None:
        """Answer of the row memory for ``column``, by the gists of what some rows show; None where that doesn't
        count."""
        memory = self.calibration.memory
        if memory is None or not self.generator(column).uses_memory:
            return None
        seen = {}
        for name, part in encoded.items():
            if part.gist is not None and len(part.gist):
                place = part.place[rows]
                seen[name] = part.gist.index_select(0, place.clamp(min=0)), place >= 0
        return memory.answer(column, seen, share)
