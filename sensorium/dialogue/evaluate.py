"""Evaluation of a dialogue model: the questions that ``ask-data`` asks, put to it about rows it never saw."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sensorium.data.order import evenly_spaced
from sensorium.data.schema import Schema
from sensorium.data.table import Table
from sensorium.dialogue.decoding import Sampling, generate_replies
from sensorium.dialogue.parts import dialogue_modality
from sensorium.dialogue.questions import MEASURED, ORDER, Question, QuestionGenerator
from sensorium.dialogue.reply import Reply, normalize_answer
from sensorium.dialogue.templates import WORDS
from sensorium.inference.rows import Rows
from sensorium.network.network import Network
from sensorium.nn.platt import expected_error

MAX_ROWS = 512
"""Rows that are asked about, at most, evenly spread."""
MAX_TOKENS = 32
"""Tokens of an answer, at most."""

Example = tuple[int, Question, list[Any]]
"""A row's number, a question about it, and the conversation that ends with it."""


def examine(
    network: Network,
    table: Table,
    columns: Schema,
    *,
    about: str | None = None,
    of: Sequence[str] = (),
    seed: int = 0,
    note: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Accuracies of a dialogue model on a table's rows.

    Returns:
        shares of right answers: ``exact`` names, ``choice`` among four, ``yes_no`` (the mean over both answers),
        ``absent`` (what isn't there is denied), and of how many rows ``n``. Where its training conversations showed
        several things: ``next``, exact names of what is shown after something else was, and ``compare``, which of two
        is what (chance: 0.5). Where the model knows how often it is right (``Reply.right``): ``calibration``, the
        expected error of that; ``answered``, the share of questions that it is more sure than not of, and
        ``answered_right``, of these the share that is answered right.
    """
    asker = question_generator(network, table, columns, about, of)
    able = [
        row for row in range(table.rows) if asker.values[asker.about][row] and any(asker.have[c][row] for c in asker.of)
    ]
    rows = evenly_spaced(np.array(able, np.int64), MAX_ROWS)
    read = Rows.of(network, table.select(rows), [c for c in network.columns if c not in network.dialogue_columns])
    asked: list[Example] = []
    for number, row in enumerate(rows.tolist()):
        rng = np.random.default_rng([seed, row])
        visible = asker.visible_columns(row, rng)
        for kind in MEASURED:
            question = asker.question(kind, row, rng, plain=True)
            if question and visible:
                asked.append((number, question, conversation(question, visible)))
    modality = dialogue_modality(network)
    if modality.again or modality.beside:
        asked += paired_questions(asker, rows, modality.beside, seed)
    note(f"asking {len(asked):,} questions")
    replies = answers_to(network, read, asked)
    names = {**MEASURED, "next": "next", "compare": "compare"}
    right: dict[str, list[tuple[str, bool]]] = {kind: [] for kind in names}
    known: list[tuple[float, bool]] = []
    for (_, question, _), reply in zip(asked, replies, strict=True):
        mark = normalize_answer(reply.text) == normalize_answer(question.answer)
        right[question.kind].append((question.answer, mark))
        if reply.right is not None:
            known.append((reply.right, mark))
    result: dict[str, Any] = {
        names[kind]: balanced_accuracy(marks) if kind == "yes_no" else float(np.mean([mark for _, mark in marks]))
        for kind, marks in right.items()
        if marks
    }
    if known:
        chance, marks = np.array([c for c, _ in known]), np.array([m for _, m in known])
        sure = chance >= 0.5
        result |= {
            "calibration": expected_error(chance, marks),
            "answered": float(sure.mean()),
            "answered_right": float(marks[sure].mean()) if sure.any() else None,
        }
    return {**result, "n": len(rows)}


def answers_to(network: Network, read: Rows, asked: Sequence[Example]) -> list[Reply]:
    """Replies to questions, the likeliest."""
    return generate_replies(
        network, read, [n for n, _, _ in asked], [talk for _, _, talk in asked], Sampling(max_tokens=MAX_TOKENS)
    )


def paired_questions(asker: QuestionGenerator, rows: np.ndarray, compared: bool, seed: int) -> list[Example]:
    """Questions about each row and the one after it, where both have a cell of the same column.

    They are: what the second is once the first was named, and, where ``compared``, which of them is what.
    """
    result = []
    for number, (row, other) in enumerate(itertools.pairwise(rows.tolist())):
        rng = np.random.default_rng([seed, row, 1])
        visible = asker.visible_columns(row, rng)
        names = [asker.values[asker.about][one] or "" for one in (row, other)]
        if not visible or not all(asker.have[c][other] for c in visible):
            continue
        cells = [[{"column": c, **({"row": at} if at else {})} for c in visible] for at in range(2)]
        question = Question("next", WORDS["name"][0], names[1])
        result.append(
            (
                number,
                question,
                [
                    ("user", [*cells[0], WORDS["name"][0]]),
                    ("assistant", [names[0]]),
                    ("user", [*cells[1], WORDS["name"][0]]),
                ],
            )
        )
        if compared and names[0] != names[1]:
            at = int(rng.integers(2))
            question = Question("compare", WORDS["which"][0].format(value=names[at]), ORDER[at])
            result.append((number, question, [("user", [*cells[0], *cells[1], question.text])]))
    return result


def examples(
    network: Network, table: Table, columns: Schema, count: int, seed: int = 0
) -> list[tuple[int, Question, str]]:
    """Some rows with a question about each and its answer, to look at."""
    asker = question_generator(network, table, columns)
    rows = evenly_spaced(np.arange(table.rows), count)
    read = Rows.of(network, table.select(rows), [c for c in network.columns if c not in network.dialogue_columns])
    asked: list[Example] = []
    for number, row in enumerate(rows.tolist()):
        rng = np.random.default_rng([seed, row])
        question = asker.question(list(MEASURED)[number % len(MEASURED)], row, rng, plain=True)
        visible = asker.visible_columns(row, rng)
        if question and visible:
            asked.append((number, question, conversation(question, visible)))
    replies = answers_to(network, read, asked)
    return [
        (int(rows[number]), question, reply.text) for (number, question, _), reply in zip(asked, replies, strict=True)
    ]


def question_generator(
    network: Network, table: Table, columns: Schema, about: str | None = None, of: Sequence[str] = ()
) -> QuestionGenerator:
    """Question generator of a table for a network: by default about the media that both have."""
    media = list(of) or [c for c in network.columns if network.modalities[c].media]
    return QuestionGenerator(table, columns, about, [c for c in media if c in table.columns])


def conversation(question: Question, visible: Sequence[str]) -> list[Any]:
    """A question as the whole of a conversation, after the cells that it is about."""
    return [("user", [*({"column": c} for c in visible), question.text])]


def balanced_accuracy(marks: Sequence[tuple[str, bool]]) -> float:
    """Balanced accuracy: the mean over right answers of the share of questions with that answer that are right."""
    shares = [
        float(np.mean([mark for answer, mark in marks if answer == which]))
        for which in sorted({answer for answer, _ in marks})
    ]
    return float(np.mean(shares))
