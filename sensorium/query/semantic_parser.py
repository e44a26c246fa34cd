"""Semantic parser of questions about many rows: every query of a small grammar over a table's columns, with its cost.

    how many   how many different   which are there   the average, sum, highest, lowest of a number
    by group, ranked   single rows, ranked   rows that meet conditions

The cost of a query is how much of the question speaks against it.

It knows columns, values and English words, no table and no model.
"""

from __future__ import annotations

import datetime
import heapq
import itertools
import re
from collections.abc import Iterator, Sequence

from sensorium.query.parse import Condition, Parse, QueryColumns
from sensorium.query.words import (
    AVERAGE,
    COMMON,
    DAY,
    HIGH,
    LOW,
    NOT,
    PLAIN,
    RARE,
    SCALES,
    SUM,
    THAN,
    day_of,
    folded,
    same_word,
    sign_of,
    stem,
    stems,
)

YEARS = 1000, 3000
"""Bounds of numbers that may be years."""
MAX_CONDITION_SETS, MAX_COLUMNS_PER_NUMBER = 16, 4
"""Sets of conditions that are considered, the likeliest, and columns that a number may be of."""


class ParsedQuestion:
    """Parsed question: the columns, values, numbers, days and common words that it mentions."""

    def __init__(self, text: str, columns: QueryColumns) -> None:
        self.text, self.columns = text, columns
        self.days: dict[datetime.date, str] = {}  # with the sign by which it is compared
        rest = text
        for found in DAY.finditer(text):
            day = day_of(found)
            if day is not None:
                self.days[day], rest = sign_of(text, found.start(), found.end()), rest.replace(found[0], " ")
        self.plain = re.sub(r"\b(type|kind|sort)s? of (?=\w)", "", folded(rest))
        self.words = self.plain.split()
        self.stems = [stem(word) for word in self.words]
        self.marks = set(stems(re.sub(THAN, " ", self.plain)))  # "at least 6" is no superlative
        known = {word for column in (*columns.groups, *columns.numbers) for word in stems(column)}
        self.values, self.vague, inside = self.conditions_stated(known)
        self.numbers = {
            float(found[0]): sign_of(rest, found.start(), found.end())
            for found in re.finditer(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)", rest)
            if found[0] not in inside
        }
        self.named = self.mentioned([word for word in self.stems if word not in inside])
        self.high, self.low = self.has(HIGH), self.has(LOW)
        self.implied = self.implies()
        self.high |= any(self.implied.values()) and not self.has(LOW)
        self.low |= not all(self.implied.values()) and not self.has(HIGH)
        self.common, self.rare = self.has(COMMON) and not self.low, self.has(RARE)
        self.many = bool(re.search(r"\b(how many|number of|count of|count the)\b", self.plain))
        self.each = bool(re.search(r"\b(each|per|by|every)\b", self.plain))
        asked = re.search(r"\b(how|what|which|who|where|when|number|average|mean|total|count)\b", self.plain)
        self.listing = (
            bool(
                re.match(
                    r"(please )?((can|could) you )?(please )?(list|show|give|display|name|find|tell)\b", self.plain
                )
            )
            or not asked
        )
        self.denied, self.which = bool(re.search(NOT, self.plain)), bool(re.match(r"(which|who)\b", self.plain))
        after = re.search(
            r"\b(?:which|what|how many|number of|list|show|name|names of|of which)"
            r"((?: (?:different|distinct|unique|various|all|the|is|are|was|were|me|possible))*) (\w+)",
            self.plain,
        )
        self.object = stem(after[2]) if after else ""
        self.different = bool(re.search(r"\b(different|distinct|unique|various)\b", self.plain))
        own = (
            {
                column: any(same_word(self.object, word) for word in stems(column))
                for column in (*columns.groups, *columns.numbers)
            }
            if self.object
            else {}
        )
        self.of_group, self.of_number = (
            any(own.get(c) for c in columns.groups if c not in columns.single),
            any(own.get(c) for c in columns.numbers),
        )
        self.of_value = any(self.object in stems(value) for _, value in self.values)

    def conditions_stated(self, known: set[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], set[str]]:
        """Values that stand in it, the longest first, those that may only be words of columns, and all their words."""
        places = self.columns.places
        codes = {
            word.lower() for word in re.findall(r"\b[A-Z0-9]{1,3}\b", self.text)
        }  # short words count where they are written as codes are
        stated, vague, taken = [], [], set()
        for length in range(min(6, len(self.stems)), 0, -1):
            for start in range(len(self.stems) - length + 1):
                words, here = " ".join(self.stems[start : start + length]), set(range(start, start + length))
                if (
                    words not in places
                    or (words in PLAIN and words not in codes)
                    or words.isdigit()
                    or here & taken
                    or (len(words) < 3 and words not in codes)
                ):
                    continue
                column, value = min(
                    places[words],
                    key=lambda place: (place[0] == self.columns.label, len(self.columns.groups[place[0]])),
                )
                (vague if set(words.split()) <= known else stated).append((column, value))
                taken |= here
        return stated, vague, {word for at in taken for word in (self.words[at], self.stems[at])}

    def implies(self) -> dict[str, bool]:
        """Numbers that a superlative like "oldest" ranks by, and whether it means their upper end."""
        found: dict[str, bool] = {}
        for up, down, about in SCALES:
            for column in self.columns.numbers:
                own = stems(column)
                if (
                    set(own) & set(about.split())
                    or (column in self.columns.dates and about.startswith("year"))
                    or any(word.startswith(short) for short in own if len(short) >= 4 for word in about.split())
                ):
                    for words, upper in ((up, True), (down, False)):
                        if self.has(words):
                            found.setdefault(column, upper)
        closer = set(found) & self.named
        return {column: upper for column, upper in found.items() if not closer or column in closer}

    @property
    def about_many(self) -> bool:
        """True if it counts, compares or lists, and names what the columns have."""
        asks = (
            self.many
            or self.each
            or self.high
            or self.low
            or self.has(AVERAGE)
            or self.has(SUM)
            or self.of_group
            or bool(re.match(r"(list|show)\b", self.plain))
        )
        return bool(asks and self.speaks)

    @property
    def speaks(self) -> bool:
        """True if it mentions anything that the columns have."""
        return bool(self.named or self.values or self.vague or self.implied or self.numbers or self.days)

    def has(self, words: str) -> bool:
        """True if it contains one of some words."""
        return bool({stem(word) for word in words.split()} & self.marks)

    def mentioned(self, words: Sequence[str]) -> set[str]:
        """Columns whose names it mentions; where a word may mean several, those that more of it speaks for."""
        shares: dict[str, float] = {}
        reasons: dict[str, set[str]] = {}
        for column in dict.fromkeys([*self.columns.groups, *self.columns.numbers, *filter(None, [self.columns.label])]):
            own = [word for word in stems(column) if word not in PLAIN]
            found = {word: {word_given for word_given in words if same_word(word_given, word)} for word in own}
            initials = "".join(word[0] for word in own)
            if own and (found[max(own, key=len)] or all(found.values())):
                shares[column], reasons[column] = (
                    sum(map(bool, found.values())) / len(own),
                    set().union(*found.values()),
                )
            elif len(initials) > 2 and initials in words:
                shares[column], reasons[column] = 1.0, {initials}
        return {
            c for c in shares if not any(shares[other] > shares[c] and reasons[other] & reasons[c] for other in shares)
        }

    def against(self, meaning: Parse) -> float:
        """Cost of a meaning: what of the question speaks against it, and what of it the question lacks; 0: nothing."""
        return (
            self.against_conditions(meaning)
            + self.against_columns(meaning)
            + self.against_measure(meaning)
            + self.against_kind(meaning)
        )

    def against_conditions(self, meaning: Parse) -> float:
        """Cost of values, numbers and days in the question that are no conditions, or are other ones."""
        cost, met = 0.0, {(column, value): sign for column, sign, value in meaning.conditions}
        for stated in self.values:
            cost += 3.0 if stated not in met else 3.0 * ((met[stated] == "<>") != self.denied)
        cost += 1.5 * sum(stated in met for stated in self.vague)
        for given in (*self.numbers, *self.days):
            cost += 3.0 * all(value != given for _, value in met)
        return cost + sum(
            self.against_number(column, value) for column, _, value in meaning.conditions if isinstance(value, float)
        )

    def against_number(self, column: str, value: float) -> float:
        """Cost of a number outside a column's range, or of a column that isn't mentioned."""
        low, high = self.columns.numbers[column]
        a_year = YEARS[0] < value < YEARS[1] and (column in self.columns.dates or "year" in stems(column))
        return 2.5 * (not low <= value <= high) + 0.5 * (
            column not in self.named and column not in self.implied and not a_year
        )

    def against_columns(self, meaning: Parse) -> float:
        """Cost of columns that the question mentions and the query doesn't use, or the other way round."""
        inside = {column for column, _, _ in meaning.conditions}
        return 3.0 * len(self.named - meaning.used - inside - {self.columns.label}) + 2.0 * len(
            meaning.used - self.named - set(self.implied)
        )

    def against_measure(self, meaning: Parse) -> float:
        """Cost of another aggregate or ranking than the question's."""
        kind, cost = meaning.kind, 0.0
        ranked, ends = meaning.down is not None, meaning.measure in ("min", "max") and kind == "measure"
        for words, measure in ((AVERAGE, "avg"), (SUM, "sum")):
            if self.has(words) != (meaning.measure == measure):
                cost += 3.0 if self.has(words) else 2.0
        if (self.high or self.low or self.rare) and not ranked and not ends:
            cost += 2.5
        if ends or (kind == "groups" and meaning.measure in ("min", "max")):
            cost += (0.0 if ends else 1.0) if (self.high if meaning.measure == "max" else self.low) else 2.0
        if ranked:
            counted = kind == "groups" and meaning.measure == "count"
            up, down = self.high or (counted and self.common), self.low or (counted and self.rare)
            cost += 3.0 * (down and not up if meaning.down else up and not down)
            if not (up or down):
                cost += (0.0 if self.each and meaning.down else 1.0) if kind == "groups" else 2.0
            cost += 2.0 * (counted and bool(self.implied) and not self.common)
            cost += 3.0 * (meaning.number in self.implied and self.implied[meaning.number] != meaning.down)
        counts = kind in ("count", "distinct") or (kind == "groups" and meaning.measure == "count")
        return cost + (0.0 if counts else 3.0) * self.many + 1.5 * (kind in ("count", "distinct") and not self.many)

    def against_kind(self, meaning: Parse) -> float:
        """Cost of another kind of result (groups, rows, values or one number) than the question asks for."""
        kind, cost = meaning.kind, 0.0
        ends = kind == "measure" and meaning.measure in ("min", "max")
        extreme = self.high or self.low or self.rare or self.common
        if self.each:
            cost += 3.0 * (kind != "groups")
        elif kind == "groups" and not extreme:
            cost += 1.0
        if self.of_group and self.many and not self.each:
            cost += 0.0 if kind == "distinct" else 1.0 + self.different
        elif kind == "distinct":
            cost += 0.0 if self.different else 1.5
        if self.of_group and not self.many and not self.of_value:
            cost += {"groups": 0.0 if extreme else 1.5, "list": 1.0 if extreme else 0.0}.get(kind, 2.0)
        elif kind in ("groups", "list") and not self.each:
            cost += 1.0
        if self.of_number and not self.many and not self.of_group:
            cost += 0.0 if kind in ("measure", "groups") else 1.5
        elif ends and not self.of_group and self.which:
            cost += 1.5
        elif ends and not self.of_number and self.object and not self.named & set(self.columns.numbers):
            cost += 0.5  # "the lightest car" is a row, "the lowest weight" a number
        if self.listing and not extreme:
            cost += 0.0 if kind in ("rows", "list") or (self.each and kind == "groups") else 1.0
            cost += 1.0 * (kind == "list" and meaning.column not in self.named)
        elif kind == "rows" and meaning.down is None:
            cost += 1.5
        return cost


