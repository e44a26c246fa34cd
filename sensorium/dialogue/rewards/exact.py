"""Exact match with the right answer."""

from __future__ import annotations

from sensorium.dialogue.reply import normalize_answer
from sensorium.dialogue.rewards import AnswerReward


class Exact(AnswerReward):
    """Exact match: 1 for the right answer, but for case and a full stop; else 0."""

    def score(self, answer: str, right: str) -> float:
        return float(normalize_answer(answer) == normalize_answer(right))
