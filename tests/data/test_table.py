"""Tables: every format gives the same cells, rows can be taken in any order, and nothing hostile crashes or leaks."""

from __future__ import annotations

import csv
import gzip
import json
import math
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from table_helpers import columns, write_tar

from sensorium.core.errors import BadCell, UserError
from sensorium.data.hashes import row_hashes
from sensorium.data.options import ReadOptions
from sensorium.data.table import Table

# A letter in front keeps a text from looking like a number or a missing cell once it is in a CSV.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(lambda text: "t" + text)
FLOAT = st.floats(allow_nan=False, allow_infinity=True, width=32)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | TEXT,
            "whole": st.none() | st.integers(-(10**15), 10**15),
            "real": st.none() | FLOAT,
            "truth": st.none() | st.booleans(),
            "series": st.none() | st.lists(FLOAT, min_size=1, max_size=4),
            "matrix": st.none() | st.lists(st.tuples(FLOAT, FLOAT).map(list), min_size=1, max_size=3),
        }
    ),
    min_size=1,
    max_size=12,
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("whole", pa.int64()),
        ("real", pa.float64()),
        ("truth", pa.bool_()),
        ("series", pa.list_(pa.float64())),
        ("matrix", pa.list_(pa.list_(pa.float64(), 2))),
    ]
)


def write_csv(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: json.dumps(v) if isinstance(v, (list, bool)) else v for k, v in row.items()})


def in_every_format(rows: list[dict], folder: Path) -> dict[str, Table]:
    arrow = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(arrow, folder / "t.parquet", row_group_size=5)
    with pa.ipc.new_file(folder / "t.arrow", arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=4)
    with pa.ipc.new_stream(folder / "s.arrows", arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=3)
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_csv(folder / "t.csv", rows)
    (folder / "t.csv.gz").write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    write_tar(folder / "t.tar", [(f"{i:03}.json", json.dumps(row).encode()) for i, row in enumerate(rows)])
    given_ = {
        **{path.name: path for path in sorted(folder.iterdir())},
        "list": rows,
        "dict": {name: [row[name] for row in rows] for name in rows[0]},
        "arrow": arrow,
        "reader": arrow.to_reader(3),
        "pandas": pd.DataFrame(rows),
        "polars": pl.from_arrow(arrow),
    }
    return {name: Table.open(source) for name, source in given_.items()}


