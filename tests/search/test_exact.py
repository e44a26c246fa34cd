"""The nearest vectors: as a full product finds them, whatever may be found, in both precisions."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.search import exact


def vectors(n: int, d: int = 40, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def plain(queries: np.ndarray, kept: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    score = queries @ kept.T
    if allowed is not None:
        score[:, ~allowed] = -np.inf
    rows = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(score, rows, 1), rows


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("share", [None, 0.5, 0.01])
@pytest.mark.parametrize("n", [1, 31, 32, 5000, 4096 * 4 + 5])
def test_they_are_those_of_a_full_product(n: int, share: float | None, rough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: rough)
    kept, queries = vectors(n), vectors(70, seed=1)
    allowed = None if share is None else np.random.default_rng(2).random(n) < share
    score, rows = exact.nearest(queries, kept, 10, allowed, exact.as_rough(kept))
    able = min(10, n if allowed is None else int(allowed.sum()))
    wanted, best = plain(queries, kept, able, allowed)
    assert score.shape == rows.shape == (70, 10) and (rows[:, able:] == -1).all() and np.isneginf(score[:, able:]).all()
    assert np.allclose(score[:, :able], wanted, atol=1e-5)
    same = [len(set(a) & set(b)) for a, b in zip(rows[:, :able].tolist(), best.tolist(), strict=True)]
    assert sum(same) >= 0.999 * able * 70
    if allowed is not None:
        assert allowed[rows[:, :able]].all()


@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_few_queries_are_rough_everywhere(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: False)
    kept, queries = vectors(9000), vectors(count, seed=1)
    assert (exact.nearest(queries, kept, 10, None, exact.as_rough(kept))[1] == plain(queries, kept, 10, None)[1]).mean() > 0.99


def test_many_that_are_alike_crowd_nobody_out() -> None:
    kept = np.concatenate([np.tile(vectors(1), (500, 1)), vectors(500, seed=3)])
    score, rows = exact.nearest(kept[:1], kept, 600)
    assert (score[0, :500] > 0.999).all() and len(set(rows[0].tolist())) == 600


def test_no_query_and_no_vectors_find_nothing() -> None:
    assert exact.nearest(vectors(0), vectors(5), 3)[0].shape == (0, 3)
    assert (exact.nearest(vectors(2), vectors(0), 3)[1] == -1).all()
    assert (exact.nearest(vectors(2), vectors(5), 3, np.zeros(5, bool))[1] == -1).all()
