"""How well a model talks about rows: the questions that ``ask-data`` asks, put to it about rows it never saw, and its answers marked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sensorium.data.order import evenly_spaced
from sensorium.data.schema import Schema
from sensorium.data.table import Table
from sensorium.dialogue.chat import folded, reply, talker
from sensorium.dialogue.questions import MEASURED, ORDER, Question, QuestionGenerator
from sensorium.dialogue.templates import WORDS
from sensorium.inference.rows import Rows
from sensorium.network.network import Network
from sensorium.nn.platt import expected_error

ROWS = 512
"""Rows that are asked about, at most, evenly spread."""


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
    """Shares of right answers: ``exact`` names, ``choice`` among four, ``yes_no`` (the mean over both answers), ``absent`` (what isn't there is denied), and of how many rows ``n``.

    Where its training conversations showed several things: ``next``, exact names of what is shown after something else was, and ``compare``, which of two is what (chance: 0.5).
    Where the model knows how often it is right (``Reply.right``): ``calibration``, the expected error of that; ``answered``, the share of questions that it is more sure than not of, and
    ``answered_right``, of these the share that is answered right."""
    asker = asker_of(network, table, columns, about, of)
    rows = evenly_spaced(
        np.array(
            [
                row
                for row in range(table.rows)
                if asker.values[asker.about][row] and any(asker.have[c][row] for c in asker.of)
            ],
            np.int64,
        ),
        ROWS,
    )
    read = Rows.of(network, table.select(rows), [c for c in network.columns if c not in network.dialogue_columns])
    asked: list[tuple[int, Question, list[Any]]] = []
    for number, row in enumerate(rows.tolist()):
        rng = np.random.default_rng([seed, row])
        there = asker.shown(row, rng)
        for kind in MEASURED:
            question = asker.question(kind, row, rng, plain=True)
            if question and there:
                asked.append((number, question, conversation(question, there)))
    talk = network.modalities[talker(network)]
    if talk.again or talk.beside:
        asked += pairs(asker, rows, talk.beside, seed)
    note(f"asking {len(asked):,} questions")
    said = reply(network, read, [number for number, _, _ in asked], [talk for _, _, talk in asked], longest=32)
    marked = {**MEASURED, "next": "next", "compare": "compare"}
    right: dict[str, list[tuple[str, bool]]] = {kind: [] for kind in marked}
    known: list[tuple[float, bool]] = []
    for (_, question, _), answer in zip(asked, said, strict=True):
        mark = folded(answer.text) == folded(question.answer)
        right[question.kind].append((question.answer, mark))
        if answer.right is not None:
            known.append((answer.right, mark))
    result: dict[str, Any] = {
        marked[kind]: balanced(marks) if kind == "yes_no" else float(np.mean([mark for _, mark in marks]))
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


def pairs(
    asker: QuestionGenerator, rows: np.ndarray, compared: bool, seed: int
) -> list[tuple[int, Question, list[Any]]]:
    """Questions about each row and the one after it, where both show the same column: what the second is once the first was named, and which of them is what."""
    result = []
    for number, (row, other) in enumerate(itertools.pairwise(rows.tolist())):
        rng = np.random.default_rng([seed, row, 1])
        there, names = asker.shown(row, rng), [asker.values[asker.about][one] or "" for one in (row, other)]
        if not there or not all(asker.have[c][other] for c in there):
            continue
        cells = [[{"column": c, **({"row": at} if at else {})} for c in there] for at in range(2)]
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
    """Some rows with a question about each and what was answered, to look at."""
    asker = asker_of(network, table, columns)
    rows = evenly_spaced(np.arange(table.rows), count)
    read, asked = (
        Rows.of(network, table.select(rows), [c for c in network.columns if c not in network.dialogue_columns]),
        [],
    )
    for number, row in enumerate(rows.tolist()):
        rng = np.random.default_rng([seed, row])
        question, there = (
            asker.question(list(MEASURED)[number % len(MEASURED)], row, rng, plain=True),
            asker.shown(row, rng),
        )
        if question and there:
            asked.append((number, question, conversation(question, there)))
    said = reply(network, read, [number for number, _, _ in asked], [talk for _, _, talk in asked], longest=32)
    return [
        (int(rows[number]), question, answer.text) for (number, question, _), answer in zip(asked, said, strict=True)
    ]


def asker_of(
    network: Network, table: Table, columns: Schema, about: str | None = None, of: Sequence[str] = ()
) -> QuestionGenerator:
    """Who asks a network about a table: by default about the media that both have."""
    shown = list(of) or [c for c in network.columns if network.modalities[c].media]
    return QuestionGenerator(table, columns, about, [c for c in shown if c in table.columns])


def conversation(question: Question, shown: Sequence[str]) -> list[Any]:
    """A question as the whole of a conversation, after the cells that it is about."""
    return [("user", [*({"column": c} for c in shown), question.text])]


def balanced(marks: Sequence[tuple[str, bool]]) -> float:
    """The mean over the right answers of the share that was given where they were right."""
    shares = [
        np.mean([mark for answer, mark in marks if answer == which])
        for which in sorted({answer for answer, _ in marks})
    ]
    return float(np.mean(shares))
