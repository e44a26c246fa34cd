"""Spreadsheets, databases, data lakes, columnar files, arrays and ZIP archives."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import gc
import gzip
import io
import lzma
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sensorium.core.errors import BadCell, UserError
from sensorium.data.options import ReadOptions
from sensorium.data.spool import cache_folder
from sensorium.data.table import Table

from .test_sources import png
from .test_table import columns


def rows_of(source: Any, **options: Any) -> list[dict[str, Any]]:
    """All rows of a source as objects."""
    return [
        row for _, batch in Table.open(source, options=ReadOptions(**options)).batches(3) for row in batch.to_pylist()
    ]


@pytest.fixture(autouse=True)
def nothing_written(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Call it once the files are there: at the end there are no others beside them."""
    before: list[set[Path]] = []
    yield lambda: before.append(set(tmp_path.rglob("*")))
    assert not before or set(tmp_path.rglob("*")) == before[0]


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a library weren't installed."""
    real = builtins.__import__

    def fake(wanted: str, *args: Any, **more: Any) -> Any:
        if wanted.partition(".")[0] == name:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(wanted, *args, **more)

    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", fake)
    monkeypatch.setattr("importlib.import_module", lambda wanted, package=None: fake(wanted, None, None, ["*"]))


def workbook(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Empty"
    sheet = book.create_sheet("Dätä #2")
    sheet.append([])
    sheet.append([None, "näme", "number", "when", "ok", "failed", "at", "long"])
    for i in range(4):
        when = datetime.datetime(2020, 1, 1 + i, 3)
        sheet.append(
            [
                None,
                f"00{i}",
                i + i % 2 / 2,
                when,
                i % 2 == 0,
                "#N/A" if i else "#DIV/0!",
                datetime.time(3, 4),
                12345678901,
            ]
        )
    sheet.append([])
    sheet.append([None, "merged", None, datetime.date(2021, 5, 6)])
    sheet.append([])
    sheet.merge_cells("B8:B9")
    sheet["C9"] = 7
    sheet["I3"] = sheet["I4"] = None
    other = book.create_sheet("Hidden")
    other.append(["a"])
    other.append([1])
    other.sheet_state = "hidden"
    book.save(path)


def test_excel_sheet_by_content_or_by_name(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    workbook(tmp_path / "book.xlsx")
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "book.xlsx").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "book.xlsx")
    assert columns(table) == {
        "näme": ["000", "001", "002", "003", None, "merged", "merged"],
        "number": [0, 1.5, 2, 3.5, None, None, 7],
        "when": [*(datetime.datetime(2020, 1, 1 + i, 3) for i in range(4)), None, datetime.datetime(2021, 5, 6), None],
        "ok": [True, False, True, False, None, None, None],
        "failed": [None] * 7,
        "at": [datetime.time(3, 4)] * 4 + [None] * 3,
        "long": [12345678901] * 4 + [None] * 3,
    }
    said = " ".join(table.notes)
    assert "sheet 'Dätä #2' was taken" in said and "'Empty', 'Hidden'" in said
    assert "4 cell(s) hold an error" in said and "1 cell(s) lie in merged cells" in said
    assert columns(Table.open(f"{tmp_path}/book.xlsx#Hidden")) == {"a": [1]}
    assert columns(Table.open(f"{tmp_path}/book.xlsx#Dätä #2")) == columns(table)
    assert columns(Table.open(tmp_path / "misnamed.csv")) == columns(table)
    assert rows_of(f"{tmp_path}/book.xlsx#Empty") == []
    with pytest.raises(UserError, match=r"book\.xlsx' has no sheet 'x'.*'Hidden'"):
        Table.open(f"{tmp_path}/book.xlsx#x")


