"""Drawing what is seen and what is asked: which question a row is given in a step.

A pure function of the generator it is handed; it knows columns by name and by what can be done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sensorium.core.errors import UserError, unknown
from sensorium.network.types import Plan

if TYPE_CHECKING:
    from sensorium.network.network import Network

BESIDE = 0.05
"""Share of plans that ask for a text although the user has other targets: many tokens, most of a step's time."""


class QuestionSampler:
    """Draws the plans of a step.

    Args:
        network: asked for which columns exist, which are matched, which can be asked and how long they are.
        targets: columns the user wants predicted: asked in most plans, hardly ever seen.
        plans: how many different questions a step asks; its rows are dealt out among them. 0: none, and nothing can be asked later.
        share: share of the batch's rows that go through the trunk; by default 1, and 0.5 where there are targets, which all rows
            are asked past the trunk. The rest is matched only.
        alone: share of plans that see one column alone; by default 0.6, and 0.2 where there are targets.
        everything: share of plans that see all but what is asked; by default 0.2, and 0.3 where there are targets.
        absent: chance of a column to be in neither set.
        most: how many matched columns of one modality a step looks at; where there are more, they take turns, so that
            ten translations of a name cost a step no more than two.
        generate: columns whose pictures, videos, sounds, series or points are learned to be generated, as ``image,voice``; "auto": all of them where
            there is time for it, "": none. They take turns, in a question of their own in each step.
        generator: how they are generated: flow, vae, gan, codes; with several, as ``flow,vae``, these take turns as well, and the first is
            asked unless another is named.
        drawn: share of the batch's rows that are asked for such a column; blank: share of these questions that show nothing, as
            guidance needs. apart: such a question teaches only what draws, so that all else is learned as if it weren't asked; by default where there is
            anything else to learn, unless it is a target, or the trunk is a language model.
        talk: rows of a step whose conversations are learned.
        weights: how often a column takes its turn, is seen alone, and a long one (text) is asked, relative to others; ``name:3``.
    """

    def __init__(
        self,
        network: Network,
        targets: Sequence[str] = (),
        *,
        plans: int = 3,
        share: float | None = None,
        alone: float | None = None,
        everything: float | None = None,
        absent: float = 0.1,
        most: int = 3,
        generate: str = "auto",
        generator: str = "flow",
        drawn: float = 0.25,
        blank: float = 0.1,
        apart: bool | None = None,
        talk: int = 32,
        weights: dict[str, float] | None = None,
    ) -> None:
        self.columns = network.columns
        self.matched = [c for c in network.columns if network.modalities[c].matched]
        asked = network.asked_columns
        predicted = [c for c in asked if c not in network.generative_columns]
        self.short = [c for c in predicted if network.modalities[c].tokens().length == 1]
        self.long = [c for c in predicted if c not in self.short]
        self.generated, self.drawn, self.blank = network.generative_columns, drawn, blank
        else_learned = bool(predicted) or len(self.matched) > 1
        self.apart = (
            apart
            if apart is not None
            else else_learned and not network.trunk.is_language_model and not set(targets) & set(self.generated)
        )
        self.talked, self.talk = network.dialogue_columns, talk
        self.ways = {c: list(network.generator_keys[c]) for c in self.generated}
        self.targets = list(targets)
        for c in self.targets:
            if c not in asked:
                raise UserError(
                    f"The target '{c}' can't be asked. Possible: {', '.join(asked) or 'none'}; a picture, a video, a sound or a series "
                    "where it is learned with --generate."
                )
        self.plans, self.absent = plans, absent
        self.share = share if share is not None else 0.5 if self.targets else 1.0
        self.alone = alone if alone is not None else 0.2 if self.targets else 0.6
        self.everything = everything if everything is not None else 0.3 if self.targets else 0.2
        unknown_weights = set(weights or {}) - set(self.columns)
        if unknown_weights:
            raise unknown("column in sample.weights:", sorted(unknown_weights)[0], self.columns)
        self.weights = {c: float((weights or {}).get(c, 1.0)) for c in self.columns}
        self.most = most
        self.kinds: dict[type, list[str]] = {}
        for c in self.matched:
            self.kinds.setdefault(type(network.modalities[c]), []).append(c)

    def looked_at(self, seed: Sequence[int]) -> list[str]:
        """The columns that a step reads; the same for the same seed."""
        rng, left_out = np.random.default_rng([*seed, 1]), set()
        for columns in self.kinds.values():
            if len(columns) > self.most:
                chance = np.array([self.weights[c] for c in columns])
                able = np.flatnonzero(chance > 0)
                size = min(self.most, len(able))
                kept = rng.choice(able, size, replace=False, p=chance[able] / chance[able].sum()) if size else []
                left_out |= set(columns) - {columns[i] for i in kept}
        return [c for c in self.columns if c not in left_out or c in self.targets]

    def draw(self, rows: int, seed: Sequence[int]) -> list[Plan]:
        """The plans of one step; the same for the same seed."""
        rng, columns = np.random.default_rng(list(seed)), self.looked_at(seed)
        each = max(
            1, int(rows * self.share / max(self.plans, 1))
        )  # of one size, as a new size is slow (``nn.shape_buckets``)
        told, plans, kind = rng.permutation(rows), [], rng.random()
        talked = [c for c in self.talked if c in columns]
        columns = [c for c in columns if c not in talked]  # conversations are never seen
        for number in range(min(self.plans, rows // each)):
            part = told[number * each : (number + 1) * each]
            seen, asked = self.question(rng, columns, (kind + number / self.plans) % 1)  # the kinds of a step differ
            plans.append(Plan(torch.from_numpy(np.sort(part)), tuple(seen), tuple(asked)))
        generated = [c for c in self.generated if c in columns]
        if generated and self.drawn > 0:
            column, part = str(rng.choice(generated)), rng.permutation(rows)[: max(1, int(rows * self.drawn))]
            seen, ways = self.shown(rng, columns, column), self.ways[column]
            way = str(rng.choice(ways)) if len(ways) > 1 else None
            plans.append(Plan(torch.from_numpy(np.sort(part)), seen, (column,), way, self.apart))
        for column in talked:
            if self.talk:
                plans.append(Plan(torch.from_numpy(np.sort(rng.permutation(rows)[: self.talk])), (), (column,)))
        return plans

    def shown(self, rng: np.random.Generator, columns: Sequence[str], column: str) -> tuple[str, ...]:
        """What is seen where a column is to be drawn: nothing, one other column, all others, or any of them."""
        others, kind, chance = [c for c in columns if c != column], rng.random(), rng.random()
        if kind < self.blank:
            return ()
        if kind < 0.5:
            seen = self.one(rng, others, {column})
        elif kind < 0.75:
            seen = set(others)
        else:
            seen = {c for c in others if rng.random() < chance}
        return tuple(c for c in columns if c in seen)

    def question(self, rng: np.random.Generator, columns: Sequence[str], kind: float) -> tuple[list[str], list[str]]:
        """One draw of (seen, asked) among the columns a step looks at, in their order; ``kind`` in 0..1 says how much is seen."""
        wanted, long = set(), [c for c in self.long if c in columns and self.weights[c] > 0]
        if long:
            chance = np.array([self.weights[c] for c in long])
            wanted.add(str(rng.choice(long, p=chance / chance.sum())))
        if self.targets:
            hidden = {c for c in self.targets if rng.random() < 0.95}
            if rng.random() >= BESIDE:
                wanted = {c for c in wanted if c in self.targets}
            wanted |= hidden
        may = [c for c in columns if c not in wanted]
        if kind < self.alone:
            seen = self.one(rng, may, wanted)
        elif kind < self.alone + self.everything:
            hidden = {c for c in may if c in self.short and rng.random() < 1 / max(len(self.short), 1)}
            seen = set(may) - hidden
        else:
            chance = rng.random()
            seen = {c for c in may if rng.random() < chance and rng.random() >= self.absent}
        asked = {c for c in self.short if c not in seen and (c in self.targets or rng.random() >= self.absent)} | wanted
        return [c for c in columns if c in seen], [c for c in columns if c in asked - seen]

    def one(self, rng: np.random.Generator, may: Sequence[str], wanted: set[str]) -> set[str]:
        """One column to be seen alone: of another modality than what is wanted if there is one, by weight; columns of one
        modality share theirs."""
        kinds = {c: kind for kind, columns in self.kinds.items() for c in columns}
        said = {kinds[c] for c in wanted if c in kinds}
        may = [c for c in may if self.weights[c] > 0]
        pool = [c for c in may if c in kinds and kinds[c] not in said] or [c for c in may if c in kinds] or may
        if not pool:
            return set()
        share = np.array([self.weights[c] / sum(kinds.get(d) is kinds.get(c) for d in pool) for c in pool])
        return {str(rng.choice(pool, p=share / share.sum()))}
