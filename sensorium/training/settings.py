"""Training settings that all recipes share: optimizer, its schedule, precision and checkpoints, written once."""

from __future__ import annotations

import dataclasses
from typing import Annotated, TypeAlias

from sensorium.core.errors import UserError
from sensorium.core.settings import Settable, at_least
from sensorium.nn.precision import Precision
from sensorium.training.optimizer import Name


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Training settings of any recipe (as ``transformers.TrainingArguments``); each recipe has defaults of its own.

    Args:
        accumulate: steps whose gradients are added to one update. optimizer: adamw, sgd, adafactor or muon.
        lr: peak learning rate. weight_decay: weight decay, on matrices. beta1, beta2: of AdamW.
        warmup_steps: steps until the learning rate is at its peak, at most a tenth of the run.
        lr_power: the learning rate falls as (1 - share of the run)^lr_power.
        max_grad_norm: the largest norm of a gradient, which is scaled down to it.
        ema_decay: decay of the running mean of weights that is kept as the result; 0: off.
        precision: auto, fp32 or bf16.
        checkpoint_minutes: minutes between checkpoints; checkpoint_steps: or steps, if not 0.
    """

    accumulate: int = 1
    optimizer: Name = "muon"
    lr: float = 5e-3
    weight_decay: float = 0.5
    beta1: float = 0.9
    beta2: float = 0.98
    warmup_steps: int = 40
    lr_power: float = 0.8
    max_grad_norm: float = 2.0
    ema_decay: float = 0.0
    precision: Precision = "auto"
    checkpoint_minutes: float = 2.0
    checkpoint_steps: int = 0

    def validate(self, section: str) -> None:
        """Refuse values out of range, by the name that they have in a section.

        Raises:
            UserError: naming the setting, its value and what is needed.
        """
        at_least(section, 1, accumulate=self.accumulate)
        at_least(
            section,
            0,
            lr=self.lr,
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            warmup_steps=self.warmup_steps,
            lr_power=self.lr_power,
            max_grad_norm=self.max_grad_norm,
            ema_decay=self.ema_decay,
            checkpoint_minutes=self.checkpoint_minutes,
            checkpoint_steps=self.checkpoint_steps,
        )
        for key, value in (("ema_decay", self.ema_decay), ("beta1", self.beta1), ("beta2", self.beta2)):
            if not value < 1:
                raise UserError(f"{section}.{key}={value} never forgets. Give a number below 1, for instance 0.99.")


EveryTrainerSetting: TypeAlias = Annotated[
    TrainerSettings, Settable(*(field.name for field in dataclasses.fields(TrainerSettings)))
]
"""Group of a recipe in which each of them may be set."""
PostTrainingSettings: TypeAlias = Annotated[
    TrainerSettings,
    Settable(
        *(f.name for f in dataclasses.fields(TrainerSettings) if f.name not in ("accumulate", "beta1", "beta2")),
    ),
]
"""Group of the recipes of ``posttraining``: accumulation and AdamW's betas stay at the recipe's defaults."""
