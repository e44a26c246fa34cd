"""Learned reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from sensorium.dialogue.reward_model import RewardModel
from sensorium.dialogue.rewards import Prompt, Reward
from sensorium.inference.rows import Rows
from sensorium.network.network import Network


class Judge(Reward):
    """Score of the run's reward model, which learned from preferences (``prefer.loss=reward``)."""

    needs_right_answer: ClassVar[bool] = False

    def prepare(self, network: Network, reward_model: Callable[[], RewardModel]) -> None:
        self.network, self.reward_model = network, reward_model()

    def scores(self, rows: Rows, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        conversations = [
            [*prompt.messages, ("assistant", [answer or " "])] for prompt, answer in zip(prompts, answers, strict=True)
        ]
        return self.reward_model.scores(self.network, rows, [prompt.row for prompt in prompts], conversations)
