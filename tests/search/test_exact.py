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


@pytest.mark.parametrize("count", [3, 20, 70])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("share", [None, 0.5, 0.01])
@pytest.mark.parametrize("n", [1, 31, 32, 5000, 4096 * 4 + 5])
def test_they_are_those_of_a_full_product(
    n: int, share: float | None, bf16: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: bf16)
    kept, queries = vectors(n), vectors(count, seed=1)
    allowed = None if share is None else np.random.default_rng(2).random(n) < share
    score, rows = exact.nearest(queries, kept, 10, allowed, exact.as_rough(kept))
    able = min(10, n if allowed is None else int(allowed.sum()))
    wanted, best = plain(queries, kept, able, allowed)
    assert (
        score.shape == rows.shape == (count, 10) and (rows[:, able:] == -1).all() and np.isneginf(score[:, able:]).all()
    )
    assert np.allclose(score[:, :able], wanted, atol=1e-5)
    same = [len(set(a) & set(b)) for a, b in zip(rows[:, :able].tolist(), best.tolist(), strict=True)]
    assert sum(same) >= 0.999 * able * count
    if allowed is not None:
        assert allowed[rows[:, :able]].all()


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("d", [32, 64, 40, 33])
@pytest.mark.parametrize("count", [1, 8, 9])
def test_a_few_queries_are_multiplied_by_the_rounded_numbers(
    count: int, d: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    of_torch = exact.INT8_MATMUL
    assert of_torch is not None
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: False)
    monkeypatch.setattr(exact, "INT8_MATMUL", (lambda *given: asked.append(1) or of_torch(*given)) if there else None)
    monkeypatch.setattr(exact, "INT8_TILE", 4096)
    kept, queries = vectors(9001, d), vectors(count, d, seed=1)
    assert (
        exact.nearest(queries, kept, 10, None, exact.as_rough(kept))[1] == plain(queries, kept, 10, None)[1]
    ).mean() > 0.99
    assert bool(asked) == (there and count <= exact.MAX_INT8_QUERIES and d % 32 == 0)


@pytest.mark.parametrize("n", [0, 1, 32, 70])
def test_rounding_errs_by_half_a_step_of_its_group(n: int) -> None:
    kept = vectors(n) * np.random.default_rng(4).random((n, 1), dtype=np.float32)
    kept[3:4] = 0
    numbers, scales = exact.as_rough(kept)
    steps = np.repeat(scales, exact.GROUP)[:n, None]
    assert numbers.dtype == np.int8 and scales.shape == (-(-n // exact.GROUP),)
    assert (np.abs(numbers * steps - kept) <= steps / 2 + 1e-7).all()
    assert n == 0 or all(
        np.abs(part).max() == 127 for part in np.array_split(numbers, range(exact.GROUP, n, exact.GROUP))
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("spread", ["crowded", "skewed", "alike"])
def test_those_that_rounding_can_not_tell_apart_are_weighed(
    spread: str, count: int, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, size = np.random.default_rng(0), {"skewed": 1 / np.arange(1, 65)}.get(spread, np.ones(64))
    near = {"crowded": 0.02, "skewed": 0.3, "alike": 1e-4}[spread]
    centres = rng.standard_normal((5, 64)) * size
    kept, queries = (
        np.float32(centres[rng.integers(5, size=n)] + near * rng.standard_normal((n, 64)) * size)
        for n in (30_000, count)
    )
    kept, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (kept, queries))
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: bf16)
    score, rows = exact.nearest(queries, kept, 10, None, exact.as_rough(kept))
    wanted, best = plain(queries, kept, 10, None)
    assert np.allclose(score, wanted, atol=2e-6)
    if spread != "alike":
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), best.tolist(), strict=True)]) >= 0.999


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("count", [1, 20])
def test_rows_that_have_no_vector_are_never_found(count: int, bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "multiplies_bf16", lambda: bf16)
    kept, queries = vectors(5000, 64), vectors(count, 64, seed=1)
    there = np.repeat([True, False], 2500)
    kept[~there] = 0
    score, rows = exact.nearest(queries, kept, 10, there, exact.as_rough(kept))
    wanted, best = plain(queries, kept, 10, there)
    assert (rows == best).mean() > 0.99 and np.allclose(score, wanted, atol=1e-5)


def test_rows_of_nothing_are_rounded_to_nothing() -> None:
    numbers, scales = exact.as_rough(np.zeros((40, 8), np.float32))
    assert not numbers.any() and not scales.any()


def test_many_that_are_alike_crowd_nobody_out() -> None:
    kept = np.concatenate([np.tile(vectors(1), (500, 1)), vectors(500, seed=3)])
    score, rows = exact.nearest(kept[:1], kept, 600)
    assert (score[0, :500] > 0.999).all() and len(set(rows[0].tolist())) == 600


def test_no_query_and_no_vectors_find_nothing() -> None:
    assert exact.nearest(vectors(0), vectors(5), 3)[0].shape == (0, 3)
    assert (exact.nearest(vectors(2), vectors(0), 3)[1] == -1).all()
    assert (exact.nearest(vectors(2), vectors(5), 3, np.zeros(5, bool))[1] == -1).all()
