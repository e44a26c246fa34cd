"""Conversations from any table: what is it, which of these, is it that, what is its group, what isn't known, which of two, how many of some; from columns' names and values, with no one writing them.

Each conversation refers to cells of its own row, or to those of the rows that follow it as well. Rows that are held out stay out.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.attachments import MAX_ROWS
from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find
from sensorium.data.schema import Schema
from sensorium.data.split import split_rows
from sensorium.data.table import Table
from sensorium.dialogue.templates import WORDS
from sensorium.modalities import Modality

KINDS = {
    "name": 4.0,
    "choice": 2.0,
    "yes_no": 2.0,
    "absent": 1.5,
    "field": 1.0,
    "describe": 0.5,
    "unknown": 0.25,
    "next": 1.0,
    "compare": 1.0,
    "how_many": 0.5,
}
"""Kinds of questions and how often each is asked, relative to the others."""
SEVERAL = {"next": (2, 3), "compare": (2, 2), "how_many": (3, 4)}
"""Kinds that are about several rows, and of how many, at least and at most."""
MEASURED = {"name": "exact", "choice": "choice", "yes_no": "yes_no", "absent": "absent"}
MANY = 32
"""Values of a column, at most, about which rows are compared or counted."""
LONGEST = 60
"""Letters of a value that a question or an answer repeats, at most."""
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
UNKNOWN = "I don't know."
ORDER = ("The first.", "The second.")


@dataclasses.dataclass
class Question:
    """One question about a row.

    Attributes:
        kind: see ``KINDS``; text: what the user asks; answer: what is right. reveals: having it told, others need no look any more. options: to choose from.
        shown: rows that are shown with it, as how many after the conversation's; by default that alone, with the first question.
    """

    kind: str
    text: str
    answer: str
    reveals: bool = True
    options: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()


class QuestionGenerator:
    """Asks about the rows of a table.

    Args:
        table, columns: with its schema. about: the column that says what a row is; by default the first of short texts, or categories.
        of: columns whose cells are shown; by default pictures, videos, sounds and series, or else all others. fields: columns that are asked for; by default all. words: see ``wordings.WORDS``.

    Raises:
        UserError: columns that aren't there, or nothing to ask about.
    """

    def __init__(
        self,
        table: Table,
        columns: Schema,
        about: str | None = None,
        of: Sequence[str] = (),
        fields: Sequence[str] | None = None,
        words: Mapping[str, Sequence[str]] = WORDS,
    ) -> None:
        self.words = words
        for column in (*([about] if about else ()), *of):
            if column not in table.columns:
                raise unknown("column to ask about:", column, table.columns)
        kinds = {name: column.kind for name, column in columns.columns.items()}
        everything = table.take(
            np.arange(table.rows), [*(c for c, kind in kinds.items() if kind in ("text", "category", "number", "date"))]
        )
        self.values = {
            name: [short(value) for value in everything.column(name).to_pylist()] for name in everything.column_names
        }
        self.numbers = {c: everything.column(c).to_pylist() for c in everything.column_names if kinds[c] == "number"}
        self.about = about or named(kinds, self.values)
        if self.about is None or self.about not in self.values:
            raise UserError(
                f"'{table.name}' has no column of short texts or categories that says what a row is. Name one with --about. Its columns: {', '.join(f'{c} ({k})' for c, k in kinds.items())}."
            )
        media = [c for c, kind in kinds.items() if find(Modality, kind).media or kind in ("series", "points")]
        self.of = list(of) or media or [c for c in kinds if c != self.about]
        self.have = {c: pc.is_valid(table.take(np.arange(table.rows), [c]).column(c)).to_pylist() for c in self.of}
        self.fields = [
            c
            for c in self.values
            if c != self.about and c not in self.of and c.lower() != "split" and (fields is None or c in fields)
        ]
        self.names = sorted({value for value in self.values[self.about] if value})
        if len(self.names) < 2:
            raise UserError(
                f"Column '{self.about}' of '{table.name}' says the same of all rows, so there is nothing to ask."
            )

    def shown(self, row: int, rng: np.random.Generator) -> list[str]:
        """The columns whose cells a conversation about a row refers to: one of the media, or all of what isn't media."""
        there = [c for c in self.of if self.have[c][row]]
        return [str(rng.choice(there))] if there and not set(there) & set(self.values) else there

    def other(self, row: int, rng: np.random.Generator, count: int, hard: float = 0.3) -> list[str]:
        """So many other rows' names, none of them the row's own; a share of them of rows that have a field in common with it."""
        own, result = self.values[self.about][row], []
        while len(result) < min(count, len(self.names) - 1):
            name = self.names[int(rng.integers(len(self.names)))]
            if rng.random() < hard and self.fields:
                column = self.fields[int(rng.integers(len(self.fields)))]
                near = self.alike(column).get(self.values[column][row] or "", [])
                name = near[int(rng.integers(len(near)))] if near else name
            if name != own and name not in result:
                result.append(name)
        return result

    def alike(self, column: str) -> Mapping[str, list[str]]:
        """For each value of a column the names of rows that have it."""
        if not hasattr(self, "_alike"):
            self._alike: dict[str, dict[str, list[str]]] = {}
        if column not in self._alike:
            groups: dict[str, list[str]] = {}
            for value, name in zip(self.values[column], self.values[self.about], strict=True):
                if value and name:
                    groups.setdefault(value, []).append(name)
            self._alike[column] = groups
        return self._alike[column]

    def pick(self, question: str, rng: np.random.Generator, plain: bool = False) -> str:
        """One of a question's wordings; ``plain``: the first."""
        words = self.words[question]
        return words[0] if plain else words[int(rng.integers(len(words)))]

    def question(self, kind: str, row: int, rng: np.random.Generator, plain: bool = False) -> Question | None:
        """One question of a kind about a row, with its answer; None where the row lacks what it takes. ``plain``: in the first wording, with other names from all rows."""
        own = self.values[self.about][row]
        hard = 0.0 if plain else 0.3
        if not own and kind != "unknown":
            return None
        match kind:
            case "name":
                return Question(kind, self.pick("name", rng, plain), own)
            case "choice":
                options = [*self.other(row, rng, 3, hard), own]
                rng.shuffle(options)
                return Question(
                    kind,
                    self.pick("choice", rng, plain).format(options=", ".join(options[:-1]) + " or " + options[-1]),
                    own,
                    options=tuple(options),
                )
            case "yes_no":
                right = rng.random() < 0.5
                value = own if right else self.other(row, rng, 1, hard)[0]
                return Question(
                    kind, self.pick("yes_no", rng, plain).format(value=value), "Yes." if right else "No.", right
                )
            case "absent":
                right = not plain and rng.random() < 0.3
                value = own if right else self.other(row, rng, 1, 0.0)[0]
                return Question(
                    kind, self.pick("absent", rng, plain).format(value=value), "Yes." if right else "No.", right
                )
            case "field" | "unknown":
                there = [c for c in self.fields if bool(self.values[c][row]) == (kind == "field")]
                if not there:
                    return None
                column = there[int(rng.integers(len(there)))]
                return Question(
                    kind,
                    self.pick("field", rng, plain).format(column=column.replace("_", " ")),
                    self.values[column][row] or UNKNOWN,
                )
            case "describe":
                told = [f"{c.replace('_', ' ')}: {self.values[c][row]}" for c in self.fields[:4] if self.values[c][row]]
                return Question(kind, self.pick("describe", rng, plain), "; ".join([own, *told]) + ".")
        raise unknown("kind of question", kind, KINDS)

    def several(self, kind: str, rows: Sequence[int], rng: np.random.Generator) -> list[Question]:
        """Questions about several rows, which all have a name: one that shows all of them, or, of ``next``, one about each; none where the rows lack what it takes."""
        pick, names = (
            (lambda words: words[int(rng.integers(len(words)))]),
            [self.values[self.about][row] or "" for row in rows],
        )
        everyone = tuple(range(len(rows)))
        match kind:
            case "next":
                asked = [self.question(str(rng.choice(["name", "name", "choice", "yes_no"])), row, rng) for row in rows]
                result = [
                    dataclasses.replace(
                        question,
                        shown=(at,),
                        text=self.pick("next", rng)
                        if at and question.kind == "name" and rng.random() < 0.5
                        else question.text,
                    )
                    for at, question in enumerate(asked)
                    if question
                ]
                if rng.random() < 0.25:
                    result.append(Question("name", self.pick("first", rng), names[0]))
                return result
            case "compare":
                ways: list[Question] = []
                if names[0] != names[1]:
                    at = int(rng.integers(2))
                    ways += [
                        Question(kind, self.pick("which", rng).format(value=names[at]), ORDER[at], options=ORDER)
                    ] * 2
                for column in self.fields:
                    said, numbers = (
                        [self.values[column][row] for row in rows],
                        [self.numbers.get(column, dict.fromkeys(rows))[row] for row in rows],
                    )
                    if None not in numbers and numbers[0] != numbers[1]:
                        ways.append(
                            Question(
                                kind,
                                self.pick("more", rng).format(column=column.replace("_", " ")),
                                ORDER[int(numbers[1] > numbers[0])],
                                options=ORDER,
                            )
                        )
                    elif None not in said and column not in self.numbers and len(self.alike(column)) <= MANY:
                        ways.append(
                            Question(
                                kind,
                                self.pick("same", rng).format(column=column.replace("_", " ")),
                                "Yes." if said[0] == said[1] else "No.",
                            )
                        )
                return [dataclasses.replace(pick(ways), shown=everyone)] if ways else []
            case "how_many":
                columns = [
                    self.about,
                    *(
                        c
                        for c in self.fields
                        if c not in self.numbers
                        and len(self.alike(c)) <= MANY
                        and all(self.values[c][row] for row in rows)
                    ),
                ]
                column = pick(columns)
                said = [self.values[column][row] for row in rows]
                value = (
                    pick(said)
                    if rng.random() < 0.8
                    else pick(sorted(self.alike(column)) if column != self.about else self.names)
                )
                words = self.pick("how_many" if column == self.about else "how_many_have", rng)
                return [
                    Question(
                        kind,
                        words.format(value=value, column=column.replace("_", " ")),
                        f"{said.count(value)}.",
                        shown=everyone,
                    )
                ]
        raise unknown("kind of question about several rows", kind, SEVERAL)

    def conversation(
        self, row: int, rng: np.random.Generator, chances: Mapping[str, float], after: Sequence[int] = ()
    ) -> list[dict[str, Any]] | None:
        """Messages about a row: one question, or before it one whose answer gives nothing away; or about it and some of those ``after`` it, where these show the same."""
        kinds, weights = list(chances), np.array(list(chances.values()))
        shown = self.shown(row, rng)
        if not shown or (set(shown) & {self.about}):
            return None
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        if kind in SEVERAL:
            least, most = SEVERAL[kind]
            rows = [row, *after[: int(rng.integers(least, most + 1)) - 1]]
            able = (
                len(rows) >= least
                and len(set(rows)) == len(rows)
                and all(self.values[self.about][one] and all(self.have[c][one] for c in shown) for one in rows)
            )
            if able and (questions := self.several(kind, rows, rng)):
                return messages(questions, shown)
            alone = {kind: often for kind, often in chances.items() if kind not in SEVERAL}
            return self.conversation(row, rng, alone) if alone else None
        last = self.question(kind, row, rng)
        questions = [last] if last else []
        if rng.random() < 0.35:
            first = self.question(str(rng.choice(["yes_no", "absent"])), row, rng)
            if first and not first.reveals and last:
                questions.insert(0, first)
        return messages(questions, shown) if questions else None


