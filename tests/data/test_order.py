"""The order of rows: a pure function of (seed, epoch, step) in which every epoch visits every row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.data import order as module
from sensorium.data.order import BLOCK_ROWS, WINDOW_BLOCKS, Order

SIZES = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 200, 257]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows, windows of 4 blocks."""
    monkeypatch.setattr(module, "BLOCK_ROWS", 8)
    monkeypatch.setattr(module, "WINDOW_BLOCKS", 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("batch", [1, 3, 8, 32, 300])
def test_every_epoch_visits_every_row(rows: int, batch: int) -> None:
    numbers = np.arange(rows) * 3 + 5
    order = Order(numbers, batch, seed=7)
    assert order.steps == -(-rows // batch)
    for epoch in range(3):
        visited = [order.at(epoch * order.steps + step) for step in range(order.steps)]
        assert {len(part) for part in visited} == {min(batch, rows)}
        flat = np.concatenate(visited)
        assert np.array_equal(np.sort(flat[:rows]), numbers)
        assert np.array_equal(flat[rows:], flat[: len(flat) - rows]), (
            "the last batch is filled from the same epoch's beginning"
        )
        assert all(len(set(part.tolist())) == len(part) for part in visited), "no row is twice in a batch"


@pytest.mark.usefixtures("small")
@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(SIZES),
    st.integers(1, 40),
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 200), min_size=2, max_size=6),
)
def test_a_step_does_not_hang_on_what_was_asked_before(rows: int, batch: int, seed: int, steps: list[int]) -> None:
    used = Order(np.arange(rows), batch, seed)
    for step in steps:
        assert np.array_equal(used.at(step), Order(np.arange(rows), batch, seed).at(step))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("kinds", [1, 5, 1000])
def test_rows_of_one_thing_come_by_couples(rows: int, kinds: int) -> None:
    things = np.random.default_rng(3).integers(0, kinds, 2 * rows + 1) - kinds // 2
    numbers = np.arange(rows) * 2 + 1
    order = Order(numbers, max(rows, 1), seed=5, entities=things)
    epochs = [order.at(0), order.at(1)]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), numbers)
    if rows <= 32:  # one window
        for kind in np.unique(things[numbers]):
            at = np.flatnonzero(things[epochs[0]] == kind)
            assert (np.diff(at) == 1).sum() >= len(at) // 2, "each row but an odd one stands beside another"
    if rows > 100:
        assert not np.array_equal(*epochs)
        run = np.diff(np.flatnonzero(np.diff(things[epochs[0]]) != 0))
        assert kinds == 1 or run.max() < 20, "no stretch of one thing"


def test_epochs_and_seeds_differ() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        return Order(np.arange(500), 500, seed).at(number).tolist()

    drawn = [epoch(seed, number) for seed in (0, 1, 2**40) for number in (0, 1, 2)]
    assert len({tuple(rows) for rows in drawn}) == 9
    assert all(abs(np.corrcoef(rows, range(500))[0, 1]) < 0.2 for rows in drawn)


def test_it_is_the_same_order_as_ever() -> None:
    """A change here would let runs that are resumed go on with other rows."""
    assert Order(np.arange(20), 6, seed=3).at(1).tolist() == [15, 10, 6, 1, 2, 11]
    assert Order(np.arange(20), 6, seed=3).at(9).tolist() == [12, 13, 1, 7, 3, 6]


@pytest.mark.parametrize(
    "rows",
    [
        BLOCK_ROWS * WINDOW_BLOCKS - 1,
        BLOCK_ROWS * WINDOW_BLOCKS,
        BLOCK_ROWS * WINDOW_BLOCKS + 1,
        BLOCK_ROWS * (2 * WINDOW_BLOCKS + 1) + 17,
    ],
)
def test_real_windows_visit_every_row(rows: int) -> None:
    order = Order(np.arange(rows), 1000, seed=1)
    flat = np.concatenate([order.at(order.steps + step) for step in range(order.steps)])
    assert np.array_equal(np.sort(flat[:rows]), np.arange(rows))


def test_a_step_of_a_large_table_looks_at_its_own_window_only() -> None:
    order = Order(np.arange(5_000_000), 256, seed=1)
    for step in (order.steps - 1, order.steps // 2, 3 * order.steps + 5):
        before = Order.window.cache_info().misses
        rows = order.at(step)
        assert len(set(rows.tolist())) == 256 and Order.window.cache_info().misses - before <= 2
    inside = order.at(100)
    assert len(set((inside // BLOCK_ROWS).tolist())) <= WINDOW_BLOCKS, "reading stays near-sequential"


def test_nothing_to_order_is_told() -> None:
    with pytest.raises(ValueError, match="no rows"):
        Order(np.zeros(0, np.int64), 4, 0)