def meanings(question: ParsedQuestion) -> Iterator[Parse]:
    """Yield all queries of the grammar, with all conditions that the question mentions, some of them, or none."""
    columns = question.columns
    groups = [column for column in columns.groups if column not in columns.single]
    choices: list[list[Condition]] = [
        [(column, "<>" if question.denied else "=", value), (column, "=", value)] for column, value in question.values
    ]
    choices += [
        [
            (column, sign, number)
            for column in sorted(columns.numbers, key=lambda c: question.against_number(c, number))[
                :MAX_COLUMNS_PER_NUMBER
            ]
        ]
        for number, sign in question.numbers.items()
        if columns.numbers
    ]
    choices += [
        [(column, sign, day) for column in sorted(columns.dates)[:MAX_COLUMNS_PER_NUMBER]]
        for day, sign in question.days.items()
        if columns.dates
    ]
    sets: list[tuple[Condition, ...]] = [
        tuple(some) for some in itertools.islice(itertools.product(*choices), 4 * MAX_CONDITION_SETS)
    ]
    sets += [(*some, (column, "=", value)) for some in sets[:MAX_CONDITION_SETS] for column, value in question.vague]
    sets.sort(
        key=lambda some: (
            question.against_conditions(Parse("count", conditions=some))
            - 3.0 * len({column for column, _, _ in some} & question.named)
        )
    )
    for conditions in dict.fromkeys([*sets[:MAX_CONDITION_SETS], ()]):
        yield Parse("count", conditions=conditions)
        yield Parse("rows", conditions=conditions)
        for column in columns.groups:
            yield Parse("distinct", column, conditions=conditions)
        for column in groups:
            yield Parse("list", column, conditions=conditions)
        for column in (*groups, *columns.dates):
            yield from (Parse("groups", column, "count", "", down, conditions) for down in (True, False))
        for number in columns.numbers:
            for measure in ("min", "max") if number in columns.dates else ("avg", "min", "max", "sum"):
                yield Parse("measure", "", measure, number, conditions=conditions)
                for column, down in itertools.product(groups, (True, False)):
                    yield Parse("groups", column, measure, number, down, conditions)
            yield from (Parse("rows", "", "", number, down, conditions) for down in (True, False))


def likely(question: ParsedQuestion, count: int) -> list[tuple[Parse, float]]:
    """Likeliest meanings and their costs, the lowest first."""
    return heapq.nsmallest(
        count, ((meaning, question.against(meaning)) for meaning in meanings(question)), key=lambda each: each[1]
    )
