"""Question sampling: which columns a row shows and which it is asked, in each step of training.

A pure function of the seed it is given; it knows columns by name and by what can be done with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sensorium.core.errors import UserError, unknown
from sensorium.network.types import ColumnFacts, Plan

TEXT_SHARE = 0.05
"""Share of plans that ask for a text although the user has other targets: many tokens, most of a step's time."""


class QuestionSampler:
    """Sampler of the questions (plans) of a training step.

    Args:
        facts: the network's columns, and what can be done with each.
        targets: columns the user wants predicted: asked in most plans, hardly ever seen.
        plans: questions a step asks; its rows are dealt out among them. 0: none, and nothing can be asked later.
        trunk_share: share of the batch's rows that go through the trunk; by default 1, and 0.5 where there are targets,
            which all rows are asked past the trunk. The rest is matched only.
        single_column: share of plans that see one column only; by default 0.6, and 0.2 where there are targets.
        all_columns: share of plans that see all but what is asked; by default 0.2, and 0.3 where there are targets.
        drop_column: chance of a column to be in neither set.
        max_per_modality: matched columns of one modality that a step reads; where there are more, they take turns, so
            that ten translations of a name cost a step no more than two.
        generate: columns whose pictures, videos, sounds, series or points are learned to be generated, as
            ``image,voice``; "auto": all of them where there is time for it, "": none. They take turns, in a question of
            their own in each step.
        generator: generators that learn them: flow, vae, gan, codes; with several, as ``flow,vae``, these take turns
            as well, and the first is asked unless another is named.
        generate_share: share of the batch's rows that are asked for such a column.
        unconditional_share: share of these questions that show nothing, as classifier-free guidance needs.
        detach_generation: such a question trains the generator only, so that all else is learned as if it weren't
            asked; by default where there is anything else to learn, unless it is a target, or the trunk is a language
            model.
        dialogue_rows: rows of a step whose conversations are learned.
        weights: how often a column takes its turn, is seen as the only one, and a long one (text) is asked, relative to
            others; ``name:3``.
    """

    def __init__(
        self,
        facts: ColumnFacts,
        targets: Sequence[str] = (),
        *,
        plans: int = 3,
        trunk_share: float | None = None,
        single_column: float | None = None,
        all_columns: float | None = None,
        drop_column: float = 0.1,
        max_per_modality: int = 3,
        generate: str = "auto",
        generator: str = "flow",
        generate_share: float = 0.25,
        unconditional_share: float = 0.1,
        detach_generation: bool | None = None,
        dialogue_rows: int = 32,
        weights: dict[str, float] | None = None,
    ) -> None:
        self.facts, self.targets = facts, list(targets)
        for c in self.targets:
            if c not in facts.asked:
                raise UserError(
                    f"The target '{c}' can't be asked. Possible: {', '.join(facts.asked) or 'none'}; a picture, a "
                    "video, "
                    "a sound or a series where it is learned with --generate."
                )
        self.generate_share, self.unconditional_share = generate_share, unconditional_share
        if detach_generation is None:
            others = len(facts.asked) > len(facts.generators) or len(facts.matched) > 1
            detach_generation = others and not facts.language_model and not set(targets) & set(facts.generators)
        self.detach_generation, self.dialogue_rows = detach_generation, dialogue_rows
        self.plans, self.drop_column, self.max_per_modality = plans, drop_column, max_per_modality
        self.trunk_share = trunk_share if trunk_share is not None else 0.5 if self.targets else 1.0
        self.single_column = single_column if single_column is not None else 0.2 if self.targets else 0.6
        self.all_columns = all_columns if all_columns is not None else 0.3 if self.targets else 0.2
        unknown_weights = set(weights or {}) - set(facts.columns)
        if unknown_weights:
            raise unknown("column in questions.weights:", sorted(unknown_weights)[0], facts.columns)
        self.weights = {c: float((weights or {}).get(c, 1.0)) for c in facts.columns}
        self.by_modality: dict[str, list[str]] = {}
        for c in facts.matched:
            self.by_modality.setdefault(facts.modality[c], []).append(c)

    def columns_read(self, seed: Sequence[int]) -> list[str]:
        """Columns that a step reads; the same for the same seed."""
        rng, left_out = np.random.default_rng([*seed, 1]), set()
        for columns in self.by_modality.values():
            if len(columns) > self.max_per_modality:
                chance = np.array([self.weights[c] for c in columns])
                able = np.flatnonzero(chance > 0)
                size = min(self.max_per_modality, len(able))
                chosen = rng.choice(able, size, replace=False, p=chance[able] / chance[able].sum()) if size else []
                left_out |= set(columns) - {columns[i] for i in chosen}
        return [c for c in self.facts.columns if c not in left_out or c in self.targets]

    def draw(self, rows: int, seed: Sequence[int]) -> list[Plan]:
        """Plans of one step; the same for the same seed."""
        rng, columns = np.random.default_rng(list(seed)), self.columns_read(seed)
        # All plans have one size, as a new size is slow: see ``nn.shape_buckets``.
        size = max(1, int(rows * self.trunk_share / max(self.plans, 1)))
        order, plans, kind = rng.permutation(rows), [], rng.random()
        dialogues = [c for c in self.facts.dialogue if c in columns]
        columns = [c for c in columns if c not in dialogues]  # conversations are never seen
        for number in range(min(self.plans, rows // size)):
            part = order[number * size : (number + 1) * size]
            seen, asked = self.question(rng, columns, (kind + number / self.plans) % 1)  # the kinds of a step differ
            plans.append(Plan(torch.from_numpy(np.sort(part)), tuple(seen), tuple(asked)))
        generated = [c for c in self.facts.generators if c in columns]
        if generated and self.generate_share > 0:
            column, part = str(rng.choice(generated)), rng.permutation(rows)[: max(1, int(rows * self.generate_share))]
            seen_for, names = self.seen_for_generation(rng, columns, column), self.facts.generators[column]
            name = str(rng.choice(names)) if len(names) > 1 else None
            plans.append(Plan(torch.from_numpy(np.sort(part)), seen_for, (column,), name, self.detach_generation))
        for column in dialogues:
            if self.dialogue_rows:
                chosen = np.sort(rng.permutation(rows)[: self.dialogue_rows])
                plans.append(Plan(torch.from_numpy(chosen), (), (column,)))
        return plans

    def seen_for_generation(self, rng: np.random.Generator, columns: Sequence[str], column: str) -> tuple[str, ...]:
        """Columns seen where ``column`` is to be generated: none, one other, all others, or any of them."""
        others, kind, chance = [c for c in columns if c != column], rng.random(), rng.random()
        if kind < self.unconditional_share:
            return ()
        if kind < 0.5:
            seen = self.single(rng, others, {column})
        elif kind < 0.75:
            seen = set(others)
        else:
            seen = {c for c in others if rng.random() < chance}
        return tuple(c for c in columns if c in seen)

    def question(self, rng: np.random.Generator, columns: Sequence[str], kind: float) -> tuple[list[str], list[str]]:
        """Random (seen, asked) among the columns a step reads, in their order; ``kind`` in 0..1: how much is seen."""
        wanted, long = set(), [c for c in self.facts.long if c in columns and self.weights[c] > 0]
        if long:
            chance = np.array([self.weights[c] for c in long])
            wanted.add(str(rng.choice(long, p=chance / chance.sum())))
        if self.targets:
            hidden = {c for c in self.targets if rng.random() < 0.95}
            if rng.random() >= TEXT_SHARE:
                wanted = {c for c in wanted if c in self.targets}
            wanted |= hidden
        free, short = [c for c in columns if c not in wanted], self.facts.short
        if kind < self.single_column:
            seen = self.single(rng, free, wanted)
        elif kind < self.single_column + self.all_columns:
            hidden = {c for c in free if c in short and rng.random() < 1 / max(len(short), 1)}
            seen = set(free) - hidden
        else:
            chance = rng.random()
            seen = {c for c in free if rng.random() < chance and rng.random() >= self.drop_column}
        asked = {c for c in short if c not in seen and (c in self.targets or rng.random() >= self.drop_column)} | wanted
        return [c for c in columns if c in seen], [c for c in columns if c in asked - seen]

    def single(self, rng: np.random.Generator, free: Sequence[str], wanted: set[str]) -> set[str]:
        """Random column to be seen as the only one, by weight: of another modality than what is wanted if there is one.

        Columns of one modality share its chance.
        """
        kinds = {c: kind for kind, columns in self.by_modality.items() for c in columns}
        asked = {kinds[c] for c in wanted if c in kinds}
        free = [c for c in free if self.weights[c] > 0]
        pool = [c for c in free if c in kinds and kinds[c] not in asked] or [c for c in free if c in kinds] or free
        if not pool:
            return set()
        share = np.array([self.weights[c] / sum(kinds.get(d) == kinds.get(c) for d in pool) for c in pool])
        return {str(rng.choice(pool, p=share / share.sum()))}
