"""Parse of a question: a query over a table's columns, and its SQL."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Mapping, Sequence

from sensorium.query.words import stems

MAX_LISTED = 10
"""Rows and groups that are listed."""


@dataclasses.dataclass(frozen=True)
class QueryColumns:
    """Columns of a table that can be asked about.

    Attributes:
        groups: columns by whose values rows are grouped, with these.
        numbers: columns that are measured, with the least and the greatest number in each; of dates, years.
        dates: those of them that are dates. label: the column that says what a row is.
        single: columns of which each row has a value of its own, so that they are no groups.
    """

    groups: Mapping[str, Sequence[str]]
    numbers: Mapping[str, tuple[float, float]]
    dates: frozenset[str]
    label: str
    single: frozenset[str] = frozenset()

    @functools.cached_property
    def places(self) -> dict[str, list[tuple[str, str]]]:
        """Columns and cells that hold each value, by its words' stems."""
        found: dict[str, list[tuple[str, str]]] = {}
        for column, values in self.groups.items():
            for value in values:
                found.setdefault(" ".join(stems(value)), []).append((column, value))
        return found


CALLED = {"count": "count", "avg": "average", "sum": "total", "min": "lowest", "max": "highest"}
"""Names of the aggregates in a result's columns."""
Condition = tuple[str, str, str | float | datetime.date]


@dataclasses.dataclass(frozen=True)
class Parse:
    """Parse of a question: a query over the columns.

    Attributes:
        kind: count, distinct, list, measure, groups or rows. column: what is grouped by or listed.
        measure: count, avg, sum, min or max, of ``number``. down: ranked from the highest; up where False.
        conditions: column, sign and value, all of which are met.
    """

    kind: str
    column: str = ""
    measure: str = ""
    number: str = ""
    down: bool | None = None
    conditions: tuple[Condition, ...] = ()

    def sql(self, columns: QueryColumns) -> str:
        """Format as SQL over a table ``rows`` with a column ``row``, its rows' numbers."""
        where = " AND ".join(
            f"{compared(column, value, columns)} {sign} {literal(value)}" for column, sign, value in self.conditions
        )
        measured = order = ""
        if self.measure:
            title = name(f"{CALLED[self.measure]} {self.number}".strip())
            measured = f"{self.measure}({name(self.number) if self.number else '*'}) AS {title}"
        if self.down is not None:
            by = 2 if self.kind == "groups" else name(self.number)
            order = f" ORDER BY {by} {'DESC' if self.down else 'ASC'} NULLS LAST"
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
                group = name(self.column)
                return f"SELECT {group}, {measured}{rest} {known} GROUP BY {group}{order} LIMIT {MAX_LISTED}"
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
        """Columns that it uses, without those of conditions."""
        return {column for column in (self.column, self.number) if column}


def name(column: str) -> str:
    """Quoted SQL identifier of a column."""
    return '"' + column.replace('"', '""') + '"'


def compared(column: str, value: str | float | datetime.date, columns: QueryColumns) -> str:
    """SQL expression of a column that is compared with a value: of dates their day, or with a number their year."""
    if isinstance(value, datetime.date):
        return f"CAST({name(column)} AS DATE)"
    return f"year({name(column)})" if column in columns.dates else name(column)


def literal(value: str | float | datetime.date) -> str:
    """SQL literal of a value."""
    if isinstance(value, datetime.date):
        return f"DATE '{value.isoformat()}'"
    return (
        "'" + value.replace("'", "''") + "'"
        if isinstance(value, str)
        else str(int(value))
        if value == int(value)
        else repr(value)
    )
