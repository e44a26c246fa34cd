"""Replies of a language model: text, log-probability, how often such answers are right, and text as it streams."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sensorium.backbones._language_model import LanguageModel

UNSURE = "I don't know."
"""The answer where the model isn't sure enough of another one."""


@dataclasses.dataclass
class Reply:
    """Reply of the assistant.

    Attributes:
        text: in words. score: log-probability of it, with its end. tokens: how many, the end included.
        ended: it came to its end, and wasn't cut off. prompt: tokens before it, those of cells included.
        recalled: what known rows that are like what is shown are called, the most similar first; near: how near the
            nearest is (``nn.online_memory``). ids: of its tokens, with its end.
        right: how often answers as sure as this one were right on validation conversations, 0 to 1 (``nn.platt``);
            None where that isn't known: of long answers, and of those about nothing shown.
        unsure: the answer that was withheld for ``UNSURE``, since such answers are too seldom right.
        cited: rows of an index that are like what was shown, or that were retrieved for a question about nothing
            shown: their numbers (``row``), how near they are (``score``) and their plain cells.
    """

    text: str
    score: float
    tokens: int
    ended: bool
    prompt: int
    recalled: list[str] = dataclasses.field(default_factory=list)
    near: tuple[float, float] = (float("nan"), float("nan"))
    ids: list[int] = dataclasses.field(default_factory=list, repr=False)
    right: float | None = None
    unsure: str = ""
    cited: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def sureness(self) -> float:
        """The geometric mean of its tokens' probabilities, 0 to 1."""
        return float(np.exp(self.score / max(self.tokens, 1)))


def abstain_if_unsure(reply: Reply, sure: float) -> Reply:
    """A reply, or ``UNSURE`` where such answers were right less often than ``sure``."""
    return (
        dataclasses.replace(reply, text=UNSURE, unsure=reply.text)
        if reply.right is not None and reply.right < sure
        else reply
    )


def normalize_answer(text: str) -> str:
    """An answer without what doesn't count when answers are compared: case, spaces, a full stop."""
    return " ".join(text.casefold().split()).rstrip(".!")


def confidence_features(reply: Reply, prompt: Sequence[int], language: LanguageModel) -> list[float]:
    """Features of how often such answers are right, for Platt scaling (``nn.platt``).

    They are: the log-probability of all of the answer, and its mean over tokens, for a name of many tokens is less
    likely than "Yes."; how near what was asked about is to what is known, for a model is as sure of things that it
    never saw; and whether the answer stood in the question (one of those to choose from), or among what was recalled,
    and which of these.

    Args:
        prompt: ids up to the answer.
    """
    text, names = normalize_answer(reply.text), [normalize_answer(words) for words in reply.recalled]
    asked = normalize_answer(language.text([i for i in prompt if i >= 0]))
    copied = bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", asked) is not None
    return [
        reply.score,
        reply.score / max(reply.tokens, 1),
        *reply.near,
        float(copied),
        1 / (1 + names.index(text)) if text in names else 0.0,
    ]


class StreamedText:
    """Incremental detokenizer: ids one by one, and their text so far; half a character waits for its other half."""

    def __init__(self, language: LanguageModel) -> None:
        self.language = language
        self.ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> str:
        """Append one id; return what it adds to the text."""
        self.ids.append(token)
        whole = self.language.text(self.ids)
        if whole.endswith("\ufffd"):
            return ""
        more, self.text = whole[len(self.text) :], whole
        return more

    def flush(self) -> str:
        """Return the text that still waited."""
        whole = self.language.text(self.ids)
        more, self.text = whole[len(self.text) :], whole
        return more