def test_excel_name_with_a_sign_wins_and_titles_are_passed_over(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["Report of 2020"], [], ["a", "b", "c"], [1, "x", 2], [None, "y"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    book.save(tmp_path / "a.xlsx#b.xlsx")
    table = Table.open(f"{tmp_path}/a.xlsx#b.xlsx")
    assert columns(table) == {"a": [1, None], "b": ["x", "y"], "c": [2, None]} and "Report of 2020" in table.notes[0]
    assert Table.open(tmp_path).rows == 4


@pytest.mark.parametrize("ending", ["xls", "ods"])
def test_spreadsheets_equal_what_pandas_reads(ending: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ["01", "ü", None, "x"],
            "whole": [1, 2, 3, 4],
            "real": [0.5, None, 2.0, 1e9],
            "when": pd.to_datetime(["2020-01-01 10:00", None, "1999-12-31 00:00", "2020-01-02 00:00"]),
            "ok": [True, False, True, True],
        }
    )
    path = tmp_path / f"t.{ending}"
    if ending == "ods":
        frame.to_excel(path, index=False, engine="odf")
    else:
        import xlwt

        book = xlwt.Workbook()
        sheet = book.add_sheet("A")
        style = xlwt.easyxf(num_format_str="YYYY-MM-DD HH:MM:SS")
        for place, name in enumerate(frame.columns):
            sheet.write(0, place, name)
            for row, cell in enumerate(frame[name], 1):
                if not pd.isna(cell):
                    cell = cell.to_pydatetime() if name == "when" else cell.item() if hasattr(cell, "item") else cell
                    sheet.write(row, place, cell, *([style] if name == "when" else []))
        book.save(str(path))
    wanted = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert rows_of(path) == wanted


def test_excel_hostile_damaged_and_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openpyxl
    import xlwt

    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "a", 1
    book.save(tmp_path / "far.xlsx")
    old = xlwt.Workbook()
    sheet = old.add_sheet("A")
    sheet.write(0, 0, "a")
    sheet.write(65535, 255, 1)
    old.save(str(tmp_path / "far.xls"))
    with pytest.raises(UserError, match=r"far\.xlsx' reaches to row 1,048,576 and column 16,384"):
        Table.open(tmp_path / "far.xlsx")
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources._sheets.CELLS", 10**6)
        with pytest.raises(UserError, match=r"far\.xls' reaches to row 65,536 and column 256"):
            Table.open(tmp_path / "far.xls")
        patch.setattr("sensorium.data.sources._sheets.UNPACKED", 1000)
        with pytest.raises(UserError, match=r"far\.xlsx'.*unpacks to more than 1,000 bytes"):
            Table.open(tmp_path / "far.xlsx")
    whole = (tmp_path / "far.xlsx").read_bytes()
    for name, data in (
        ("cut.xlsx", whole[: len(whole) // 2]),
        ("none.xls", b"<html>"),
        ("empty.ods", b""),
        ("cut.xls", (tmp_path / "far.xls").read_bytes()[:1000]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}' can't be read as a spreadsheet"):
            Table.open(tmp_path / name)
    without("python_calamine", monkeypatch)
    with pytest.raises(UserError, match=r"pip install 'sensorium\[excel\]'"):
        Table.open(tmp_path / "far.xlsx")


def database(path: Path, **pragmas: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as base:
        for name, value in pragmas.items():
            base.execute(f"PRAGMA {name} = {value}")
        base.execute('CREATE TABLE "wörds" (id INTEGER, name TEXT, price REAL, day DATE, photo BLOB, mixed)')
        base.execute(
            "INSERT INTO wörds VALUES (1, 'é', 2.5, '2020-01-02', x'00ff', 1), (2, NULL, NULL, NULL, NULL, 'x'), (3, CAST(x'61ff' AS TEXT), 1, '', x'', NULL)"
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
            "CREATE TABLE wörds (id INTEGER, name VARCHAR, day DATE, price DECIMAL(9, 2), tags VARCHAR[], place STRUCT(x INT, y INT))"
        )
        base.execute(
            "INSERT INTO wörds VALUES (1, 'é', '2020-01-02', 2.5, ['a', 'b'], {'x': 1, 'y': 2}), (2, NULL, NULL, NULL, NULL, NULL)"
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
    monkeypatch.setattr(_server, "reads", lambda query: "")
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
    from sensorium.data.sources._server import reads

    assert (reads(query) == "") == fine


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
    monkeypatch.setattr("sensorium.data.sources.datalake.PLAIN", frozenset())
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


def test_orc_by_stripe(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    from pyarrow import orc

    data = pa.table(
        {
            "a": pa.array([*range(4999), None]),
            "s": ["é" * 9] * 5000,
            "d": [datetime.date(2020, 1, 1)] * 5000,
            "at": [datetime.datetime(2020, 1, 2, 3)] * 5000,
            "l": [[1.5, None]] * 5000,
            "p": [{"x": 1}] * 5000,
        }
    )
    # A stripe ends where a batch does.
    with orc.ORCWriter(tmp_path / "a.orc", stripe_size=1000) as writer:
        for start in range(0, 5000, 1000):
            writer.write(data.slice(start, 1000))
    orc.write_table(data.slice(0, 0), tmp_path / "empty.orc")
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "a.orc").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "a.orc")
    assert len(table.starts) > 2 and table.rows == 5000
    wanted = [{**{name: row[name] for name in ("a", "s", "d", "at", "l")}, "p.x": 1} for row in data.to_pylist()]
    assert rows_of(tmp_path / "a.orc") == wanted == rows_of(tmp_path / "misnamed.csv")
    assert table.take([4998, 3], ["a"])["a"].to_pylist() == [4998, 3]
    assert (
        Table.open(tmp_path / "empty.orc").columns == ["a", "s", "d", "at", "l", "p.x"]
        and rows_of(tmp_path / "empty.orc") == []
    )
    assert Table.open([tmp_path / "a.orc", tmp_path / "empty.orc"]).rows == 5000


def test_orc_damaged(tmp_path: Path) -> None:
    from pyarrow import orc

    orc.write_table(
        pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 9999)}), tmp_path / "a.orc", compression="zlib"
    )
    data = bytearray((tmp_path / "a.orc").read_bytes())
    (tmp_path / "cut.orc").write_bytes(data[: len(data) // 2])
    data[1000:2000] = b"\xff" * 1000
    (tmp_path / "holes.orc").write_bytes(data)
    for name in ("cut", "holes"):
        with pytest.raises(UserError, match=rf"{name}\.orc' can't be read"):
            rows_of(tmp_path / f"{name}.orc")


AVRO = {
    "type": "record", "name": "Row", "namespace": "x", "fields": [
        {"name": "id", "type": "long"}, {"name": "näme", "type": ["null", "string"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
        {"name": "photo", "type": "bytes"}, {"name": "list", "type": {"type": "array", "items": "double"}},
        {"name": "place", "type": {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "float"}]}},
    ],
}  # fmt: skip


def avro_rows(count: int) -> list[dict[str, Any]]:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    return [
        {"id": i, "näme": None if i % 3 else f"é{i}", "day": datetime.date(2020, 1, 1), "at": when if i % 2 else None, "kind": "AB"[i % 2],
         "photo": bytes([i % 256]), "list": [i / 2] * (i % 3), "place": {"x": 0.5}}
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_avro_equals_what_was_written(codec: str, tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    path = tmp_path / "a.avro"
    with open(path, "wb") as file:
        fastavro.writer(file, AVRO, avro_rows(100), codec=codec, sync_interval=500)
    with open(tmp_path / "empty.avro", "wb") as file:
        fastavro.writer(file, AVRO, [])
    nothing_written()
    wanted = [
        {**{name: cell for name, cell in row.items() if name != "place"}, "place.x": 0.5} for row in avro_rows(100)
    ]
    table = Table.open(path)
    assert rows_of(path) == wanted and table.declared == {"kind"} and table.notes == []
    assert rows_of(tmp_path / "empty.avro") == [] and "näme" in Table.open(tmp_path / "empty.avro").columns


def test_avro_damaged_block_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    with open(path, "wb") as file:
        fastavro.writer(file, AVRO, avro_rows(100), codec="deflate", sync_interval=500)
    whole = path.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    path.write_bytes(data)
    table = Table.open(path)
    found = columns(table)["id"]
    assert table.rows == 100 and 0 < len(table.bad_rows) < 50 and "damaged blocks" in table.notes[0]
    assert [cell for row, cell in enumerate(found) if row not in table.bad_rows] == [
        row for row in range(100) if row not in table.bad_rows
    ]
    path.write_bytes(whole[:-30])
    table = Table.open(path)
    assert table.rows == 100 and min(table.bad_rows) > 50 and "ends early" in next(iter(table.bad_rows.values())).reason
    for data in (b"Obj\x01", whole[:40], b"Obj\x01\x02\x16avro.schema\x02{\x00" + b"s" * 16):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.avro' can't be read as Avro"):
            Table.open(path)


def container(schema: str, blocks: list[tuple[int, bytes]], codec: str = "null") -> bytes:
    """An Avro file of blocks as they are."""

    def number(value: int) -> bytes:
        value, out = value << 1, bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    def text(data: bytes) -> bytes:
        return number(len(data)) + data

    head = (
        b"Obj\x01"
        + number(2)
        + text(b"avro.schema")
        + text(schema.encode())
        + text(b"avro.codec")
        + text(codec.encode())
        + b"\0"
        + b"s" * 16
    )
    return head + b"".join(number(count) + text(data) + b"s" * 16 for count, data in blocks)


@pytest.mark.parametrize(("codec", "name"), [("snappy", "snappy"), ("zstandard", "zstd")])
def test_avro_by_codecs_that_its_writer_lacks_here(codec: str, name: str, tmp_path: Path) -> None:
    data = b"\x02a\x02b" * 50
    packed = pa.Codec(name).compress(data, asbytes=True)
    block = packed + zlib.crc32(data).to_bytes(4, "big") * (codec == "snappy")
    schema = '{"type": "record", "name": "L", "fields": [{"name": "n", "type": "string"}]}'
    (tmp_path / "a.avro").write_bytes(
        container(schema, [(100, block), (2, packed[:-5] + b"none"), (100, block)], codec)
    )
    table = Table.open(tmp_path / "a.avro")
    assert columns(table) == {"n": ["a", "b"] * 50 + [None] * 2 + ["a", "b"] * 50} and list(table.bad_rows) == [
        100,
        101,
    ]


def test_avro_hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avro"
    field = '{{"type": "record", "name": "L", "fields": [{{"name": "n", "type": {}}}]}}'
    for kind, words in (
        ('["null", "L"]', "hold themselves"),
        ('{"type": "array", "items": "null"}', "take no bytes"),
        ('["null", {"type": "L"}]', "damaged"),
    ):
        path.write_bytes(container(field.format(kind), [(1, b"\x02" * 3_000_000)]))
        with pytest.raises(UserError, match=rf"a\.avro' can't be read as Avro: .*{words}"):
            Table.open(path)
    path.write_bytes(container(field.format('"null"'), [(1 << 60, b"")]))
    with pytest.raises(UserError, match="more records than it has bytes for"):
        Table.open(path)
    path.write_bytes(
        container(
            field.format('"string"'), [(1, b"\xfe\xff\xff\xff\xff\xff\xff\x01x"), (2, b"\x02a\x02b"), (1, b"\x01")]
        )
    )
    assert columns(Table.open(path)) == {"n": [None, "a", "b", None]}
    monkeypatch.setattr("sensorium.data.sources.avro.BLOCK", 10**6)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(
        container(
            field.format('"string"'), [(1, b"\x02a"), (1, bomb.compress(b"\0" * 10**7) + bomb.flush())], "deflate"
        )
    )
    with pytest.raises(UserError, match="no row that can be read"):
        Table.open(path)
    path.write_bytes(container(field.format('"string"'), [], "lzo"))
    with pytest.raises(UserError, match="compressed by lzo.*Possible: null"):
        Table.open(path)
    without("fastavro", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[avro\]"):
        Table.open(path)


def test_npy_in_place(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    arrays = {
        "n": np.arange(20000, dtype=">i4"),
        "m": np.arange(24, dtype=np.float32).reshape(4, 2, 3),
        "f": np.asfortranarray(np.arange(8.0).reshape(4, 2)),
        "u": np.array(["é", "", "x"]),
        "b": np.array([b"a", b"\xff"]),
        "t": np.array(["2020-01-02", "NaT"], "datetime64[D]"),
        "none": np.zeros((0, 3)),
        "o": np.array([True, False]),
        "h": np.array([1, 2], np.float16),
        "thin": np.zeros((3, 0)),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    named = np.array([(1, "a", [1.5, 2]), (2, "é", [3, 4])], [("id", "i8"), ("näme", "U5"), ("v", "f4", 2)])
    np.save(tmp_path / "s.npy", named)
    wide = np.array([(1,)], [("日", "i8")])
    with pytest.warns(UserWarning, match="format 3"):
        np.save(tmp_path / "wide.npy", wide)
        np.savez(tmp_path / "wide.npz", a=wide)
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "n.npy").read_bytes())
    nothing_written()
    for name in ("n", "m", "f", "u", "o", "h", "none"):
        assert columns(Table.open(tmp_path / f"{name}.npy")) == {
            "array": [None if cell == "" else cell for cell in arrays[name].tolist()]
        }
    assert columns(Table.open(tmp_path / "thin.npy"))["array"] == [[], [], []]
    assert columns(Table.open(tmp_path / "b.npy")) == {"array": ["a", "\ufffd"]}
    assert columns(Table.open(tmp_path / "t.npy")) == {"array": [datetime.datetime(2020, 1, 2), None]}
    assert rows_of(tmp_path / "s.npy") == [{"id": 1, "näme": "a", "v": [1.5, 2]}, {"id": 2, "näme": "é", "v": [3, 4]}]
    assert rows_of(tmp_path / "wide.npy") == [{"日": 1}] and rows_of(tmp_path / "wide.npz") == [{"a.日": 1}]
    table = Table.open(tmp_path / "misnamed.csv")
    assert len(table.starts) == 4 and table.take([19999, 5])["array"].to_pylist() == [19999, 5]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_of_one_length_are_columns(
    save: Callable[..., None], tmp_path: Path, nothing_written: Callable[[], None]
) -> None:
    save(tmp_path / "a.npz", x=np.arange(12).reshape(4, 3), y=np.array(["a", "é", "", "d"]), f=np.asfortranarray(np.arange(8.0).reshape(4, 2)),
         other=np.zeros(9), scalar=np.float64(3), c=np.zeros(4, complex))  # fmt: skip
    save(tmp_path / "empty.npz", x=np.zeros((0, 2)))
    nothing_written()
    table = Table.open(tmp_path / "a.npz")
    assert columns(table) == {
        "x": np.arange(12).reshape(4, 3).tolist(),
        "y": ["a", "é", None, "d"],
        "f": np.arange(8.0).reshape(4, 2).tolist(),
    }
    assert "other, scalar, c" in table.notes[0]
    assert Table.open(tmp_path / "empty.npz").columns == ["x"] and rows_of(tmp_path / "empty.npz") == []


def test_numpy_hostile_and_damaged(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    evil = np.array([Evil()], object)
    np.save(tmp_path / "o.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "o.npz", a=np.zeros(1), b=evil)
    for name in ("o.npy", "o.npz"):
        with pytest.raises(UserError, match="never reads pickles"):
            Table.open(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    np.save(tmp_path / "a.npy", np.arange(1000))
    np.savez(tmp_path / "a.npz", a=np.random.default_rng(0).random(1000))
    whole = (tmp_path / "a.npy").read_bytes()
    far = whole.replace(b"(1000,), ", b"(1" + b"0" * 7 + b"," * 0 + b",)")
    wide = io.BytesIO()
    np.lib.format.write_array_header_1_0(wide, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 30)})
    for name, data in (
        ("cut.npy", whole[:4000]), ("head.npy", whole[:50]), ("far.npy", far), ("wide.npy", wide.getvalue()), ("complex.npy", None),
        ("one.npy", None), ("cut.npz", (tmp_path / "a.npz").read_bytes()[:5000]), ("code.npy", whole.replace(b"'<i8'", b"exit(")),
    ):  # fmt: skip
        if data is None:
            np.save(tmp_path / name, np.zeros(3, complex) if name == "complex.npy" else np.float64(1))
        else:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}' can't be read as"):
            Table.open(tmp_path / name)
    np.save(tmp_path / "long.npy", np.zeros((2, 300000)))
    with pytest.raises(UserError, match="data.max_cell_mb"):
        Table.open(tmp_path / "long.npy", options=ReadOptions(max_cell_mb=1))


def test_hdf5_group_in_place(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("group/inner")
        group["n"] = np.arange(10000)
        group.create_dataset("m", data=np.arange(40000.0).reshape(10000, 2, 2), chunks=(100, 2, 2), compression="gzip")
        group.create_dataset("wörds", data=["é", "b"] * 5000, dtype=h5py.string_dtype())
        group["fixed"] = np.array([b"ab", b"c"] * 5000)
        group["flag"] = np.arange(10000) % 2 == 0
        group.create_dataset("list", (10000,), h5py.vlen_dtype(np.int32))
        group["list"][1] = [1, 2]
        group.create_dataset("kind", data=np.arange(10000) % 2, dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i8"))
        group["both"] = np.array([(1, 2.5)] * 10000, [("x", "i4"), ("y", "f8")])
        group["short"], group["scalar"] = np.zeros(3), 5
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"], file["g/y"] = np.arange(2), np.arange(3)
        file["none/y"] = np.zeros(0)
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "a.h5").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "a.h5")
    found = columns(table)
    assert table.rows == 10000 and len(table.starts) > 1 and "short" in table.notes[0]
    assert (
        found["n"] == [*range(10000)]
        and found["m"] == np.arange(40000.0).reshape(10000, 2, 2).tolist()
        and found["wörds"][:2] == ["é", "b"]
    )
    assert found["fixed"][:2] == ["ab", "c"] and found["flag"][:2] == [True, False] and found["kind"][:2] == ["A", "B"]
    assert found["list"][:2] == [[], [1, 2]] and found["both.x"][0] == 1 and found["both.y"][9999] == 2.5
    assert table.take([9999, 3], ["n", "wörds"]).to_pydict() == {"n": [9999, 3], "wörds": ["b", "b"]}
    assert (
        columns(Table.open(tmp_path / "misnamed.csv")) == found == columns(Table.open(f"{tmp_path}/a.h5#/group/inner"))
    )
    assert columns(Table.open(f"{tmp_path}/b.h5#/g")) == {"y": [0, 1, 2]} and columns(
        Table.open(f"{tmp_path}/b.h5#/")
    ) == {"x": [0, 1]}
    assert columns(Table.open(f"{tmp_path}/b.h5#none")) == {"y": []}
    with pytest.raises(UserError, match="several groups.*Possible: /, /g, /none"):
        Table.open(tmp_path / "b.h5")
    with pytest.raises(UserError, match="no group '/h'.*/g"):
        Table.open(f"{tmp_path}/b.h5#/h")


def test_hdf5_reads_no_other_file_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(4)
    (tmp_path / "secret.bin").write_bytes(b"secret!!" * 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(4)
        file["linked"] = h5py.ExternalLink("secret.h5", "/x")
        file["soft"] = h5py.SoftLink("/linked")
        file.create_dataset("external", (4,), "i8", external=[(str(tmp_path / "secret.bin"), 0, 32)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "x", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("reference", data=[file["x"].ref] * 4, dtype=h5py.ref_dtype)
        file["loop"] = file["/"]
    table = Table.open(tmp_path / "a.h5")
    assert table.columns == ["x"] and all(
        name in table.notes[0] for name in ("linked", "soft", "external", "virtual", "reference")
    )
    with h5py.File(tmp_path / "far.h5", "w") as file:
        file.create_dataset("x", (1 << 50,), "f8", chunks=(1000,))
    with pytest.raises(UserError, match="times its size"):
        Table.open(tmp_path / "far.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).random(100000), chunks=(10000,), compression="gzip")
    data = bytearray((tmp_path / "b.h5").read_bytes())
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    data[len(data) // 2 : len(data) // 2 + 9000] = b"\xff" * 9000
    (tmp_path / "holes.h5").write_bytes(data)
    (tmp_path / "none.h5").write_bytes(b"none")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name in ("cut", "holes", "none", "empty"):
        with pytest.raises(UserError, match=rf"{name}\.h5'"):
            rows_of(tmp_path / f"{name}.h5")
    without("h5py", monkeypatch)
    with pytest.raises(UserError, match=r"sensorium\[hdf5\]"):
        Table.open(tmp_path / "a.h5")


def write_zip(path: Path, members: dict[str, bytes | str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_zip_of_media_is_as_the_folder(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    files: dict[str, bytes | str] = {
        f"pets/{path}": png(i)
        for i, path in enumerate(
            ("train/cat/1.png", "train/dög/2.JPG", "test/cat/3.png", "train/year=2020/dog/4.png", "train/cat/unnamed")
        )
    }
    write_zip(
        tmp_path / "pets.zip",
        {**files, "pets/train/cat/notes.txt": "x", "__MACOSX/pets/._1.png": "x", "pets/.hidden.png": "x"},
    )
    with zipfile.ZipFile(tmp_path / "pets.zip") as archive:
        archive.extractall(tmp_path / "out")
    nothing_written()
    table, folder = Table.open(tmp_path / "pets.zip"), Table.open(tmp_path / "out/pets")
    assert columns(table, ("image",)) == columns(folder, ("image",)) and table.rows == 5
    assert set(columns(table)["label"]) == {"cat", "dög", "dog"} and "1 .txt" in " ".join(table.notes)
    assert (
        columns(Table.open([tmp_path / "pets.zip"] * 2), ("image",))["image"] == columns(table, ("image",))["image"] * 2
    )
    assert [cell["path"] for cell in table.take([4, 0], ["image"])["image"].to_pylist()] == [
        "train/year=2020/dog/4.png",
        "test/cat/3.png",
    ]
    write_zip(tmp_path / "cats.zip", {"cats/1.png": png()})
    assert columns(Table.open(tmp_path / "cats.zip"), ("image",)) == {"image": [png()], "label": ["cats"]}
    (tmp_path / "cats.zip").unlink()


@pytest.mark.parametrize("splits", [False, True])
def test_zip_with_metadata(splits: bool, tmp_path: Path) -> None:
    text = "file_name,words\n1.png,a\nsub/2.png,b\ngone.png,c\n../../secret.png,d\n"
    tops = ("test/", "train/") if splits else ("",)
    members: dict[str, bytes | str] = {}
    for top in tops:
        members |= {f"{top}metadata.csv": text, f"{top}1.png": png(1), f"{top}sub/2.png": png(2)}
    write_zip(tmp_path / "a.zip", members)
    (tmp_path / "secret.png").write_bytes(png())
    for outside in (False, True):
        found = columns(Table.open(tmp_path / "a.zip", allow_outside=outside), ("image",))
        assert found["words"] == ["a", "b", "c", "d"] * len(tops) and found["image"][:2] == [png(1), png(2)]
        assert all(isinstance(cell, BadCell) and "not in the archive" in str(cell) for cell in found["image"][2:4])
    assert found.get("split") == (["test"] * 4 + ["train"] * 4 if splits else None)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl", ".csv.gz"])
def test_zip_of_a_table(ending: str, tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["é", "x"]})
    data = {
        ".csv": frame.to_csv(index=False).encode(),
        ".parquet": frame.to_parquet(),
        ".jsonl": frame.to_json(orient="records", lines=True).encode(),
        ".csv.gz": gzip.compress(frame.to_csv(index=False).encode()),
    }[ending]
    write_zip(tmp_path / "one.zip", {f"../../töp/dä ta{ending}": data, "readme.md": "x"})
    write_zip(tmp_path / "two.zip", {f"x/1{ending}": data, f"y/1{ending}": data})
    nothing_written()
    table = Table.open(tmp_path / "one.zip")
    assert columns(table) == {"a": [1, 2], "b": ["é", "x"]} and table.name == "one" and "1 .md" in " ".join(table.notes)
    assert columns(Table.open(tmp_path / "two.zip")) == {"a": [1, 2, 1, 2], "b": ["é", "x", "é", "x"]}
    cache = cache_folder()
    del table
    gc.collect()
    assert not list(cache.glob("zip-*"))


def test_zip_hostile_and_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    write_zip(tmp_path / "a.zip", {"x/1.png": png(1), "x/2.png": noise, "x/3.png": b"\0" * 10**6, "y/4.png": png(4)})
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        at = archive.getinfo("x/2.png").header_offset + 100
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[at] ^= 255
    (tmp_path / "holes.zip").write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources.archive.MEMBER", 10**5)
        table = Table.open(tmp_path / "holes.zip")
        found = columns(table, ("image",))
    assert (
        found["label"] == ["x", "x", None, "y"] and list(table.bad_rows) == [2] and "limit" in table.bad_rows[2].reason
    )
    assert found["image"][0] == png(1) and found["image"][3] == png(4) and "damaged" in str(found["image"][1])
    write_zip(tmp_path / "bomb.zip", {"a.csv": b"a\n" + b"1\n" * 10**6})
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources.archive.FREE", 1000)
        with pytest.raises(UserError, match=r"bomb\.zip': 'a\.csv' unpacks to more than"):
            Table.open(tmp_path / "bomb.zip")
    write_zip(tmp_path / "nested.zip", {"bomb.zip": (tmp_path / "bomb.zip").read_bytes()})
    write_zip(tmp_path / "none.zip", {})
    write_zip(tmp_path / "bad.zip", {"a.parquet": b"PAR1 none"})
    (tmp_path / "cut.zip").write_bytes(data[:3000])
    locked = bytearray((tmp_path / "bomb.zip").read_bytes())
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    for name, words in (
        ("nested", "holds 1 .zip"),
        ("none", "is empty"),
        ("bad", r"bad\.zip/0/a\.parquet"),
        ("cut", "can't be read as a ZIP"),
        ("locked", "password"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            Table.open(tmp_path / f"{name}.zip")
        assert f"{name}.zip" in str(caught.value)
    del table
    gc.collect()
    assert not list(cache_folder().glob("zip-*"))
    both = zipfile.ZipFile(tmp_path / "overlap.zip", "w")
    with both:
        both.writestr("a.csv", noise)
        info = both.infolist()[0]
        for i in range(9):
            other = zipfile.ZipInfo(f"{i}.csv")
            other.header_offset, other.compress_size, other.file_size, other.CRC = (
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.CRC,
            )
            both.filelist.append(other)
            both.NameToInfo[other.filename] = other
    with pytest.raises(UserError, match=r"overlap\.zip' overlap"):
        Table.open(tmp_path / "overlap.zip")


@pytest.mark.parametrize(("ending", "codec"), [("zst", "zstd"), ("lz4", "lz4"), ("bz2", "bz2"), ("xz", None)])
def test_compressed_text_by_content(
    ending: str, codec: str | None, tmp_path: Path, nothing_written: Callable[[], None]
) -> None:
    data = "näme,n\né,1\nx,\n".encode()
    if codec is None:
        packed = lzma.compress(data)
    else:
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, codec) as stream:
            stream.write(data)
        packed = out.getvalue().to_pybytes()
    for name in (f"a.csv.{ending}", "named.csv"):
        (tmp_path / name).write_bytes(packed)
    (tmp_path / f"cut.csv.{ending}").write_bytes(packed[: len(packed) // 2])
    nothing_written()
    for name in (f"a.csv.{ending}", "named.csv"):
        assert columns(Table.open(tmp_path / name)) == {"näme": ["é", "x"], "n": [1, None]}
    with pytest.raises(UserError, match=rf"cut\.csv\.{ending}' can't be read"):
        Table.open(tmp_path / f"cut.csv.{ending}")


@pytest.mark.parametrize("ending", ["xlsx", "orc", "avro"])
def test_folder_of_such_files_and_imports(ending: str, tmp_path: Path) -> None:
    from pyarrow import orc

    for i in range(2):
        (tmp_path / f"day={i}").mkdir()
        path = tmp_path / f"day={i}/t.{ending}"
        if ending == "xlsx":
            pd.DataFrame({"a": [1, 2]}).to_excel(path, index=False)
        elif ending == "orc":
            orc.write_table(pa.table({"a": [1, 2]}), path)
        else:
            with open(path, "wb") as file:
                fastavro.writer(
                    file,
                    {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]},
                    [{"a": 1}, {"a": 2}],
                )
    assert columns(Table.open(tmp_path)) == {"a": [1, 2, 1, 2], "day": [0, 0, 1, 1]}


def test_sources_import_nothing_heavy_before_they_are_used() -> None:
    code = """if True:
        import sys
        from sensorium.core.parts import find, names
        from sensorium.data.sources import Source, open_source
        open_source([{"a": 1}])
        [find(Source, name).accepts("none#none") for name in names(Source)]
        heavy = ("python_calamine", "duckdb", "sqlalchemy", "deltalake", "pyiceberg", "fastavro", "h5py")
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_extent_of_a_binary_sheet() -> None:
    from sensorium.data.sources import _sheets

    def record(kind: int, data: bytes) -> bytes:
        return bytes([kind, len(data)]) + data

    data = (
        record(0, (7).to_bytes(4, "little") + b"x" * 9)
        + record(2, (3).to_bytes(4, "little") + b"y" * 8)
        + record(3, (9).to_bytes(4, "little") + b"\x2a")
    )
    for size in (1, 7, 100):
        extent = _sheets._Extent()
        _sheets._xlsb([data[at : at + size] for at in range(0, len(data), size)], extent)
        assert (extent.rows, extent.columns, extent.errors) == (8, 10, 1)


def test_old_spreadsheets_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calamine ends its process at some damage of the old format."""
    import xlwt

    from sensorium.data.sources import _calamine

    book = xlwt.Workbook()
    sheet = book.add_sheet("A")
    for row in range(99):
        sheet.write(row, 0, f"text {row}")
    book.save(str(tmp_path / "a.xls"))
    assert Table.open(tmp_path / "a.xls").rows == 98
    line = '{"sheets": ["A"], "sheet": "A", "merged": [], "left": 0}'
    for said in ("", line, f"{line}\n[1", "none"):
        (tmp_path / "dies.py").write_text(f"import os\nprint({said!r}, flush=True)\nos.abort()\n")
        monkeypatch.setattr(_calamine, "__file__", str(tmp_path / "dies.py"))
        with pytest.raises(UserError, match=r"a\.xls' can't be read as a spreadsheet: it is damaged"):
            Table.open(tmp_path / "a.xls")
