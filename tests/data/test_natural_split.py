"""A table that is of persons or of moments is split by these, and by nothing that only looks so."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from sensorium import Table
from sensorium.core.errors import UserError
from sensorium.data.natural_split import natural_split
from sensorium.data.schema import infer
from sensorium.data.split import split_rows

ROWS = 400
DAY = datetime.datetime(2026, 1, 1)


def columns(**more: list) -> Table:
    rng = np.random.default_rng(0)
    return Table.open({"x": rng.normal(size=ROWS).tolist(), "y": rng.integers(0, 3, ROWS).tolist(), **more})


def by(table: Table, targets: tuple[str, ...] = ()) -> str | None:
    found = natural_split(table, infer(table), targets)
    return found and found.by


def test_rows_of_persons_are_split_by_person() -> None:
    table = columns(subject_id=[f"p{i % 20}" for i in range(ROWS)])
    assert by(table) == "group:subject_id" and by(table, ("subject_id",)) is None
    splits = split_rows(table, infer(table), by="group:subject_id")
    people = table.take(np.arange(ROWS)).column("subject_id").to_pylist()
    sides = [{people[i] for i in splits.rows(name)} for name in splits.names]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@pytest.mark.parametrize(
    "cells",
    [
        [f"p{i}" for i in range(ROWS)],
        [f"p{i % 3}" for i in range(ROWS)],
        ["p0" if i % 2 else f"p{i % 40}" for i in range(ROWS)],
        [None if i % 2 else f"p{i % 40}" for i in range(ROWS)],
    ],
    ids=["all differ", "three", "a giant", "mostly missing"],
)
def test_what_is_no_group_splits_nothing(cells: list) -> None:
    assert by(columns(subject=cells)) is None


def test_rows_in_the_order_of_time_are_split_by_it() -> None:
    moments = [DAY + datetime.timedelta(hours=3 * i) for i in range(ROWS)]
    table = columns(measured_at=moments)
    assert by(table) == "time:measured_at"
    splits = split_rows(table, infer(table), by="time:measured_at")
    train, validation, test = (splits.rows(name) for name in ("train", "validation", "test"))
    assert train.max() < validation.min() and validation.max() < test.min()
    assert [len(part) for part in (train, validation, test)] == [320, 40, 40]
    shuffled = np.random.default_rng(0).permutation(ROWS)
    assert by(columns(measured_at=[moments[i] for i in shuffled])) is None
    assert by(columns(birthday=moments)) is None, "not every date is a clock"


def test_a_split_column_decides() -> None:
    table = columns(
        subject=[f"p{i % 20}" for i in range(ROWS)], split=["train" if i % 5 else "test" for i in range(ROWS)]
    )
    assert by(table) is None


def test_a_column_without_moments_cant_split_by_time() -> None:
    table = columns()
    with pytest.raises(UserError, match="holds no moment"):
        split_rows(table, infer(table), by="time:x")