def messages(questions: Sequence[Question], shown: Sequence[str]) -> list[dict[str, Any]]:
    """Questions and answers as messages, each with what is shown with it; where none says so the first with the conversation's own row."""
    result: list[dict[str, Any]] = []
    for question in questions:
        rows = question.shown or (() if result else (0,))
        cells = [{"type": "cell", "text": None, "column": c, "row": row or None} for row in rows for c in shown]
        result.append(
            {"role": "user", "content": [*cells, {"type": "text", "text": question.text, "column": None, "row": None}]}
        )
        result.append(
            {"role": "assistant", "content": [{"type": "text", "text": question.answer, "column": None, "row": None}]}
        )
    return result


def ask_data(
    table: Table,
    columns: Schema,
    *,
    about: str | None = None,
    of: Sequence[str] = (),
    each: int = 4,
    kinds: Mapping[str, float] | None = None,
    keep: Sequence[str] | None = None,
    seed: int = 0,
    by: str = "auto",
    words: Mapping[str, Sequence[str]] = WORDS,
) -> pa.Table:
    """The training rows of a table, each as often as it has a conversation, with the column ``conversation``; in a random order where some are about several rows, which are those that follow.

    Args:
        each: conversations of a row. kinds: how often each kind of question is asked; see ``KINDS``. keep: columns that come along; by default all. by: the split, as ``data.split``. words: how each question is said; see ``wordings``.

    Raises:
        UserError: columns or kinds that aren't there, or no row to ask about.
    """
    asker, rows, chances, kept = begun(table, columns, about, of, each, kinds, keep, seed, by, words)
    picked, said = [], []
    for row, conversation in made(asker, rows, each, chances, seed):
        picked.append(row)
        said.append(conversation)
    if picked and not any(said):
        raise UserError(
            f"Of kinds {', '.join(chances)} nothing can be asked about the training rows of '{table.name}': there are too few of them, or they lack what it takes. Possible: {', '.join(KINDS)}."
        )
    return taken(table, asker, picked, kept).append_column("conversation", pa.array(said, MESSAGES))


