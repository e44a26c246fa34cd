"""Reinforce: a model that talks draws several answers to each question and learns from which of them were good (GRPO), by a scoring function or by a judge (``prefer.loss=reward``).

Only what is tuned of its language model changes; how far it leaves what it was is held by a weight.

    FOLDER/ lesson.json checkpoints/
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core.errors import BadCell, UserError
from sensorium.core.progress import ProgressReporter
from sensorium.core.seeds import mix
from sensorium.core.settings import at_least, check, grouped_arguments
from sensorium.data.table import Table
from sensorium.dialogue.chat import folded, go_on, prompts, reply, talker
from sensorium.dialogue.reward_model import RewardModel
from sensorium.inference.rows import Rows
from sensorium.modalities.conversation import messages_of
from sensorium.network import adapters
from sensorium.network.build import plain
from sensorium.network.network import Network
from sensorium.network.packed_conversation import PackedConversation, token_losses
from sensorium.nn.losses.grpo import Mean, advantages, policy
from sensorium.nn.precision import autocast
from sensorium.posttraining import adapter_training as lessons
from sensorium.training.settings import PostTrainingSettings, TrainerSettings
from sensorium.training.trainer import Trainer, asked_length

MINUTES = 10.0
HELD, ASKED = 10, 64
"""One question of so many is not learned from, but tells what was learned; and so many of these are asked at most."""

Scoring = Callable[[str, str, dict[str, Any]], float]
"""The score of an answer, beside the right one where the table has one, and the row's plain cells."""


def exact(said: str, right: str, row: Mapping[str, Any]) -> float:
    """1 for the right answer, but for case and a full stop."""
    return float(folded(said) == folded(right))


def contains(said: str, right: str, row: Mapping[str, Any]) -> float:
    """1 where the right answer is somewhere in what is said."""
    return float(folded(right) in folded(said))


def words(said: str, right: str, row: Mapping[str, Any]) -> float:
    """The F1 of words that both have in common (as SQuAD scores answers)."""
    mine, theirs = folded(said).split(), folded(right).split()
    both = sum(min(mine.count(word), theirs.count(word)) for word in set(mine))
    return 2 * both / max(len(mine) + len(theirs), 1)


SCORES: dict[str, Scoring] = {"exact": exact, "contains": contains, "words": words}


