"""The table of exercises: windows of the right length, and nobody on both sides of the split."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("seglearn")

from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.datasets.exercises import HOP, STEPS, Exercises


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("exercises") / "exercises.parquet"
    Exercises().build(out)
    return out


@pytest.fixture(scope="module")
def cells(path):
    return pq.read_table(path).drop(["series"]).to_pylist()


def test_nobody_is_on_both_sides(cells):
    people = defaultdict(set)
    for row in cells:
        people[row["split"]].add(row["subject"])
    assert {part: len(them) for part, them in people.items()} == {"train": 6, "validation": 1, "test": 3}
    assert len(set.union(*people.values())) == 10


def test_every_part_has_every_exercise_with_both_arms(cells):
    for part in ("train", "validation", "test"):
        here = [row for row in cells if row["split"] == part]
        assert {row["exercise"] for row in here} == {"ABD", "ER", "FEL", "IR", "PEN", "ROW", "TRAP"}
        assert {row["arm"] for row in here} <= {"left", "right"}
    assert {row["arm"] for row in cells} == {"left", "right"}


def test_windows_are_the_recordings_own(path):
    from seglearn.datasets import load_watch

    watch = load_watch()
    rows = pq.read_table(path).slice(0, 40).to_pylist()
    for row in rows:
        _, number, start = row["id"].split("-")
        assert int(start) % HOP == 0
        assert row["start_s"] == pytest.approx(int(start) / 50)
        window = watch["X"][int(number)][int(start) : int(start) + STEPS]
        assert np.array(row["series"]).shape == (STEPS, 6)
        assert np.allclose(row["series"], window, rtol=1e-6)
        assert row["exercise"] == watch["y_labels"][int(watch["y"][int(number)])]
        assert row["arm"] == ("right" if watch["side"][int(number)] == 1 else "left")


def test_columns_are_understood_without_being_told(path):
    schema = infer(Table.open(path), targets=["exercise"])
    kinds = {name: column.kind for name, column in schema.columns.items()}
    assert kinds == {
        "subject": "category",
        "arm": "category",
        "exercise": "category",
        "start_s": "number",
        "series": "series",
    }
    assert schema.split == "split"
    assert "an id" in schema.left_out["id"]
