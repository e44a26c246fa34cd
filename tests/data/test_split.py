"""Splits follow content, keep groups and equal rows together, and don't depend on the order of rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import UserError
from sensorium.data.arrow import MEDIA_TYPE
from sensorium.data.hashes import cell_hashes, row_hashes
from sensorium.data.schema import Column, Schema
from sensorium.data.split import MAX_CARVED_ROWS, Splits, split_rows
from sensorium.data.table import Table


def schema(*columns: str, split: str | None = None) -> Schema:
    return Schema({name: Column(name, "text", "") for name in columns}, {}, split)


def words(table: Table, splits: Splits, column: str) -> dict[str, list]:
    cells = table.take(range(table.rows), [column])[column].to_pylist()
    return {name: [cells[i] for i in splits.rows(name)] for name in splits.names}


ROWS = st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 8)), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 3), st.randoms())
def test_no_group_and_no_content_on_both_sides_in_any_order(rows: list, seed: int, random) -> None:
    def parts(rows: list, by: str) -> list[str]:
        table = Table.open({"x": [x for x, _ in rows], "g": [g for _, g in rows]})
        splits = split_rows(table, schema("x", "g"), by=by, seed=seed)
        assert (splits.codes >= 0).all() and splits.codes.dtype == np.int8
        return [splits.names[code] for code in splits.codes]

    shuffled = random.sample(rows, len(rows))
    for by, key in (("hash", lambda row: row), ("group:g", lambda row: row if row[1] is None else row[1])):
        found, again = parts(rows, by), parts(shuffled, by)
        sides = dict(zip(map(key, rows), found, strict=True))
        assert [sides[key(row)] for row in rows] == found and [sides[key(row)] for row in shuffled] == again


def test_shares_are_kept_and_seeds_differ() -> None:
    table = Table.open({"x": list(range(20_000))})
    splits = split_rows(table, schema("x"), seed=0, shares=(0.7, 0.2, 0.1))
    assert splits.names == ("train", "validation", "test")
    assert all(
        abs(n / 20_000 - share) < 0.01 for n, share in zip(splits.counts().values(), (0.7, 0.2, 0.1), strict=True)
    )
    other = split_rows(table, schema("x"), seed=1, shares=(0.7, 0.2, 0.1))
    assert 0.35 < (splits.codes != other.codes).mean() < 0.6
    more = split_rows(Table.open({"x": list(range(25_000))}), schema("x"), seed=0, shares=(0.7, 0.2, 0.1))
    assert (more.codes[:20_000] == splits.codes).all()


@pytest.mark.parametrize("rows", [3, 4, 5, 8, 13])
def test_small_tables_leave_no_part_empty(rows: int) -> None:
    for seed in range(20):
        counts = split_rows(Table.open({"x": list(range(rows))}), schema("x"), seed=seed).counts()
        assert min(counts.values()) >= 1
    assert split_rows(Table.open({"x": [1, 2]}), schema("x"), shares=(1, 0, 0), seed=0).counts()["train"] == 2


def test_a_split_column_is_followed_and_validation_carved_from_train() -> None:
    parts = ["train"] * 200 + ["test_new"] * 30 + [None] * 5 + ["Training"] * 10
    table = Table.open({"x": list(range(245)), "split": parts, "g": [i // 7 for i in range(245)]})
    splits = split_rows(table, schema("x", split="split"), seed=0)
    assert splits.names == ("train", "validation", "test_new")
    assert splits.counts() == {"train": 186, "validation": 24, "test_new": 30} and (splits.codes == -1).sum() == 5
    assert set(words(table, splits, "split")["validation"]) <= {"train", "Training"}
    grouped = split_rows(table, schema("x", split="split"), seed=0, group="g")
    sides = words(table, grouped, "g")
    assert 14 <= len(sides["validation"]) <= 24 and not set(sides["validation"]) & set(sides["train"])
    assert (split_rows(table, schema("x", split="split"), seed=0, entity="g").codes == grouped.codes).all()
    by_hash = [split_rows(table, schema("x"), by="hash", seed=0, entity=thing).codes for thing in (None, "g")]
    assert (by_hash[0] == by_hash[1]).all()
    with pytest.raises(UserError, match="Unknown column to split by: 'h'"):
        split_rows(table, schema("x", split="split"), seed=0, entity="h")
    order = np.random.default_rng(0).permutation(245)
    again = split_rows(table.select(order), schema("x", split="split"), seed=0, group="g")
    assert again.names == grouped.names and (again.codes == grouped.codes[order]).all()


def test_carved_validation_is_bounded_and_a_given_one_is_kept() -> None:
    many = Table.open({"x": list(range(30_000)), "split": ["train"] * 30_000})
    assert split_rows(many, schema("x", split="split"), seed=0).counts() == {
        "train": 28_000,
        "validation": MAX_CARVED_ROWS,
    }
    given_ = Table.open({"x": [1, 2, 3, 4], "split": ["train", "dev", "test", "VALID"]})
    assert split_rows(given_, schema("x", split="split"), seed=0).counts() == {"train": 1, "validation": 2, "test": 1}
    few = Table.open({"x": [1, 2], "split": ["train"] * 2, "g": ["a", "b"]})
    assert split_rows(few, schema("x", split="split"), seed=0).counts() == {"train": 1, "validation": 1}
    one = Table.open({"x": [1, 1], "split": ["train"] * 2})
    assert split_rows(one, schema("x", split="split"), seed=0).counts() == {"train": 2, "validation": 0}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.sampled_from(["column", "hash"]))
def test_rows_are_held_out_alone_though_others_are_of_the_same_thing(seed: int, way: str) -> None:
    rows = 600
    table = Table.open(
        {
            "x": [i // 2 for i in range(rows)],
            "said": [f"{i}" for i in range(rows)],
            "thing": [i // 2 % 20 for i in range(rows)],
            "split": ["train"] * rows,
        }
    )
    how = {"by": "column:split" if way == "column" else "group:thing", "entity": "thing", "carved": 0.1, "seed": seed}
    splits, before = (
        split_rows(table, schema("x", "said", "thing"), **how, **more)
        for more in ({"rowwise": 0.1, "but": ["said"]}, {})
    )
    cells = {column: words(table, splits, column) for column in ("x", "thing")}
    if way == "hash":  # a group's rows are all on one side
        assert not set(cells["thing"]["alone"]) & set(cells["thing"]["train"])
    else:
        assert set(cells["thing"]["alone"]) <= set(cells["thing"]["train"]) and not set(cells["thing"]["alone"]) & set(
            cells["thing"]["validation"]
        )
        assert 0.05 * rows < len(splits.rows("alone")) <= 0.1 * rows
    assert not set(cells["x"]["alone"]) & set(cells["x"]["train"])  # what is said of one picture stays together
    assert (
        before.counts()["validation"] == splits.counts()["validation"]
        and before.counts()["train"] == splits.counts()["train"] + splits.counts()["alone"]
    )


def test_columns_of_other_types_and_wrong_words() -> None:
    table = Table.open(
        {"x": [1, 2, 3], "fold": [0, 1, 2], "part": ["train", "a", "b"], "split": ["train", "test", "x"]}
    )
    assert split_rows(table, schema("x"), by="column:part", seed=0).names == ("train", "validation", "a", "b")
    assert split_rows(table, schema("x", split="split"), by="hash", seed=0).names == ("train", "validation", "test")
    with pytest.raises(UserError, match=r"no row.*'0', '1', '2'"):
        split_rows(table, schema("x"), by="column:fold", seed=0)
    for by in ("colum:part", "column", "column:", "group:", "hash:x", ""):
        with pytest.raises(UserError, match="Can't split by"):
            split_rows(table, schema("x"), by=by, seed=0)
    with pytest.raises(UserError, match="Did you mean 'part'"):
        split_rows(table, schema("x"), by="column:parts", seed=0)
    for shares in ((0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.1, -0.1)):
        with pytest.raises(UserError, match="add up to 1"):
            split_rows(table, schema("x"), shares=shares, seed=0)
    with pytest.raises(UserError, match="Did you mean 'train'"):
        split_rows(table, schema("x"), seed=0).rows("tain")


def test_left_out_columns_do_not_keep_equal_rows_apart() -> None:
    table = Table.open({"id": list(range(400)), "x": [i % 40 for i in range(400)]})
    sides = words(table, split_rows(table, schema("x"), seed=0), "x")
    assert not set(sides["train"]) & set(sides["test"]) and not set(sides["train"]) & set(sides["validation"])


def test_saved_splits_come_back(tmp_path: Path) -> None:
    splits = Splits(("train", "a ü", "test"), np.array([0, 1, -1, 2, 0], np.int8))
    splits.save(tmp_path / "splits.parquet")
    again = Splits.load(tmp_path / "splits.parquet")
    assert again.names == splits.names and (again.codes == splits.codes).all() and again.codes.dtype == np.int8
    assert [path.name for path in tmp_path.iterdir()] == ["splits.parquet"]
    (tmp_path / "splits.parquet").write_bytes(b"torn")
    with pytest.raises(UserError, match="can't be read"):
        Splits.load(tmp_path / "splits.parquet")
    pq.write_table(pa.table({"code": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError):
        Splits.load(tmp_path / "other.parquet")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=600), max_size=30),
    st.integers(0, 5),
)
def test_text_hashes_follow_content_alone(cells: list, cut: int) -> None:
    array = pa.array(cells, pa.string())
    hashes = cell_hashes(array)
    assert (cell_hashes(array.slice(cut)) == hashes[cut:]).all()
    assert (cell_hashes(array.view(pa.binary())) == hashes).all()
    assert [bool(h) for h in hashes] == [bool(cell) for cell in cells]
    assert len(set(hashes[hashes != 0].tolist())) == len({cell for cell in cells if cell})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.lists(st.none() | st.floats(width=32, allow_nan=False), max_size=5), max_size=20),
    st.integers(0, 5),
)
def test_list_hashes_follow_content_alone(cells: list, cut: int) -> None:
    array = pa.array(cells, pa.list_(pa.float64()))
    hashes = cell_hashes(array)
    assert (cell_hashes(array.slice(cut)) == hashes[cut:]).all()
    assert (cell_hashes(pa.array(cells, pa.list_(pa.float32()))) == hashes).all()
    distinct = {str(cell).replace("-0.0", "0.0") for cell in cells if cell is not None}
    assert len(set(hashes[hashes != 0].tolist())) == len(distinct)


def test_numbers_are_hashed_by_value() -> None:
    def one(value: object, kind: pa.DataType) -> int:
        return int(cell_hashes(pa.array([value], kind))[0])

    for value in (0, 1, -1, 127):
        assert len({one(value, kind) for kind in (pa.int8(), pa.int64(), pa.float32(), pa.float64())}) == 1
    assert one(0.1, pa.float32()) == one(0.1, pa.float64()) != one(0.2, pa.float64())
    assert one(-0.0, pa.float64()) == one(0, pa.int8()) == one(False, pa.bool_())
    assert one(float("nan"), pa.float64()) == one(None, pa.float64()) == one("", pa.string()) == 0
    values = [1e300, 1e301, -1e300, 1e-300, 1e-301, float("inf"), float("-inf"), 2.0**62, 2**53 + 2.0, 0.5]
    assert len({one(value, pa.float64()) for value in values}) == len(values)
    assert one(2**53, pa.int64()) != one(2**53 + 1, pa.int64())


def test_dates_and_files_are_hashed_by_content() -> None:
    import datetime

    day, second = datetime.date(2020, 1, 10), datetime.datetime(2020, 1, 10, 10, 20, 30)
    dates = cell_hashes(pa.array([day, None], pa.date32()))
    assert (
        dates[0]
        == cell_hashes(pa.array([18271 * 86400], pa.timestamp("s")))[0]
        == cell_hashes(pa.array(["2020-01-10"]))[0]
    )
    assert cell_hashes(pa.array([second], pa.timestamp("us")))[0] == cell_hashes(pa.array(["2020-01-10 10:20:30"]))[0]
    half = second.replace(microsecond=500_000)
    assert cell_hashes(pa.array([half], pa.timestamp("us")))[0] == cell_hashes(pa.array(["2020-01-10 10:20:30.5"]))[0]
    media = pa.array([{"bytes": b"x", "path": "p"}, {"bytes": None, "path": "p"}, None], MEDIA_TYPE)
    assert cell_hashes(media).tolist() == [*cell_hashes(pa.array([b"x", b"p"])).tolist(), 0]


def test_row_hashes_know_their_columns_but_not_their_order() -> None:
    a = row_hashes(Table.open({"a": ["x", "y", "x", None], "b": ["y", "x", "x", None]}), ["a", "b"])
    assert (a == row_hashes(Table.open({"b": ["y", "x", "x", ""], "a": ["x", "y", "x", None]}), ["b", "a", "a"])).all()
    assert len(set(a.tolist())) == 4
    lacking = row_hashes(Table.open({"a": ["x"]}), ["a"])
    assert (lacking == row_hashes(Table.open({"a": ["x"], "c": [None]}), ["a", "c"])).all()


def test_hashes_stay_what_they_are() -> None:
    """A run remembers these: another hash would make it forget what it was trained on."""
    table = Table.open({"t": ["a", "ü" * 300, None], "n": [1, 2.5, None], "s": [[1, 2], None, [0]]})
    assert [f"{h:016x}" for h in row_hashes(table, ["t", "n", "s"])] == [
        "85ab410333e424a1",
        "238d248e7c4cdbb3",
        "a1384a9c08ac7448",
    ]


def test_hashes_spread_over_all_bits() -> None:
    hashes = cell_hashes(pa.array(range(1 << 16)))
    ones = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).mean(0)
    assert (np.abs(ones - 0.5) < 0.02).all()
    assert max(Counter((hashes >> np.uint64(56)).tolist()).values()) < 400


def test_splitting_reads_in_a_stream() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"x": range(10_000)}), Path(folder) / "t.parquet", row_group_size=700)
        from_file = split_rows(Table.open(Path(folder) / "t.parquet"), schema("x"), seed=3)
    assert (from_file.codes == split_rows(Table.open({"x": list(range(10_000))}), schema("x"), seed=3).codes).all()
