"""The quarantine counts rows and cells exactly, survives a kill, and stops a run past its limit."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensorium.core.errors import UserError
from sensorium.data.quarantine import MIN_ROWS_TO_STOP, Quarantine, parse_max_bad, preview


@pytest.mark.parametrize(
    "value, limit",
    [
        ("10%", 0.1),
        ("0.1", 0.1),
        (0.1, 0.1),
        ("50", 50),
        (50, 50),
        ("0", 0),
        (0, 0),
        ("100%", 1.0),
        (1.0, 1.0),
        (1, 1),
        (" 2.5% ", 0.025),
    ],
)
def test_limits(value: str | float, limit: float) -> None:
    assert parse_max_bad(value) == limit and type(parse_max_bad(value)) is type(limit)


@pytest.mark.parametrize("value", ["", "x", "-1", "-5%", "101%", "1.5", "nan", "inf", "nan%", True, -0.1, "10%%"])
def test_no_limits(value: str | float) -> None:
    with pytest.raises(UserError, match="--max-bad"):
        parse_max_bad(value)


def test_a_row_counts_once_and_each_column_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path)
    assert quarantine.add(3, "image", "torn", b"\x89PNG\r\n\x1a\n" + b"x" * 1000)
    assert quarantine.add(np.int64(3), "sound", "empty", b"")
    assert not quarantine.add(3, "image", "torn again", b"")
    assert quarantine.add(4, "name", "too long", "é\ud800" * 500_000)
    assert (
        len(quarantine) == 2 and quarantine.rows == {3, 4} and quarantine.columns == {"image": 1, "sound": 1, "name": 1}
    )
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["row"] for line in lines] == [3, 3, 4] and lines[0]["reason"] == "torn"
    assert lines[0]["cell"] == "image/png, 1,008 bytes, 89504e470d0a1a0a7878787878787878"
    assert len(lines[2]["cell"]) <= 201 and path.stat().st_size < 5000


def test_a_resumed_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    first = Quarantine(path)
    for row in range(5):
        first.add(row, "a", "bad", None)
    data = path.read_bytes()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        again = Quarantine(path)
        assert len(again) == data[:cut].count(b"\n")
        for row in range(6):
            again.add(row, "a", "bad", None)
        assert len(again) == 6 == len(path.read_text().splitlines()) == len(set(path.read_text().splitlines()))


@given(st.integers(0, 200), st.integers(0, 200), st.one_of(st.integers(0, 100), st.floats(0, 1)))
def test_check_is_exact(bad: int, good: int, limit: float) -> None:
    quarantine = Quarantine(None, limit)
    for row in range(bad):
        quarantine.add(row, "a", "bad", row)
    rows = bad + good
    too_many = bad > limit * rows + 1e-9 if isinstance(limit, float) else bad > limit
    if too_many:
        with pytest.raises(UserError, match=f"{bad:,} of {rows:,} rows"):
            quarantine.check(rows)
    else:
        quarantine.check(rows)


def test_a_share_is_not_judged_early_but_a_number_is() -> None:
    share, number = Quarantine(None, "10%"), Quarantine(None, 1)
    for quarantine in (share, number):
        for row in range(2):
            quarantine.add(row, "a", "bad", None)
    share.check(5, final=False)
    with pytest.raises(UserError, match=r"10.0%.*Most often: a: bad \(2\)"):
        share.check(5)
    with pytest.raises(UserError):
        number.check(5, final=False)
    for row in range(MIN_ROWS_TO_STOP):
        share.add(row, "a", "bad", None)
    with pytest.raises(UserError):
        share.check(MIN_ROWS_TO_STOP, final=False)


def test_threads_lose_nothing(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl")
    threads = [
        threading.Thread(
            target=lambda start=start: [quarantine.add(row, "a", "bad", row) for row in range(start, start + 300)]
        )
        for start in (0, 100, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(quarantine) == 500 == len((tmp_path / "q.jsonl").read_text().splitlines())


def test_preview_of_any_cell() -> None:
    cells = (
        None,
        1,
        float("nan"),
        "x" * 999,
        b"",
        {"bytes": b"x", "path": "p"},
        {"path": "p"},
        np.zeros((3, 2)),
        [1] * 10_000,
    )
    for cell in (*cells, "\0"):
        text = preview(cell)
        assert text is None or (isinstance(text, str) and len(text) <= 201)
        json.dumps(text)
