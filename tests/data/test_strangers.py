"""Files as strangers have them: shapes of JSON, dialects of CSV, damaged archives, and columns that are not what
they seem."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sensorium.core.errors import UserError
from sensorium.data.options import ReadOptions
from sensorium.data.schema import infer
from sensorium.data.table import Table


def cells(table: Table) -> dict[str, list]:
    return table.take(range(table.rows)).to_pydict()


ROWS = [{"name": f"n{i}", "n": i} for i in range(20)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS[:5]) + "\n" + json.dumps(ROWS[5:]), pd.DataFrame(ROWS).to_json(),
        pd.DataFrame(ROWS).to_json(orient="split"),
        pd.DataFrame(ROWS).to_json(orient="index"),
        json.dumps({"name": [r["name"] for r in ROWS], "n": list(range(20))}),
        json.dumps({"result": {"data": ROWS}}), json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(r, indent=1) for r in ROWS),
    ],
)  # fmt: skip
def test_json_documents_of_any_shape_are_their_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    assert cells(Table.open(tmp_path / "t.json")) == {"name": [r["name"] for r in ROWS], "n": list(range(20))}


def test_parts_of_a_split_and_broken_beginnings_of_json(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"train": ROWS[:3], "test": ROWS[3:5]}))
    assert cells(Table.open(tmp_path / "t.json"))["split"] == ["train"] * 3 + ["test"] * 2
    (tmp_path / "t.jsonl").write_text('{"a":1\n{"a":2\n' + '{"a":3}\n' * 30)
    table = Table.open(tmp_path / "t.jsonl")
    assert table.rows == 32 and list(table.bad_rows) == [0, 1]
    (tmp_path / "e.jsonl").write_text("{}\n{}\n{}\n")
    assert Table.open(tmp_path / "e.jsonl").rows == 3
    (tmp_path / "rest.json").write_text(json.dumps(ROWS) + "\nxxxx")
    table = Table.open(tmp_path / "rest.json")
    assert table.rows == 21 and list(table.bad_rows) == [20]


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("a, b, c\n" + "".join(f'{i}, "x, y{i}", 4\n' for i in range(20)), ["a", "b", "c"], 20),
        ("a,b\n" + "".join(f'{i},"he said \\"hi\\", {i}"\n' for i in range(20)), ["a", "b"], 20),
        ("a,b\n" + "".join(f"{i},'x, y{i}'\n" for i in range(20)), ["a", "b"], 20),
        ("Sales of 2020\n\na,b\n" + "".join(f"x{i},{i}\n" for i in range(20)), ["a", "b"], 20),
        ("# made by us\na,b\n" + "".join(f"x{i},{i}\n" for i in range(20)), ["a", "b"], 20),
        ("#a,b\n" + "".join(f"x{i},{i}\n" for i in range(20)), ["#a", "b"], 20),
        ("a,b\n" + "".join(f"x{i},{i},,\n" for i in range(20)), ["a", "b"], 20),
        ("a,b\n   \n1,2\n", ["a", "b"], 1),
    ],
)  # fmt: skip
def test_csv_is_read_in_its_own_dialect(text: str, columns: list[str], rows: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    table = Table.open(tmp_path / "t.csv")
    assert table.columns == columns and table.rows == rows and not table.bad_rows
    assert not any(
        cell.startswith(("'", '"')) for batch in cells(table).values() for cell in batch if isinstance(cell, str)
    )


def test_rows_that_do_not_fit_are_not_shifted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("price,qty\n" + "".join(f"{i % 3},0{i % 7},{i}\n" for i in range(20)))
    with pytest.raises(UserError, match="no row that can be read"):
        Table.open(tmp_path / "t.csv")
    (tmp_path / "t.tsv").write_text("a,b\n1,2\n")
    assert Table.open(tmp_path / "t.tsv").columns == ["a", "b"]
    (tmp_path / "l.csv").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert cells(Table.open(tmp_path / "l.csv"))["n"] == list(range(20))
    (tmp_path / "h.csv").write_text("<!DOCTYPE html><html><body>no table</body></html>")
    with pytest.raises(UserError, match="HTML"):
        Table.open(tmp_path / "h.csv")


def shard(path: Path, count: int = 12) -> bytes:
    with tarfile.open(path, "w") as made:
        for i in range(count):
            info = tarfile.TarInfo(f"{i:03}.txt")
            info.size = 1024
            made.addfile(info, io.BytesIO(b"x" * 1024))
    return path.read_bytes()


def test_damaged_archives_lose_no_more_than_what_is_damaged(tmp_path: Path) -> None:
    data, step = shard(tmp_path / "t.tar"), 1024 + 512
    for cut in (step * 6 + 100, step * 6):
        (tmp_path / "t.tar").write_bytes(data[:cut])
        table = Table.open(tmp_path / "t.tar")
        assert table.rows - len(table.bad_rows) == 6 and table.notes, cut
    (tmp_path / "t.tar").write_bytes(data[: step * 6 + 20] + bytes([data[step * 6 + 20] ^ 1]) + data[step * 6 + 21 :])
    table = Table.open(tmp_path / "t.tar")
    assert table.rows - len(table.bad_rows) == 11 and any("damaged after 6 files" in note for note in table.notes)
    (tmp_path / "t.tar").write_bytes(data + shard(tmp_path / "u.tar", 3).replace(b"00", b"10", 6))
    assert Table.open(tmp_path / "t.tar").rows >= 12


def test_what_swells_without_measure_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n" + b"\n" * (100 << 20)))
    with pytest.raises(UserError, match="decompression bomb"):
        Table.open(tmp_path / "t.csv.gz")


def kinds(columns: dict[str, list]) -> dict[str, str]:
    schema = infer(Table.open(columns))
    return {name: schema.columns[name].kind if name in schema.columns else schema.left_out[name] for name in columns}


def test_columns_are_what_they_are_and_not_what_they_seem() -> None:
    n = 60
    found = kinds({
        "price": [f"{1 + i}.{(i * 137) % 1000:03},{i % 100:02}" for i in range(n)],
        "typed": [["0.5", "1.50", "2", "2.25", "10.10", f"{i}.5"][i % 6] for i in range(n)],
        "version": [f"{10 + i % 3}.{10 + i % 9}.{10 + i % 7}" for i in range(n)],
        "pressure": [f"{110 + i % 37}/{70 + i % 23}" for i in range(n)],
        "long": [str(9007199254740993 * 1000 + i) for i in range(n)],
        "ratio": [f"{1 + i % 5}/{2 + i % 6}/{20 + i % 9}" for i in range(n)],
        "small": [f"{i + 1}.25e-{i % 4 + 1}" for i in range(n)], "number": [f"#{i}" for i in range(n)],
    })  # fmt: skip
    assert found["price"] == "number" and found["typed"] in ("number", "category") and found["small"] == "number"
    assert found["version"] != "date" and found["pressure"] == "text" and found["ratio"] != "date"
    assert found["long"] != "number" and found["number"] != "number"
    unclear = infer(Table.open({"when": [f"{1 + i % 12:02}/{1 + i % 11:02}/{1900 + i}" for i in range(n)]})).left_out[
        "when"
    ]
    assert "look like dates" in unclear and "column.when.format=" in unclear


def test_one_odd_column_of_python_costs_no_other() -> None:
    frame = pd.DataFrame(
        {
            "n": [1.0, 2.0, 3.0],
            "bin": pd.cut([1, 2, 3], 2),
            "at": [pd.Period("2020-01", "M"), None, pd.Period("2020-03", "M")],
        }
    )
    frame["at"] = frame["at"].astype(object)
    found = cells(Table.open(frame))
    assert (
        all(isinstance(cell, str) and cell.startswith("(") for cell in found["bin"])
        and str(found["at"][2])[:10] == "2020-03-01"
    )
    odd = Table.open({"y": np.array(["2020", "2021"], "M8[Y]"), "wide": np.array([1, 2], np.longdouble), "n": [1, 2]})
    assert str(cells(odd)["y"][0])[:10] == "2020-01-01" and cells(odd)["wide"] == [1.0, 2.0]
    lists = pa.table({"d": pa.array([[1], [2, 3]], pa.list_(pa.duration("s"))), "n": [1, 2]})
    assert cells(Table.open(lists)) == {"d": [[1.0], [2.0, 3.0]], "n": [1, 2]}
    whole = pa.table({"d": pa.array([10**30, 10**30 + 1], pa.decimal128(38, 0))})
    assert cells(Table.open(whole))["d"] == [str(10**30), str(10**30 + 1)]
    assert Table.open([{"a": 1}, None]).rows == 2
    points = Table.open([{"p": [{"x": float(i), "y": 1.0}, {"x": 2.0, "y": float(i)}]} for i in range(9)])
    assert infer(points).columns["p"].kind in ("series", "points")
    named = pd.DataFrame({"a": [1, 2]}, index=pd.to_datetime(["2020-01-01", "2020-01-02"]))
    assert Table.open(named).columns == ["index", "a"]


@pytest.mark.parametrize(
    "options", [{"encoding": "idna"}, {"max_cell_mb": float("inf")}, {"delimiter": '"'}, {"encoding": "undefined"}]
)
def test_settings_that_can_not_be_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"data\."):
        ReadOptions(**options)


def test_utf_16_that_is_asked_for_needs_no_mark(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a,b\nä,1\n".encode("utf-16-le"))
    assert cells(Table.open(tmp_path / "t.csv", options=ReadOptions(encoding="utf-16"))) == {"a": ["ä"], "b": [1]}
    (tmp_path / "u.csv").write_bytes("a,b\nä,1\n".encode("utf-8-sig"))
    assert Table.open(tmp_path / "u.csv", options=ReadOptions(encoding="UTF-8")).columns == ["a", "b"]


def test_folders_take_endings_in_any_case_and_follow_no_link_out(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a.csv").write_text("x\n1\n")
    (tmp_path / "f/B.CSV").write_text("x\n2\n")
    (tmp_path / "secret.csv").write_text("x\n3\n")
    (tmp_path / "f/link.csv").symlink_to(tmp_path / "secret.csv")
    assert sorted(cells(Table.open(tmp_path / "f"))["x"]) == [1, 2]
    (tmp_path / "h/year=2020").mkdir(parents=True)
    (tmp_path / "h/year=2020/a.csv").write_text("x\n1\n")
    (tmp_path / "h/b.csv").write_text("x\n2\n")
    assert sorted(zip(*cells(Table.open(tmp_path / "h")).values(), strict=True), key=str) == [(1, 2020), (2, None)]
