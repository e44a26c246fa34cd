"""Prefer: a model that talks learns which of two answers is the better one, beside what it was (DPO), or a judge learns it, which scores answers and leaves the model as it is.

Only what is tuned of its language model changes. What it was begun with is asked once, before; then it isn't needed any more. A judge is a copy of what is tuned with a head of its own.

    FOLDER/ lesson.json checkpoints/
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sensorium.core.errors import BadCell, UserError
from sensorium.core.progress import ProgressReporter
from sensorium.core.seeds import mix
from sensorium.core.settings import at_least, check, grouped_arguments
from sensorium.data.table import Table
from sensorium.dialogue.parts import dialogue_column
from sensorium.dialogue.reward_model import RewardModel, rest_of
from sensorium.inference.rows import Rows
from sensorium.modalities.conversation import last_said, messages_of
from sensorium.network import adapters
from sensorium.network.build import plain
from sensorium.network.network import Network
from sensorium.network.packed_conversation import PackedConversation, last_hidden, summed_losses
from sensorium.nn.losses.dpo import Loss, preferred, rewarded
from sensorium.nn.precision import autocast
from sensorium.posttraining import adapter_training as lessons
from sensorium.training.settings import PostTrainingSettings, TrainerSettings
from sensorium.training.trainer import Trainer, asked_length

MINUTES = 10.0
COLUMNS = "conversation", "chosen", "rejected"
HELD = 10
"""One pair of so many is not learned from, but tells what was learned."""


@dataclasses.dataclass
class PreferencePair:
    """Two answers to what was said about a row: collated as conversations whose last message alone is said."""

    row: int
    chosen: np.ndarray
    rejected: np.ndarray


Kind = Literal[Loss, "reward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPOSettings:
    """Teaches which of two answers is better (section ``prefer``).

    Args:
        loss: dpo or ipo; reward: a judge learns to score answers (Bradley & Terry), and the model stays as it is.
        beta: how closely the model keeps to what it was. smoothing: share of pairs that are taken to be the wrong way
            round. imitate: weight of the chosen answer's own loss.
        batch: pairs a step.
    """

    loss: Kind = "dpo"
    beta: float = 0.1
    smoothing: float = 0.0
    imitate: float = 0.2
    batch: int = 8
    trainer: PostTrainingSettings = TrainerSettings(
        optimizer="adamw", lr=2e-4, weight_decay=0.0, warmup_steps=10, lr_power=1.0, max_grad_norm=1.0
    )

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            UserError: naming the setting and what is needed.
        """
        at_least("prefer", 1, batch=self.batch)
        at_least("prefer", 0, beta=self.beta, smoothing=self.smoothing, imitate=self.imitate)
        if self.loss not in ("dpo", "ipo", "reward") or not self.beta > 0 or not self.smoothing < 0.5:
            raise UserError(
                f"prefer.loss={self.loss}, prefer.beta={self.beta}, prefer.smoothing={self.smoothing}: the loss is "
                "dpo, ipo or reward, beta above 0, smoothing below 0.5."
            )


