"""The table that a server shows: whatever columns it has, their cells are JSON or a file."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import drawing

from sensorium.core.errors import UserError
from sensorium.data.table import Table
from sensorium.serve.table_view import TableView

KNOWN = {"picture": {"media": True}, "name": {"media": False}}


def odd() -> pa.Table:
    picture = drawing("red", "bar", 1)
    return pa.table({
        "name": ["a", None], "picture": [picture, None],
        "file": pa.array([{"bytes": b"hello", "path": "/x/y.txt"}, None],
                         pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "files": pa.array([[b"x"], []], pa.list_(pa.binary())), "long": ["x" * 5000, ""],
        "number": [float("nan"), float("inf")], "price": [decimal.Decimal("1.50"), None],
        "day": [datetime.date(2020, 1, 2), None], "far": pa.array([2**62, 0], pa.timestamp("ms")),
        "hour": [datetime.time(3), None], "deep": [[[1.0] * 900] * 900, None],
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "kind": pa.array(["u", "v"]).dictionary_encode(), "none": pa.nulls(2),
    })  # fmt: skip


def test_every_kind_of_column_is_listed(tmp_path: Path) -> None:
    pq.write_table(odd(), tmp_path / "odd.parquet")
    sheet = TableView(Table.open(tmp_path / "odd.parquet"), KNOWN)
    lines = sheet.lines([0, 1])
    text = json.dumps(lines, allow_nan=False)
    assert len(text) < 1_600_000 and "hello" not in text and "/x/y" not in text
    first = lines[0]["cells"]
    assert (
        first["name"],
        first["picture"],
        first["file"],
        first["files"],
        first["number"],
        first["price"],
        first["day"],
    ) == ("a", True, True, True, None, 1.5, "2020-01-02")
    assert len(first["long"]) == 2001 and lines[1]["cells"]["picture"] is False and first["kind"] == "u"
    for name in sheet.plain:
        if name not in ("deep", "map"):
            json.dumps(sheet.values(name), allow_nan=False)
    with pytest.raises(KeyError):
        sheet.values("deep")


def test_rows_are_given_as_the_model_sees_them_and_corrected(tmp_path: Path) -> None:
    pq.write_table(odd(), tmp_path / "odd.parquet")
    sheet = TableView(Table.open(tmp_path / "odd.parquet"), KNOWN)
    assert [set(row) for row in sheet.rows([1, 0], ["picture", "name"])] == [set(), {"picture", "name"}]
    sheet = TableView(Table.open(odd().select(["name", "picture"])), KNOWN)
    (tmp_path / "new.parquet").write_bytes(sheet.corrected("name", {1: "b"}))
    assert pq.read_table(tmp_path / "new.parquet").to_pylist() == [{"name": "b", "picture": None}]
    with pytest.raises(KeyError):
        sheet.corrected("picture", {0: "b"})


def test_a_table_that_is_gone_is_an_error_of_words(tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(odd(), path)
    sheet = TableView(Table.open(path), KNOWN)
    path.unlink()
    with pytest.raises(UserError):
        sheet.lines([0])
