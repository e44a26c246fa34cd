"""Question answering over a table's plain columns: a question about many rows, in words or as SQL.

The answer comes with the query that was asked (``semantic_parser``, ``sql``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.core.errors import UserError
from sensorium.core.registry import find
from sensorium.data.schema import Schema, infer
from sensorium.data.table import Table
from sensorium.dialogue.naming import naming_column, short_text
from sensorium.modalities import Modality
from sensorium.query.semantic_parser import ParsedQuestion, QueryColumns, likely
from sensorium.query.sql import plain, run

MAX_VALUES = 50_000
"""Values of a column that a question may name, at most."""
MAX_LETTERS = 60
"""Mean length of the texts of a column that is grouped by, at most."""
MAX_COST = 7.0
"""Cost of the likeliest meaning of a question that is still answered (``ParsedQuestion.against``)."""
MAX_OTHERS = 2
"""Other meanings that are returned."""


@dataclasses.dataclass
class QueryResult:
    """Result of a query.

    Attributes:
        sql: the query that was asked; rows: its answer.
        others: queries that might have been meant as well, the likeliest first.
    """

    sql: str
    rows: pa.Table
    others: list[str]


def query(table: Table, schema: Schema, question: str) -> QueryResult:
    """Answer a question about a table's rows, or one SELECT over ``rows``.

    Raises:
        UserError: DuckDB isn't installed, the question names nothing that the table has, or the query can't be
            answered.
    """
    return QueryEngine(table, schema).answer(question)


class QueryEngine:
    """Question answering engine of one table, which is read once."""

    def __init__(self, table: Table, schema: Schema) -> None:
        self.name, self.rows = table.name, plain(table)
        self.columns = columns_of(self.rows, schema)

    @classmethod
    def knowing(cls, table: Table, kinds: Mapping[str, str]) -> QueryEngine:
        """Of a table of whose columns some kinds are known already, as a model knows them."""
        return cls(
            table,
            infer(table, overrides={name: {"kind": kind} for name, kind in kinds.items() if name in table.columns}),
        )

    def answer(self, question: str) -> QueryResult:
        """See ``query``."""
        if re.match(r"\s*(select\s.+\sfrom|with\s.+\sas|from)\s+\S", question, re.IGNORECASE | re.DOTALL):
            return QueryResult(question.strip(), run(self.rows, question), [])
        asked = ParsedQuestion(question, self.columns)
        found = likely(asked, 1 + MAX_OTHERS)
        best, against = found[0]
        if against > MAX_COST or not (asked.many or asked.speaks):
            raise UserError(
                f"What '{question[:100]}' asks of '{self.name}' isn't clear. Ask how many, which group has the most, "
                "the average of a column, or for a list, and name columns or their values: "
                f"{', '.join([*self.columns.groups, *self.columns.numbers])}. Or give a SELECT over 'rows'."
            )
        return QueryResult(
            best.sql(self.columns),
            run(self.rows, best.sql(self.columns)),
            [meaning.sql(self.columns) for meaning, cost in found[1:] if cost <= against + 2],
        )

    def about_many(self, question: str) -> bool:
        """True if a question is about many rows, and not about one that is shown.

        It counts, compares or lists, and names what the table has.
        """
        return ParsedQuestion(question, self.columns).about_many


def columns_of(rows: pa.Table, schema: Schema) -> QueryColumns:
    """Columns of a plain table that can be asked about."""
    kinds = {name: column.kind for name, column in schema.columns.items() if name in rows.column_names}
    groups: dict[str, list[str]] = {}
    numbers: dict[str, tuple[float, float]] = {}
    dates, single = set(), set()
    for name in rows.column_names[1:]:
        column, kind = rows.column(name), rows.column(name).type
        if pt.is_boolean(kind) or pt.is_time(kind):
            continue
        if pt.is_date(kind) or pt.is_timestamp(kind):
            ends = pc.min_max(pc.year(column)).as_py()
            dates.add(name)
        elif pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
            ends = pc.min_max(pc.cast(column, pa.float64(), safe=False)).as_py()
            if name in kinds and find(Modality, kinds[name]).is_categorical:
                groups[name] = []
        else:
            values = pc.unique(column.cast(pa.string())).drop_null()
            if 0 < len(values) <= MAX_VALUES and pc.mean(pc.utf8_length(values)).as_py() <= MAX_LETTERS:
                groups[name] = [value for value in values.to_pylist() if value]
                if len(values) == rows.num_rows - column.null_count and len(values) > 1:
                    single.add(name)
            continue
        if ends["min"] is not None:
            numbers[name] = float(ends["min"]), float(ends["max"])
    texts = {
        name: [short_text(value) for value in rows.column(name).to_pylist()]
        for name, kind in kinds.items()
        if find(Modality, kind).is_text or find(Modality, kind).is_categorical
    }
    return QueryColumns(
        groups,
        numbers,
        frozenset(dates & set(numbers)),
        naming_column(kinds, texts) or next(iter(texts), ""),
        frozenset(single),
    )
