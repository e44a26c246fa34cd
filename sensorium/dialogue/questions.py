"""Questions about the rows of any table, from its columns' names and values, with no one writing them.

They ask: what is it, which of these, is it that, what is its group, what isn't known, which of two, how many of some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import find
from sensorium.data.schema import Schema
from sensorium.data.table import Table
from sensorium.dialogue.naming import naming_column, short_text
from sensorium.dialogue.reply import UNSURE
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
MAX_COMPARED_VALUES = 32
"""Values of a column, at most, about which rows are compared or counted."""
ORDER = ("The first.", "The second.")


@dataclasses.dataclass
class Question:
    """A question about a row, with its answer.

    Attributes:
        kind: see ``KINDS``; text: what the user asks; answer: what is right.
        reveals: who knows the answer needs no look for other questions. options: to choose from.
        rows: rows whose cells come with it, as how many after the conversation's; by default that one, with the first
            question.
    """

    kind: str
    text: str
    answer: str
    reveals: bool = True
    options: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()


class QuestionGenerator:
    """Question generator of a table.

    Args:
        table, columns: with its schema. about: the column that says what a row is; by default the first of short texts,
            or categories.
        of: columns whose cells a question refers to; by default pictures, videos, sounds and series, or else all
            others.
        fields: columns that are asked for; by default all. words: see ``templates.WORDS``.

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
        parts = {name: find(Modality, kind) for name, kind in kinds.items()}
        plain = [c for c, part in parts.items() if part.is_text or part.is_categorical or part.is_scalar]
        everything = table.take(np.arange(table.rows), plain)
        self.values = {
            name: [short_text(value) for value in everything.column(name).to_pylist()]
            for name in everything.column_names
        }
        self.numbers: dict[str, list[Any]] = {
            c: everything.column(c).to_pylist() for c in everything.column_names if kinds[c] == "number"
        }
        name = about or naming_column(kinds, self.values)
        if name is None or name not in self.values:
            raise UserError(
                f"'{table.name}' has no column of short texts or categories that names a row. Name one with "
                f"--about. Its columns: {', '.join(f'{c} ({k})' for c, k in kinds.items())}."
            )
        self.about = name
        media = [c for c, kind in kinds.items() if find(Modality, kind).media or find(Modality, kind).is_nested]
        self.of = list(of) or media or [c for c in kinds if c != self.about]
        self.have = {c: pc.is_valid(table.take(np.arange(table.rows), [c]).column(c)).to_pylist() for c in self.of}
        self.fields = [
            c
            for c in self.values
            if c != self.about and c not in self.of and c.lower() != "split" and (fields is None or c in fields)
        ]
        self.names = sorted({value for value in self.values[self.about] if value})
        self._names_by_value: dict[str, dict[str, list[str]]] = {}
        if len(self.names) < 2:
            raise UserError(
                f"Column '{self.about}' of '{table.name}' is the same in all rows, so there is nothing to ask."
            )

    def visible_columns(self, row: int, rng: np.random.Generator) -> list[str]:
        """The columns whose cells a conversation about a row refers to: one of the media, or all others."""
        present = [c for c in self.of if self.have[c][row]]
        return [str(rng.choice(present))] if present and not set(present) & set(self.values) else present

    def other_names(self, row: int, rng: np.random.Generator, count: int, hard: float = 0.3) -> list[str]:
        """Names of other rows, none of them the row's own (hard negatives among them).

        Args:
            count: of names. hard: share of rows that have a field in common with it.
        """
        own, result = self.values[self.about][row], []
        while len(result) < min(count, len(self.names) - 1):
            name = self.names[int(rng.integers(len(self.names)))]
            if rng.random() < hard and self.fields:
                column = self.fields[int(rng.integers(len(self.fields)))]
                near = self.names_by_value(column).get(self.values[column][row] or "", [])
                name = near[int(rng.integers(len(near)))] if near else name
            if name != own and name not in result:
                result.append(name)
        return result

    def names_by_value(self, column: str) -> Mapping[str, list[str]]:
        """For each value of a column the names of rows that have it."""
        if column not in self._names_by_value:
            groups: dict[str, list[str]] = {}
            for value, name in zip(self.values[column], self.values[self.about], strict=True):
                if value and name:
                    groups.setdefault(value, []).append(name)
            self._names_by_value[column] = groups
        return self._names_by_value[column]

    def pick(self, question: str, rng: np.random.Generator, plain: bool = False) -> str:
        """One of a question's wordings; ``plain``: the first."""
        words = self.words[question]
        return words[0] if plain else words[int(rng.integers(len(words)))]

    def question(self, kind: str, row: int, rng: np.random.Generator, plain: bool = False) -> Question | None:
        """A question of a kind about a row, with its answer; None where the row lacks what it takes.

        Args:
            plain: in the first wording, with other names from all rows.
        """
        own = self.values[self.about][row] or ""
        hard = 0.0 if plain else 0.3
        if not own and kind != "unknown":
            return None
        match kind:
            case "name":
                return Question(kind, self.pick("name", rng, plain), own)
            case "choice":
                options = [*self.other_names(row, rng, 3, hard), own]
                rng.shuffle(options)
                text = ", ".join(options[:-1]) + " or " + options[-1]
                text = self.pick("choice", rng, plain).format(options=text)
                return Question(kind, text, own, options=tuple(options))
            case "yes_no":
                right = rng.random() < 0.5
                value = own if right else self.other_names(row, rng, 1, hard)[0]
                text = self.pick("yes_no", rng, plain).format(value=value)
                return Question(kind, text, "Yes." if right else "No.", right)
            case "absent":
                right = not plain and rng.random() < 0.3
                value = own if right else self.other_names(row, rng, 1, 0.0)[0]
                text = self.pick("absent", rng, plain).format(value=value)
                return Question(kind, text, "Yes." if right else "No.", right)
            case "field" | "unknown":
                able = [c for c in self.fields if bool(self.values[c][row]) == (kind == "field")]
                if not able:
                    return None
                column = able[int(rng.integers(len(able)))]
                text = self.pick("field", rng, plain).format(column=column.replace("_", " "))
                return Question(kind, text, self.values[column][row] or UNSURE)
            case "describe":
                facts = [
                    f"{c.replace('_', ' ')}: {self.values[c][row]}" for c in self.fields[:4] if self.values[c][row]
                ]
                return Question(kind, self.pick("describe", rng, plain), "; ".join([own, *facts]) + ".")
        raise unknown("kind of question", kind, KINDS)

    def questions_about_several(self, kind: str, rows: Sequence[int], rng: np.random.Generator) -> list[Question]:
        """Questions about several rows, which all have a name.

        One refers to all of them, or, of ``next``, one to each; there is none where the rows lack what it takes.
        """
        match kind:
            case "next":
                return self._next(rows, rng)
            case "compare":
                return self._compare(rows, rng)
            case "how_many":
                return self._how_many(rows, rng)
        raise unknown("kind of question about several rows", kind, SEVERAL)

    def _next(self, rows: Sequence[int], rng: np.random.Generator) -> list[Question]:
        asked = [self.question(str(rng.choice(["name", "name", "choice", "yes_no"])), row, rng) for row in rows]
        result = []
        for at, question in enumerate(asked):
            if question:
                reworded = at and question.kind == "name" and rng.random() < 0.5
                text = self.pick("next", rng) if reworded else question.text
                result.append(dataclasses.replace(question, rows=(at,), text=text))
        if rng.random() < 0.25:
            result.append(Question("name", self.pick("first", rng), self.values[self.about][rows[0]] or ""))
        return result

    def _compare(self, rows: Sequence[int], rng: np.random.Generator) -> list[Question]:
        names = [self.values[self.about][row] or "" for row in rows]
        possible: list[Question] = []
        if names[0] != names[1]:
            at = int(rng.integers(2))
            text = self.pick("which", rng).format(value=names[at])
            possible += [Question("compare", text, ORDER[at], options=ORDER)] * 2
        for column in self.fields:
            values = [self.values[column][row] for row in rows]
            numbers: list[Any] = [self.numbers[column][row] if column in self.numbers else None for row in rows]
            label = column.replace("_", " ")
            if None not in numbers and numbers[0] != numbers[1]:
                text = self.pick("more", rng).format(column=label)
                possible.append(Question("compare", text, ORDER[int(numbers[1] > numbers[0])], options=ORDER))
            elif (
                None not in values
                and column not in self.numbers
                and len(self.names_by_value(column)) <= MAX_COMPARED_VALUES
            ):
                text = self.pick("same", rng).format(column=label)
                possible.append(Question("compare", text, "Yes." if values[0] == values[1] else "No."))
        chosen = [possible[int(rng.integers(len(possible)))]] if possible else []
        return [dataclasses.replace(question, rows=tuple(range(len(rows)))) for question in chosen]

    def _how_many(self, rows: Sequence[int], rng: np.random.Generator) -> list[Question]:
        able = [
            c
            for c in self.fields
            if c not in self.numbers
            and len(self.names_by_value(c)) <= MAX_COMPARED_VALUES
            and all(self.values[c][row] for row in rows)
        ]
        columns = [self.about, *able]
        column = columns[int(rng.integers(len(columns)))]
        values = [self.values[column][row] for row in rows]
        possible = values
        if not rng.random() < 0.8:
            possible = [*(sorted(self.names_by_value(column)) if column != self.about else self.names)]
        value = possible[int(rng.integers(len(possible)))]
        words = self.pick("how_many" if column == self.about else "how_many_have", rng)
        text = words.format(value=value, column=column.replace("_", " "))
        return [Question("how_many", text, f"{values.count(value)}.", rows=tuple(range(len(rows))))]

    def conversation(
        self, row: int, rng: np.random.Generator, chances: Mapping[str, float], after: Sequence[int] = ()
    ) -> list[dict[str, Any]] | None:
        """Messages about a row: one question, or before it one whose answer gives nothing away.

        Or messages about the row and some of those ``after`` it, where these have the same cells.

        Args:
            chances: how often each kind of question is asked.
        """
        kinds, weights = list(chances), np.array(list(chances.values()))
        visible = self.visible_columns(row, rng)
        if not visible or (set(visible) & {self.about}):
            return None
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        if kind in SEVERAL:
            least, most = SEVERAL[kind]
            rows = [row, *after[: int(rng.integers(least, most + 1)) - 1]]
            able = (
                len(rows) >= least
                and len(set(rows)) == len(rows)
                and all(self.values[self.about][one] and all(self.have[c][one] for c in visible) for one in rows)
            )
            if able and (questions := self.questions_about_several(kind, rows, rng)):
                return messages_of_questions(questions, visible)
            single = {kind: often for kind, often in chances.items() if kind not in SEVERAL}
            return self.conversation(row, rng, single) if single else None
        last = self.question(kind, row, rng)
        questions = [last] if last else []
        if rng.random() < 0.35:
            first = self.question(str(rng.choice(["yes_no", "absent"])), row, rng)
            if first and not first.reveals and last:
                questions.insert(0, first)
        return messages_of_questions(questions, visible) if questions else None


def messages_of_questions(questions: Sequence[Question], visible: Sequence[str]) -> list[dict[str, Any]]:
    """Questions and answers as messages, each with the cells that it refers to; by default the first with the
    conversation's own row."""
    result: list[dict[str, Any]] = []
    for question in questions:
        rows = question.rows or (() if result else (0,))
        cells = [{"type": "cell", "text": None, "column": c, "row": row or None} for row in rows for c in visible]
        result.append(
            {"role": "user", "content": [*cells, {"type": "text", "text": question.text, "column": None, "row": None}]}
        )
        result.append(
            {"role": "assistant", "content": [{"type": "text", "text": question.answer, "column": None, "row": None}]}
        )
    return result
