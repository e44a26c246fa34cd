"""Direct preference optimisation (DPO, IPO): a dialogue model learns which of two answers is better.

Or a reward model learns it (Bradley & Terry), which scores answers and leaves the model as it is.

Only what is tuned of its language model changes. The reference policy is asked once, before; then it isn't needed any
more. A reward model is a copy of what is tuned, with a head of its own.

    FOLDER/ run.json checkpoints/
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sensorium.core.errors import BadCell, UserError
from sensorium.core.progress import ProgressReporter
from sensorium.core.seeds import mix
from sensorium.core.settings import at_least, grouped_arguments
from sensorium.data.table import Table
from sensorium.dialogue.parts import dialogue_column, dialogue_head, dialogue_modality, language_trunk
from sensorium.dialogue.reward_model import FILE, RewardModel, hash_of_rest
from sensorium.inference.rows import Rows
from sensorium.inference.trained import Trained
from sensorium.modalities._messages import messages_of
from sensorium.modalities.conversation import last_answer_only
from sensorium.network import adapters
from sensorium.network.network import Network
from sensorium.network.packed_conversation import last_hidden, summed_losses
from sensorium.nn.losses.dpo import Loss, preferred, rewarded
from sensorium.nn.precision import autocast
from sensorium.posttraining import Recipe, RunOptions, _adapter_training
from sensorium.training.settings import PostTrainingSettings, TrainerSettings

COLUMNS = "conversation", "chosen", "rejected"


@dataclasses.dataclass
class PreferencePair:
    """Two answers to what was said about a row, collated as conversations whose last message alone is a target."""

    row: int
    chosen: np.ndarray
    rejected: np.ndarray


Kind = Literal[Loss, "reward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPOSettings:
    """Settings of preference optimisation, DPO and others (section ``prefer``).

    Args:
        loss: dpo or ipo; reward: a reward model learns to score answers (Bradley & Terry), and the model stays as it
            is.
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


