"""Empty cells filled from the row's present ones, and columns said together."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import tiny_table
from PIL import Image

from sensorium.cli.filling import write_filled
from sensorium.cli.generation import write_together
from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.model import Model


def gapped(rows: int = 6) -> pa.Table:
    """The tiny table with some cells taken out, each column's type kept."""
    table = tiny_table(rows, gaps=0.0)
    for column, empty in {
        "picture": [1],
        "name": [0, 2],
        "colour": [2],
        "width": [3, 4],
        "curve": [5],
        "day": [1],
    }.items():
        cells = table.column(column).to_pylist()
        for row in empty:
            cells[row] = None
        table = table.set_column(
            table.column_names.index(column), column, pa.array(cells, table.schema.field(column).type)
        )
    return table


def test_empty_cells_are_filled_and_named_and_the_others_stay(drawing_model: Model) -> None:
    before = gapped()
    after = drawing_model.fill(before)
    assert after.column_names == [*before.column_names, "filled"] and after.num_rows == 6
    named = {
        (row, entry["column"]): entry["sure"]
        for row, cell in enumerate(after.column("filled").to_pylist())
        for entry in cell
    }
    for column in before.column_names:
        old, new = before.column(column), after.column(column)
        assert new.type == old.type and new.null_count == 0
        for row in range(6):
            assert ((row, column) in named) == (not old[row].is_valid)
            if old[row].is_valid:
                assert new[row].as_py() == old[row].as_py()
    assert named[1, "picture"] is None and 0 <= named[2, "colour"] <= 1
    assert Image.open(io.BytesIO(after.column("picture")[1].as_py())).size == (16, 16)
    assert after.equals(drawing_model.fill(before)), "a seed gives the same"


def test_how_sure_a_drawn_cell_is_says_how_it_goes_with_its_row_beside_real_ones(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        drawing_model.network.calibration, "surprise_quantiles", {"picture": np.linspace(0, 2, 101).tolist()}
    )
    table = gapped()
    filled = drawing_model.fill(table)
    (sure,) = (entry["sure"] for entry in filled.column("filled").to_pylist()[1] if entry["column"] == "picture")
    whole = table.set_column(table.column_names.index("picture"), "picture", filled.column("picture"))
    gist, rest = (
        drawing_model.embed(whole.slice(1, 1), columns)[0]
        for columns in (["picture"], [c for c in table.column_names if c != "picture"])
    )
    assert sure == pytest.approx(1 - (1 - gist @ rest) / 2, abs=0.02)
    monkeypatch.setattr(drawing_model.network.calibration, "surprise_quantiles", {"picture": [0.0] * 101})
    (sure,) = (
        entry["sure"]
        for entry in drawing_model.fill(table).column("filled").to_pylist()[1]
        if entry["column"] == "picture"
    )
    assert sure == 0


def test_jointly_what_was_filled_is_seen_next(drawing_model: Model) -> None:
    table = pa.table(
        {
            "picture": pa.nulls(3, pa.binary()),
            "name": ["big red square", None, "tiny blue bar"],
            "colour": pa.nulls(3, pa.string()),
        }
    )
    alone, joint = drawing_model.fill(table), drawing_model.fill(table, jointly=True)
    asked = [c for c in drawing_model.network.asked_columns if c in table.column_names]
    assert alone.column(asked[0]).equals(joint.column(asked[0])), "the first sees the same"
    sure = [
        [entry["sure"] for entry in row if entry["column"] == asked[-1]] for row in alone.column("filled").to_pylist()
    ]
    sure_jointly = [
        [entry["sure"] for entry in row if entry["column"] == asked[-1]] for row in joint.column("filled").to_pylist()
    ]
    assert sure != sure_jointly


def test_a_column_that_lacks_is_added_and_what_can_not_be_read_stays(drawing_model: Model) -> None:
    heard: list[str] = []
    table = pa.table({"picture": [b"no picture", None], "name": ["big red square", "tiny blue bar"]})
    filled = drawing_model.fill(table, columns=["picture", "colour"], note=heard.append)
    assert filled.column("picture")[0].as_py() == b"no picture" and filled.column("picture")[1].as_py().startswith(
        b"\x89PNG"
    )
    assert filled.column("colour").null_count == 0 and any("picture" in words and "row 0" in words for words in heard)
    assert drawing_model.fill(table.slice(0, 0)).num_rows == 0
    with pytest.raises(UserError, match="Rename"):
        drawing_model.fill(filled)
    with pytest.raises(UserError, match="colou"):
        drawing_model.fill(table, columns=["colou"])


