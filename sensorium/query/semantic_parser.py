"""What a question about many rows may mean: every query of a small grammar over a table's columns, each with what of the question speaks against it.

    how many  how many different  which are there  the average, sum, highest, lowest of a number  by group, ranked  single rows, ranked  rows that meet conditions

It knows columns, values and English words, no table and no model.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import heapq
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

MAX_LISTED = 10
"""Rows and groups that are listed."""
AVERAGE, SUM = "average mean typical typically", "total sum altogether combined"
HIGH, LOW = (
    "highest largest maximum most biggest greatest max top best",
    "lowest smallest minimum least fewest min bottom worst",
)
COMMON, RARE = (
    "common frequent frequently often popular biggest largest most",
    "rare rarest seldom uncommon smallest least fewest",
)
SCALES = (
    (
        "newest latest recent recently youngest last",
        "oldest earliest first older old",
        "year date time day month born birth founded built release released created added",
    ),
    ("oldest eldest older", "youngest younger", "age"),
    ("heaviest", "lightest", "weight mass weigh"),
    ("longest", "shortest", "length duration minute second hour night day stay"),
    ("tallest highest", "shortest lowest", "height altitude elevation"),
    ("expensive costliest dearest priciest", "cheapest cheap", "price cost fare fee amount"),
    ("fastest quickest", "slowest", "speed velocity pace horsepower"),
    ("hottest warmest", "coldest coolest", "temperature"),
    ("best", "worst", "rating score grade star accuracy"),
    ("largest biggest", "smallest", "size area population"),
    ("richest", "poorest", "income salary wage gdp wealth"),
    ("deepest", "shallowest", "depth"),
    ("strongest powerful", "weakest", "strength power horsepower"),
    ("loudest", "quietest", "loudness volume"),
    ("widest", "narrowest", "width breadth"),
    ("efficient economical", "thirstiest", "mpg mileage efficiency gallon"),
    ("windiest", "calmest", "wind"),
    ("wettest rainiest", "driest", "precipitation rain"),
)
"""Words for the upper and for the lower end of a scale, and of what columns' names."""
ABOVE = (
    r"\b(after|above|over|more than|greater|exceed\w*|since|at least|from \d+ on|or (?:later|more|above|higher|over|older)|beyond|"
    r"(?:higher|longer|heavier|larger|bigger|later|newer|older|taller|faster|hotter|warmer|stronger) than)\b"
)
BELOW = (
    r"\b(before|below|under|less than|fewer than|at most|until|up to|or (?:earlier|less|fewer|below|lower|under|younger)|"
    r"(?:lower|shorter|lighter|smaller|earlier|younger|slower|colder|cooler|cheaper|weaker) than)\b"
)
SHARP = r"\b(at least|at most|since|until|up to|from \d+ on|or (?:later|more|above|higher|over|older|earlier|less|fewer|below|lower|under|younger))\b"
"""Words that compare, upwards and downwards, and those that let the number itself in."""
THAN = r"\b(at least|at most|more than|less than|fewer than)\b"
NOT = r"\b(not|except|other than|outside|besides|without|isn t|aren t|wasn t|weren t|excluding)\b"
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
YEARS = 1000, 3000
SETS, TRIED = 16, 4
"""Sets of conditions that are looked at, the likeliest, and columns that a number may be of."""
ASKING = (
    "which what who where is are was were there the a an of in on for do does did we i have has had with how many much number count list show give me all tell name find by per each every and or than that this ones one "
    "from to it its their they be at as any"
)
"""Words that are no names of columns or values."""
PLAIN = frozenset(ASKING.split(" "))
DAY = re.compile(
    rf"\b(?:(\d{{4}})-(\d{{2}})-(\d{{2}})|({'|'.join(MONTHS)}) (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})|(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({'|'.join(MONTHS)}),? (\d{{4}}))\b",
    re.IGNORECASE,
)


def folded(text: object) -> str:
    """Words alone, in small letters, with a space between."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(text))).strip().lower()


def stem(word: str) -> str:
    """A word without a plural's end."""
    return (
        word[:-3] + "y"
        if word.endswith("ies") and len(word) > 4
        else word[:-1]
        if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
        else word
    )


def stems(text: object) -> list[str]:
    """The words of a text, in order, without plurals' ends."""
    return [stem(word) for word in folded(text).split()]


def same_word(word_given: str, word: str) -> bool:
    """Whether a word that was said means a word of a column's name: it is the same, or one of them begins with the other, or is short for it."""
    if word_given == word:
        return True
    if word_given in PLAIN or word in PLAIN:
        return False
    if word in ("max", "min", "avg", "num") and word_given.startswith(word):
        return True
    same = next((at for at, (a, b) in enumerate(zip(word_given, word)) if a != b), min(len(word_given), len(word)))
    return same >= 4 and (
        same in (len(word_given), len(word)) or (same >= 6 and max(len(word_given), len(word)) - same <= 2)
    )