class DPOTrainer(_adapter_training.AdapterTrainer):
    """Direct preference optimisation (DPO, IPO), or training of a reward model (section ``prefer``)."""

    section = "prefer"
    title = "Learning to prefer"
    unit = "pairs"

    def __init__(
        self,
        network: Network,
        rows: Rows,
        pairs: Sequence[PreferencePair],
        folder: Path,
        options: RunOptions,
        settings: DPOSettings,
    ) -> None:
        settings.validate()
        self.kind, self.pairs, self.reference = settings.loss, list(pairs), torch.zeros(len(pairs), 2)
        self.beta, self.smoothing, self.imitate = settings.beta, settings.smoothing, settings.imitate
        trunk = language_trunk(network)
        self.head = nn.Linear(trunk.out.in_features, 1).to(trunk.loud.device)
        nn.init.zeros_(self.head.weight)
        heads = {"head": self.head} if self.kind == "reward" else {}
        super().__init__(network, heads, rows, len(pairs), settings.batch, folder, options, settings.trainer)

    def scores(self, numbers: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the chosen and the rejected answers of some pairs [n, 2]: sums over their tokens, and
        means for ``ipo``; scores of the head for ``reward``."""
        cells = [cell for number in numbers for cell in (self.pairs[number].chosen, self.pairs[number].rejected)]
        which = torch.tensor([self.pairs[number].row for number in numbers for _ in range(2)])
        packed = dialogue_head(self.model).pack_conversations(
            dialogue_column(self.model), self.encoded, dialogue_modality(self.model).collate(cells), which
        )
        if self.kind == "reward":
            return self.head(last_hidden(self.model.trunk, packed).float()).view(-1, 2)
        sums, counts = summed_losses(self.model.trunk, packed)
        return -(sums / counts.clamp_min(1) if self.kind == "ipo" else sums).view(-1, 2)

    def score_reference(self, progress: ProgressReporter) -> None:
        """Score all pairs once by the reference policy, which the model is now; a reward model has none."""
        if self.kind == "reward":
            return
        with (
            progress.bar("Scoring by the reference policy", len(self.pairs)) as advance,
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(mix(self.seed, 1))
            for start in range(0, len(self.pairs), self.batch):
                numbers = range(start, min(start + self.batch, len(self.pairs)))
                with torch.no_grad(), autocast(self.precision, self.device):
                    self.reference[numbers.start : numbers.stop] = self.scores(numbers).float().cpu()
                advance(len(numbers))

    def make(self, step: int) -> tuple[list[int]]:
        return (_adapter_training.batch_of(self.seed, self.learned, self.batch, step),)

    def row_count(self, *work: Any) -> int:
        return len(work[0])

    def losses(self, *work: Any) -> dict[str, torch.Tensor]:
        numbers: list[int] = work[0]
        with autocast(self.precision, self.device):
            now = self.scores(numbers).float()
        if self.kind == "reward":
            return {"prefer": rewarded(now[:, 0], now[:, 1]).mean()}
        before = self.reference[numbers].to(now.device)
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

    def words(self, values: Mapping[str, float]) -> str:
        return f"loss {values['loss']:.3f}"

    @torch.no_grad()
    def validation_score(self) -> float:
        """The share of validation pairs whose chosen answer is the likelier one, or has the higher score."""
        if not self.validation:
            return float("nan")
        batches = [self.validation[at : at + self.batch] for at in range(0, len(self.validation), self.batch)]
        with autocast(self.precision, self.device):
            found = torch.cat([self.scores(numbers) for numbers in batches])
        return float((found[:, 0] > found[:, 1]).float().mean())


def read_pairs(network: Network, table: Table, note: Callable[[str], None]) -> tuple[Rows, list[PreferencePair]]:
    """The rows of a table of preferences, read, and their pairs.

    Raises:
        UserError: a column isn't there, or fewer than two rows have a pair.
    """
    modality = dialogue_modality(network)
    for name in COLUMNS:
        if name not in table.columns:
            raise UserError(
                f"'{table.name}' has no column '{name}'. A table of preferences has {', '.join(COLUMNS)}, and the "
                "columns that conversations refer to: sensorium ask-data TABLE --pairs --out FILE"
            )
    pairs: list[PreferencePair] = []
    wrong: dict[str, list[int]] = {}
    cells = table.take(np.arange(table.rows), list(COLUMNS)).to_pylist()
    for row, cell in enumerate(cells):
        try:
            asked = [[role, list(parts)] for role, parts in messages_of(cell["conversation"], False)]
            _adapter_training.check_answered_by_tuned(network, asked)
            both = []
            for answer in (cell["chosen"], cell["rejected"]):
                if not answer:
                    raise BadCell("an answer is missing")
                both.append(last_answer_only(*modality.shortened([*asked, ["assistant", [answer]]])))
            pairs.append(PreferencePair(row, *both))
        except BadCell as error:
            wrong.setdefault(str(error), []).append(row)
    _adapter_training.report_left_out(wrong, note)
    if len(pairs) < 2:
        raise UserError(f"'{table.name}' has {len(pairs)} pair(s) of answers; at least 2 are needed.")
    return Rows.of(network, table, [c for c in network.columns if c not in network.dialogue_columns]), pairs


class DPO(Recipe):
    """Preference optimisation: only what is tuned of the language model changes; or a reward model is trained."""

    section = "prefer"
    settings_class = DPOSettings
    reward_model: RewardModel | None = None
    """The one that was trained (``prefer.loss=reward``)."""

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
        network, recipe = trained.network, DPOSettings(**grouped_arguments(DPOSettings, settings))
        with ProgressReporter(options.quiet) as progress:
            rows, pairs = read_pairs(network, table, progress.log)
            initial = _adapter_training.begin_adapters(network, table, folder, settings, options)
            trainer = DPOTrainer(network, rows, pairs, folder, options, recipe)
            facts = _adapter_training.train_adapters(trainer, initial, options, progress)
            if trainer.kind == "reward":
                self.reward_model = take_reward_model(network, trainer, initial)
            else:
                _adapter_training.forget_calibration(network)
        if not facts["stopped"]:
            shutil.rmtree(folder, ignore_errors=True)
        return {"preferred" if self.reward_model is None else "judge": facts}

    def finish(self, trained: Trained, folder: Path) -> None:
        if self.reward_model is not None:
            self.reward_model.save(folder / FILE)


def take_reward_model(network: Network, trainer: DPOTrainer, initial: Mapping[str, torch.Tensor]) -> RewardModel:
    """The reward model that was trained; the network gets its ``initial`` tuned weights back."""
    head = trainer.head
    bias, weight = head.bias.detach().clone(), head.weight.detach().clone()
    result = RewardModel(adapters.adapter_weights(network), weight, bias, hash_of_rest(network))
    learned = language_trunk(network).learned
    for name, value in initial.items():
        learned[name].data.copy_(value)
    return result
