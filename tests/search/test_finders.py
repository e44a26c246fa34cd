"""Finders: what they propose holds the nearest, and an index with one finds what an index without does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_table

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.data.table import Table
from sensorium.model import Model
from sensorium.search.exact import nearest
from sensorium.search.finders import Finder
from sensorium.search.index import Index

FINDERS = names(Finder)
SIZE = 32


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around some means."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((40, SIZE))
    made = means[rng.integers(40, size=rows)] + 0.6 * rng.standard_normal((rows, SIZE))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("rows", [0, 3, 500, 6000])
def test_what_is_proposed_holds_the_nearest(name: str, rows: int, tmp_path: Path) -> None:
    made, finder = vectors(rows), find(Finder, name)
    able = np.arange(0, rows, 2)
    finder.write(tmp_path / "f", made, able)
    queries = vectors(20, 1)
    proposed = finder(tmp_path / "f", rows, SIZE).propose(queries, 72)
    assert proposed.shape == (20, 72) and proposed.dtype == np.int64 and (proposed % 2 == 0)[proposed >= 0].all()
    assert ((proposed >= 0).sum(1) == min(72, len(able))).all() and all(
        len(set(line[line >= 0])) == (line >= 0).sum() for line in proposed
    )
    truth = nearest(queries, made, 10, np.arange(rows) % 2 == 0)[1] if rows else np.zeros((20, 0), np.int64)
    shares = [
        len(set(near[near >= 0]) & set(line)) / max(1, (near >= 0).sum())
        for near, line in zip(truth, proposed, strict=True)
    ]
    assert not rows or np.mean(shares) >= 0.95
    assert finder(tmp_path / "f", rows, SIZE).propose(queries[:1], 5).shape == (1, 5)


@pytest.mark.parametrize("name", FINDERS)
def test_what_is_foreign_or_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    finder = find(Finder, name)
    finder.write(tmp_path / "f", vectors(300), np.arange(300))
    for rows, size in ((300, SIZE + 1), (299, SIZE)):
        with pytest.raises(ValueError, match="'.*f'"):
            finder(tmp_path / "f", rows, size)
    for path in (
        [tmp_path / "f"] if (tmp_path / "f").is_file() else [p for p in (tmp_path / "f").rglob("*") if p.is_file()]
    ):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="'.*f'"):
        finder(tmp_path / "f", 300, SIZE)
    with pytest.raises(ValueError, match="'.*none'"):
        finder(tmp_path / "none", 300, SIZE)


@pytest.mark.parametrize("name", FINDERS)
def test_an_index_with_a_finder_finds_what_one_without_does(
    fitted: Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny_table(70).append_column("key", pa.array([f"k{number}" for number in range(70)]))
    plain = fitted.index(table, tmp_path / "plain", key="key")
    made = fitted.index(table, tmp_path / "made", key="key", finder=name)
    assert made.store.about["found"] >= 0.95
    asked: list[int] = []
    kind = find(Finder, name)
    propose = kind.propose
    monkeypatch.setattr(
        kind, "propose", lambda self, queries, count: (asked.append(count), propose(self, queries, count))[1]
    )

    def same(one: Index, other: Index, **options: object) -> None:
        for query in ({"name": "a red bar"}, {"tone": table["tone"][1].as_py(), "colour": "red"}):
            a, b = one.search(query, **options), other.search(query, **options)
            assert np.allclose(a["score"].to_numpy(), b["score"].to_numpy(), atol=1e-5), options

    for options in ({"k": 7}, {"k": 7, "among": "picture"}, {"k": 100}, {"k": 5, "condition": 'colour = "blue"'}):
        same(plain, made, **options)
    used = len(asked)
    assert used >= 4
    same(plain, made, k=5, condition="width > 1000000")
    assert len(asked) == used  # of few rows all are looked at
    more = tiny_table(90).slice(60).append_column("key", pa.array([f"k{number}" for number in range(60, 90)]))
    for index in (plain, made):
        index.add(Table.open(more))
        index.remove(["k3", "k70"])
    made = fitted.open_index(tmp_path / "made")
    same(plain, made, k=12)
    assert made.store.about["finder"] == name and len(made) == len(plain)


def test_a_finder_that_is_not_there_is_said_before_anything_is_embedded(fitted: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"finder.*Did you mean 'hnsw'"):
        fitted.index(tiny_table(20), tmp_path / "i", finder="hsnw")
    assert not (tmp_path / "i").exists()
