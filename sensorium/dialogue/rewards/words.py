"""F1 of words."""

from __future__ import annotations

from sensorium.dialogue.reply import normalize_answer
from sensorium.dialogue.rewards import AnswerReward


class Words(AnswerReward):
    """F1 of the words that an answer and the right one have in common (as SQuAD scores answers)."""

    def score(self, answer: str, right: str) -> float:
        mine, theirs = normalize_answer(answer).split(), normalize_answer(right).split()
        common = sum(min(mine.count(word), theirs.count(word)) for word in set(mine))
        return 2 * common / max(len(mine) + len(theirs), 1)
