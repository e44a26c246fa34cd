"""BasicMotions, Japanese vowels and airports: what is in them, and that their columns are understood."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from sensorium.core.registry import find
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.datasets import Builder

PACKAGES = {"basicmotions": "aeon", "vowels": "aeon", "airports": "vega_datasets"}


@pytest.fixture
def table(request, tmp_path):
    pytest.importorskip(PACKAGES[request.param])
    find(Builder, request.param)().build(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def kinds(path) -> dict[str, str]:
    schema = infer(Table.open(path))
    assert schema.split == "split"
    assert list(schema.left_out) == ["id"]
    return {name: column.kind for name, column in schema.columns.items()}


@pytest.mark.parametrize("table", ["basicmotions"], indirect=True)
def test_basicmotions(table):
    assert kinds(table) == {"series": "series", "activity": "category"}
    rows = pq.read_table(table).to_pylist()
    assert Counter((row["split"], row["activity"]) for row in rows) == {
        (split, activity): 10
        for split in ("train", "test")
        for activity in ("standing", "running", "walking", "badminton")
    }
    assert {np.array(row["series"]).shape for row in rows} == {(100, 6)}
    still, running = (
        np.mean([np.array(r["series"])[:, 0].std() for r in rows if r["activity"] == a])
        for a in ("standing", "running")
    )
    assert running > 5 * still


@pytest.mark.parametrize("table", ["vowels"], indirect=True)
def test_vowels(table):
    assert kinds(table) == {"series": "series", "speaker": "category"}
    rows = pq.read_table(table).to_pylist()
    shapes = [np.array(row["series"]).shape for row in rows]
    assert {channels for _, channels in shapes} == {12}
    assert (min(steps for steps, _ in shapes), max(steps for steps, _ in shapes)) == (7, 29)
    train = Counter(row["speaker"] for row in rows if row["split"] == "train")
    assert train == {f"speaker {i}": 30 for i in range(1, 10)}
    assert sum(row["split"] == "test" for row in rows) == 370


@pytest.mark.parametrize("table", ["airports"], indirect=True)
def test_airports(table):
    assert kinds(table) == {
        "name": "text",
        "city": "text",
        "latitude": "number",
        "longitude": "number",
        "state": "category",
    }
    rows = pq.read_table(table).to_pylist()
    states = Counter(row["state"] for row in rows)
    assert len(states) == 56
    assert "NA" not in states
    assert 0.17 < np.mean([row["split"] == "test" for row in rows]) < 0.23
    assert states.keys() - {row["state"] for row in rows if row["split"] == "train"} <= {"DC", "GU"}
    hawaii = [row for row in rows if row["state"] == "HI"]
    assert all(18 < row["latitude"] < 29 and -179 < row["longitude"] < -154 for row in hawaii)
