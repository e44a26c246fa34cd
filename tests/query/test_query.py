"""Questions about many rows become the queries that people mean, and queries only read."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.core.errors import UserError
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.model import Model
from sensorium.query import QueryEngine, query
from sensorium.query.semantic_parser import Parse, ParsedQuestion, QueryColumns, likely, meanings
from sensorium.query.sql import run

Run = Callable[..., tuple[int, str, str]]
HERE = Path(__file__).parent
WINES = pa.table(
    {
        "wine": ["Alba", "Bora", "Cima", "Dora", "Elba", "Fara"],
        "colour": ["red", "white", "red", "rosé", "white", "red"],
        "country": ["Italy", "France", "Italy", "France", "Italy", None],
        "price": [12.5, 30.0, 8.0, 15.0, 22.0, None],
        "rating": [3, 5, 2, 4, 4, 1],
        "bottled": [datetime.date(2019 + i, 5, 1 + i) for i in range(6)],
    }
)


@pytest.fixture(scope="module")
def asker() -> QueryEngine:
    table = Table.open(WINES)
    return QueryEngine(table, infer(table))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many wines are there?", [(6,)]),
        ("how many red wines", [(3,)]),
        ("How many wines are not from Italy?", [(2,)]),
        ("How many different colours are there?", [(3,)]),
        ("What is the average price?", [(17.5,)]),
        ("highest price among the white ones", [(30.0,)]),
        ("What is the total rating of red wines?", [(6,)]),
        ("Which country has the most wines?", [("Italy", 3)]),
        ("Which country has the highest average rating?", [("France", 4.5)]),
        ("how many per colour", [("red", 3), ("white", 2), ("rosé", 1)]),
        ("Which wine is the cheapest?", [(2, "Cima", 8.0)]),
        ("What countries are there?", [("France",), ("Italy",)]),
        ("How many cost more than 20?", [(2,)]),
        ("list wines with a rating of at least 4", [(1, "Bora", 5), (3, "Dora", 4), (4, "Elba", 4)]),
        ("Which wine was bottled last?", [(5, "Fara", datetime.date(2024, 5, 6))]),
        ("How many were bottled before 2021?", [(2,)]),
        ("how many were bottled after May 2, 2020", [(4,)]),
        ("how many cost more than 10 and less than 25?", [(3,)]),
        ("How many have a price between 8 and 15?", [(3,)]),
        ("how many have a rating of 4 or more", [(3,)]),
        ("How many were bottled on 2020-05-02?", [(1,)]),
        ("How many were bottled after 2020-05-02?", [(4,)]),
        ("Show the rosé wines", [(3, "Dora")]),
        ("which colour is the rarest", [("rosé", 1)]),
        ("Which white wine has the best rating?", [(1, "Bora", 5)]),
        ("In which year was the oldest red wine bottled?", [(datetime.date(2019, 5, 1),)]),
    ],
)
def test_it_answers_what_people_ask(asker: QueryEngine, question: str, answer: list[tuple]) -> None:
    found = asker.answer(question)
    rows = [tuple(row.values()) for row in found.rows.to_pylist()]
    ranked = (
        " ORDER BY " in found.sql and " DISTINCT " not in found.sql and "per" not in question
    )  # the first of them is the answer
    assert (rows[:1] if ranked else rows) == answer, found.sql


def test_questions_by_people_who_did_not_know_the_grammar(tmp_path: Path) -> None:
    """60 questions about four tables by somebody who saw the tables alone, with the queries that they may mean: the
    first answer is right for 53, one of three for 58 (chance: nothing).
    """
    vega = pytest.importorskip("vega_datasets").local_data
    frames = {
        "cars": vega.cars(),
        "stocks": vega.stocks(),
        "burtin": vega.burtin(),
        "patients": pd.read_csv(HERE / "patients.csv", parse_dates=["admitted"]),
    }
    askers, first, three = {}, 0, 0
    for name, frame in frames.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
        table = Table.open(tmp_path / f"{name}.parquet")
        askers[name] = QueryEngine(table, infer(table))
    for one in json.loads((HERE / "held.json").read_text(encoding="utf-8")):
        asker = askers[one["table"]]
        truths = [(sql, run(asker.rows, sql)) for sql in one["sql"]]
        try:
            found = asker.answer(one["question"])
        except UserError:
            continue
        right = [
            any(same(rows, truth, sql) for sql, truth in truths)
            for rows in (found.rows, *(run(asker.rows, other) for other in found.others))
        ]
        first, three = first + right[0], three + any(right)
    assert first >= 52 and three >= 56


def same(mine: pa.Table, theirs: pa.Table, sql: str) -> bool:
    """Whether two answers say the same: of what is ranked the first row, of lists the ten that are listed; they may
    show other columns beside it.
    """
    m, t = (
        [
            frozenset(
                f"{cell:.3f}" if isinstance(cell, float) else str(cell)
                for name, cell in row.items()
                if name != "row" and cell is not None
            )
            for row in part.to_pylist()
        ]
        for part in (mine, theirs)
    )
    if not m or not t:
        return m == t
    if "order by" in sql.lower() and "distinct" not in sql.lower():
        return bool(m[0] & t[0]) and (
            m[0] <= t[0] or t[0] <= m[0] or str(next(iter(theirs.to_pylist()[0].values()))) in m[0]
        )
    return (
        len(m) >= min(len(t), 10)
        and (len(t) > 1 or m[0] <= t[0] or t[0] <= m[0])
        and all(any(a & b for b in t) for a in m)
    )


def test_values_and_columns_with_quotes_are_only_names() -> None:
    table = Table.open(pa.table({'a "b"': ["it's", "x y", "it's"], "n": [1, 2, 3]}))
    assert query(table, infer(table), "how many it's").rows.to_pylist() == [{"count": 2}]
    assert Parse("list", 'a "b"', conditions=(('a "b"', "=", "'; DROP TABLE rows; --"),)).sql(
        QueryColumns({'a "b"': []}, {}, frozenset(), "")
    ) == (
        'SELECT DISTINCT "a ""b""" FROM rows WHERE "a ""b""" = \'\'\'; DROP TABLE rows; --\' AND "a ""b""" IS NOT '
        "NULL ORDER BY 1"
    )


