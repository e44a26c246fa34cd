"""A user's own reward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from sensorium.dialogue.rewards import Prompt, Reward
from sensorium.inference.rows import Rows

Scoring = Callable[[str, str, dict[str, Any]], float]
"""The score of an answer, beside the right one where the table has one, and the row's plain cells."""


class FunctionReward(Reward):
    """Reward by a Python function of an answer, the right one and the row's plain cells."""

    needs_right_answer: ClassVar[bool] = False

    def __init__(self, function: Scoring) -> None:
        self.function = function

    def scores(self, rows: Rows, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        return np.array(
            [
                float(self.function(answer, prompt.right, dict(prompt.cells)))
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        )