def begun(
    table: Table,
    columns: Schema,
    about: str | None,
    of: Sequence[str],
    each: int,
    kinds: Mapping[str, float] | None,
    keep: Sequence[str] | None,
    seed: int,
    by: str,
    words: Mapping[str, Sequence[str]],
) -> tuple[QuestionGenerator, np.ndarray, dict[str, float], list[str]]:
    """Who asks, about which rows, how often each kind of question, and which columns come along; see ``ask_data``.

    Raises:
        UserError: columns or kinds that aren't there, or a table that was asked about before.
    """
    chances = dict(kinds or KINDS)
    for kind in chances:
        if kind not in KINDS:
            raise unknown("kind of question", kind, KINDS)
    if each < 1:
        raise UserError(f"--each {each}: give at least 1 conversation for each row.")
    if "conversation" in table.columns:
        raise UserError(f"'{table.name}' has a column 'conversation' already.")
    for column in keep or ():
        if column not in table.columns:
            raise unknown("column to keep:", column, table.columns)
    if not table.rows:
        raise UserError(f"'{table.name}' has no rows to ask about.")
    asker, splits = (
        QuestionGenerator(table, columns, about, of, keep, words),
        split_rows(table, columns, by=by, seed=seed, carved=0.0),
    )
    kept = list(dict.fromkeys([*(keep if keep is not None else table.columns), *asker.of]))
    return asker, splits.rows("train"), chances, kept


