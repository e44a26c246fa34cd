"""Reward functions of answers, for reinforcement: one file each, whose name is what ``reinforce.score`` chooses."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sensorium.dialogue.reward_model import RewardModel
from sensorium.inference.rows import Rows
from sensorium.network.network import Network


@dataclasses.dataclass
class Prompt:
    """A question about a row.

    Attributes:
        row: its number. messages: up to where the assistant is to speak; ids: the same as token ids.
        right: the right answer; empty where the table has none. cells: plain cells of the row.
    """

    row: int
    messages: list[Any]
    ids: list[int]
    right: str
    cells: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Reward(abc.ABC):
    """Reward function of answers to prompts; higher is better."""

    needs_right_answer: ClassVar[bool] = True
    """True where answers are compared with the table's right ones."""

    def prepare(self, network: Network, reward_model: Callable[[], RewardModel]) -> None:
        """Take over what else is needed, before the table is read. Default: nothing.

        Args:
            reward_model: loads the run's.

        Raises:
            UserError: it isn't there.
        """

    @abc.abstractmethod
    def scores(self, rows: Rows, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Scores [n] of an answer to each prompt.

        Args:
            rows: read; the cells that prompts refer to.
        """


class AnswerReward(Reward):
    """Reward function that compares an answer with the right one."""

    @abc.abstractmethod
    def score(self, answer: str, right: str) -> float:
        """Score of an answer beside the right one."""

    def scores(self, rows: Rows, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        return np.array([self.score(answer, prompt.right) for prompt, answer in zip(prompts, answers, strict=True)])