@dataclasses.dataclass
class Prompt:
    """A question about a row, in ids up to where the assistant is to speak, and the right answer, if there is one."""

    row: int
    messages: list[Any]
    ids: list[int]
    right: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPOSettings:
    """Draws answers and learns from how good they are (section ``reinforce``).

    Args:
        score: exact, contains or words (beside the right answers), or judge (``prefer.loss=reward``).
        group: answers drawn to each question; batch: questions a step; longest: tokens of an answer.
        temperature: of what is drawn. beta: weight of the divergence from what was begun with.
        mean: over what tokens the loss is one: grpo, bnpo or dr_grpo (``nn.losses.grpo``).
        scaled: advantages count in deviations of their group.
    """

    score: str = "exact"
    group: int = 8
    batch: int = 4
    longest: int = 24
    temperature: float = 1.0
    beta: float = 0.02
    mean: Mean = "grpo"
    scaled: bool = True
    trainer: PostTrainingSettings = TrainerSettings(
        optimizer="adamw", lr=1e-4, weight_decay=0.0, warmup_steps=5, lr_power=1.0, max_grad_norm=1.0
    )

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            UserError: naming the setting and what is needed.
        """
        at_least("reinforce", 2, group=self.group)
        at_least("reinforce", 1, batch=self.batch, longest=self.longest)
        at_least("reinforce", 0, beta=self.beta)
        if not self.temperature > 0:
            raise UserError(f"reinforce.temperature={self.temperature}: give a number above 0, for instance 1.")


class GRPOTrainer(Trainer):
    """Group relative policy optimisation (GRPO) of what is tuned of a language model (section ``reinforce``).

    Args:
        asked: prompts. scoring: rewards of answers, all at once. begun: the reference policy, as tuned weights by name.
    """

    section = "reinforce"

    def __init__(
        self,
        network: Network,
        rows: Rows,
        asked: Sequence[Prompt],
        scoring: Callable[[Sequence[Prompt], Sequence[str]], np.ndarray],
        folder: Path,
        seed: int,
        minutes: float | None,
        epochs: float | None,
        begun: Mapping[str, torch.Tensor],
        settings: GRPOSettings,
    ) -> None:
        settings.validate()
        self.whole, self.rows, self.scoring, self.asked = network, rows, scoring, list(asked)
        self.group, self.batch, self.longest = settings.group, min(settings.batch, len(asked)), settings.longest
        self.temperature, self.beta = settings.temperature, settings.beta
        self.mean, self.scaled = settings.mean, settings.scaled
        self.held = list(range(0, len(asked), HELD)) if len(asked) >= HELD else []
        self.learned = [number for number in range(len(asked)) if number not in set(self.held)]
        super().__init__(network.trunk.learned, {}, folder / "checkpoints", seed, minutes, settings.trainer)
        self.steps = None if epochs is None else math.ceil(epochs * len(self.learned) / self.batch)
        self.shown, self.begun = lessons.shown(network, rows), begun
        self.score = 0.0

    def make(self, step: int) -> tuple[int, list[int]]:
        return step, lessons.drawn(self.seed, self.learned, self.batch, step)

    def size(self, step: int, numbers: list[int]) -> int:
        return len(numbers)

    def losses(self, step: int, numbers: list[int]) -> dict[str, torch.Tensor]:
        asked = [self.asked[number] for number in numbers for _ in range(self.group)]
        generator = torch.Generator(self.device).manual_seed(mix(self.seed, step, 2))
        said = go_on(
            self.whole,
            self.rows,
            [self.asked[number].row for number in numbers],
            [self.asked[number].ids for number in numbers],
            self.longest,
            self.temperature,
            generator=generator,
            each=self.group,
        )
        scores = torch.from_numpy(self.scoring(asked, [answer.text for answer in said])).float()
        self.score = float(scores.mean())
        better = advantages(scores.view(-1, self.group), self.scaled).flatten().to(self.device)
        column = talker(self.whole)
        cells = [
            np.array([*one.ids, *answer.ids, *[0] * len(one.ids), *[1] * len(answer.ids)], np.int32)
            for one, answer in zip(asked, said, strict=True)
        ]
        made: PackedConversation = self.whole.dialogue.pack_conversations(
            column, self.shown, self.whole.modalities[column].collate(cells), torch.tensor([one.row for one in asked])
        )
        before = None
        with autocast(self.precision, self.device):
            if self.beta:
                with torch.no_grad(), adapters.other(self.whole, self.begun):
                    before = -token_losses(self.whole.trunk, made)[0]
            lost, row = token_losses(self.whole.trunk, made)
        return {"reinforce": policy(-lost, before, row, better, beta=self.beta, mean=self.mean, longest=self.longest)}

    def good(self) -> float:
        """The mean score of the likeliest answers to questions held out."""
        some = [self.asked[number] for number in self.held[:ASKED]]
        if not some:
            return float("nan")
        said = reply(
            self.whole, self.rows, [one.row for one in some], [one.messages for one in some], longest=self.longest
        )
        return float(self.scoring(some, [answer.text for answer in said]).mean())


def read_asked(
    network: Network, table: Table, right: bool, note: Any
) -> tuple[Rows, list[Prompt], list[dict[str, Any]]]:
    """The rows of a table of questions, read, its questions, and the rows' plain cells.

    Args:
        right: whether each must have a right answer, ``answer`` or, as in a table of preferences, ``chosen``.

    Raises:
        UserError: a column isn't there, or fewer than two rows have a question.
    """
    answer = next((name for name in ("answer", "chosen") if name in table.columns), None)
    if "conversation" not in table.columns or (right and answer is None):
        raise UserError(
            f"'{table.name}' has no column '{'answer' if 'conversation' in table.columns else 'conversation'}'. A table of questions has conversation, which ends with the user, answer (or chosen) "
            "where answers are compared with the right ones, and the columns that conversations refer to: sensorium ask-data TABLE --pairs --out FILE"
        )
    plain_columns = [
        c
        for c in table.columns
        if c != "conversation" and (c not in network.columns or not network.modalities[c].media)
    ]
    cells, asked, wrong = table.take(np.arange(table.rows), ["conversation", *plain_columns]).to_pylist(), [], {}
    for row, cell in enumerate(cells):
        try:
            messages = [(role, list(parts)) for role, parts in messages_of(cell["conversation"], False)]
            if messages[-1][0] != "user":
                raise BadCell("it doesn't end with the user")
            lessons.spoken_to(network, messages)
            if right and not cell[answer]:
                raise BadCell("the right answer is missing")
            asked.append(
                Prompt(row, messages, prompts(network, [messages])[0], str(cell[answer] or "") if answer else "")
            )
        except (BadCell, UserError) as error:
            wrong.setdefault(str(error), []).append(row)
    lessons.tell_left_out(wrong, note)
    if len(asked) < 2:
        raise UserError(f"'{table.name}' has {len(asked)} question(s) to practise on; at least 2 are needed.")
    return Rows.of(network, table, [c for c in network.columns if c not in network.dialogue_columns]), asked, cells


def scoring_of(
    network: Network,
    rows: Rows,
    cells: Sequence[Mapping[str, Any]],
    score: str,
    own: Scoring | None,
    judge: RewardModel | None,
) -> Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]:
    """How answers are scored, all at once.

    Raises:
        UserError: a score that isn't there.
    """
    if own is None and score == "judge":
        assert judge is not None
        return lambda asked, said: judge.scores(
            network,
            rows,
            [one.row for one in asked],
            [[*one.messages, ("assistant", [text or " "])] for one, text in zip(asked, said, strict=True)],
        )
    function = own or SCORES[score]

    def scored(asked: Sequence[Prompt], said: Sequence[str]) -> np.ndarray:
        found = np.array(
            [float(function(text, one.right, dict(cells[one.row]))) for one, text in zip(asked, said, strict=True)]
        )
        if not np.isfinite(found).all():
            at = int(np.flatnonzero(~np.isfinite(found))[0])
            raise UserError(
                f"The score of '{said[at][:60]}' in row {asked[at].row} is {found[at]}. Scores are finite numbers, higher for better answers."
            )
        return found

    return scored


def reinforce(
    network: Network,
    table: Table,
    folder: Path,
    *,
    own: Scoring | None,
    judge: Callable[[], RewardModel],
    minutes: float | None,
    epochs: float | None,
    seed: int,
    resume: bool,
    settings: Mapping[str, Any],
    begin: Any,
    quiet: bool,
) -> dict[str, Any]:
    """Let a network practise on a table's questions; what is known of it: ``seconds``, ``steps``, ``stopped``, ``questions``, and the mean score of answers to questions held out, ``before`` and ``after``.

    Args:
        folder: for what a lesson can be gone on with from, removed when it is over. own: scores answers, in place of ``reinforce.score``. judge: the run's, where it is to score.
        begin: makes the folder, from what a lesson that goes on must have in common.

    Raises:
        UserError: nothing is tuned in this network, a setting that isn't there, a table without questions, or a lesson that can't be gone on with.
    """
    minutes, epochs = asked_length(seed, minutes, epochs, MINUTES)
    chosen = check(GRPOSettings, plain(settings, "reinforce"), "reinforce")
    talker(network)
    adapters.able(network)
    score = str(chosen.get("score", "exact"))
    if own is None and score not in (*SCORES, "judge"):
        raise UserError(
            f"reinforce.score={score}: possible are {', '.join(SCORES)} and judge; in Python also a function, model.reinforce(…, score=…)."
        )
    judging = judge() if own is None and score == "judge" else None
    with ProgressReporter(quiet) as shown:
        rows, asked, cells = read_asked(network, table, own is None and score != "judge", shown.log)
        begin({"table": table.name, "rows": table.rows, "seed": seed, "settings": chosen})
        was = lessons.begun(network, folder, resume)
        lesson = GRPOTrainer(
            network,
            rows,
            asked,
            scoring_of(network, rows, cells, score, own, judging),
            folder,
            seed,
            minutes,
            epochs,
            was,
            GRPOSettings(**grouped_arguments(GRPOSettings, chosen)),
        )
        with adapters.alone(network):
            with adapters.other(network, was):
                before = lesson.good()
            at = lessons.run(lesson, "Practising", resume, shown, lambda values: f"score {lesson.score:.3f}")
            facts = {
                "seconds": round(at.seconds, 2),
                "steps": at.step,
                "stopped": at.stopped,
                "questions": len(lesson.learned),
                "held_out": len(lesson.held),
                "before": round(before, 4),
                "after": round(lesson.good(), 4),
            }
    if not facts["stopped"]:
        shutil.rmtree(folder, ignore_errors=True)
    return facts
