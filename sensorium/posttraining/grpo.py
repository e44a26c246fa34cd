"""Group relative policy optimisation (GRPO): a dialogue model samples several answers to each prompt and learns from
their rewards (``dialogue.rewards``).

Only what is tuned of its language model changes; a weight holds it to the reference policy, which it was before.

    FOLDER/ run.json checkpoints/
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core import registry
from sensorium.core.errors import BadCell, UserError
from sensorium.core.progress import ProgressReporter
from sensorium.core.seeds import mix
from sensorium.core.settings import at_least, grouped_arguments
from sensorium.data.table import Table
from sensorium.dialogue.decoding import Sampling, decode_replies, generate_replies, prompt_ids
from sensorium.dialogue.parts import dialogue_column, dialogue_head, dialogue_modality
from sensorium.dialogue.reward_model import FILE, RewardModel
from sensorium.dialogue.rewards import Prompt, Reward
from sensorium.dialogue.rewards._function import FunctionReward, Scoring
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained
from sensorium.modalities._messages import messages_of
from sensorium.network import adapters
from sensorium.network.network import Network
from sensorium.network.packed_conversation import token_losses
from sensorium.nn.losses.grpo import Mean, advantages, policy
from sensorium.nn.precision import autocast
from sensorium.posttraining import Recipe, RunOptions, _adapter_training
from sensorium.training.settings import PostTrainingSettings, TrainerSettings

MAX_VALIDATION = 64
"""Validation prompts that are asked at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRPOSettings:
    """Settings of group relative policy optimisation, GRPO (section ``reinforce``).

    Args:
        score: exact, contains or words (beside the right answers), or judge (``prefer.loss=reward``).
        group: answers sampled to each question; batch: questions a step; longest: tokens of an answer.
        temperature: of sampling. beta: weight of the divergence from the reference policy.
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


class GRPOTrainer(_adapter_training.AdapterTrainer):
    """Group relative policy optimisation (GRPO) of what is tuned of a language model (section ``reinforce``).

    Args:
        reward: of answers. reference: tuned weights of the reference policy, by name.
    """

    section = "reinforce"
    title = "Practising"
    unit = "questions"

    def __init__(
        self,
        network: Network,
        rows: Rows,
        prompts: Sequence[Prompt],
        reward: Reward,
        reference: Mapping[str, torch.Tensor],
        folder: Path,
        options: RunOptions,
        settings: GRPOSettings,
    ) -> None:
        settings.validate()
        self.reward, self.prompts, self.reference, self.score = reward, list(prompts), reference, 0.0
        self.group, self.longest = settings.group, settings.longest
        self.temperature, self.beta = settings.temperature, settings.beta
        self.mean, self.scaled = settings.mean, settings.scaled
        super().__init__(network, {}, rows, len(prompts), settings.batch, folder, options, settings.trainer)

    def make(self, step: int) -> tuple[int, list[int]]:
        return step, _adapter_training.batch_of(self.seed, self.learned, self.batch, step)

    def row_count(self, *work: Any) -> int:
        return len(work[1])

    def losses(self, *work: Any) -> dict[str, torch.Tensor]:
        step, numbers = work
        prompts = [self.prompts[number] for number in numbers]
        repeated = [prompt for prompt in prompts for _ in range(self.group)]
        generator = torch.Generator(self.device).manual_seed(mix(self.seed, step, 2))
        replies = decode_replies(
            self.model,
            self.rows,
            [prompt.row for prompt in prompts],
            [prompt.ids for prompt in prompts],
            Sampling(max_tokens=self.longest, temperature=self.temperature, generator=generator),
            n_samples=self.group,
        )
        rewards = torch.from_numpy(self.scores(repeated, [reply.text for reply in replies])).float()
        self.score = float(rewards.mean())
        advantage = advantages(rewards.view(-1, self.group), self.scaled).flatten().to(self.device)
        cells = [
            np.array([*prompt.ids, *reply.ids, *[0] * len(prompt.ids), *[1] * len(reply.ids)], np.int32)
            for prompt, reply in zip(repeated, replies, strict=True)
        ]
        packed = dialogue_head(self.model).pack_conversations(
            dialogue_column(self.model),
            self.encoded,
            dialogue_modality(self.model).collate(cells),
            torch.tensor([prompt.row for prompt in repeated]),
        )
        before = None
        with autocast(self.precision, self.device):
            if self.beta:
                with torch.no_grad(), adapters.use_adapter_weights(self.model, self.reference):
                    before = -token_losses(self.model.trunk, packed)[0]
            loss, row = token_losses(self.model.trunk, packed)
        return {
            "reinforce": policy(-loss, before, row, advantage, beta=self.beta, mean=self.mean, longest=self.longest)
        }

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Rewards [n] of answers.

        Raises:
            UserError: one isn't finite.
        """
        found = self.reward.scores(self.rows, prompts, answers)
        if not np.isfinite(found).all():
            at = int(np.flatnonzero(~np.isfinite(found))[0])
            raise UserError(
                f"The score of '{answers[at][:60]}' in row {prompts[at].row} is {found[at]}. Scores are finite "
                "numbers, higher for better answers."
            )
        return found

    def words(self, values: Mapping[str, float]) -> str:
        return f"score {self.score:.3f}"

    def validation_score(self) -> float:
        """The mean reward of the likeliest answers to validation prompts."""
        some = [self.prompts[number] for number in self.validation[:MAX_VALIDATION]]
        if not some:
            return float("nan")
        replies = generate_replies(
            self.model,
            self.rows,
            [prompt.row for prompt in some],
            [prompt.messages for prompt in some],
            Sampling(max_tokens=self.longest),
        )
        return float(self.scores(some, [reply.text for reply in replies]).mean())