@settings(max_examples=12, deadline=None)
@given(ROWS)
def test_every_format_gives_the_same_cells_and_hashes(rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = in_every_format(rows, Path(folder))
        wanted, hashes = columns(tables["t.parquet"]), row_hashes(tables["t.parquet"], list(rows[0]))
        for name in rows[0]:
            assert wanted[name] == [row[name] for row in rows]
        for format_, table in tables.items():
            found = columns(table)
            assert {name: found.get(name, [None] * len(rows)) for name in wanted} == wanted, format_
            have = [name for name in wanted if name in table.columns]
            assert (row_hashes(table, have[::-1]) == hashes).all(), format_
        assert len(set(hashes.tolist())) == len(
            {json.dumps(row, sort_keys=True).replace("-0.0", "0.0") for row in rows}
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12), st.data())
def test_take_and_select_are_batches_in_another_order(rows: int, group: int, size: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = pa.table({"n": pa.array(range(rows), pa.int64()), "s": [f"row {i}" for i in range(rows)]})
        for i, part in enumerate((source.slice(0, rows // 3), source.slice(rows // 3))):
            pq.write_table(part, Path(folder) / f"{i}.parquet", row_group_size=group)
        for table in (Table.open(f"{folder}/*.parquet"), Table.open(source)):
            batches = list(table.batches(size))
            assert [row for row, _ in batches] == list(range(0, rows, size))
            assert all(batch.num_rows == size for _, batch in batches[:-1])
            assert [n for _, batch in batches for n in batch["n"].to_pylist()] == list(range(rows))
            wanted = data.draw(st.lists(st.integers(0, rows - 1), max_size=30)) if rows else []
            assert table.take(wanted, ["s"]).to_pydict() == {"s": [f"row {i}" for i in wanted]}
            view = table.select(wanted)
            assert [n for _, batch in view.batches(size) for n in batch["n"].to_pylist()] == wanted
            assert view.starts[-1] == len(wanted) == view.rows
            assert table.take(wanted, []).num_rows == len(wanted)
            assert sum(batch.num_rows for _, batch in view.batches(size, [])) == len(wanted)
            if wanted:
                again = data.draw(st.lists(st.integers(0, len(wanted) - 1), max_size=9))
                assert view.select(again).take(range(len(again)))["n"].to_pylist() == [wanted[i] for i in again]
            mask = np.arange(rows) % 3 == 1
            assert columns(table.select(mask))["n"] == list(range(1, rows, 3))


def test_only_the_row_groups_that_hold_the_rows_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(100), "other": range(100)}), tmp_path / "t.parquet", row_group_size=10)
    table, read = Table.open(tmp_path / "t.parquet"), []
    stream = table._blocks.stream
    table._blocks.stream = lambda block, names, size: (read.append((block, tuple(names))), stream(block, names, size))[
        1
    ]
    assert table.take([95, 12, 15], ["n"])["n"].to_pylist() == [95, 12, 15]
    assert read == [(1, ("n",)), (9, ("n",))]


def test_a_mask_or_row_that_does_not_fit_is_an_error() -> None:
    table = Table.open({"a": [1, 2, 3]})
    for wrong in ([3], [-1]):
        with pytest.raises(IndexError):
            table.take(wrong)
        with pytest.raises(IndexError):
            table.select(wrong)
    with pytest.raises(IndexError):
        table.select(np.array([True]))
    with pytest.raises(UserError, match="Unknown column 'A'"):
        list(table.batches(columns=["A"]))


def test_csv_column_that_turns_to_text_late_keeps_what_was_written(tmp_path: Path) -> None:
    rows = 20_000
    lines = "\n".join(f"{i},{i}.50,0{i % 10}" for i in range(rows))
    (tmp_path / "t.csv").write_text(f"late,real,code\n{lines}\nx,1.0,7\n")
    table = Table.open(tmp_path / "t.csv")
    assert [str(kind) for kind in table.schema.types] == ["string", "double", "string"]
    assert table.take([5, rows]).to_pydict() == {"late": ["5", "x"], "real": [5.5, 1.0], "code": ["05", "7"]}


def test_csv_words_for_missing_count_only_among_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,country,all\n1,NA,NA\nNA,DE,\n , ,null\n")
    table = Table.open(tmp_path / "t.csv")
    assert columns(table) == {"n": [1, None, None], "country": ["NA", "DE", " "], "all": [None, None, None]}


@pytest.mark.parametrize(
    "text, kinds",
    [
        ("a;b\n1;2,5\n", ["int64", "string"]),
        ("a\tb\n1\tx,y\n", ["int64", "string"]),
        ("a|b\ntrue|1e3\n", ["bool", "double"]),
        ('"a,x",b\n-1,99999999999999999999\n', ["int64", "string"]),
        ("a,b\n+3,-inf\n", ["int64", "double"]),
        ('a,b\n[1],"[[1,2],[3,nan]]"\n', ["list<element: int64>", "list<element: list<element: double>>"]),
    ],
)
def test_csv_delimiters_and_types(text: str, kinds: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert [str(kind).replace("item", "element") for kind in Table.open(tmp_path / "t.csv").schema.types] == kinds


def test_csv_bom_bad_bytes_nul_and_torn_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(
        b'\xef\xbb\xbfa,b\r\n1,caf\xe9\r\n2,"x\r\n\0y"\r\n3\r\n\r\n4,5,6\r\n5,\xed\xa0\x80\r\n'
    )
    table = Table.open(tmp_path / "t.csv")
    assert columns(table) == {"a": [1, 2, 3, None, 5], "b": ["caf\ufffd", "x\r\n\0y", None, None, "\ufffd" * 3]}
    assert table.repaired == {"b": 2}
    assert {row: bad.reason for row, bad in table.bad_rows.items()} == {3: "3 cells where the header has 2"}
    assert any("1 line(s) lack their last cell" in note and "line 5" in note for note in table.notes), table.notes
    (tmp_path / "u.csv").write_bytes("a,b\nä,1\n".encode("utf-16"))
    assert columns(Table.open(tmp_path / "u.csv")) == {"a": ["ä"], "b": [1]}


def test_csv_ten_megabyte_cell_and_open_quote(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    (tmp_path / "t.csv").write_text(f'a,b\n"{"x" * 10_000_000}",1\n')
    assert len(columns(Table.open(tmp_path / "t.csv"))["a"][0]) == 10_000_000
    (tmp_path / "t.csv").write_text('a,b\n1,2\n3,"' + "x,y\n" * 1000)
    table = Table.open(tmp_path / "t.csv", options=ReadOptions(max_cell_mb=0.001))
    assert table.rows == 1001 and list(table.bad_rows) == [1] and "line 3" in table.bad_rows[1].where
    with pytest.raises(UserError, match="data.max_cell_mb"):
        (tmp_path / "t.csv").write_text("a,b\n1," + "x" * 2000)
        Table.open(tmp_path / "t.csv", options=ReadOptions(max_cell_mb=0.001))
    assert csv.field_size_limit() == limit


def test_json_lines_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(
        b'\xef\xbb\xbf{"a": 1, "b": [1, 2]}\n\n{"a": "x\\ud800\xff", "b": [1.5, null]}\n[1]\n{"a": \n'
        + b"[" * 100_000
        + b'\n{"c": {"path": "x.png"}, "a": 2.0}\n{"c": null, "d": {}, "e": NaN, "f": 1'
        + b"0" * 30
        + b"}\n"
    )
    table = Table.open(tmp_path / "t.jsonl")
    found = columns(table)
    assert found["a"] == ["1", "x\ufffd\ufffd", None, None, None, "2", None]
    assert found["b"][0] == [1, 2] and found["b"][1][0] == 1.5 and math.isnan(found["b"][1][1])
    assert found["c.path"] == [None] * 5 + ["x.png", None] and found["d"] == found["e"] == [None] * 7
    assert list(table.bad_rows) == [2, 3, 4] and table.repaired == {"a": 1}
    (tmp_path / "t.json").write_text('[{"a": 1}, 2, {"a": 3}]')
    assert columns(Table.open(tmp_path / "t.json")) == {"a": [1, None, 3]}


def test_types_that_grow_over_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.data.objects.PIECE_ROWS", 2)
    values = [None, None, 1, 2, 2.5, None, "x", 7, True, [1], None]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"v": v, "n": i}) + "\n" for i, v in enumerate(values)))
    found = columns(Table.open(tmp_path / "t.jsonl"))
    assert found["v"] == [None, None, "1", "2", "2.5", None, "x", "7", "true", "[1]", None]
    assert found["n"] == list(range(11))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"v": v}) + "\n" for v in [1, 2, [1], [2], [2.5], [[1]]]))
    assert columns(Table.open(tmp_path / "m.jsonl"))["v"] == ["1", "2", "[1]", "[2]", "[2.5]", "[[1]]"]


