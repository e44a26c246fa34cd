"""Templates of questions about rows: our own wordings, a user's, and paraphrases that a language model finds.

A wording has holes, as ``Is this {value}?``; all wordings of one question have the same ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sensorium.core.errors import UserError, unknown

WORDS: dict[str, tuple[str, ...]] = {
    "name": (
        "What is this?",
        "What is this?",
        "What do you see?",
        "What does this show?",
        "Name this.",
        "What is it called?",
    ),
    "choice": ("Which of these is it: {options}?", "Is this {options}?", "Choose one: {options}."),
    "yes_no": ("Is this {value}?", "Is it {value}?", "Does this show {value}?"),
    "absent": ("Is there {value} in it?", "Do you see {value} here?", "Can you find {value} in this?"),
    "field": ("What is its {column}?", "Which {column} does it have?", "{column}?"),
    "describe": ("Describe this.", "Tell me about this.", "What do you know about this?"),
    "next": ("And this?", "What about this one?", "And what is this?"),
    "first": ("And what was the first one?", "What did I show you first?"),
    "which": (
        "Which of the two is {value}, the first or the second?",
        "One of these is {value}. Which one?",
        "Is {value} the first or the second?",
    ),
    "same": ("Do both have the same {column}?", "Are these two alike in {column}?"),
    "more": ("Which of the two has the larger {column}?", "Whose {column} is larger, the first's or the second's?"),
    "how_many": ("How many of these are {value}?", "How many times do you see {value} here?"),
    "how_many_have": ("How many of these have the {column} {value}?", "Of how many of these is the {column} {value}?"),
}
"""Wordings of each question; the first of each is the plain one."""
HOLE = re.compile(r"\{(\w*)\}")
FILLED = {"options": "a harp, a fern or a kite", "value": "a harp", "column": "colour"}
"""Examples in the holes while a language model looks for paraphrases."""
EXAMPLES = (
    ("Where do you live?", "In which place is your home?"),
    ("Can you swim?", "Are you able to swim?"),
    ("How old is the house?", "What is the age of the house?"),
    ("Is your friend a teacher?", "Does your friend teach?"),
    ("Who wrote this book?", "What is the name of this book's author?"),
    ("Do they sell bread?", "Is there bread to buy?"),
    ("Which of them is taller?", "Who of the two is the taller one?"),
)
"""Few-shot examples of paraphrases, in the prompt."""
INSTRUCTION = "Say this in other words: "
UNRELATED = ("How far is the moon?", "Tell me a story.", "Are there any trees?")
"""Sentences that say nothing of a question: a baseline for how much a wording says of it."""
MIN_SHARE = 0.5
"""The share of what a question says of itself that a paraphrase must say of it."""
ASKS = re.compile(
    r"\b(what|which|who|whose|whom|how|where|when|why|name|tell|describe|choose|pick|say|identify|count|explain)\b",
    re.IGNORECASE,
)
YES_OR_NO = ("yes_no", "absent", "same")
COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        a able about alike an and any are at be been being bigger both call called can choose could count describe
        did do does exactly explain find first for give has have here how i identify if in is it its item kind know
        larger look looking many me much my name named now number object of on one ones or pick please possible same
        say second see seen select share show showing shown shows some spot tell that the them there these they
        thing things this those times to two type us was we were what whether which who whose will with would you
        your
        """,
    )
)
"""Words that a paraphrase may bring along: they ask for nothing else. Of others (whose house? a word of what?) a small
model brings many."""
POINTS = frozenset(["both", "first", "it", "its", "one", "ones", "that", "them", "these", "this", "those", "two"])
"""Deictic words: one of them is in a paraphrase where one is in the question, which is about what is shown."""
N_SAMPLES, MAX_TOKENS = 16, 24
"""Paraphrases that are sampled of each question, and the tokens of one, at most."""


