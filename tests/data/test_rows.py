"""Every row of a source is a row of the table: what can't be read is told, in its place."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.core.errors import UserError
from sensorium.data.options import ReadOptions
from sensorium.data.schema import infer
from sensorium.data.table import Table


def cells(table: Table) -> dict[str, list]:
    return table.take(range(table.rows)).to_pydict()


def opened(path: Path, text: str, **options: object) -> Table:
    path.write_text(text)
    return Table.open(path, options=ReadOptions(**options))  # type: ignore[arg-type]


def test_lines_with_too_many_and_too_few_cells_stay_in_place(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", "a,b,c\n1,2,3\n4,5,6,7\n8,9\n10\n11,12,13\n")
    assert cells(table) == {"a": [1, None, 8, None, 11], "b": [2, None, 9, None, 12], "c": [3, None, None, None, 13]}
    assert {row: (bad.where, bad.reason) for row, bad in table.bad_rows.items()} == {
        1: ("t.csv, line 3", "4 cells where the header has 3"), 3: ("t.csv, line 5", "1 cells where the header has 3"),
    }  # fmt: skip
    assert any("1 line(s) lack their last cell" in note and "line 4" in note for note in table.notes)
    assert any("2 row(s) can't be read" in note and "line 3" in note for note in table.notes)
    some = table.select([3, 0])
    assert list(some.bad_rows) == [0] and some.good.tolist() == [False, True]


@pytest.mark.parametrize(
    "body", ['1,x\n2,"open\n3,y\n4,z\n', '1,x\n2,"open\n3,"y"\n4,z\n', '1,x\n2,"open\n3,y,"z\n4,z\n']
)
def test_an_open_quote_costs_its_own_line(body: str, tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", "a,b\n" + body)
    assert table.rows == 4 and 1 in table.bad_rows and table.bad_rows[1].where == "t.csv, line 3"
    found = cells(table)
    assert found["a"][0] == 1 and found["a"][3] == 4 and found["b"][3] == "z"
    assert "quote" in table.bad_rows[1].reason


def test_quoted_cells_of_several_lines_are_whole(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", 'a,b\n1,"two\nlines, and ""quotes"""\n2,5" pipe\n3,"x" y\n')
    assert cells(table) == {"a": [1, 2, 3], "b": ['two\nlines, and "quotes"', '5" pipe', "x y"]} and not table.bad_rows


def test_a_table_of_bad_rows_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row that can be read.*line 1"):
        opened(tmp_path / "t.jsonl", "[1]\n2\n")


@pytest.mark.parametrize(
    ("name", "text", "found", "bad"),
    [
        ("t.json", '{\n "a": 1,\n "b": [1, 2]\n}\n', {"a": [1], "b": [[1, 2]]}, []),
        ("t.json", '{"data": [{"a": 1}, {"a": 2}], "page": 1}', {"a": [1, 2]}, []),
        ("t.json", '{"type": "x", "features": [{"p": {"q": 1}}]}', {"p.q": [1]}, []),
        ("t.json", '[\n{"a": 1},\n{"a": 2}\n]', {"a": [1, 2]}, []),
        ("t.json", '{"a": 1}\n{"a": 2}\n', {"a": [1, 2]}, []),
        ("t.json", '{\n"a": 1\n}\n{\n"a": 2\n}\n', {"a": [1, 2]}, []),
        ("t.json", '[{"a": 1}, {"a": 2, "a": 3}, {"a": 4}]', {"a": [1, None, 4]}, [1]),
        ("t.json", '[{"a": 1}, {"a": ', {"a": [1, None]}, [1]),
        ("t.jsonl", '{"a": 1}\n{"a": 2, "a": 3}\n{"a": 4}\n', {"a": [1, None, 4]}, [1]),
        ("t.jsonl", '{"a": \n{"a": 2}\n{"a": 3}\n', {"a": [None, 2, 3]}, [0]),
        ("t.jsonl", '\n\n{"a": 1}\n', {"a": [1]}, []),
        ("t.json", '{"messages": [{"role": "user", "content": "x"}]}',
        {"messages": [[{"role": "user", "content": "x"}]]}, []),
    ],
)  # fmt: skip
def test_json_of_any_shape(name: str, text: str, found: dict, bad: list[int], tmp_path: Path) -> None:
    table = opened(tmp_path / name, text)
    assert cells(table) == found and list(table.bad_rows) == bad
    if "data" in text:
        assert any("taken from 'data'" in note and "'page'" in note for note in table.notes)
    if bad and text.count("\n") > 2:
        assert "line " in table.bad_rows[bad[0]].where


