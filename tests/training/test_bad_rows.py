"""Rows that can't be read: put aside with a reason, counted exactly, and without any influence on what is learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import drawing, tiny_cells, tone

from sensorium.core.errors import UserError
from sensorium.model import Model

ROWS, SPARE = 120, 12


def silence() -> bytes:
    """A WAV file that is nothing but its header."""
    return tone(440.0, seconds=0.0)


def spoil(cells: dict[str, list[Any]], row: int, way: int) -> tuple[str, str]:
    """Make one cell of a row unreadable; its column and what the reason says."""
    ways: list[tuple[str, Any, str]] = [
        ("picture", drawing("red", "square", 2)[:60], "decoded"),
        ("picture", b"\x89PNG\r\n\x1a\n" + b"no picture" * 20, "decoded|picture"),
        ("picture", b"GIF89a", "decoded|picture"),
        ("tone", silence(), "no samples"),
        ("tone", b"RIFF\x24\x00\x00\x00WAVEfmt ", "decoded"),
        ("width", "about ten", "no number"),
        ("width", "12 apples", "no number"),
        ("curve", [[1e35, float("nan")]] * 20, "nothing but gaps"),
        ("curve", [[1.0, 2.0, 3.0]] * 20, "3 channels where its column has 2"),
        ("day", "the day before", "no date"),
        ("name", b"\xff\xfe\xfa name", "UTF-8"),
    ]
    column, cell, reason = ways[way % len(ways)]
    cells[column][row] = cell
    return column, reason


def written(cells: dict[str, list[Any]]) -> pa.Table:
    """The cells as a table in which a number, a date or a text may hold anything."""
    width = [None if value is None or value != value else str(value) for value in cells["width"]]
    day = [None if value is None else str(value) for value in cells["day"]]
    name = [value.encode() if isinstance(value, str) else value for value in cells["name"]]
    kinds = {"width": width, "day": day, "name": pa.array(name, pa.binary())}
    return pa.table({**cells, **kinds})


OVERRIDES = ["column.width.kind=number", "column.day.kind=date", "column.name.kind=text", "column.curve.kind=series"]


def tables(split: bool) -> tuple[pa.Table, pa.Table, dict[int, tuple[str, str]]]:
    """A table with bad rows, the same without them, and which cells are bad."""
    cells = tiny_cells(ROWS)
    if split:
        cells["split"] = ["test" if row % 10 == 9 else "train" for row in range(ROWS)]
    rng, bad = np.random.default_rng(1), {}
    for way, row in enumerate(rng.choice(np.arange(10, ROWS), SPARE - 1, replace=False)):
        bad[int(row)] = spoil(cells, int(row), way)
    whole = written(cells)
    return whole, whole.take([row for row in range(ROWS) if row not in bad]), bad


def losses(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("split", [False, True], ids=["by hash", "by column"])
def test_a_fit_with_bad_rows_is_a_fit_without_them(
    split: bool, quick_fit: Callable[..., Model], tmp_path: Path
) -> None:
    whole, rest, bad = tables(split)
    dirty = quick_fit(whole, *OVERRIDES, out=tmp_path / "dirty")
    clean = quick_fit(rest, *OVERRIDES, out=tmp_path / "clean")
    assert losses(tmp_path / "dirty") == losses(tmp_path / "clean")
    assert weights(tmp_path / "dirty") == weights(tmp_path / "clean")
    assert {m: x.state() for m, x in dirty.network.modalities.items()} == {
        m: x.state() for m, x in clean.network.modalities.items()
    }
    assert dirty.facts["rows"] == clean.facts["rows"]
    assert np.array_equal(np.load(tmp_path / "dirty" / "rows.npy"), np.load(tmp_path / "clean" / "rows.npy"))
    assert not (tmp_path / "clean" / "quarantine.jsonl").exists()


def test_the_quarantine_says_each_bad_cell_once(quick_fit: Callable[..., Model], tmp_path: Path) -> None:
    whole, _, bad = tables(False)
    model = quick_fit(whole, *OVERRIDES, epochs=1)
    entries = [
        json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert sorted((entry["row"], entry["column"]) for entry in entries) == sorted(
        (row, column) for row, (column, _) in bad.items()
    )
    for entry in entries:
        assert any(words in entry["reason"] for words in bad[entry["row"]][1].split("|")), entry
    assert model.facts["bad_rows"] == len(bad)
    counted: dict[str, int] = {}
    for column, _ in bad.values():
        counted[column] = counted.get(column, 0) + 1
    assert model.facts["bad_cells"] == counted
    quick_fit(whole, *OVERRIDES, epochs=1, resume=True)
    again = (tmp_path / "run" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(again) == len(entries)


@pytest.mark.parametrize(
    ("most", "stops"), [("11", False), ("10", True), ("10%", False), ("9%", True), ("0.05", True), ("0", True)]
)
def test_too_many_bad_rows_stop_the_run(
    most: str, stops: bool, quick_fit: Callable[..., Model], tmp_path: Path
) -> None:
    whole, _, bad = tables(False)
    assert len(bad) == 11
    if not stops:
        assert quick_fit(whole, *OVERRIDES, f"data.max_bad={most}", epochs=1).facts["bad_rows"] == 11
        return
    with pytest.raises(UserError, match=r"of 120 rows hold a cell that can't be read.*--max-bad") as error:
        quick_fit(whole, *OVERRIDES, f"data.max_bad={most}", epochs=1)
    assert str(tmp_path / "run" / "quarantine.jsonl") in str(error.value)
    assert not (tmp_path / "run" / "model.json").exists()


def test_only_bad_rows_leave_nothing_to_learn_from(quick_fit: Callable[..., Model]) -> None:
    table = pa.table({"picture": [drawing("red", "bar", 1)[:50]] * 30, "colour": ["red", "blue", "green"] * 10})
    with pytest.raises(UserError, match="30 of 30 rows"):
        quick_fit(table, "column.picture.kind=image")
    with pytest.raises(UserError, match="No row of .* is left for training"):
        quick_fit(table, "column.picture.kind=image", "data.max_bad=100%")


def test_bad_cells_count_as_missing_when_the_model_is_asked(fitted: Model) -> None:
    cells, heard = tiny_cells(12, seed=5, gaps=0.0), []
    spoiled = {
        0: spoil(cells, 0, 0),
        1: spoil(cells, 1, 3),
        2: spoil(cells, 2, 5),
        3: spoil(cells, 3, 8),
        4: spoil(cells, 4, 9),
    }
    clean = tiny_cells(12, seed=5, gaps=0.0)
    for row, (column, _) in spoiled.items():
        clean[column][row] = None
    dirty = fitted.embed(written(cells), note=heard.append)
    assert np.allclose(dirty, fitted.embed(written(clean)), atol=1e-6)
    assert len(heard) == 5 and all("1 cell(s) can't be read and count as missing" in words for words in heard)
    assert any("column 'picture'" in words and "row 0" in words for words in heard)