def test_times_of_a_day_belong_to_it_and_names_that_sql_takes_for_one_stay_apart() -> None:
    table = Table.open(
        pa.table(
            {
                "Age": [1, 2, 3],
                "age": [10, 20, 30],
                "Row": ["a", "b", "c"],
                "seen": [datetime.datetime(2020, 5, day, 13) for day in (1, 2, 3)],
            }
        )
    )
    asker = QueryEngine(table, infer(table))
    assert asker.rows.column_names == ["row", "Age", "age_", "Row_", "seen"]
    assert asker.answer("how many were seen after 2020-05-01").rows.to_pylist() == [{"count": 2}] and asker.answer(
        "how many were seen on 2020-05-02"
    ).rows.to_pylist() == [{"count": 1}]
    assert run(asker.rows, 'SELECT max("Age") AS a, max("age_") AS b, max(row) AS c FROM rows').to_pylist() == [
        {"a": 3, "b": 30, "c": 2}
    ]


def test_many_columns_and_numbers_are_looked_through_at_once() -> None:
    columns = QueryColumns(
        {f"c{at}": [f"red{at}", f"hot{at}"] for at in range(12)},
        {f"n{at}": (0.0, 100.0 + at) for at in range(15)},
        frozenset(),
        "c0",
    )
    question = ParsedQuestion("How many red1 and hot2 have n3 above 5, n4 below 20 and n5 at least 7?", columns)
    assert len(list(meanings(question))) < 60_000
    best, cost = likely(question, 1)[0]
    assert cost < 1 and set(best.conditions) == {
        ("c1", "=", "red1"),
        ("c2", "=", "hot2"),
        ("n3", ">", 5.0),
        ("n4", "<", 20.0),
        ("n5", ">=", 7.0),
    }


def test_what_speaks_of_nothing_there_is_told(asker: QueryEngine) -> None:
    for question in ("", "how are you?", "What is the weather like tomorrow?"):
        with pytest.raises(UserError, match="isn't clear"):
            asker.answer(question)
    assert (
        not asker.about_many("What is this?")
        and not asker.about_many("Is this a red one?")
        and not asker.about_many("Tell me a story.")
    )
    assert asker.about_many("Which country has the most?") and asker.about_many("how many red ones are there")


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE rows",
        "SELECT 1 FROM rows; SELECT 2 FROM rows",
        "CREATE TABLE x AS SELECT 1",
        "COPY rows TO '{file}'",
        "ATTACH '{file}'",
        "SET memory_limit = '1GB'",
        "INSTALL httpfs",
        "PRAGMA version",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_text('{secret}')",
        "FROM glob('/*')",
        "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        "SELECT * FROM WINES",
        "WITH x AS (DELETE FROM rows RETURNING *) SELECT * FROM x",
        "SELECT colours FROM rows",
        "SELECT (FROM rows",
    ],
)
def test_a_query_reads_the_table_and_nothing_else(asker: QueryEngine, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret").write_text("secret words", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        run(asker.rows, sql.format(file=tmp_path / "out", secret=tmp_path / "secret"))
    assert "secret words" not in str(refused.value) and not (tmp_path / "out").exists()


def test_a_query_that_takes_too_long_is_stopped(asker: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.query.sql.MAX_SECONDS", 0.5)
    with pytest.raises(UserError, match="longer than"):
        run(asker.rows, "SELECT count(*) FROM range(10000000) a, range(10000000) b")


def test_without_duckdb_it_says_what_to_install(asker: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UserError, match=r"sensorium\[query\]"):
        asker.answer("how many red wines")


def test_a_bare_reading_costs_nothing() -> None:
    columns = QueryColumns({"colour": ["red"]}, {"price": (1.0, 30.0)}, frozenset(), "wine")
    (best, cost), *_ = likely(ParsedQuestion("How many red wines?", columns), 3)
    assert cost == 0 and best == Parse("count", conditions=(("colour", "=", "red"),))


def test_the_command_and_the_model(fitted: Model, tmp_path: Path, run: Run) -> None:
    pq.write_table(WINES, tmp_path / "wines.parquet")
    status, out, err = run("query", tmp_path / "wines.parquet", "Which country has the most wines?")
    assert not status and "Italy" in out and "GROUP BY" in err
    status, _, err = run(
        "query",
        tmp_path / "wines.parquet",
        "SELECT colour, avg(price) AS mean FROM rows GROUP BY 1 ORDER BY 1",
        "--out",
        tmp_path / "a.jsonl",
    )
    assert not status and [
        json.loads(line)["colour"] for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    ] == ["red", "rosé", "white"]
    status, _, err = run("query", tmp_path / "wines.parquet", "DELETE FROM rows")
    assert status == 2 and "isn't clear" in err
    assert fitted.query(WINES, "how many red wines").rows.to_pylist() == [{"count": 3}]
