"""SQL databases and data lakes: they are only read."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from table_helpers import columns, rows_of, without

from sensorium.core.errors import UserError
from sensorium.data.options import ReadOptions
from sensorium.data.table import Table


def database(path: Path, **pragmas: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as base:
        for name, value in pragmas.items():
            base.execute(f"PRAGMA {name} = {value}")
        base.execute('CREATE TABLE "wörds" (id INTEGER, name TEXT, price REAL, day DATE, photo BLOB, mixed)')
        base.execute(
            "INSERT INTO wörds VALUES (1, 'é', 2.5, '2020-01-02', x'00ff', 1), (2, NULL, NULL, NULL, NULL, 'x'), (3, "
            "CAST(x'61ff' AS TEXT), 1, '', x'', NULL)"
        )
        base.commit()


WORDS = [
    {"id": 1, "name": "é", "price": 2.5, "day": "2020-01-02", "photo": b"\0\xff", "mixed": "1"},
    {"id": 2, "name": None, "price": None, "day": None, "photo": None, "mixed": "x"},
    {"id": 3, "name": "a\ufffd", "price": 1.0, "day": "", "photo": b"", "mixed": None},
]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_tables_and_queries(journal: str, tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    path = tmp_path / "b.db"
    database(path, journal_mode=journal)
    (tmp_path / "misnamed.csv").write_bytes(path.read_bytes())
    nothing_written()
    table = Table.open(path)
    assert rows_of(path) == WORDS and table.repaired == {"name": 1} and table.name == "b"
    assert (
        rows_of(tmp_path / "misnamed.csv")
        == WORDS
        == rows_of(f"{path}#wörds")
        == rows_of(f"sql:sqlite:///{path}#wörds")
    )
    assert rows_of(f"{path}#SELECT id + 1 AS n, '#' AS sign FROM wörds WHERE id > 1 -- {'long ' * 100}") == [
        {"n": 3, "sign": "#"},
        {"n": 4, "sign": "#"},
    ]
    assert columns(Table.open(f"{path}#WITH t AS (SELECT 1 AS a) SELECT * FROM t WHERE a > 1")) == {"a": []}
    with pytest.raises(UserError, match=r"no table 'words'.*Did you mean 'wörds'"):
        Table.open(f"{path}#words")
    with pytest.raises(UserError, match="several columns named 'id'"):
        Table.open(f"{path}#SELECT id, id FROM wörds")
    with pytest.raises(UserError, match="over the limit"):
        Table.open(path, options=ReadOptions(max_columns=3))


def test_sqlite_left_in_wal_mode_has_all_rows(tmp_path: Path) -> None:
    database(tmp_path / "b.sqlite", journal_mode="wal")
    with contextlib.closing(sqlite3.connect(tmp_path / "b.sqlite")) as base:
        base.execute("INSERT INTO wörds (id) VALUES (4)")
        base.commit()
        assert [row["id"] for row in rows_of(tmp_path / "b.sqlite")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM wörds",
        "WITH t AS (SELECT 1) DELETE FROM wörds",
        "SELECT 1; DELETE FROM wörds",
        "PRAGMA user_version = 3",
        "ATTACH 'other.db' AS x",
        "SELECT load_extension('x')",
        "VACUUM INTO 'other.db'",
        "SELECT * FROM pragma_user_version",
        "CREATE TABLE t (a)",
        "WITH t AS (SELECT 1) INSERT INTO wörds (id) SELECT * FROM t",
    ],
)
def test_sqlite_is_only_read(
    query: str, tmp_path: Path, nothing_written: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database(tmp_path / "b.db")
    before = (tmp_path / "b.db").read_bytes()
    nothing_written()
    with pytest.raises(UserError, match=r"b\.db'"):
        Table.open(f"{tmp_path}/b.db#{query}")
    assert (tmp_path / "b.db").read_bytes() == before


def test_sqlite_several_none_and_damaged(tmp_path: Path) -> None:
    database(tmp_path / "b.db")
    whole = (tmp_path / "b.db").read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as base:
        base.execute("CREATE TABLE t (a)")
        base.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
        base.execute("CREATE VIEW v AS SELECT load_extension('x')")
        base.commit()
    with pytest.raises(UserError, match=r"several tables.*b\.db#wörds.*wörds, t, v"):
        Table.open(tmp_path / "b.db")
    with pytest.raises(UserError, match="load_extension|read the tables of its own file"):
        Table.open(f"{tmp_path}/b.db#v")
    data = bytearray((tmp_path / "b.db").read_bytes())
    data[8192:] = b"\x55" * (len(data) - 8192)
    (tmp_path / "damaged.db").write_bytes(data)
    with pytest.raises(UserError, match=r"damaged\.db' can't be read.*malformed"):
        Table.open(f"{tmp_path}/damaged.db#t")
    (tmp_path / "cut.db").write_bytes(whole[:3000])
    (tmp_path / "empty.db").write_bytes(b"")
    (tmp_path / "other.db").write_bytes(b"no database at all")
    for name, words in (("cut", "can't be read"), ("empty", "has no table"), ("other", "neither a SQLite nor")):
        with pytest.raises(UserError, match=rf"{name}\.db' .*{words}|{words}|'.*{name}\.db' {words}"):
            Table.open(tmp_path / f"{name}.db")
    with pytest.raises(UserError, match="data.max_cell_mb"):
        Table.open(f"{tmp_path}/b.db#SELECT zeroblob(3000000) AS a", options=ReadOptions(max_cell_mb=1))


def test_duckdb_tables_and_queries(
    tmp_path: Path, nothing_written: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    path = tmp_path / "b.duckdb"
    with duckdb.connect(str(path)) as base:
        base.execute(
            "CREATE TABLE wörds (id INTEGER, name VARCHAR, day DATE, price DECIMAL(9, 2), tags VARCHAR[], place "
            "STRUCT(x INT, y INT))"
        )
        base.execute(
            "INSERT INTO wörds VALUES (1, 'é', '2020-01-02', 2.5, ['a', 'b'], {'x': 1, 'y': 2}), (2, NULL, NULL, "
            "NULL, NULL, NULL)"
        )
    (tmp_path / "misnamed.db").write_bytes(path.read_bytes())
    nothing_written()
    wanted = [
        {
            "id": 1,
            "name": "é",
            "day": datetime.date(2020, 1, 2),
            "price": 2.5,
            "tags": ["a", "b"],
            "place.x": 1,
            "place.y": 2,
        },
        {"id": 2, "name": None, "day": None, "price": None, "tags": None, "place.x": None, "place.y": None},
    ]
    assert (
        rows_of(path)
        == wanted
        == rows_of(f"{path}#wörds")
        == rows_of(tmp_path / "misnamed.db")
        == rows_of(f"sql:duckdb:///{path}#wörds")
    )
    assert rows_of(f"{path}#SELECT max(id) AS n FROM wörds") == [{"n": 2}]
    assert columns(Table.open(f"{path}#SELECT id FROM wörds WHERE id > 5")) == {"id": []}
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for query in (
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        "DELETE FROM wörds",
        "SELECT 1; SELECT 2",
        f"COPY wörds TO '{tmp_path}/out.csv'",
        "SELECT nothing",
    ):
        with pytest.raises(UserError):
            Table.open(f"{path}#{query}")
    (tmp_path / "secret.csv").unlink()
    (tmp_path / "b.duckdb").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"b\.duckdb' can't be read"):
        Table.open(path)
    without("duckdb", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[query\]"):
        Table.open(path)


def test_sql_server_by_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy

    from sensorium.data.sources import _server

    database(tmp_path / "b.db")
    url = f"sqlite:///{tmp_path}/b.db"
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as base:  # the driver takes UTF-8 only
        base.execute("UPDATE wörds SET name = 'a' WHERE id = 3")
        base.commit()
    before = (tmp_path / "b.db").read_bytes()
    for asked in ("wörds", "SELECT id, price FROM wörds"):
        opened = _server.open_server(url, asked, ReadOptions())
        assert [row for _, batch in Table(opened).batches(2) for row in batch.select(["id", "price"]).to_pylist()] == [
            {"id": row["id"], "price": row["price"]} for row in WORDS
        ]
    for query in (
        "DELETE FROM wörds",
        "WITH t AS (SELECT 1) DELETE FROM wörds",
        "SELECT 1; DELETE FROM wörds",
        "",
        "nothing",
    ):
        with pytest.raises(UserError, match="wörds|only reads"):
            _server.open_server(url, query, ReadOptions())
    # A query that the words don't tell is held by the transaction.
    monkeypatch.setattr(_server, "refusal_reason", lambda query: "")
    with pytest.raises(UserError, match="readonly"):
        _server.open_server(url, "DELETE FROM wörds RETURNING id", ReadOptions())
    assert (tmp_path / "b.db").read_bytes() == before
    secret = "pa%3Ass w%2F%23rd"
    for source in (
        f"sql:mysql+pymysql://me:{secret}@127.0.0.1:1/b#SELECT 1",
        f"sql:nodialect://me:{secret}@h/b#t",
        f"sql:me:{secret}",
        f"sql:postgresql://me:{secret}@h/{'b' * 300}#t",
    ):
        with pytest.raises(UserError) as caught:
            Table.open(source)
        assert "pa" + "%3A" not in str(caught.value) and "pa:ss" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert (
        _server._hidden(
            "refused://me:pa:ss w/#rd@h for pa%3Ass", sqlalchemy.engine.make_url(f"x://me:{secret}@h")
        ).count("***")
        >= 1
    )
    without("sqlalchemy", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[sql\]"):
        Table.open("sql:postgresql://h/b#t")


@pytest.mark.parametrize(
    ("query", "fine"),
    [
        ("select replace(a, 'x', 'delete') from t", True),
        ('SELECT t.update, "drop" FROM t -- delete', True),
        ("(SELECT 1) UNION (SELECT 2);", True),
        ("SELECT * INTO other FROM t", False),
        ("SELECT 1 DROP TABLE t", False),
        ("SELECT * FROM t FOR UPDATE", False),
        ("/* x */ EXPLAIN SELECT 1", False),
        ("SELECT 1 /*! INTO OUTFILE 'x' */", False),
        ("", False),
    ],
)
def test_sql_words_of_a_query_that_reads(query: str, fine: bool) -> None:
    from sensorium.data.sources._server import refusal_reason

    assert (refusal_reason(query) == "") == fine


def delta(path: Path) -> None:
    import deltalake

    first = pa.table(
        {"a": [1, 2, 3], "p": ["x", "y", "x"], "d": pa.array([1.5, None, 2]), "s": [{"k": 1}, {"k": 2}, None]}
    )
    deltalake.write_deltalake(path, first, partition_by=["p"])
    more = pa.table({"a": [4], "p": ["z ü/"], "d": [1.0], "when": [datetime.datetime(2020, 1, 2)]})
    deltalake.write_deltalake(path, more, mode="append", schema_mode="merge")
    deltalake.DeltaTable(path).delete("a = 1")


def test_delta_table_in_place(
    tmp_path: Path, nothing_written: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import deltalake

    delta(tmp_path / "t")
    deltalake.write_deltalake(tmp_path / "empty", pa.table({"a": pa.array([], pa.int64())}))
    nothing_written()
    table = Table.open(tmp_path / "t")
    wanted = (
        deltalake.DeltaTable(tmp_path / "t").to_pyarrow_table(columns=["a", "p", "d", "when"]).sort_by("a").to_pylist()
    )
    found = sorted(rows_of(tmp_path / "t"), key=lambda row: row["a"])
    assert [{name: row[name] for name in wanted[0]} for row in found] == wanted and len(wanted) == 3
    assert [row["s.k"] for row in found] == [2, None, None] and table.name == "t"
    assert rows_of(tmp_path / "t") == rows_of(tmp_path / "t") and set(table.take([2, 0], ["p"])["p"].to_pylist()) <= {
        "x",
        "y",
        "z ü/",
    }
    assert Table.open(tmp_path / "empty").rows == 0 and Table.open(tmp_path / "empty").columns == ["a"]
    monkeypatch.setattr("sensorium.data.sources.datalake.PLAIN_FEATURES", frozenset())
    assert sorted(rows_of(tmp_path / "t"), key=lambda row: row["a"]) == found
    without("deltalake", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[lake\]"):
        Table.open(tmp_path / "t")


def test_delta_with_foreign_missing_and_damaged_files(tmp_path: Path) -> None:
    import json

    delta(tmp_path / "t")
    log = sorted((tmp_path / "t/_delta_log").glob("*.json"))[-1]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    whole = log.read_text()
    (tmp_path / "secret.parquet").write_bytes(b"PAR1")
    for path, words in (
        ("../secret.parquet", "doesn't lie in its folder"),
        (f"file://{tmp_path}/secret.parquet", "t'"),
        ("s3://b/x.parquet", "t'"),
        ("none.parquet", "lacks its file"),
    ):
        for line in lines:
            if "add" in line:
                line["add"]["path"] = path
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(UserError, match=words):
            Table.open(tmp_path / "t")
    log.write_text(whole[:50])
    with pytest.raises(UserError, match="can't be read as a Delta table"):
        Table.open(tmp_path / "t")


def iceberg(path: Path) -> str:
    from pyiceberg.catalog.memory import InMemoryCatalog

    catalog = InMemoryCatalog("c", warehouse=f"file://{path}")
    catalog.create_namespace("n")
    first = pa.table(
        {"a": pa.array([1, 2, 3], pa.int64()), "s": ["é", None, "x"], "d": [datetime.date(2020, 1, 1)] * 3}
    )
    table = catalog.create_table("n.t", schema=first.schema)
    table.append(first)
    table.append(first.slice(0, 1))
    table.delete("a = 2")
    return table.metadata_location.removeprefix("file://")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pyiceberg")
def test_iceberg_table_even_where_it_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = iceberg(tmp_path / "w")
    folder = Path(metadata).parent.parent
    wanted = [
        {"a": 1, "s": "é", "d": datetime.date(2020, 1, 1)},
        {"a": 1, "s": "é", "d": datetime.date(2020, 1, 1)},
        {"a": 3, "s": "x", "d": datetime.date(2020, 1, 1)},
    ]
    before = set(tmp_path.rglob("*"))
    assert sorted(rows_of(metadata), key=str) == sorted(rows_of(folder), key=str) == sorted(wanted, key=str)
    assert set(tmp_path.rglob("*")) == before
    folder.rename(tmp_path / "moved")
    assert sorted(rows_of(tmp_path / "moved"), key=str) == sorted(wanted, key=str)
    path = next((tmp_path / "moved/metadata").glob("00003*"))
    whole = path.read_text()
    path.write_text(whole.replace(f"{folder}/metadata/snap", f"{tmp_path}/secret/snap"))
    with pytest.raises(UserError, match="doesn't lie in its folder"):
        Table.open(tmp_path / "moved")
    path.write_text(whole.replace(f"file://{folder}/metadata/snap", "s3://bucket/snap"))
    with pytest.raises(UserError, match="nothing is fetched"):
        Table.open(tmp_path / "moved")
    path.write_text(whole[:500])
    with pytest.raises(UserError, match="can't be read as an Iceberg table"):
        Table.open(tmp_path / "moved")
    without("pyiceberg", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[lake\]"):
        Table.open(tmp_path / "moved")