@pytest.mark.parametrize(
    "name, data, names",
    [
        ("t.csv", b"", []),
        ("t.csv", b"\xef\xbb\xbf", []),
        ("t.csv", b"a,b\n", ["a", "b"]),
        ("t.csv", b"a", ["a"]),
        ("t.tsv", b"a\tb\n", ["a", "b"]),
        ("t.jsonl", b"", []),
        ("t.jsonl", b"\n\n", []),
        ("t.json", b"[]", []),
        ("t.tar", b"", []),
    ],
)
def test_empty_files_are_tables_without_rows(name: str, data: bytes, names: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    table = Table.open(tmp_path / name)
    assert table.rows == 0 and table.columns == names
    assert list(table.batches()) == [] and table.take([]).num_rows == 0 and len(row_hashes(table, names)) == 0


def test_empty_things_in_memory() -> None:
    arrow = pa.table({"a": pa.array([], "int8")})
    for source in (
        [],
        {},
        {"a": []},
        pd.DataFrame(),
        pd.DataFrame({"a": []}),
        pl.DataFrame(),
        arrow,
        arrow.to_reader(),
    ):
        table = Table.open(source)
        assert table.rows == 0 and list(table.batches()) == []


def test_empty_parquet_and_arrow(tmp_path: Path) -> None:
    empty = pa.table({"a": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", empty.schema):
        pass
    with pa.ipc.new_stream(tmp_path / "s.arrow", empty.schema):
        pass
    for name in ("t.parquet", "t.arrow", "s.arrow"):
        table = Table.open(tmp_path / name)
        assert table.rows == 0 and table.columns == ["a"]


def test_columns_of_one_name_are_refused_everywhere(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    (tmp_path / "t.jsonl").write_text('{"a": 1, "a": 2}\n')
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", twice.schema) as writer:
        writer.write_table(twice)
    with pa.ipc.new_stream(tmp_path / "s.arrow", twice.schema) as writer:
        writer.write_table(twice)
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    for source in (*sorted(tmp_path.iterdir()), twice, twice.to_reader(), twice.to_batches()[0], frame):
        with pytest.raises(UserError, match="'a'"):
            Table.open(source)


@pytest.mark.parametrize(
    "name, data",
    [
        ("t.parquet", b""),
        ("t.parquet", b"PAR1 not really PAR1"),
        ("t.arrow", b""),
        ("t.arrow", b"ARROW1\0\0 torn"),
        ("t.arrow", b"\xff\xff\xff\xff\x10\0\0\0 torn"),
        ("t.csv.gz", b"\x1f\x8b torn"),
        ("t.tar", b"no tar at all" * 100),
        ("t.jsonl.xz", b"nothing"),
        ("t.json", b"[1, "),
        ("t.feather", b"FEA1"),
        ("t.xlsx", b"PK"),
        ("t", b"a,b"),
    ],
)
def test_damaged_or_unknown_files_say_so(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="t"):
        Table.open(tmp_path / name)


def test_things_that_are_no_table() -> None:
    for source in (
        7,
        "x" * 5000,
        "a\0b",
        "~nobody-here/t.csv",
        "nowhere.csv",
        "no/*.parquet",
        ["gone.csv"],
        [1, 2],
        None,
    ):
        with pytest.raises(UserError):
            Table.open(source)
    with pytest.raises(UserError, match="different lengths"):
        Table.open({"a": [1], "b": [1, 2]})
    with pytest.raises(UserError, match=r"'x' holds a .*threading"):
        Table.open([{"x": 1}, {"x": threading.Thread()}])


def test_kinds_of_files_are_not_mixed_but_files_of_a_kind_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [1.5], "c": [[1, 2]]}), tmp_path / "1.parquet")
    table = Table.open(tmp_path.as_posix() + "/*.parquet")
    assert columns(table) == {"a": [1, 2, 1.5], "b": ["x", "y", None], "c": [None, None, [1, 2]]}
    assert Table.open(sorted(tmp_path.iterdir())).rows == 3 and table.folder == tmp_path.resolve()
    assert [batch.num_rows for _, batch in table.batches(2, [])] == [2, 1]
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match="can't mix"):
        Table.open(tmp_path.as_posix() + "/*")


