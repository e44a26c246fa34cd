"""Conditions: what they choose, and what is said of those that can't be understood."""

from __future__ import annotations

import contextlib
import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.core.errors import UserError
from sensorium.search.where import where

TABLE = pa.table(
    {
        "year": [2010, 2016, None, 2020],
        "group": ["food", "food", 'it\'s "x"', None],
        "my col": [1.5, 2.0, 3.0, 4.0],
        "ok": [True, False, None, True],
        "day": pa.array([datetime.date(2024, 5, day) for day in (1, 2, 3, 4)]),
        "kind": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "in": [1, 2, 3, 4],
    }
)


@pytest.mark.parametrize(("words", "rows"), [
    ('year > 2015 and group = "food"', [1]), ("not (year > 2015)", [0]), ("`my col` >= 2 or ok = true", [0, 1, 2, 3]),
    ('day < "2024-05-03"', [0, 1]),
    ("group in (\"x\", 'food')", [0, 1]), ('group not in ("food")', [2]), ('group contains "OO"', [0, 1]),
    ("year is missing", [2]), ("year is not null", [0, 1, 3]),
    ("year != 2016 or group is missing", [0, 3]), ("year>-1e3", [0, 1, 3]),
    ("year = 2010 or year = 2016 and group = 'nothing'", [0]), ("NOT year = 2010 AND ok=true", [3]),
    (r'group = "it\'s \"x\""', [2]), ('kind = "a"', [0, 2]), ("in >= 3", [2, 3]), ("ok != false", [0, 3]),
    ("year<>2010", [1, 3]),
])  # fmt: skip
def test_rows_that_meet_it(words: str, rows: list[int]) -> None:
    met = where(words, TABLE)
    assert met.null_count == 0 and [row for row, yes in enumerate(met.to_pylist()) if yes] == rows


@pytest.mark.parametrize(("words", "told"), [
    ("year >", "a number or a text"), ("yeer > 3", "Did you mean 'year'"), ('year = "a"', "can't be compared"),
    ("(year=1", r"'\)' was expected"), ("year 3", "was expected"),
    ("", "name of a column"), ("year = 1 2", "'and', 'or' or the end"), ("group contains 3", "texts"),
    ('day > "abc"', "can't be compared"), ("$", "can't be read"),
    ("year == 1 and", "name of a column"), ("(" * 80 + "year=1" + ")" * 80, "brackets"),
    ("year = 1" + "0" * 30, "can't be compared"), ("ok > 1", "can't be compared"),
    ("year in 3", "values"), ("year in (3", r"',' or '\)'"), ('"year" = 3', "name of a column"),
    ("not " * 80 + "year = 1", "brackets"),
])  # fmt: skip
def test_what_is_wrong_is_told(words: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        where(words, TABLE)


@given(st.text(alphabet="yeargroup<>=!()\"'`0123456789.- andornot", max_size=40))
def test_nothing_else_is_ever_raised(words: str) -> None:
    with contextlib.suppress(UserError):
        assert len(where(words, TABLE)) == 4
