"""What every small table promises: the same bytes again, a small one is a beginning, credits, errors that can be
mended.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.core.errors import UserError
from sensorium.core.registry import find
from sensorium.datasets import Builder
from sensorium.datasets._parquet import SERIES, beginning, data_file, share, write
from sensorium.datasets._ts import cases

PACKAGES = {"exercises": "seglearn", "basicmotions": "aeon", "vowels": "aeon", "airports": "vega_datasets"}
WHOLE = {"exercises": 1737, "basicmotions": 80, "vowels": 640, "airports": 3364}


@pytest.fixture(params=PACKAGES)
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param])
    return request.param


def test_the_same_bytes_again_and_a_small_table_is_a_beginning(name, tmp_path):
    builder = find(Builder, name)
    whole = builder().build(tmp_path / "new folder" / "whole.parquet")
    first, again = (builder(rows=30).build(tmp_path / f"{i}.parquet") for i in range(2))
    assert first == again
    assert (tmp_path / "0.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()
    assert whole["sha256"] == hashlib.sha256((tmp_path / "new folder" / "whole.parquet").read_bytes()).hexdigest()
    table = pq.read_table(tmp_path / "new folder" / "whole.parquet")
    assert whole["rows"] == table.num_rows == WHOLE[name]
    assert pq.read_table(tmp_path / "0.parquet").equals(table.slice(0, 30))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "0.parquet",
        "1.parquet",
        "new folder",
    ]  # nothing half written


def test_ids_are_unique_and_every_part_is_in_a_small_table(name, tmp_path):
    find(Builder, name)(rows=60).build(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert len(set(table.column("id").to_pylist())) == 60
    assert {"train", "test"} <= set(table.column("split").to_pylist())


def test_credits_name_the_package_and_its_licence(name, tmp_path):
    built = find(Builder, name)(rows=4).build(tmp_path / "t.parquet")
    kept = pq.read_schema(tmp_path / "t.parquet").metadata[b"credits"].decode()
    assert kept.splitlines() == built["credits"]
    assert PACKAGES[name] in kept
    assert any(licence in kept for licence in ("BSD", "MIT", "CC BY"))


def test_a_missing_package_is_said_with_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    with pytest.raises(UserError, match=rf"{PACKAGES[name]}.*pip install 'sensorium\[examples\]'"):
        find(Builder, name)(rows=4).build(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_a_package_without_the_file_is_said():
    with pytest.raises(UserError, match=r"doesn't hold 'no/such\.csv'"):
        data_file("pyarrow", "no/such.csv", "airports")


@pytest.mark.parametrize("rows", [0, -3])
def test_no_rows_are_refused(name, rows):
    with pytest.raises(UserError, match="give 1 or more"):
        find(Builder, name)(rows=rows)


def test_progress_ends_with_all_rows(tmp_path):
    told = []
    rows = [{"id": f"r-{i:03}"} for i in range(600)]
    schema = pa.schema([("id", pa.string())])
    write(tmp_path / "t.parquet", "t", rows, schema, ["x"], progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    schema = pa.schema([("id", pa.string())])
    with pytest.raises(UserError, match="is a folder"):
        write(tmp_path, "t", [], schema, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        write(tmp_path / "file" / "t.parquet", "t", [], schema, [])


def test_a_failure_leaves_the_table_that_was_there(tmp_path):
    schema = pa.schema([("id", pa.string()), ("series", SERIES)])
    write(tmp_path / "t.parquet", "t", [{"id": "a", "series": [[1.0]]}], schema, [])
    before = (tmp_path / "t.parquet").read_bytes()
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write(tmp_path / "t.parquet", "t", [{"id": "a", "series": "no series"}], schema, [])
    assert (tmp_path / "t.parquet").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_order_and_shares_depend_on_the_id_alone():
    rows = [{"id": str(i)} for i in range(200)]
    assert beginning(rows, None) == beginning(rows[::-1], None) != rows
    assert beginning(rows, 7) == beginning(rows, None)[:7]
    shares = [share(str(i)) for i in range(2000)]
    assert all(0 <= x < 1 for x in shares)
    assert abs(sum(x < 0.2 for x in shares) / 2000 - 0.2) < 0.03


def test_a_ts_file_of_cases_of_different_lengths(tmp_path):
    path = tmp_path / "a.ts"
    path.write_text("# words: not a case\n@dimensions 2\n@data\n1,2,3:4,5,6:yes\n\n7,?:8,9:no\n", encoding="utf-8")
    assert list(cases(path)) == [([[1, 4], [2, 5], [3, 6]], "yes"), ([[7, 8], [None, 9]], "no")]


@pytest.mark.parametrize("line", ["1,2:3:yes", "1,x:3,4:yes"])
def test_a_broken_ts_file_is_said_with_its_line(tmp_path, line):
    path = tmp_path / "a.ts"
    path.write_text(f"@data\n1,2:3,4:yes\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 3"):
        list(cases(path))