def test_too_many_columns_and_too_long_lines_name_their_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.max_columns=10"):
        opened(tmp_path / "t.csv", ",".join(map(str, range(11))) + "\n", max_columns=10)
    with pytest.raises(UserError, match=r"data\.max_columns=10"):
        opened(tmp_path / "t.jsonl", "".join(json.dumps({f"k{i}": i}) + "\n" for i in range(11)), max_columns=10)
    with pytest.raises(UserError, match=r"data\.max_columns=10"):
        Table.open({f"k{i}": [i] for i in range(11)}, options=ReadOptions(max_columns=10))
    for name, text in (("t.csv", "a\n" + "x" * 2000), ("t.jsonl", '{"a": "' + "x" * 2000 + '"}')):
        with pytest.raises(UserError, match=r"data\.max_cell_mb=0.001"):
            opened(tmp_path / name, text, max_cell_mb=0.001)


def test_many_sparse_keys_are_columns(tmp_path: Path) -> None:
    rows = [{f"k{i}": i, "all": str(i)} for i in range(300)]
    table = opened(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = cells(table)
    assert len(found) == 301 and found["all"] == [str(i) for i in range(300)]
    assert all(found[f"k{i}"] == [i if j == i else None for j in range(300)] for i in (0, 7, 299))


def test_members_of_a_sample_may_lie_apart_and_be_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as shard:

        def add(name: str, data: bytes = b"", link: str = "", kind: bytes = tarfile.REGTYPE) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, link
            shard.addfile(info, io.BytesIO(data))

        add("a/0.txt", b"zero")
        add("a/1.txt", b"one")
        add("a/0.jpg", b"\xff\xd8\xffpicture")
        add("a/1.jpg", link="a/0.jpg", kind=tarfile.LNKTYPE)
        add("a/2.jpg", link="0.jpg", kind=tarfile.SYMTYPE)
        add("README")
    table = Table.open(tmp_path / "t.tar.gz")
    assert cells(table) == {
        "__key__": ["a/0", "a/1", "a/2"], "text": ["zero", "one", None], "image": [b"\xff\xd8\xffpicture"] * 3,
    }  # fmt: skip
    assert any("1 file(s) without an ending" in note for note in table.notes)


def test_codes_stay_as_they_are_written(tmp_path: Path) -> None:
    text = (
        "icd,version,part,price,phone,kind\n049.96,3.9,10E4,2.50,+4917012345,1.50\n250.00,3.10,1e5,13,+441234567,2.00\n"
    )
    table = opened(tmp_path / "t.csv", text, as_written=frozenset(["kind"]))
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "string", "double", "string", "string"]
    assert (
        cells(table)["kind"] == ["1.50", "2.00"] and "3.10" in table.remarks["version"] and "price" not in table.remarks
    )


def test_folders_say_what_they_saw(tmp_path: Path) -> None:
    for year in (2023, 2024):
        (tmp_path / f"h/year={year}/town=A%20B").mkdir(parents=True)
        pq.write_table(pa.table({"n": [year, 1]}), tmp_path / f"h/year={year}/town=A%20B/0.parquet")
    (tmp_path / "h/_SUCCESS").touch()
    (tmp_path / "h/notes.bin").write_bytes(b"x")
    table = Table.open(tmp_path / "h")
    assert cells(table) == {"n": [2023, 1, 2024, 1], "year": [2023, 2023, 2024, 2024], "town": ["A B"] * 4}
    assert any("1 file(s) of kinds that aren't read were passed over: 1 .bin" in note for note in table.notes)
    for path in ("m/cat/a.png", "m/dog/b.jfif", "m/dog/c", "m/dog/d.xyz"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"\xff\xd8\xff" + b"0" * 20 if path != "m/dog/d.xyz" else b"nothing")
    table = Table.open(tmp_path / "m")
    assert cells(table) == {"image": ["cat/a.png", "dog/b.jfif", "dog/c"], "label": ["cat", "dog", "dog"]}
    assert any("1 .xyz" in note for note in table.notes)


def test_rows_from_python() -> None:
    assert Table.open({"note": "a red thing"}).rows == Table.open({"weight": 5.0, "x": None}).rows == 1
    assert Table.open({"photo": b"abc", "curve": [1.0, 2.0]}).take([0]).to_pylist() == [
        {"photo": b"abc", "curve": [1.0, 2.0]}
    ]
    assert Table.open({"photo": {"bytes": b"x", "path": None}}).rows == 1
    assert Table.open({"a": [1, 2], "b": np.array([3.0, 4.0])}).rows == 2
    assert Table.open([{}]).rows == 1 and Table.open([{}, {"a": 1}]).rows == 2 and Table.open([]).rows == 0
    assert Table.open(pd.DataFrame(index=range(3))).rows == 3
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    table = Table.open(frame)
    assert cells(table) == {"a.x": [1], "a.y": [2]} and any("joined by dots" in note for note in table.notes)


