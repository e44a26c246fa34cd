"""Dates: every way a source gives them, resolution, cycles, bad ones."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import BadCell
from sensorium.core.types import Profile
from sensorium.modalities.date import CYCLES, Date, cycles

NOON = 1715601600.0  # 2024-05-13 12:00 UTC


def learned(cells: list[Any], **options: Any) -> Date:
    date = Date(**options)
    date.learn([date.read(cell) for cell in cells])
    return date


def there_and_back(cells: list[Any], **options: Any) -> list[str]:
    date = learned(cells, **options)
    copy = Date(**options)
    copy.load_state(json.loads(json.dumps(date.state())))
    return [copy.decode(said) for said in copy.target(copy.collate([copy.read(cell) for cell in cells])).numpy()]


@pytest.mark.parametrize(
    "cell",
    [
        datetime.datetime(2024, 5, 13, 12),
        datetime.datetime(2024, 5, 13, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        np.datetime64("2024-05-13T12"),
        np.datetime64("2024-05-13T12:00:00.000000000"),
        pd.Timestamp("2024-05-13 12:00"),
        pd.Timestamp("2024-05-13 14:00", tz="Europe/Berlin"),
        "2024-05-13T12:00",
        "2024-05-13 12:00:00Z",
        "2024-05-13T14:00:00+02:00",
        b"2024-05-13T12:00:00",
        " 20240513T120000 ",
        "2024/5/13 12:00",
    ],
)
def test_one_moment_however_it_is_given(cell: Any) -> None:
    assert Date().read(cell).tolist() == [NOON]


def test_dates_and_parts_of_dates() -> None:
    for cell in (datetime.date(2024, 5, 1), "2024-05", "2024-05-01", np.datetime64("2024-05"), "2024/05/01", "2024.05"):
        assert Date().read(cell).tolist() == [1714521600.0]
    assert Date().read("1969-12-31").tolist() == [-86400.0]
    assert Date(format="%d.%m.%y").read("13.05.24").tolist() == [NOON - 43200]
    assert Date(numbers="ms").read(NOON * 1000).tolist() == [NOON]
    assert Date(numbers="year").read(2024).tolist() == Date().read("2024").tolist() == [1704067200.0]


@pytest.mark.parametrize("cell", [None, "", "NaT", pd.NaT, np.datetime64("NaT"), float("nan")])
def test_missing(cell: Any) -> None:
    assert Date().read(cell).shape == (0,)


@pytest.mark.parametrize(
    "cell",
    [
        "2024-13-01",
        "2024-02-30",
        "0000-00-00",
        "13.05.2024",
        "soon",
        5,
        True,
        [1],
        np.datetime64("99999-01-01"),
        pytest.param("x" * 10**7, id="long"),
        datetime.time(3),
        np.datetime64(2**62, "s"),
        b"\xff",
        np.timedelta64(3, "s"),
    ],
)
def test_bad(cell: Any) -> None:
    with pytest.raises(BadCell) as caught:
        Date().read(cell)
    assert len(str(caught.value)) < 200


def test_bad_numbers() -> None:
    for date, cell in (
        (Date(numbers="year"), 12345),
        (Date(numbers="year"), 1.5),
        (Date(numbers="s"), 1e300),
        (Date(numbers="s"), float("inf")),
        (Date(numbers="ns"), 10**400),
    ):
        with pytest.raises(BadCell):
            date.read(cell)


days = st.dates(datetime.date(1, 1, 1), datetime.date(9999, 12, 31))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 12, 31)), min_size=1, max_size=40))
def test_days_come_back(cells: list[datetime.date]) -> None:
    found = [datetime.date.fromisoformat({4: f"{t}-01-01", 7: f"{t}-01"}.get(len(t), t)) for t in there_and_back(cells)]
    assert found == cells


@settings(deadline=None, max_examples=200)
@given(st.lists(st.datetimes(), min_size=1, max_size=20), st.lists(days, min_size=1, max_size=5))
def test_any_moment_is_encoded_and_said(sample: list[datetime.datetime], others: list[datetime.date]) -> None:
    date = learned(sample)
    cells = date.collate([date.read(cell) for cell in [*sample, *others]])
    assert all(bool(value.isfinite().all()) for value in cells.values())
    for said in date.target(cells).numpy():
        Date().read(date.decode(said))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["2019", "2024"], ["2019", "2024"]),
        (["2019-03", "2024-12"], ["2019-03", "2024-12"]),
        (["2019-03-02", "2024-12-31"], ["2019-03-02", "2024-12-31"]),
        (["2024-01-01"] * 3, ["2024-01-01"] * 3),
        (["2019-03-02T10:30", "2024-12-31T23:59"], ["2019-03-02T10:30", "2024-12-31T23:59"]),
        (["2024-03-02T10:30:01", "2024-03-02T10:31:59"], ["2024-03-02T10:30:01", "2024-03-02T10:31:59"]),
    ],
)
def test_said_as_fine_as_the_column(cells: list[str], said: list[str]) -> None:
    assert there_and_back(cells) == said


def test_far_out_scores_stay_in_the_calendar() -> None:
    date = learned(["2019-03-02", "2024-12-31"])
    assert date.decode(np.array([[1e9]])) == "9999-12-31" and date.decode(np.array([[-1e9]])) == "0001-01-01"


def test_cycles_know_the_weekend_and_the_year() -> None:
    monday, saturday = (cycles(Date().read(day)) for day in ("2024-05-13", "2024-05-18"))
    assert monday.shape == (1, CYCLES) and monday[0, -1] == 0 and saturday[0, -1] == 1
    a, b = (cycles(Date().read(day))[0, :1] for day in ("2023-06-01", "2024-06-01"))
    assert a == pytest.approx(b, abs=0.03)


def test_score_is_in_days() -> None:
    assert Date().score(["2024-05-13", "2024-05-15"], ["2024-05-14", "2024-05-15"]) == pytest.approx(
        {"r2": 0.5, "mae": 0.5}
    )
    assert Date().score([None], ["2024"]) == {}


def test_claims() -> None:
    def claim(type_: str, sample: list[Any]) -> bool:
        return (
            Date.claim(
                Profile(
                    name="x", type=type_, sample=sample, present=len(sample), rows=len(sample), distinct=len(sample)
                )
            )
            is not None
        )

    assert (
        claim("date32[day]", [])
        and claim("timestamp[us]", [])
        and claim("string", ["2024-05-13", "2023-01-01T10:00", ""])
    )
    assert claim("object", [datetime.date(2024, 1, 1)])
    assert not claim("string", ["2024", "2023"]) and not claim("string", ["20240513"]) and not claim("string", ["x"])
    assert not claim("int64", [1, 2])