def test_a_damaged_row_group_is_named_when_it_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.table({"a": ["x" * 100 + str(i) for i in range(3000)]}),
        path,
        row_group_size=1000,
        compression="zstd",
        use_dictionary=False,
    )
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    table = Table.open(path)
    assert table.take([999]).num_rows == 1
    with pytest.raises(UserError, match="near row 1,000"):
        table.take([1500])


def test_a_hostile_arrow_file_cannot_point_outside_its_buffers(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    good = pa.table({"s": ["ab", "cde"]})
    with pa.ipc.new_file(path, good.schema) as writer:
        writer.write_table(good)
    offsets = np.array([0, 2, 5], np.int32).tobytes()
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, np.array([0, 2, 1 << 30], np.int32).tobytes()))
    with pytest.raises(UserError, match="can't be read"):
        list(Table.open(tmp_path / "t.arrow").batches())


def test_text_in_parquet_that_is_no_utf8_is_mended_and_counted_once(tmp_path: Path) -> None:
    bad = pa.array([b"ok", b"caf\xe9", None]).view(pa.string())
    inner = pa.array([b"\xff", b"a", None]).view(pa.string())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 3, 3]), inner)
    pq.write_table(pa.table({"s": bad, "l": nested}), tmp_path / "t.parquet")
    table = Table.open(tmp_path / "t.parquet")
    for _ in range(2):
        assert columns(table) == {"s": ["ok", "caf\ufffd", None], "l": [["\ufffd"], ["a", None], []]}
    assert table.repaired == {"s": 1, "l": 1}


