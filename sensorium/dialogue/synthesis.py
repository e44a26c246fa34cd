"""Synthetic conversations and preference pairs about a table's training rows.

Each conversation refers to cells of its own row, or to those of the rows that follow it as well. Validation and test
rows stay out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import UserError, unknown
from sensorium.data.schema import Schema
from sensorium.data.split import split_rows
from sensorium.data.table import Table
from sensorium.dialogue.questions import KINDS, MEASURED, SEVERAL, QuestionGenerator, messages_of_questions
from sensorium.dialogue.templates import WORDS

MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            (
                "content",
                pa.list_(
                    pa.struct(
                        [("type", pa.string()), ("text", pa.string()), ("column", pa.string()), ("row", pa.int64())]
                    )
                ),
            ),
        ]
    )
)
"""Arrow type of the column ``conversation``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """Options of synthetic conversations.

    Args:
        about, of: see ``QuestionGenerator``. each: conversations of a row.
        kinds: how often each kind of question is asked, relative to the others; by default ``KINDS``.
        keep: columns that come along; by default all. seed: of the random draws. by: the split, as ``data.split``.
        words: how each question is said; see ``templates.WORDS``.
    """

    about: str | None = None
    of: Sequence[str] = ()
    each: int = 4
    kinds: Mapping[str, float] | None = None
    keep: Sequence[str] | None = None
    seed: int = 0
    by: str = "auto"
    words: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=lambda: WORDS)


@dataclasses.dataclass
class SynthesisPlan:
    """Plan of a synthesis: who asks, about which rows, how often each kind, and which columns come along."""

    asker: QuestionGenerator
    rows: np.ndarray
    chances: dict[str, float]
    columns: list[str]

    def take(self, table: Table, rows: Sequence[int]) -> pa.Table:
        """The rows that were asked about, each as often as it was.

        Raises:
            UserError: there are none.
        """
        if not rows:
            raise UserError(
                f"No training row of '{table.name}' has both '{self.asker.about}' and one of "
                f"{', '.join(self.asker.of)}."
            )
        return table.take(np.array(rows), self.columns)


def ask_data(table: Table, columns: Schema, **options: Any) -> pa.Table:
    """Synthetic conversations about the training rows of a table, each row as often as it has one.

    Args:
        options: see ``SynthesisOptions``.

    Returns:
        a table with the column ``conversation``; in a random order where some are about several rows, which are those
        that follow.

    Raises:
        UserError: columns or kinds that aren't there, or no row to ask about.
    """
    how = SynthesisOptions(**options)
    plan = plan_of(table, columns, how)
    rows: list[int] = []
    talks: list[list[dict[str, Any]] | None] = []
    for row, conversation in conversations_of(plan, how.each, how.seed):
        rows.append(row)
        talks.append(conversation)
    if rows and not any(talks):
        raise UserError(
            f"Of kinds {', '.join(plan.chances)} nothing can be asked about the training rows of '{table.name}': there "
            f"are too few of them, or they lack what it takes. Possible: {', '.join(KINDS)}."
        )
    return plan.take(table, rows).append_column("conversation", pa.array(talks, MESSAGES))


def plan_of(table: Table, columns: Schema, options: SynthesisOptions) -> SynthesisPlan:
    """The plan of a synthesis.

    Raises:
        UserError: columns or kinds that aren't there, or a table that was asked about before.
    """
    chances = dict(options.kinds or KINDS)
    for kind in chances:
        if kind not in KINDS:
            raise unknown("kind of question", kind, KINDS)
    if options.each < 1:
        raise UserError(f"--each {options.each}: give at least 1 conversation for each row.")
    if "conversation" in table.columns:
        raise UserError(f"'{table.name}' has a column 'conversation' already.")
    for column in options.keep or ():
        if column not in table.columns:
            raise unknown("column to keep:", column, table.columns)
    if not table.rows:
        raise UserError(f"'{table.name}' has no rows to ask about.")
    asker = QuestionGenerator(table, columns, options.about, options.of, options.keep, options.words)
    splits = split_rows(table, columns, by=options.by, seed=options.seed, carved=0.0)
    selected = list(dict.fromkeys([*(options.keep if options.keep is not None else table.columns), *asker.of]))
    return SynthesisPlan(asker, splits.rows("train"), chances, selected)


