"""An index: it finds what a search of the table finds, grows, shrinks, and refuses what isn't its own."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_table

from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.data.table import Table
from sensorium.model import Model
from sensorium.search.index import Index
from sensorium.search.store import VectorStore

ROWS = 70


def keyed(rows: int = ROWS, start: int = 0) -> pa.Table:
    """The tiny table with a key."""
    table = tiny_table(start + rows).slice(start)
    return table.append_column("key", pa.array([f"k{number}" for number in range(start, start + rows)]))


@pytest.fixture(scope="module")
def kept(fitted: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    fitted.index(keyed(), folder, key="key")
    return folder


@pytest.fixture
def index(fitted: Model, kept: Path, tmp_path: Path) -> Index:
    return fitted.open_index(shutil.copytree(kept, tmp_path / "index"))


def rows(found: pa.Table) -> list[int]:
    return found.column("row").to_pylist()


@pytest.mark.parametrize("among", [None, "picture", "name", "tone"])
def test_it_finds_what_a_search_of_the_table_finds(fitted: Model, index: Index, among: str | None) -> None:
    for query in ({"name": "a red bar"}, {"picture": keyed()["picture"][3].as_py(), "colour": "red"}):
        found, direct = index.search(query, among=among, k=12), fitted.search(query, among=keyed(), column=among, k=12)
        assert np.allclose(found["score"].to_numpy(), direct["score"].to_numpy(), atol=1e-4)
        assert len(set(rows(found)) & set(rows(direct))) >= 11 and found["name"].to_pylist() == [
            keyed()["name"][row].as_py() for row in rows(found)
        ]
    assert index.search({"name": "x"}, among=among, k=1000).num_rows == sum(
        cell is not None for cell in keyed()[among or "key"].to_pylist()
    )


def test_conditions_choose_before_the_nearest_are_found(index: Index) -> None:
    found = index.search({"name": "a red bar"}, k=5, condition='colour = "blue" and width > 5')
    assert found.num_rows == 5 and set(found["colour"].to_pylist()) == {"blue"} and min(found["width"].to_pylist()) > 5
    assert index.search({"name": "a red bar"}, condition="width > 1000").num_rows == 0
    with pytest.raises(UserError, match="Did you mean 'colour'"):
        index.search({"name": "x"}, condition='color = "red"')


def test_what_shall_not_be_found_and_weights_move_the_query(index: Index) -> None:
    plain = index.search({"name": "a red bar"}, k=ROWS)
    away = index.search({"name": "a red bar"}, k=ROWS, without={"colour": "red"})

    def mean(found: pa.Table) -> float:
        return np.mean([place for place, colour in enumerate(found["colour"].to_pylist()) if colour == "red"])

    assert mean(away) > mean(plain)
    query = {"name": "a red bar", "picture": keyed()["picture"][1].as_py()}
    assert np.allclose(
        index.search(query, weights={"picture": 0.0})["score"].to_numpy(),
        index.search({"name": "a red bar"})["score"].to_numpy(),
        atol=1e-4,
    )
    for weights, told in (({"picture": 0.0, "name": 0.0}, "leave nothing"), ({"colours": 1.0}, "colours")):
        with pytest.raises(UserError, match=told):
            index.search(query, weights=weights)


def test_rows_are_added_replaced_and_removed_and_stay_so(fitted: Model, index: Index) -> None:
    more = keyed(20, 60).set_column(1, "name", pa.array([f"replaced {number}" for number in range(20)]))
    assert index.add(Table.open(more)) == 10 and len(index) == 80
    again = fitted.open_index(index.store.folder)
    names = again.search({"name": "x"}, k=200)["name"].to_pylist()
    assert len(names) == 80 and sum(str(name).startswith("replaced") for name in names) == 20
    first = again.search({"picture": more["picture"][0].as_py()}, among="picture", k=1)
    assert first["score"][0].as_py() > 0.99 or more["picture"][0].as_py() is None
    assert again.remove(["k60", "k1", "nobody"]) == 2 and len(again) == 78
    left = fitted.open_index(index.store.folder).search({"name": "x"}, k=200)["key"].to_pylist()
    assert len(left) == 78 and not {"k60", "k1"} & set(left)
    assert len(list(index.store.folder.glob("gone-*"))) == 1 and not (index.store.folder / "lock").exists()


def test_without_a_key_rows_go_by_their_numbers(fitted: Model, tmp_path: Path) -> None:
    index = fitted.index(tiny_table(12), tmp_path / "i", columns=["name", "colour"])
    assert index.store.about["kinds"] == ["", "name"] and index.remove([0, 5]) == 2 and len(index) == 10
    assert index.add(Table.open(tiny_table(3))) == 0 and len(index) == 13
    assert not {0, 5} & set(rows(index.search({"name": "x"}, k=100)))
    with pytest.raises(UserError, match="rows 0 to 14"):
        index.remove([15])
    with pytest.raises(UserError, match="picture"):
        index.search({"picture": b"x"})


def test_who_opened_an_index_before_another_wrote_to_it_loses_nothing(
    fitted: Model, index: Index, tmp_path: Path
) -> None:
    one, other, third = (fitted.open_index(index.store.folder) for _ in range(3))
    one.add(Table.open(keyed(10, 100)))
    other.add(Table.open(keyed(5, 200)))
    assert len(fitted.open_index(index.store.folder)) == ROWS + 15 == len(other)
    assert third.remove(["k100", "k200", "k3"]) == 3 and len(third) == ROWS + 12
    fitted.index(keyed(20), index.store.folder, key="key")
    assert other.add(Table.open(keyed(2, 300))) == 0 and len(fitted.open_index(index.store.folder)) == 22
    plain = fitted.index(tiny_table(12), tmp_path / "i", columns=["name"])
    old = fitted.open_index(tmp_path / "i")
    plain.add(Table.open(tiny_table(3)))
    assert old.remove([14]) == 1 and len(old) == 14
    fitted.index(tiny_table(12), tmp_path / "i", columns=["name"])
    with pytest.raises(UserError, match="made anew"):
        old.remove([1])
    for wrong in ([1.5], ["x"], [True]):
        with pytest.raises(UserError, match="rows 0 to 11"):
            fitted.open_index(tmp_path / "i").remove(wrong)


def test_rows_are_told_in_a_table_by_their_key_or_their_cells(fitted: Model, index: Index, tmp_path: Path) -> None:
    def found(table: pa.Table) -> list[int]:
        return index.rows_in(Table.open(table)).tolist()

    assert found(keyed()) == list(range(ROWS)) and found(keyed().take(list(range(ROWS - 1, -1, -1)))) == list(
        range(ROWS - 1, -1, -1)
    )
    index.add(Table.open(keyed(3, ROWS - 1)))
    assert found(keyed()) == [*range(ROWS), ROWS - 1, -1, -1]
    plain = fitted.index(tiny_table(8), tmp_path / "i")
    changed = tiny_table(8).set_column(
        tiny_table(8).column_names.index("width"),
        "width",
        pa.array([None, 1e6, *tiny_table(8)["width"].to_pylist()[2:]]),
    )
    same = [row if changed["width"][row] == tiny_table(8)["width"][row] else -1 for row in range(8)]
    assert (
        plain.rows_in(Table.open(tiny_table(8))).tolist() == list(range(8))
        and plain.rows_in(Table.open(changed)).tolist() == same
        and same[1] == -1
    )
    assert plain.rows_in(Table.open(tiny_table(5))).tolist() == [0, 1, 2, 3, 4, -1, -1, -1]


def test_larger_groups_of_rows_that_are_alike_are_whole(fitted: Model, tmp_path: Path) -> None:
    names = ["a red bar"] * 30 + ["a red bar."] * 30 + ["nine huge green circles"]
    index = fitted.index(pa.table({"name": names, "colour": ["red"] * 61}), tmp_path / "i", columns=["name"])
    near = float(index.search({"name": names[0]}, k=61)["score"].to_numpy()[45])
    assert sorted(map(sorted, index.duplicates(near - 1e-4))) == [list(range(60))]
    assert sorted(map(sorted, index.duplicates(1.0))) == [list(range(30)), list(range(30, 60))]


def test_absurd_requests_are_cut_or_told(index: Index) -> None:
    assert index.search({"name": "x"}, k=10**12).num_rows == ROWS
    for weight in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="no numbers"):
            index.search({"name": "x"}, weights={"name": weight})


def test_alike_rows_come_in_groups(fitted: Model, tmp_path: Path) -> None:
    table = tiny_table(9, gaps=0.0)
    index = fitted.index(
        pa.concat_tables([table, table.slice(2, 1), table.slice(2, 1), table.slice(5, 1)]), tmp_path / "i"
    )
    assert index.duplicates(0.9999) == [[2, 9, 10], [5, 11]]
    index.remove([9, 10])
    assert index.duplicates(0.9999) == [[5, 11]] and index.duplicates(0.9999, among="picture")
    with pytest.raises(UserError, match="cosine"):
        index.duplicates(0.0)


def test_fewer_dimensions_are_the_leading_ones_and_what_they_find_is_told(
    fitted: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, few = fitted.index(keyed(), tmp_path / "whole"), fitted.index(keyed(), tmp_path / "few", size=12)
    assert few.store.about["size"] == 12 and whole.store.about["size"] == 24 and whole.store.about["recall"] == {}
    a, b = (set(rows(index.search({"name": "a red bar"}, k=20))) for index in (whole, few))
    assert len(a & b) >= 14
    for size in (4, 25):
        with pytest.raises(UserError, match="8 to 24"):
            fitted.index(keyed(), tmp_path / "none", size=size)


def test_another_model_and_what_is_cut_short_are_refused(
    fitted: Model, kept: Path, index: Index, tmp_path: Path
) -> None:
    other = Model.load(fitted.save(tmp_path / "other"))
    other.network.conditioning.to_gist.weight.data += 1
    other.folder = None
    other.save(tmp_path / "changed")
    with pytest.raises(UserError, match="another model"):
        other.open_index(kept)
    folder = index.store.folder
    for path in sorted((folder / "part-000001").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="can't be read as an index"):
            fitted.open_index(folder)
        for other in (b"", b"PK\x03\x04" + whole[4 if path.suffix == ".npy" else 40 :], b"other", whole[:-1]):
            path.write_bytes(other)
            with pytest.raises(UserError, match="can't be read as an index"):
                fitted.open_index(folder)
        path.unlink()
        with pytest.raises(UserError, match="can't be read as an index"):
            fitted.open_index(folder)
        path.write_bytes(whole)
    about = json.loads((folder / "index.json").read_text())
    for wrong in (
        {"size": 7},
        {"parts": [{"name": "../x", "rows": ROWS}]},
        {"turn": "../../etc/passwd"},
        {"parts": 3},
        {"parts": []},
        {"gone": "x.npy"},
    ):
        (folder / "index.json").write_text(json.dumps(about | wrong))
        with pytest.raises(UserError, match="can't be read as an index"):
            VectorStore.open(folder)
    for lacking in ("columns", "key", "kinds", "sha256", "run"):
        (folder / "index.json").write_text(
            json.dumps({name: value for name, value in about.items() if name != lacking})
        )
        with pytest.raises(UserError, match=lacking):
            VectorStore.open(folder)
    (folder / "index.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="can't be read as an index"):
        VectorStore.open(folder)
    (folder / "index.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        VectorStore.open(folder)
    with pytest.raises(UserError, match="holds no index"):
        fitted.open_index(tmp_path / "nowhere")


def test_what_fails_leaves_the_index_as_it_was(fitted: Model, index: Index) -> None:
    folder = index.store.folder
    before = sorted(path.name for path in folder.rglob("*"))
    twice = pa.concat_tables([keyed(2), keyed(2)])
    unlike = keyed(2, 90).set_column(4, "day", pa.array(["no", "date"]))
    for table, told in (
        (twice, "its own"),
        (unlike, "other types"),
        (keyed(2).drop_columns(["key"]), "no column 'key'"),
    ):
        warned = pytest.warns(SensoriumWarning, match="can't be read") if table is unlike else contextlib.nullcontext()
        with warned, pytest.raises(UserError, match=told):
            index.add(Table.open(table))
        assert sorted(path.name for path in folder.rglob("*")) == before and len(fitted.open_index(folder)) == ROWS
    (folder / "lock").touch()
    with pytest.raises(UserError, match="another process"):
        index.remove(["k1"])
    with pytest.raises(UserError, match="nothing can be indexed"):
        fitted.index(keyed(0), folder.parent / "none")
    with pytest.raises(UserError, match="in no folder"):
        Model(fitted.network, fitted.schema, fitted.settings, fitted.facts).index(keyed(), folder)


def test_an_index_that_is_made_anew_takes_the_place_of_the_old_one(fitted: Model, index: Index) -> None:
    again = fitted.index(keyed(5), index.store.folder)
    assert (
        len(again) == 5
        and len(list(again.store.folder.glob("part-*"))) == len(list(again.store.folder.glob("turn-*"))) == 1
    )