def day_of(found: re.Match[str]) -> datetime.date | None:
    """A day that was written in one of three ways; None where there is no such day."""
    year, month, day, name_1, day_1, year_1, day_2, name_2, year_2 = found.groups()
    named = name_1 or name_2
    try:
        return datetime.date(
            int(year or year_1 or year_2),
            MONTHS.index(named.lower()) + 1 if named else int(month),
            int(day or day_1 or day_2),
        )
    except ValueError:
        return None


def sign_of(text: str, start: int, end: int) -> str:
    """The sign by which a number or a day at a place of a text is compared: by the words since the number before it, or right after it."""
    before = folded(re.split(r"\d", text[:start])[-1])
    after = re.match(
        r"or (later|more|above|higher|over|older|newer|earlier|less|fewer|below|lower|under|younger)\b",
        folded(text[end:]),
    )
    up, down = (
        [found.end() for found in re.finditer(ABOVE, before)],
        [found.end() for found in re.finditer(BELOW, before)],
    )
    if re.search(r"\bbetween( \w+)?$", before):
        return ">="
    if before == "and" and re.search(r"\bbetween\b[^\d]*[\d.]+\W+and\W*$", text[:start].lower()):
        return "<="
    if after:
        return "<=" if after[1] in ("earlier", "less", "fewer", "below", "lower", "under", "younger") else ">="
    if not up and not down:
        return "="
    return (">" if max(up, default=-1) > max(down, default=-1) else "<") + ("=" if re.search(SHARP, before) else "")


@dataclasses.dataclass(frozen=True)
class QueryColumns:
    """What can be asked about.

    Attributes:
        groups: columns by whose values rows are grouped, with these. numbers: columns that are measured, with the least and the greatest number in each; of dates, years.
        dates: those of them that are dates. label: the column that says what a row is. single: columns of which each row has a value of its own, so that they are no groups.
    """

    groups: Mapping[str, Sequence[str]]
    numbers: Mapping[str, tuple[float, float]]
    dates: frozenset[str]
    label: str
    single: frozenset[str] = frozenset()

    @functools.cached_property
    def places(self) -> dict[str, list[tuple[str, str]]]:
        """For each value, as its words' stems, the columns and cells that hold it."""
        found: dict[str, list[tuple[str, str]]] = {}
        for column, values in self.groups.items():
            for value in values:
                found.setdefault(" ".join(stems(value)), []).append((column, value))
        return found


CALLED = {"count": "count", "avg": "average", "sum": "total", "min": "lowest", "max": "highest"}
"""What is measured, as an answer's column is called."""
Condition = tuple[str, str, str | float | datetime.date]


@dataclasses.dataclass(frozen=True)
class Parse:
    """A query.

    Attributes:
        kind: count, distinct, list, measure, groups or rows. column: what is grouped by or listed. measure: count, avg, sum, min or max, of ``number``.
        down: ranked from the highest; up where False. conditions: column, sign and value, all of which are met.
    """

    kind: str
    column: str = ""
    measure: str = ""
    number: str = ""
    down: bool | None = None
    conditions: tuple[Condition, ...] = ()

    def sql(self, columns: QueryColumns) -> str:
        """As SQL over a table ``rows`` with a column ``row``, its rows' numbers."""
        where = " AND ".join(
            f"{compared(column, value, columns)} {sign} {literal(value)}" for column, sign, value in self.conditions
        )
        measured = (
            f"{self.measure}({name(self.number) if self.number else '*'}) AS {name(f'{CALLED[self.measure]} {self.number}'.strip())}"
            if self.measure
            else ""
        )
        order = (
            ""
            if self.down is None
            else f" ORDER BY {2 if self.kind == 'groups' else name(self.number)} {'DESC' if self.down else 'ASC'} NULLS LAST"
        )
        rest = f" FROM rows{f' WHERE {where}' if where else ''}"
        known = f"{'AND' if where else 'WHERE'} {name(self.column)} IS NOT NULL"
        match self.kind:
            case "count":
                return f"SELECT count(*) AS count{rest}"
            case "distinct":
                return f"SELECT count(DISTINCT {name(self.column)}) AS count{rest}"
            case "list":
                return f"SELECT DISTINCT {name(self.column)}{rest} {known} ORDER BY 1"
            case "measure":
                return f"SELECT {measured}{rest}"
            case "groups":
                return f"SELECT {name(self.column)}, {measured}{rest} {known} GROUP BY {name(self.column)}{order} LIMIT {MAX_LISTED}"
        listed = [
            name(column)
            for column in dict.fromkeys(
                [
                    columns.label,
                    self.number,
                    *(column for column, _, value in self.conditions if not isinstance(value, str)),
                ]
            )
            if column
        ]
        return f"SELECT row, {', '.join(listed)}{rest}{order} LIMIT {MAX_LISTED}"

    @property
    def used(self) -> set[str]:
        """The columns that it looks at, but for conditions."""
        return {column for column in (self.column, self.number) if column}