def test_types_are_made_few() -> None:
    import datetime
    import decimal

    table = Table.open(
        pa.table(
            {
                "large": pa.array(["a", None], pa.large_string()),
                "view": pa.array(["a", "b"], pa.string_view()),
                "dict": pa.array(["a", "b"]).dictionary_encode(),
                "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
                "decimal": pa.array([decimal.Decimal("1.5"), None]),
                "half": pa.array([np.float16(1.5), None], pa.float16()),
                "when": pa.array([1, 2_000_000_001], pa.timestamp("ns", "Europe/Berlin")),
                "day": pa.array([1, None], pa.date32()),
                "far": pa.array([2**62, 0], pa.timestamp("us")),
                "floats": pa.array([[1.0, None], None], pa.list_(pa.float32(), 2)),
                "lists": pa.array([[["a"]], []], pa.large_list(pa.list_(pa.large_string()))),
                "runs": pa.array([5, 5]),
            }
        ).set_column(11, "runs", pa.chunked_array([pa.RunEndEncodedArray.from_arrays([2], [5])]))
    )
    found = columns(table)
    kinds = {
        name: str(table.schema.field(name).type)
        for name in ("large", "view", "dict", "fixed", "decimal", "half", "when")
    }
    assert kinds == {
        "large": "string",
        "view": "string",
        "dict": "string",
        "fixed": "binary",
        "decimal": "double",
        "half": "float",
        "when": "timestamp[us, tz=Europe/Berlin]",
    }
    assert table.declared == {"dict"} and found["runs"] == [5, 5] and found["lists"] == [[["a"]], []]
    assert found["day"] == [datetime.date(1970, 1, 2), None] and found["decimal"] == [1.5, None]
    assert isinstance(found["far"][0], BadCell) and found["far"][1] == datetime.datetime(1970, 1, 1)
    assert found["floats"][0][0] == 1 and math.isnan(found["floats"][0][1]) and found["floats"][1] is None


def test_series_are_arrays_without_a_copy_where_possible() -> None:
    series, matrices = [[1.0, 2.0], None, [], [3.0]], [[[1, 2], [3, None]], [[1], [2, 3]], None, []]
    table = Table.open(pa.table({"s": series, "m": matrices}))
    ((_, batch),) = table.batches()
    cells = list(table.cells(batch.slice(0), "s", False))
    assert [None if cell is None else cell.tolist() for cell in cells] == [[1, 2], None, [], [3]]
    assert np.shares_memory(cells[0], batch["s"].values.to_numpy())
    assert [cell.tolist() for cell in table.cells(batch.slice(3), "s", False)] == [[3]]
    matrices = list(table.cells(batch, "m", False))
    assert matrices[0].shape == (2, 2) and math.isnan(matrices[0][1, 1])
    assert [part.tolist() for part in matrices[1]] == [[1], [2, 3]] and matrices[2] is None and matrices[3].size == 0
    gaps = Table.open({"m": [[[1.0, 2.0], None, [3.0, 4.0]]]})
    ((_, batch),) = gaps.batches()
    assert np.isnan(next(iter(gaps.cells(batch, "m", False)))[1]).all()


