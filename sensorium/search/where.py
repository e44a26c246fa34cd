"""Conditions on columns, as ``year > 2015 and group = "food"``, to the rows that meet them.

    or, and, not, ( )   = != < <= > >=   in ("a", "b")   not in   contains "a word"   is missing, is not missing

A name with other signs than letters, digits, _ and . stands in backticks. Texts are in single or double quotes, dates
are texts (``"2024-05-01"``). A missing cell meets no condition but ``is missing``, and ``not`` doesn't change that.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.core.errors import UserError, unknown

TOKEN = re.compile(
    r"""\s*(?: (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
                            | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
                            | `(?P<quoted>[^`]+)` | (?P<sign><=|>=|!=|<>|==|[=<>(),]) | (?P<word>[^\W\d][\w.]*) )""",
    re.VERBOSE,
)
SIGNS = {
    "=": "equal",
    "==": "equal",
    "!=": "not_equal",
    "<>": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
WORDS = {"and", "or", "not", "in", "contains", "is", "missing", "null", "true", "false"}
MAX_DEPTH = 50
"""Brackets and nots within one another at most."""


def where(words: str, table: pa.Table) -> pa.ChunkedArray:
    """Mask of the rows of ``table`` that meet the condition ``words``, booleans without nulls.

    Raises:
        UserError: it can't be understood, names a column that isn't there, or compares what can't be compared.
    """
    reader = ConditionParser(words, table)
    met = reader.either(0)
    if reader.at < len(reader.tokens):
        raise reader.puzzled("'and', 'or' or the end")
    return pc.fill_null(met, False)


class ConditionParser:
    """Recursive descent parser of conditions.

    Each part gives a boolean for each row, null where a cell is missing.
    """

    def __init__(self, words: str, table: pa.Table) -> None:
        self.words, self.table, self.at, self.tokens = words, table, 0, []
        place = 0
        while words[place:].strip():
            found = TOKEN.match(words, place)
            if not found:
                raise UserError(
                    f"The condition '{words}' can't be read from '{words[place:].strip()[:20]}' on. "
                    'Write it as: year > 2015 and group = "food".'
                )
            kind = str(found.lastgroup)  # each alternative is a group, so one matched
            value = found[kind]
            self.tokens.append(
                (
                    kind,
                    value.lower() if kind == "word" and value.lower() in WORDS else value,
                    found.start(kind),
                )
            )
            place = found.end()

    # --- what is next -------------------------------------------------------------------------------------------------

    def next(self, *values: str) -> bool:
        """Read these words or signs if they come next; return True if they do."""
        here = self.tokens[self.at : self.at + len(values)]
        if [value for kind, value, _ in here if kind in ("word", "sign")] != list(values):
            return False
        self.at += len(values)
        return True

    def puzzled(self, wanted: str) -> UserError:
        """The error where something else was expected."""
        found = f"'{self.words[self.tokens[self.at][2] :][:20]}'" if self.at < len(self.tokens) else "its end"
        return UserError(
            f"In the condition '{self.words}' {wanted} was expected where {found} is. "
            'Write it as: year > 2015 and group = "food".'
        )

    # --- the grammar --------------------------------------------------------------------------------------------------

    def either(self, deep: int) -> Any:
        met = self.both(deep)
        while self.next("or"):
            met = pc.or_kleene(met, self.both(deep))
        return met

    def both(self, deep: int) -> Any:
        met = self.single(deep)
        while self.next("and"):
            met = pc.and_kleene(met, self.single(deep))
        return met

    def single(self, deep: int) -> Any:
        if deep > MAX_DEPTH:
            raise UserError(
                f"The condition has more than {MAX_DEPTH} brackets within one another. Write it with fewer."
            )
        if self.next("not"):
            return pc.invert(self.single(deep + 1))
        if self.next("("):
            met = self.either(deep + 1)
            if not self.next(")"):
                raise self.puzzled("')'")
            return met
        return self.comparison()

    def comparison(self) -> Any:
        name, column = self.column()
        if self.next("is", "not", "missing") or self.next("is", "not", "null"):
            return pc.is_valid(column)
        if self.next("is", "missing") or self.next("is", "null"):
            return pc.is_null(column)
        if self.next("contains"):
            text = self.value()
            if not isinstance(text, str) or not (pt.is_string(column.type) or pt.is_large_string(column.type)):
                raise UserError(
                    f"'contains' asks for a text in a column of texts; '{name}' holds {column.type}, and the value is "
                    f"{text!r}."
                )
            return pc.match_substring(column, text, ignore_case=True)
        unlike = self.next("not", "in")
        if unlike or self.next("in"):
            if not self.next("("):
                raise self.puzzled("'(' and values")
            values = [self.value()]
            while self.next(","):
                values.append(self.value())
            if not self.next(")"):
                raise self.puzzled("',' or ')'")
            met = None
            for value in values:
                same = self.compare(name, column, "equal", value)
                met = same if met is None else pc.or_kleene(met, same)
            return pc.invert(met) if unlike else met
        for sign, how in SIGNS.items():
            if self.next(sign):
                return self.compare(name, column, how, self.value())
        raise self.puzzled("=, !=, <, <=, >, >=, in, contains or 'is missing'")

    def column(self) -> tuple[str, pa.ChunkedArray]:
        kind, value, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind not in ("word", "quoted") or (
            kind == "word" and value in WORDS and value not in self.table.column_names
        ):
            raise self.puzzled("the name of a column")
        if value not in self.table.column_names:
            raise unknown("column in the condition:", value, self.table.column_names)
        self.at += 1
        return value, self.table.column(value)

    def value(self) -> Any:
        kind, value, _ = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", 0)
        if kind not in ("number", "text") and value not in ("true", "false"):
            raise self.puzzled("a number or a text in quotes")
        self.at += 1
        if kind == "number":
            return float(value) if re.search("[.eE]", value) else int(value)
        return value == "true" if kind == "word" else re.sub(r"\\(.)", r"\1", value[1:-1])

    def compare(self, name: str, column: pa.ChunkedArray, how: str, value: Any) -> Any:
        """Each cell against a value of the column's type."""
        kind = column.type
        if pt.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            (number and (pt.is_integer(kind) or pt.is_floating(kind)))
            or (isinstance(value, bool) and pt.is_boolean(kind))
            or (isinstance(value, str) and (pt.is_string(kind) or pt.is_large_string(kind) or pt.is_temporal(kind)))
        )
        try:
            if not fits:
                raise ValueError
            asked = pa.scalar(value)
            if pt.is_temporal(kind):
                asked = moment(value, kind)
            elif pt.is_unsigned_integer(kind) and isinstance(value, int) and value >= 0:
                asked = asked.cast(kind)
            return pc.call_function(how, [column, asked])
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise UserError(f"The column '{name}' holds {kind}, which can't be compared with {value!r}.") from error


def moment(text: str, kind: pa.DataType) -> pa.Scalar:
    """Parse a text as a date or a time of some type; one without a zone is of the column's."""
    try:
        return pa.scalar(text).cast(kind)
    except pa.ArrowInvalid:
        if not pt.is_timestamp(kind) or kind.tz is None:
            raise
        return pc.assume_timezone(pa.scalar(text).cast(pa.timestamp(kind.unit)), kind.tz)