def merge_wordings(own: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Our wordings of each question, and after them a user's.

    Raises:
        UserError: of a question that isn't known, or with other holes than it has.
    """
    result = dict(WORDS)
    for kind, wordings in own.items():
        if kind not in WORDS:
            raise unknown("question in the wordings:", kind, WORDS)
        wanted = holes(WORDS[kind][0])
        if not isinstance(wordings, list) or not all(
            isinstance(wording, str) and wording.strip() for wording in wordings
        ):
            raise UserError(
                f'The wordings of \'{kind}\' are no list of texts. Write {{"{kind}": ["{WORDS[kind][0]}", …]}}.'
            )
        for wording in wordings:
            if holes(wording) != wanted or len(re.findall(r"[{}]", wording)) != 2 * len(wanted):
                needed = (
                    f"{' and '.join(f'{{{hole}}}' for hole in wanted)}, each once, and no other braces"
                    if wanted
                    else "no hole and no braces"
                )
                raise UserError(f"A wording of '{kind}' takes {needed}. Given: '{wording}'.")
        result[kind] = (*WORDS[kind], *(wording for wording in dict.fromkeys(wordings) if wording not in WORDS[kind]))
    return result


def holes(wording: str) -> list[str]:
    """Names of the holes of a wording."""
    return sorted(HOLE.findall(wording))


def read_words(path: Path) -> dict[str, Any]:
    """Wordings from a JSON file: ``{"name": ["What animal is it?"], …}``.

    Raises:
        UserError: it can't be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"The wordings in '{path}' can't be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    if not isinstance(found, dict):
        raise UserError(f'\'{path}\' holds no wordings by question. Write {{"name": ["{WORDS["name"][0]}", …]}}.')
    return found


def fill_holes(wording: str) -> str:
    """A wording with an example in each hole."""
    return HOLE.sub(lambda hole: FILLED[hole[1]], wording)


def restore_holes(text: str, wording: str) -> str | None:
    """A paraphrase with the holes of a wording in the place of the examples; None where something else stands there."""
    for hole in holes(wording):
        if len(re.findall(rf"(?<!\w){re.escape(FILLED[hole])}(?!\w)", text)) != 1:
            return None
        text = text.replace(FILLED[hole], f"{{{hole}}}")
    return text


def is_paraphrase(kind: str, text: str, wording: str) -> bool:
    """True where a text may be another wording of a question, by its form alone.

    It is one sentence of about the length, with the same ending, about what is shown, in words that ask for nothing
    else, and asks for yes or no where the other one does. English alone is known here.
    """
    if (
        text[-1:] != wording[-1]
        or re.search(r"[.?!:;]\s|[\n\"“”]", text)
        or len(text.split()) > len(wording.split()) + 5
    ):
        return False
    new, old = (frozenset(re.findall(r"[\w']+", HOLE.sub("", words).lower())) for words in (text, wording))
    if not new <= COMMON | old or (old & POINTS and not new & POINTS):
        return False
    return (
        not re.match(r"(?:what|which|who|whose|how|where|when|why)\b", text, re.IGNORECASE)
        if kind in YES_OR_NO
        else ASKS.search(text) is not None
    )


class Paraphraser:
    """Paraphrases of questions by a language model, from a few examples in its prompt.

    The model also judges whether they still ask the same: by how much likelier they make the question than other
    sentences do (the mean over its tokens), relative to how much likelier it makes itself.

    Args:
        path: of the language model, as ``trunk.path``. seed: of the random draws.

    Raises:
        UserError: it can't be opened.
    """

    def __init__(self, path: str, seed: int = 0) -> None:
        from sensorium.trunks.causal_lm import CausalLM

        self.trunk = CausalLM(8, [], path=path, tune="frozen").eval()
        self.language, self.random = self.trunk.language, torch.Generator().manual_seed(seed)
        self.prefix: Any = None
        self.known: dict[str, float] = {}

    def prompt(self, question: str) -> tuple[list[int], list[int]]:
        """Token ids of a prompt for a paraphrase, in two parts: as far as it is the same for all, and its rest."""
        texts = [*(text for asked, other in EXAMPLES for text in (INSTRUCTION + asked, other)), INSTRUCTION + question]
        pieces = self.language.written(
            [{"role": role} for role in ("user", "assistant") * len(EXAMPLES) + ("user",)], answer=True
        )
        parts = [
            self.language.ids(texts[piece])
            if isinstance(piece, int)
            else self.language.words.encode(piece, add_special_tokens=False).ids
            for piece, _ in pieces
        ]
        last = max(number for number, (_, own) in enumerate(pieces) if own)
        return [i for part in parts[:last] for i in part], [i for part in parts[last:] for i in part]

    def run(self, question: str, answer: Sequence[int] = ()) -> tuple[torch.Tensor, Any]:
        """Hidden [1, k, width] from the prompt's last token on, and the cache."""
        first, rest = self.prompt(question)
        if self.prefix is None:
            tokens = self.words(first)
            self.prefix = self.trunk.prefill_tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))[1]
        hidden, state = self.trunk.decode_entered(self.prefix, self.words([*rest, *answer]))
        return hidden[:, len(rest) - 1 :], state

    def words(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings [1, k, width] of token ids."""
        return self.trunk.words(torch.tensor([list(ids)]))

    def sample(self, question: str) -> list[str]:
        """Sampled texts in other words."""
        from sensorium.generators.autoregressive import draw

        hidden, state = self.run(question)
        state = self.trunk.reorder(state, torch.zeros(N_SAMPLES, dtype=torch.int64))
        last, over = hidden[:, -1].expand(N_SAMPLES, -1), torch.zeros(N_SAMPLES, dtype=torch.bool)
        tokens: list[torch.Tensor] = []
        for _ in range(MAX_TOKENS):
            new = draw(self.trunk.logits(last, state) / 0.9, 0, 0.95, self.random)
            over |= torch.tensor([i in self.language.special for i in new.tolist()])
            tokens.append(new.masked_fill(over, self.language.end))
            if over.all():
                break
            hidden, state = self.trunk.decode_entered(state, self.trunk.words(tokens[-1].unsqueeze(1)))
            last = hidden[:, -1]
        return [
            self.language.text(line).strip()
            for line, done in zip(torch.stack(tokens, 1).tolist(), over.tolist(), strict=True)
            if done
        ]

    def log_probability(self, question: str, other: str) -> float:
        """The mean log-probability of a question's tokens as a paraphrase of another text."""
        wanted = [*self.language.ids(question), self.language.end]
        hidden, _ = self.run(other, wanted[:-1])
        logs = self.trunk.logits(hidden[0]).log_softmax(-1)
        return float(logs.gather(1, torch.tensor(wanted).unsqueeze(1)).mean())

    def share(self, question: str, text: str) -> float:
        """Share of what a question says of itself that a text says of it."""
        for other in (*UNRELATED, question):
            if (key := f"{question}\n{other}") not in self.known:
                self.known[key] = self.log_probability(question, other)
        plain = sum(self.known[f"{question}\n{other}"] for other in UNRELATED) / len(UNRELATED)
        return (self.log_probability(question, text) - plain) / (self.known[f"{question}\n{question}"] - plain)

    @torch.inference_mode()
    def paraphrases(self, kind: str, wordings: Sequence[str], count: int) -> list[str]:
        """At most so many other wordings of a question, those first that say most of it.

        None is among them that says more of what else is asked with the same holes.
        """
        found, known = dict[str, float](), {wording.lower() for some in WORDS.values() for wording in some}
        rivals = [
            fill_holes(some[0])
            for other, some in WORDS.items()
            if other != kind and holes(some[0]) == holes(wordings[0])
        ]
        for wording in dict.fromkeys(wordings):
            question = fill_holes(wording)
            if len(question.split()) < 3:
                continue  # of two words a model makes anything
            for text in sorted(set(self.sample(question))):
                other = restore_holes(text, wording)
                if other is None or other.lower() in known or not is_paraphrase(kind, other, wording):
                    continue
                share = self.share(question, text)
                if share >= MIN_SHARE and all(self.share(rival, text) < share for rival in rivals):
                    found[other] = share
                    known.add(other.lower())
        return sorted(found, key=lambda text: -found[text])[:count]


def paraphrase_templates(
    path: str, count: int, seed: int = 0, on_found: Callable[[str, list[str]], None] | None = None
) -> dict[str, list[str]]:
    """Paraphrases of all questions by a language model, at most ``count`` of each.

    Args:
        on_found: is called with each question and its paraphrases as they are found.

    Raises:
        UserError: ``count`` is less than 1, or the language model can't be opened.
    """
    if count < 1:
        raise UserError(f"--rewordings {count}: give at least 1.")
    paraphraser, result = Paraphraser(path, seed), {}
    for kind, wordings in WORDS.items():
        result[kind] = paraphraser.paraphrases(kind, wordings, count)
        if on_found:
            on_found(kind, result[kind])
    return result