def test_pandas_of_all_kinds() -> None:
    frame = pd.DataFrame(
        {
            "mixed": ["a", 1, None],
            "lone": pd.Series(["a\ud800", "b", np.nan], dtype=object),
            "cat": pd.Categorical(["x", "y", "x"]),
            "when": pd.to_datetime(["2020-01-01", None, "2020-01-02"]),
            "image": [np.zeros((2, 3)), None, np.ones((2, 3))],
            "na": pd.array([1, None, 3], "Int64"),
            "path": [Path("a.png"), b"x", None],
            7: [1.5, np.nan, 2],
        }
    )
    frame.index = pd.Index([5, 6, 7], name="key")
    table = Table.open(frame)
    found = columns(table)
    assert (
        found["mixed"] == ["a", "1", None]
        and found["lone"] == ["a\ufffd", "b", None]
        and found["cat"] == ["x", "y", "x"]
    )
    assert found["image"][0] == [[0] * 3] * 2 and found["na"] == [1, None, 3] and found["7"] == [1.5, None, 2]
    assert found["path"] == [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": None}, None]
    assert found["key"] == [5, 6, 7] and table.declared == {"cat"} and table.repaired == {"lone": 1}


def test_views_share_files_and_threads_read_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(5000)}), tmp_path / "t.parquet", row_group_size=100)
    table, wrong = Table.open(tmp_path / "t.parquet"), []

    def read(seed: int) -> None:
        rows = np.random.default_rng(seed).integers(0, 5000, 300)
        for _ in range(5):
            if table.take(rows)["n"].to_pylist() != rows.tolist():
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_converted_files_go_when_the_process_ends_or_was_killed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    cache = tmp_path / "cache"
    code = f"""if True:
        import os, sys
        from sensorium.data.table import Table
        table = Table.open({str(tmp_path / "t.csv")!r})
        assert len(list(os.scandir({str(cache)!r}))) == 1, os.listdir({str(cache)!r})
        if sys.argv[1] == "fork" and os.fork() == 0:
            sys.exit()
        if sys.argv[1] == "fork":
            os.wait()
            assert table.take([0]).num_rows == 1
        if sys.argv[1] == "kill":
            os.kill(os.getpid(), 9)
    """
    left = []
    for way in ("end", "kill", "fork"):
        here = {"SENSORIUM_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", code, way], env=here, check=way != "kill")
        left.append(len(list(cache.iterdir())))
    assert left == [0, 1, 0]


def test_a_converted_file_goes_with_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.csv").write_text("a\n1\n")
    table = Table.open(tmp_path / "t.csv")
    view = table.select([0])
    del table
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 1 and columns(view) == {"a": [1]}
    del view
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"b": 1, "c": 2}\n')
    with pytest.raises(UserError, match=r"data\.max_columns=2"):
        Table.open(tmp_path / "t.jsonl", options=ReadOptions(max_columns=2))
    assert not list((tmp_path / "cache").rglob("table-*"))


def test_rows_without_columns_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a.b": 1, "a": {"b": 2}}\n' * 10)
    for source in (tmp_path / "t.jsonl", {"a": list(range(10))}):
        table = Table.open(source)
        assert [batch.num_rows for _, batch in table.batches(4, [])] == [4, 4, 2]
        assert [batch.num_rows for _, batch in table.select([9, 1, 1]).batches(2, [])] == [2, 1]
    assert columns(Table.open(tmp_path / "t.jsonl")) == {"a.b": [1] * 10, "a": [{"b": 2}] * 10}


def test_a_linked_table_keeps_its_folder(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "blobs/0a").write_text("image\nx.png\n")
    (tmp_path / "here/x.png").write_bytes(b"data")
    (tmp_path / "here/t.csv").symlink_to(tmp_path / "blobs/0a")
    assert columns(Table.open(tmp_path / "here/t.csv"), ("image",)) == {"image": [b"data"]}


def test_opening_a_table_does_not_import_torch(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    code = (
        "import sys; from sensorium.data.table import Table; Table.open(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.parquet")], check=True)