def taken(table: Table, asker: QuestionGenerator, picked: Sequence[int], kept: Sequence[str]) -> pa.Table:
    """The rows that were asked about, each as often as it was.

    Raises:
        UserError: there are none.
    """
    if not picked:
        raise UserError(f"No training row of '{table.name}' has both '{asker.about}' and one of {', '.join(asker.of)}.")
    return table.take(np.array(picked), kept)


def pair_data(
    table: Table,
    columns: Schema,
    *,
    about: str | None = None,
    of: Sequence[str] = (),
    each: int = 2,
    kinds: Mapping[str, float] | None = None,
    keep: Sequence[str] | None = None,
    seed: int = 0,
    by: str = "auto",
    words: Mapping[str, Sequence[str]] = WORDS,
) -> pa.Table:
    """As ``ask_data``, but each conversation ends with a question, and beside it stand the right answer, ``chosen``, and a wrong one, ``rejected``: another row's name, the other of yes and no.

    Raises:
        UserError: as ``ask_data``.
    """
    asker, rows, chances, kept = begun(table, columns, about, of, each, kinds, keep, seed, by, words)
    chances = {kind: often for kind, often in chances.items() if kind in MEASURED}
    if not chances:
        raise UserError(
            f"Of kinds {', '.join(kinds or ())} there are no wrong answers. Possible: {', '.join(MEASURED)}."
        )
    picked: list[int] = []
    asked: list[list[dict[str, Any]]] = []
    answers: dict[str, list[str]] = {"chosen": [], "rejected": []}
    weights = np.array(list(chances.values()))
    for row in rows.tolist():
        rng = np.random.default_rng([seed, row, 1])
        for _ in range(each):
            question, shown = (
                asker.question(str(rng.choice(list(chances), p=weights / weights.sum())), row, rng),
                asker.shown(row, rng),
            )
            if question is None or not shown or asker.about in shown:
                continue
            others = [option for option in question.options if option != question.answer] or asker.other(
                row, rng, 1, 0.5
            )
            wrong = {"Yes.": "No.", "No.": "Yes."}.get(question.answer) or str(rng.choice(others))
            picked.append(row)
            asked.append(messages([question], shown)[:1])
            answers["chosen"].append(question.answer)
            answers["rejected"].append(wrong)
    result = taken(table, asker, picked, kept).append_column("conversation", pa.array(asked, MESSAGES))
    for name, values in answers.items():
        result = result.append_column(name, pa.array(values))
    return result