class DPOTrainer(Trainer):
    """Direct preference optimisation (DPO, IPO), or training of a reward model (section ``prefer``)."""

    section = "prefer"

    def __init__(
        self,
        network: Network,
        rows: Rows,
        pairs: Sequence[PreferencePair],
        folder: Path,
        seed: int,
        minutes: float | None,
        epochs: float | None,
        settings: DPOSettings,
    ) -> None:
        settings.validate()
        self.whole, self.rows, self.kind, self.batch = network, rows, settings.loss, min(settings.batch, len(pairs))
        self.beta, self.smoothing, self.imitate = settings.beta, settings.smoothing, settings.imitate
        self.pairs = list(pairs)
        self.held = list(range(0, len(pairs), HELD)) if len(pairs) >= HELD else []
        self.learned = [number for number in range(len(pairs)) if number not in set(self.held)]
        own = network.trunk.out.in_features
        self.head = nn.Linear(own, 1).to(network.trunk.loud.device)
        nn.init.zeros_(self.head.weight)
        heads = {"head": self.head} if self.kind == "reward" else {}
        super().__init__(network.trunk.learned, heads, folder / "checkpoints", seed, minutes, settings.trainer)
        self.steps = None if epochs is None else math.ceil(epochs * len(self.learned) / self.batch)
        self.shown = lessons.shown(network, rows)
        self.before = torch.zeros(len(pairs), 2)

    def weighed(self, numbers: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the chosen and the rejected answers of some pairs [n, 2], sums over their tokens, and means for ``ipo``; scores for ``reward``."""
        column = dialogue_column(self.whole)
        cells = [cell for number in numbers for cell in (self.pairs[number].chosen, self.pairs[number].rejected)]
        which = torch.tensor([self.pairs[number].row for number in numbers for _ in range(2)])
        made: PackedConversation = self.whole.dialogue.pack_conversations(
            column, self.shown, self.whole.modalities[column].collate(cells), which
        )
        if self.kind == "reward":
            return self.head(last_hidden(self.whole.trunk, made).float()).view(-1, 2)
        sums, counts = summed_losses(self.whole.trunk, made)
        return -(sums / counts.clamp_min(1) if self.kind == "ipo" else sums).view(-1, 2)

    def remember(self, done: Any) -> None:
        """Ask the model as it is, once, about all pairs; of scores nothing need be known before."""
        for start in range(0, len(self.pairs), self.batch):
            numbers = range(start, min(start + self.batch, len(self.pairs)))
            with torch.no_grad(), autocast(self.precision, self.device):
                self.before[numbers.start : numbers.stop] = self.weighed(numbers).float().cpu()
            done(len(numbers))

    def make(self, step: int) -> tuple[list[int]]:
        return (lessons.drawn(self.seed, self.learned, self.batch, step),)

    def size(self, numbers: list[int]) -> int:
        return len(numbers)

    def losses(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        with autocast(self.precision, self.device):
            now = self.weighed(numbers).float()
        if self.kind == "reward":
            return {"prefer": rewarded(now[:, 0], now[:, 1]).mean()}
        before = self.before[numbers].to(now.device)
        result = {
            "prefer": preferred(
                now[:, 0],
                now[:, 1],
                before[:, 0],
                before[:, 1],
                beta=self.beta,
                smoothing=self.smoothing,
                loss=self.kind,
            ).mean()
        }
        if self.imitate:
            tokens = torch.tensor(
                [int(self.pairs[number].chosen.reshape(2, -1)[1].sum()) for number in numbers], device=now.device
            )
            result["imitate"] = -self.imitate * (now[:, 0] / (1 if self.kind == "ipo" else tokens.clamp_min(1))).mean()
        return result

    @torch.no_grad()
    def right(self) -> float:
        """The share of pairs held out whose chosen answer is the likelier one, or has the higher score."""
        if not self.held:
            return float("nan")
        with autocast(self.precision, self.device):
            found = torch.cat(
                [self.weighed(self.held[at : at + self.batch]) for at in range(0, len(self.held), self.batch)]
            )
        return float((found[:, 0] > found[:, 1]).float().mean())


def read_pairs(network: Network, table: Table, note: Any) -> tuple[Rows, list[PreferencePair]]:
    """The rows of a table of preferences, read, and their pairs.

    Raises:
        UserError: a column isn't there, or no row has a pair.
    """
    column = dialogue_column(network)
    for name in COLUMNS:
        if name not in table.columns:
            raise UserError(
                f"'{table.name}' has no column '{name}'. A table of preferences has {', '.join(COLUMNS)}, and the columns that conversations refer to: sensorium ask-data TABLE --pairs --out FILE"
            )
    modality, pairs, wrong = network.dialogue_modality(column), [], {}
    cells = table.take(np.arange(table.rows), list(COLUMNS)).to_pylist()
    for row, cell in enumerate(cells):
        try:
            asked = [[role, list(parts)] for role, parts in messages_of(cell["conversation"], False)]
            lessons.spoken_to(network, asked)
            both = []
            for answer in (cell["chosen"], cell["rejected"]):
                if not answer:
                    raise BadCell("an answer is missing")
                both.append(last_said(*modality.shortened([*asked, ["assistant", [answer]]])))
            pairs.append(PreferencePair(row, *both))
        except BadCell as error:
            wrong.setdefault(str(error), []).append(row)
    lessons.tell_left_out(wrong, note)
    if len(pairs) < 2:
        raise UserError(f"'{table.name}' has {len(pairs)} pair(s) of answers; at least 2 are needed.")
    return Rows.of(network, table, [c for c in network.columns if c not in network.dialogue_columns]), pairs


def prefer(
    network: Network,
    table: Table,
    folder: Path,
    *,
    minutes: float | None,
    epochs: float | None,
    seed: int,
    resume: bool,
    settings: Mapping[str, Any],
    begin: Any,
    quiet: bool,
) -> tuple[dict[str, Any], RewardModel | None]:
    """Teach a network a table's preferences; what is known of it: ``seconds``, ``steps``, ``stopped``, ``pairs``, and the share of held out pairs whose chosen answer is likelier, ``before`` and ``after``.
    And the judge, where one was to learn them.

    Args:
        folder: for what a lesson can be gone on with from, removed when it is over. begin: makes it, from what a lesson that goes on must have in common.

    Raises:
        UserError: nothing is tuned in this network, a setting that isn't there, or a lesson that can't be gone on with.
    """
    minutes, epochs = asked_length(seed, minutes, epochs, MINUTES)
    chosen = check(DPOSettings, plain(settings, "prefer"), "prefer")
    dialogue_column(network)
    adapters.able(network)
    with ProgressReporter(quiet) as shown:
        rows, pairs = read_pairs(network, table, shown.log)
        begin({"table": table.name, "rows": table.rows, "seed": seed, "settings": chosen})
        recipe = DPOSettings(**grouped_arguments(DPOSettings, chosen))
        lesson = DPOTrainer(network, rows, pairs, folder, seed, minutes, epochs, recipe)
        own = lessons.begun(network, folder, resume)
        judge = None
        with adapters.alone(network):
            with adapters.other(network, own):
                if lesson.kind != "reward":
                    with (
                        shown.bar("Weighing answers as they were", len(pairs)) as weighing,
                        torch.random.fork_rng(devices=[]),
                    ):
                        torch.manual_seed(mix(seed, 1))
                        lesson.remember(weighing)
                before = lesson.right()
            at = lessons.run(lesson, "Learning to prefer", resume, shown, lambda values: f"loss {values['loss']:.3f}")
            facts = {
                "seconds": round(at.seconds, 2),
                "steps": at.step,
                "stopped": at.stopped,
                "pairs": len(lesson.learned),
                "held_out": len(lesson.held),
                "before": round(before, 4),
                "after": round(lesson.right(), 4),
            }
        if lesson.kind == "reward":
            judge = RewardModel(
                adapters.tuned(network),
                lesson.head.weight.detach().clone(),
                lesson.head.bias.detach().clone(),
                rest_of(network),
            )
            for name, value in own.items():
                network.trunk.learned[name].data.copy_(value)
    if not facts["stopped"]:
        shutil.rmtree(folder, ignore_errors=True)
    return facts, judge