def name(column: str) -> str:
    """A column as SQL names it."""
    return '"' + column.replace('"', '""') + '"'


def compared(column: str, value: str | float | datetime.date, columns: QueryColumns) -> str:
    """What of a column is compared with a value: of dates their day, or with a number their year."""
    if isinstance(value, datetime.date):
        return f"CAST({name(column)} AS DATE)"
    return f"year({name(column)})" if column in columns.dates else name(column)


def literal(value: str | float | datetime.date) -> str:
    """A value as SQL writes it."""
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return (
        "'" + value.replace("'", "''") + "'"
        if isinstance(value, str)
        else str(int(value))
        if value == int(value)
        else repr(value)
    )


class ParsedQuestion:
    """What stands in a question, as far as columns, values and common words tell."""

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
            r"\b(?:which|what|how many|number of|list|show|name|names of|of which)((?: (?:different|distinct|unique|various|all|the|is|are|was|were|me|possible))*) (\w+)",
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
        """Numbers that a word like "oldest" is about, and whether it means their upper end."""
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
        """Whether it counts, compares or lists, and names what the columns have."""
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
        """Whether it speaks of anything that the columns have."""
        return bool(self.named or self.values or self.vague or self.implied or self.numbers or self.days)

    def has(self, words: str) -> bool:
        """Whether one of some words stands in it."""
        return bool({stem(word) for word in words.split()} & self.marks)

    def mentioned(self, words: Sequence[str]) -> set[str]:
        """The columns whose names stand in it; where a word may mean several, those that more of it speaks for."""
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
        """How much of the question speaks against a meaning, and how much of it the question doesn't say; 0: nothing."""
        return (
            self.against_conditions(meaning)
            + self.against_columns(meaning)
            + self.against_measure(meaning)
            + self.against_kind(meaning)
        )

    def against_conditions(self, meaning: Parse) -> float:
        """That values, numbers and days stand in it and are no conditions, or are other ones."""
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
        """That a number is none of those of a column, or the column isn't spoken of."""
        low, high = self.columns.numbers[column]
        a_year = YEARS[0] < value < YEARS[1] and (column in self.columns.dates or "year" in stems(column))
        return 2.5 * (not low <= value <= high) + 0.5 * (
            column not in self.named and column not in self.implied and not a_year
        )

    def against_columns(self, meaning: Parse) -> float:
        """That columns stand in it and aren't looked at, or the other way round."""
        inside = {column for column, _, _ in meaning.conditions}
        return 3.0 * len(self.named - meaning.used - inside - {self.columns.label}) + 2.0 * len(
            meaning.used - self.named - set(self.implied)
        )

    def against_measure(self, meaning: Parse) -> float:
        """That it averages, sums, counts or ranks otherwise."""
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
        """That it asks for groups, rows, values or one number, and this gives another of these."""
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
    """All that the grammar allows, with all conditions that the question mentions, some of them, or none."""
    columns = question.columns
    groups = [column for column in columns.groups if column not in columns.single]
    choices: list[list[Condition]] = [
        [(column, "<>" if question.denied else "=", value), (column, "=", value)] for column, value in question.values
    ]
    choices += [
        [
            (column, sign, number)
            for column in sorted(columns.numbers, key=lambda c: question.against_number(c, number))[:TRIED]
        ]
        for number, sign in question.numbers.items()
        if columns.numbers
    ]
    choices += [
        [(column, sign, day) for column in sorted(columns.dates)[:TRIED]]
        for day, sign in question.days.items()
        if columns.dates
    ]
    sets: list[tuple[Condition, ...]] = [
        tuple(some) for some in itertools.islice(itertools.product(*choices), 4 * SETS)
    ]
    sets += [(*some, (column, "=", value)) for some in sets[:SETS] for column, value in question.vague]
    sets.sort(
        key=lambda some: (
            question.against_conditions(Parse("count", conditions=some))
            - 3.0 * len({column for column, _, _ in some} & question.named)
        )
    )
    for conditions in dict.fromkeys([*sets[:SETS], ()]):
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
    """The meanings that least speaks against, and how much."""
    return heapq.nsmallest(
        count, ((meaning, question.against(meaning)) for meaning in meanings(question)), key=lambda each: each[1]
    )
