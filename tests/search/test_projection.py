"""The map: groups stay together on it, new rows come to lie among their own, and what can't be made is said first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_table

from sensorium.core.errors import UserError
from sensorium.data.table import Table
from sensorium.model import Model
from sensorium.search import projection


def grouped(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around four means, and whose each is."""
    rng = np.random.default_rng(seed)
    label = rng.integers(4, size=rows)
    made = np.random.default_rng(99).standard_normal((4, 24))[label] + 0.3 * rng.standard_normal((rows, 24))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32), label


def apart(found: np.ndarray, label: np.ndarray) -> float:
    """The share of rows whose nearest other row on the map is of their group."""
    away = np.linalg.norm(found[:, None] - found[None], axis=2) + 1e9 * np.eye(len(found))
    return float((label[away.argmin(1)] == label).mean())


def test_groups_stay_together_also_rows_that_were_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, label = grouped(300)
    has = np.arange(300) % 7 > 0
    monkeypatch.setattr(projection, "FITTED", 120)
    found = projection.umap(vectors, has)
    assert found.shape == (300, 2) and found.dtype == np.float32 and not found[~has].any()
    assert apart(found[has], label[has]) >= 0.98
    assert np.array_equal(found, projection.umap(vectors, has))  # the same each time
    assert apart(projection.flat(vectors), label) >= 0.9
    assert (
        np.isfinite(projection.umap(vectors[:5], np.ones(5, bool))).all()
        and not projection.umap(vectors[:5], np.zeros(5, bool)).any()
    )
    spread = projection.framed(np.concatenate([found[has], [[1e6, 1e6]]]))
    assert spread.min() >= -0.05 and spread.max() <= 1.05


def test_an_index_keeps_its_map_and_new_rows_lie_among_their_own(fitted: Model, tmp_path: Path) -> None:
    index = fitted.index(tiny_table(60), tmp_path / "i", plan="umap")
    some, before = index.places()
    assert before.shape == (len(some), 2)
    index.add(Table.open(tiny_table(5)))  # rows that are there already
    index.remove([2])
    reopened = fitted.open_index(tmp_path / "i")
    rows, after = reopened.places()
    assert 2 not in rows and len(rows) == len(some) + 4
    raw = np.concatenate([part.places for part in reopened.store.parts])
    for row in range(5):  # alike rows may stand between: near is near beside all
        assert np.linalg.norm(raw[60 + row] - raw[row]) < 0.3 * np.linalg.norm(raw - raw[row], axis=1).max()
    plain = fitted.index(tiny_table(60).append_column("key", pa.array(range(60))), tmp_path / "p")
    assert plain.places()[1].shape == before.shape and plain.store.parts[0].places is None


def test_what_can_not_be_made_is_said_first(fitted: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"map.*Did you mean 'umap'"):
        fitted.index(tiny_table(20), tmp_path / "i", plan="umab")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install sensorium\[umap\]"):
        fitted.index(tiny_table(20), tmp_path / "i", plan="umap")
    assert not (tmp_path / "i").exists()
