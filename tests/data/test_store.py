"""The store: what goes in comes out, a missing cell takes no place, and a full disk is told in words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium.core.errors import UserError
from sensorium.data import store as module
from sensorium.data.store import CellStore, CellStoreWriter

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")


def stored(folder: Path, columns: dict[str, list[np.ndarray | None]]) -> CellStore:
    with CellStoreWriter(folder, list(columns)) as writer:
        for row in range(max(map(len, columns.values()))):
            writer.add({column: cells[row] for column, cells in columns.items()})
        return writer.close()


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if b is None or not len(b):
        return a is None
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=12),
    st.sampled_from(["<f4", "<f2", "|u1", "<i8", "|b1"]),
       st.sampled_from([(), (1,), (3, 2), (0,)]))  # fmt: skip
def test_ragged_cells_come_back(tmp_path: Path, lengths: list[int | None], dtype: str, tail: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    cells = [None if k is None else (rng.random((k, *tail)) * 9).astype(dtype) for k in lengths]
    opened = stored(tmp_path / "s", {"a": cells, "b": cells[::-1]})
    again = CellStore(tmp_path / "s")
    for store in (opened, again):
        assert store.rows == len(cells) and list(store.columns) == ["a", "b"]
        assert all(same(got, want) for got, want in zip(store.cells("a", range(len(cells))), cells, strict=True))
        assert all(same(got, want) for got, want in zip(store.cells("b", range(len(cells))), cells[::-1], strict=True))


def test_a_column_without_cells_and_a_store_without_rows(tmp_path: Path) -> None:
    store = stored(tmp_path / "a", {"x": [None, np.zeros(0, np.float32)], "y": [np.ones(2), np.ones(3)]})
    assert store.cells("x", [0, 1]) == [None, None] and len(store.cells("y", [1])[0]) == 3
    with CellStoreWriter(tmp_path / "b", ["x"]) as writer:
        assert writer.close().rows == 0
    with CellStoreWriter(tmp_path / "c", []) as writer:
        writer.add({})
        assert writer.close().rows == 1


def test_cells_are_read_only_and_survive_a_release(tmp_path: Path) -> None:
    store = stored(tmp_path, {"x": [np.arange(5), np.arange(3)]})
    cell = store.cells("x", [0])[0]
    with pytest.raises(ValueError, match="read-only"):
        cell[0] = 1
    store.release()
    assert cell.tolist() == [0, 1, 2, 3, 4] and store.cells("x", np.array([1]))[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("other", [np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros((2, 2))])
def test_cells_of_other_kinds_are_refused(other: np.ndarray, tmp_path: Path) -> None:
    with CellStoreWriter(tmp_path, ["x"]) as writer:
        writer.add({"x": np.zeros(3)})
        with pytest.raises(ValueError, match="among cells of"):
            writer.add({"x": other})


def test_a_store_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    stored(tmp_path, {"x": [np.arange(3)]})
    writer = CellStoreWriter(tmp_path, ["x"])
    assert not (tmp_path / "store.json").exists()
    writer.add({"x": np.arange(9)})
    with writer:
        pass
    assert not (tmp_path / "store.json").exists()
    assert json.loads((stored(tmp_path, {"y": [np.arange(2)]}).folder / "store.json").read_text())["rows"] == 1


@needs_full
@pytest.mark.parametrize("when", ["while cells are added", "at the end"])
@pytest.mark.parametrize("file", ["0.data", "0.offsets"])
def test_a_full_disk_is_told(when: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).symlink_to("/dev/full")
    rows = 40_000 if when == "while cells are added" else 10

    def write() -> None:
        with CellStoreWriter(tmp_path, ["x"]) as writer:
            for _ in range(rows):
                writer.add({"x": np.zeros(64)})
            writer.close()

    with pytest.raises(UserError, match=r"No space left on device.*Free some space"):
        write()
    assert not (tmp_path / "store.json").exists()


@pytest.mark.parametrize("what", ["mkdir", "open", "rename", "fsync"])
def test_every_refusal_of_the_system_is_told(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    targets: dict[str, Callable[[], None]] = {
        "mkdir": lambda: monkeypatch.setattr(Path, "mkdir", refuse),
        "open": lambda: monkeypatch.setattr(Path, "open", refuse),
        "rename": lambda: monkeypatch.setattr(module.os, "replace", refuse),
        "fsync": lambda: monkeypatch.setattr(module.os, "fsync", refuse),
    }  # fmt: skip
    targets[what]()
    with pytest.raises(UserError, match="Free some space"):
        stored(tmp_path / "s", {"x": [np.arange(3)]})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_forbidden_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        CellStoreWriter(tmp_path / "s", ["x"])