def made(
    asker: QuestionGenerator, rows: np.ndarray, each: int, chances: Mapping[str, float], seed: int
) -> Iterator[tuple[int, list[dict[str, Any]] | None]]:
    """The conversations of rows: each row's side by side, or, where some are about several rows, in a random order in which they refer to those that follow."""
    if any(kind in SEVERAL for kind in chances):
        yield from reversed(list(chained(asker, rows, each, chances, seed)))
        return
    for row in rows.tolist():
        rng, seen = np.random.default_rng([seed, row]), set()
        for _ in range(each):
            conversation = asker.conversation(row, rng, chances)
            if conversation is not None and str(conversation) not in seen:
                seen.add(str(conversation))
                yield row, conversation


def chained(
    asker: QuestionGenerator, rows: np.ndarray, each: int, chances: Mapping[str, float], seed: int
) -> Iterator[tuple[int, list[dict[str, Any]] | None]]:
    """Conversations from the last one to the first, so that the rows that follow are known when one is about them."""
    able = [
        row for row in rows.tolist() if asker.values[asker.about][row] and any(asker.have[c][row] for c in asker.of)
    ]
    turns, times, seen, after = (
        np.repeat(np.array(able, np.int64), each),
        Counter[int](),
        set(),
        deque[int](maxlen=MAX_ROWS - 1),
    )
    np.random.default_rng([seed, 2]).shuffle(turns)
    for row in turns.tolist():
        times[row] += 1
        conversation = asker.conversation(row, np.random.default_rng([seed, row, times[row]]), chances, list(after))
        if (row, str(conversation)) in seen or (conversation is None and len(after) == MAX_ROWS - 1):
            continue
        seen.add((row, str(conversation)))  # the last rows may have none: they are there to be looked at
        after.appendleft(row)
        yield row, conversation


def named(kinds: Mapping[str, str], values: Mapping[str, Sequence[str | None]]) -> str | None:
    """The column that says what a row is: called so, or else the first of short texts, or else of categories."""
    short_texts = [
        c
        for c, kind in kinds.items()
        if kind == "text" and 0 < np.mean([len(v.split()) for v in values[c] if v] or [99]) <= 5
    ]
    categories = [c for c, kind in kinds.items() if kind == "category"]
    for word in ("name", "title", "label", "caption", "class"):
        for column in (*short_texts, *categories):
            if column.lower() == word:
                return column
    return next(iter(short_texts or categories), None)


def short(value: Any) -> str | None:
    """A cell as a question says it; None where there is none, or more than a question can hold."""
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = (value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value)).strip()
    return text if 0 < len(text) <= LONGEST else None