def test_structs_open_into_columns_and_odd_types_are_one_columns_matter(tmp_path: Path) -> None:
    table = pa.table({
        "place": pa.array([{"lat": 1.5, "name": {"en": "x"}}, None]),
        "photo": pa.array([{"bytes": b"p", "path": None}] * 2),
        "lasts": pa.array([90, None], pa.duration("s")),
        "span": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        "when": pa.array([0, 1], pa.timestamp("ms", "Europe/Berlin")),
        "view": pa.array([[1.0], [2.0, 3.0]], pa.list_view(pa.float64())),
        "union": pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    })  # fmt: skip
    opened = Table.open(table)
    found = cells(opened)
    assert (
        found["place.lat"] == [1.5, None] and found["place.name.en"] == ["x", None] and found["lasts"] == [90.0, None]
    )
    assert (
        found["photo"][0] == {"bytes": b"p", "path": None}
        and found["view"] == [[1.0], [2.0, 3.0]]
        and found["union"] == ["1", "b"]
    )
    assert found["span"] == [None, None] and "can't be read" in infer(opened).left_out["span"]
    assert found["when"][0].isoformat() == "1970-01-01T01:00:00+01:00" and "seconds" in opened.remarks["lasts"]
    periods = Table.open(
        pd.DataFrame(
            {"m": pd.period_range("2015-01", periods=2, freq="M"), "q": pd.period_range("2015Q1", periods=2, freq="Q")}
        )
    )
    assert [str(cell)[:10] for cell in (*cells(periods)["m"], *cells(periods)["q"])] == [
        "2015-01-01",
        "2015-02-01",
        "2015-01-01",
        "2015-04-01",
    ]
    for freq in ("W", "W-SAT", "W-MON", "Q-JAN", "Y", "Y-JUN", "2M", "h", "min", "D"):
        some = pd.period_range("2024-01-10", periods=2, freq=freq)
        assert cells(Table.open(pd.DataFrame({"p": some})))["p"] == [
            period.start_time.to_pydatetime() for period in some
        ], freq


def test_deep_nesting_is_text(tmp_path: Path) -> None:
    table = opened(tmp_path / "t.csv", "a,n\n" + "[" * 1100 + "]" * 1100 + ",1\n[3],2\n")
    assert table.rows == 2 and cells(table)["a"][1] == "[3]" and infer(table, targets=["a"]).columns
    deep: list = []
    for _ in range(60):
        deep = [deep]
    assert Table.open([{"a": deep}, {"a": "x"}]).take([1])["a"].to_pylist() == ["x"]


def test_damaged_and_changed_files_are_told(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": list(range(400))}),
        tmp_path / "t.parquet",
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[500] ^= 1
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        list(Table.open(tmp_path / "t.parquet").batches())
    with pa.ipc.new_file(tmp_path / "t.arrow", pa.schema({"a": pa.int64()})) as writer:
        for start in range(0, 4000, 1000):
            writer.write_batch(pa.record_batch({"a": list(range(start, start + 1000))}))
    table = Table.open(tmp_path / "t.arrow")
    os.truncate(tmp_path / "t.arrow", 4096)
    with pytest.raises(UserError, match="was changed"):
        list(table.batches())
    with pa.ipc.new_stream(tmp_path / "n.arrows", pa.schema({"nameXX": pa.int64()})) as writer:
        writer.write_batch(pa.record_batch({"nameXX": [1]}))
    (tmp_path / "n.arrows").write_bytes((tmp_path / "n.arrows").read_bytes().replace(b"nameXX", b"name\xff\xfe"))
    with pytest.raises(UserError, match=r"n\.arrows"):
        Table.open(tmp_path / "n.arrows")


def test_far_dates_of_int96_are_what_they_are(tmp_path: Path) -> None:
    when = pa.array(["9999-12-31T00:00:00", "2020-01-01T00:00:00"]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"t": when}), tmp_path / "t.parquet", use_deprecated_int96_timestamps=True)
    assert [str(cell)[:10] for cell in cells(Table.open(tmp_path / "t.parquet"))["t"]] == ["9999-12-31", "2020-01-01"]


def test_a_dictionary_is_decoded_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensorium.data.blocks.BATCH_BYTES", 1 << 20)
    monkeypatch.setattr("sensorium.data.table.BATCH_BYTES", 1 << 20)
    cell = os.urandom(300_000)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int32()), pa.array([cell]))
    pq.write_table(
        pa.table({"a": column.dictionary_decode()}), tmp_path / "t.parquet", dictionary_pagesize_limit=1 << 30
    )
    assert (tmp_path / "t.parquet").stat().st_size < 1 << 20
    sizes = [batch.nbytes for _, batch in Table.open(tmp_path / "t.parquet").batches()]
    assert max(sizes) <= 2 << 20 and sum(sizes) >= 100 * len(cell)