def pair_data(table: Table, columns: Schema, **options: Any) -> pa.Table:
    """Synthetic preference pairs about the training rows of a table.

    As ``ask_data``, but each conversation ends with a question, and beside it stand the right answer, ``chosen``, and a
    wrong one, ``rejected``: another row's name, the other of yes and no.

    Args:
        options: see ``SynthesisOptions``; ``each`` is 2 by default.

    Raises:
        UserError: as ``ask_data``.
    """
    how = dataclasses.replace(SynthesisOptions(each=2), **options)
    plan = plan_of(table, columns, how)
    asker = plan.asker
    chances = {kind: often for kind, often in plan.chances.items() if kind in MEASURED}
    if not chances:
        raise UserError(
            f"Of kinds {', '.join(how.kinds or ())} there are no wrong answers. Possible: {', '.join(MEASURED)}."
        )
    rows: list[int] = []
    asked: list[list[dict[str, Any]]] = []
    answers: dict[str, list[str]] = {"chosen": [], "rejected": []}
    weights = np.array(list(chances.values()))
    for row in plan.rows.tolist():
        rng = np.random.default_rng([how.seed, row, 1])
        for _ in range(how.each):
            question = asker.question(str(rng.choice(list(chances), p=weights / weights.sum())), row, rng)
            visible = asker.visible_columns(row, rng)
            if question is None or not visible or asker.about in visible:
                continue
            others = [option for option in question.options if option != question.answer] or asker.other_names(
                row, rng, 1, 0.5
            )
            wrong = {"Yes.": "No.", "No.": "Yes."}.get(question.answer) or str(rng.choice(others))
            rows.append(row)
            asked.append(messages_of_questions([question], visible)[:1])
            answers["chosen"].append(question.answer)
            answers["rejected"].append(wrong)
    result = plan.take(table, rows).append_column("conversation", pa.array(asked, MESSAGES))
    for name, values in answers.items():
        result = result.append_column(name, pa.array(values))
    return result


def conversations_of(plan: SynthesisPlan, each: int, seed: int) -> Iterator[tuple[int, list[dict[str, Any]] | None]]:
    """The conversations of rows: each row's side by side.

    Or, where some are about several rows, in a random order in which they refer to those that follow.
    """
    if any(kind in SEVERAL for kind in plan.chances):
        yield from reversed(list(chained_conversations(plan, each, seed)))
        return
    for row in plan.rows.tolist():
        rng, seen = np.random.default_rng([seed, row]), set()
        for _ in range(each):
            conversation = plan.asker.conversation(row, rng, plan.chances)
            if conversation is not None and str(conversation) not in seen:
                seen.add(str(conversation))
                yield row, conversation


def chained_conversations(
    plan: SynthesisPlan, each: int, seed: int
) -> Iterator[tuple[int, list[dict[str, Any]] | None]]:
    """Conversations from the last one to the first, so that the rows that follow are known when one is about them."""
    asker = plan.asker
    able = [
        row
        for row in plan.rows.tolist()
        if asker.values[asker.about][row] and any(asker.have[c][row] for c in asker.of)
    ]
    turns, times = np.repeat(np.array(able, np.int64), each), Counter[int]()
    seen: set[tuple[int, str]] = set()
    after = deque[int](maxlen=MAX_ROWS - 1)
    np.random.default_rng([seed, 2]).shuffle(turns)
    for row in turns.tolist():
        times[row] += 1
        rng = np.random.default_rng([seed, row, times[row]])
        conversation = asker.conversation(row, rng, plan.chances, list(after))
        if (row, str(conversation)) in seen or (conversation is None and len(after) == MAX_ROWS - 1):
            continue
        seen.add((row, str(conversation)))  # the last rows may have none: they are there to be looked at
        after.appendleft(row)
        yield row, conversation