def test_columns_said_together_see_one_another_only_jointly(drawing_model: Model) -> None:
    rows = tiny_table(4)
    apart = drawing_model.generate_together(rows, ["name", "picture"], ["tone"], seed=1)
    joint = drawing_model.generate_together(rows, ["name", "picture"], ["tone"], seed=1, jointly=True)
    assert [row["name"] for row in apart] == [row["name"] for row in joint]
    assert all(a["picture"] != b["picture"] for a, b in zip(apart, joint, strict=True) if a["name"])
    with pytest.raises(UserError, match="either asked or seen"):
        drawing_model.generate_together(rows, ["name"], ["name"])


def test_the_commands_write_tables(drawing_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(gapped(), source)
    write_filled(drawing_model, str(source), tmp_path / "filled.parquet", None, False, 0)
    assert (
        pq.read_table(tmp_path / "filled.parquet").column("name").null_count == 0
        and "name 2" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="are files"):
        write_filled(drawing_model, str(source), tmp_path / "filled.csv", None, False, 0)
    pq.write_table(gapped().select(["name", "colour", "width"]), source)
    write_filled(drawing_model, str(source), tmp_path / "filled.csv", None, False, 0)
    with (tmp_path / "filled.csv").open(encoding="utf-8", newline="") as file:
        text = list(csv.reader(file))
    assert len(text) == 7 and json.loads(text[1][-1])[0]["column"] == "name"
    write_filled(drawing_model, str(source), tmp_path / "filled.jsonl", None, False, 0)
    row = json.loads((tmp_path / "filled.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["filled"][0]["column"] == "name"
    write_together(drawing_model, str(source), ["picture", "name"], tmp_path / "both.parquet", ["colour"], True, 0)
    both = pq.read_table(tmp_path / "both.parquet")
    assert both.column_names == ["picture", "name"] and both.num_rows == 6
    with pytest.raises(UserError, match="lists of numbers"):
        write_together(drawing_model, str(source), ["curve", "name"], tmp_path / "both.csv", ["colour"], True, 0)


def test_filling_that_is_stopped_keeps_what_was_filled(
    drawing_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.inference.fill.GENERATED_ROWS", 2)
    source, out = tmp_path / "t.parquet", tmp_path / "filled.parquet"
    pq.write_table(
        pa.table({"name": [f"big red square {i}" for i in range(5)], "picture": pa.nulls(5, pa.binary())}), source
    )
    for after, kept in ((0, None), (1, 2), (2, 4)):
        count, say = [0], drawing_model.network.sample

        def stopping(
            *given: object, say: object = say, count: list[int] = count, after: int = after, **named: object
        ) -> object:
            count[0] += 1
            if count[0] > after:
                raise KeyboardInterrupt
            return say(*given, **named)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(drawing_model.network, "sample", stopping)
            write_filled(drawing_model, str(source), out, ["picture", "colour"] if kept == 4 else ["picture"], False, 0)
        if kept is None:
            assert not out.exists()
        elif kept == 2:
            table = pq.read_table(out)
            assert (
                [cell is not None for cell in table.column("picture").to_pylist()]
                == [row < 2 for row in range(5)]
                == [bool(cell) for cell in table.column("filled").to_pylist()]
            )
            assert table.column("name").to_pylist() == [f"big red square {i}" for i in range(5)]


def test_what_a_file_or_a_column_can_not_hold_is_refused_before_any_work(drawing_model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(tiny_table(1).column("picture")[0].as_py())
    (tmp_path / "t.csv").write_text("picture,name\na.png,plus\n,dog\n", encoding="utf-8")
    for ending in (".jsonl", ".csv"):
        with pytest.raises(UserError, match="are files"):
            write_filled(drawing_model, str(tmp_path / "t.csv"), tmp_path / f"filled{ending}", None, False, 0)
    (tmp_path / "t.csv").write_text("picture,name\na.png,plus\na.png,\n", encoding="utf-8")
    write_filled(drawing_model, str(tmp_path / "t.csv"), tmp_path / "filled.jsonl", None, False, 0)  # no picture lacks
    for columns in (["nam"], ["id"]):
        with pytest.raises(UserError, match="Unknown column"):
            write_filled(drawing_model, str(tmp_path / "t.csv"), tmp_path / "filled.parquet", columns, False, 0)
        with pytest.raises(UserError, match="Unknown column"):
            write_together(
                drawing_model, str(tmp_path / "t.csv"), ["picture", *columns], tmp_path / "both.parquet", None, False, 0
            )
    pq.write_table(pa.table({"name": ["a", "b"], "tone": [1.5, None]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="'tone' of .* holds double"):
        write_filled(drawing_model, str(tmp_path / "t.parquet"), tmp_path / "filled.parquet", None, False, 0)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_filled(drawing_model, str(tmp_path / "t.parquet"), tmp_path / "folder.parquet", None, False, 0)


def test_cells_that_do_not_fit_the_type_find_another() -> None:
    from sensorium.inference.fill import to_array

    assert to_array([1, 2.5], pa.int64()).type == pa.float64()
    assert to_array(["2024-05", None], pa.timestamp("us"))[0].as_py().month == 5
    assert to_array(["2024", None], pa.date32())[0].as_py().year == 2024
    assert (
        to_array([b"x", {"bytes": b"y", "path": "p"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))[
            0
        ].as_py()["bytes"]
        == b"x"
    )
    assert to_array([1, "a", np.float64(2)], None).type == pa.string()


def test_paths_stay_where_some_are_filled_whatever_the_window(
    drawing_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensorium.inference.fill.WINDOW", 3)
    (tmp_path / "a.png").write_bytes(tiny_table(1).column("picture")[0].as_py())
    paths = ["a.png", "a.png", "a.png", None, "gone.png", "a.png", "a.png"]
    pq.write_table(
        pa.table({"picture": paths, "name": [f"big red square {i}" for i in range(7)]}), tmp_path / "t.parquet"
    )
    with pytest.warns(SensoriumWarning, match="'gone.png' can't be read"):
        cells = drawing_model.fill(tmp_path / "t.parquet").column("picture").to_pylist()
    assert [cell["path"] for cell in cells] == paths, "no path is lost, readable or not"
    assert [cell["bytes"] is not None for cell in cells] == [path is None for path in paths]


def test_what_the_model_takes_for_missing_is_filled(drawing_model: Model) -> None:
    table = pa.table(
        {"width": [float("nan"), None, 3.0], "name": ["", "   ", "big red square"], "colour": ["red", "blue", "green"]}
    )
    filled = drawing_model.fill(table)
    assert np.isfinite(filled.column("width").to_numpy()).all() and filled.column("name")[2].as_py() == "big red square"
    assert [{entry["column"] for entry in cell} for cell in filled.column("filled").to_pylist()] == [
        {"width", "name"}
    ] * 2 + [set()]


def test_a_table_without_rows_is_filled_to_one_without_rows(drawing_model: Model, tmp_path: Path) -> None:
    table = drawing_model.fill(tiny_table(0).select(["name", "width"]), columns=["name", "colour"])
    assert table.column_names == ["name", "width", "colour", "filled"] and table.num_rows == 0
    (tmp_path / "t.csv").write_text("name,width\n", encoding="utf-8")
    write_filled(drawing_model, str(tmp_path / "t.csv"), tmp_path / "filled.csv", None, False, 0)
    assert (tmp_path / "filled.csv").read_text(encoding="utf-8").startswith('"name","width","filled"')


def test_cells_that_no_text_file_holds_are_refused_before_any_work(drawing_model: Model, tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a", None], "vectors": [[1.0], [2.0]]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="lists .'vectors'."):
        write_filled(drawing_model, str(tmp_path / "t.parquet"), tmp_path / "filled.csv", None, False, 0)
    with pytest.raises(UserError, match="No column to fill"):
        drawing_model.fill(tmp_path / "t.parquet", columns=[])


def test_windows_of_other_types_become_one_column() -> None:
    from sensorium.inference.fill import FILE, concat_chunks

    def parts(*cells: pa.Array) -> list[pa.ChunkedArray]:
        return [pa.chunked_array([cell]) for cell in cells]

    assert concat_chunks(parts(pa.array([1, 2]), pa.array([0.5]))).to_pylist() == [1, 2, 0.5]
    assert concat_chunks(parts(pa.array([1]), pa.array(["x"]))).to_pylist() == ["1", "x"]
    assert concat_chunks(parts(pa.array(["a"]), pa.array([{"path": "b"}], FILE))).to_pylist() == [
        {"bytes": None, "path": "a"},
        {"bytes": None, "path": "b"},
    ]
    assert concat_chunks(parts(pa.array([None]), pa.array([1]))).type == pa.int64()