def read_prompts(
    network: Network, table: Table, needs_right_answer: bool, note: Callable[[str], None]
) -> tuple[Rows, list[Prompt]]:
    """The rows of a table of questions, read, and its prompts.

    Args:
        needs_right_answer: True where each must have one, ``answer`` or, as in a table of preferences, ``chosen``.

    Raises:
        UserError: a column isn't there, or fewer than two rows have a question.
    """
    answer = next((name for name in ("answer", "chosen") if name in table.columns), None)
    if "conversation" not in table.columns or (needs_right_answer and answer is None):
        raise UserError(
            f"'{table.name}' has no column '{'answer' if 'conversation' in table.columns else 'conversation'}'. A "
            "table of questions has conversation, which ends with the user, answer (or chosen) where answers are "
            "compared with the right ones, and the columns that conversations refer to: sensorium ask-data TABLE "
            "--pairs --out FILE"
        )
    plain_columns = [
        c
        for c in table.columns
        if c != "conversation" and (c not in network.columns or not network.modalities[c].media)
    ]
    cells = table.take(np.arange(table.rows), ["conversation", *plain_columns]).to_pylist()
    prompts: list[Prompt] = []
    wrong: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        try:
            messages = [(role, list(parts)) for role, parts in messages_of(cell["conversation"], False)]
            if messages[-1][0] != "user":
                raise BadCell("it doesn't end with the user")
            _adapter_training.check_answered_by_tuned(network, messages)
            right = str(cell[answer] or "") if answer else ""
            if needs_right_answer and not right:
                raise BadCell("the right answer is missing")
            prompts.append(Prompt(row, messages, prompt_ids(network, [messages])[0], right, cell))
        except (BadCell, UserError) as error:
            wrong.setdefault(str(error), []).append(row)
    _adapter_training.report_left_out(wrong, note)
    if len(prompts) < 2:
        raise UserError(f"'{table.name}' has {len(prompts)} question(s) to practise on; at least 2 are needed.")
    return Rows.of(network, table, [c for c in network.columns if c not in network.dialogue_columns]), prompts


def find_reward(score: str) -> Reward:
    """The reward function that ``reinforce.score`` names.

    Raises:
        UserError: there is none of that name.
    """
    known = registry.names(Reward)
    if score not in known:
        raise UserError(
            f"reinforce.score={score}: possible are {', '.join(known)}; in Python also a function, "
            "model.reinforce(…, score=…)."
        )
    return registry.find(Reward, score)()


class GRPO(Recipe):
    """Reinforcement by rewards of sampled answers: only what is tuned of the language model changes.

    Args:
        score: a user's reward function, in place of what ``reinforce.score`` names.
    """

    section = "reinforce"
    settings_class = GRPOSettings

    def __init__(self, score: Scoring | None = None) -> None:
        self.score = score

    def check(self, trained: Trained) -> None:
        dialogue_column(trained.network)
        adapters.require_adapters(trained.network)

    def run(
        self,
        trained: Trained,
        table: Table,
        folder: Path,
        settings: Mapping[str, Any],
        options: RunOptions,
    ) -> dict[str, Any]:
        network, recipe = trained.network, GRPOSettings(**grouped_arguments(GRPOSettings, settings))
        reward: Reward = FunctionReward(self.score) if self.score is not None else find_reward(recipe.score)
        reward.prepare(network, lambda: RewardModel.load((trained.folder or folder.parent) / FILE, network))
        with ProgressReporter(options.quiet) as progress:
            rows, prompts = read_prompts(network, table, reward.needs_right_answer, progress.log)
            initial = _adapter_training.begin_adapters(network, table, folder, settings, options)
            trainer = GRPOTrainer(network, rows, prompts, reward, initial, folder, options, recipe)
            facts = _adapter_training.train_adapters(trainer, initial, options, progress)
        _adapter_training.forget_calibration(network)
        if not facts["stopped"]:
            shutil.rmtree(folder, ignore_errors=True)
        return {"reinforced": facts}
