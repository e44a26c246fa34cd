"""Containment of the right answer."""

from __future__ import annotations

from sensorium.dialogue.reply import normalize_answer
from sensorium.dialogue.rewards import AnswerReward


class Contains(AnswerReward):
    """Containment: 1 where the right answer is somewhere in the answer, but for case and a full stop; else 0."""

    def score(self, answer: str, right: str) -> float:
        return float(normalize_answer(right) in normalize_answer(answer))
