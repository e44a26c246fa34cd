"""The one collator, over every subset of columns: an absent column changes nothing, and neither does any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium.network.batch import Batch, collate, hash_of

COLUMNS = ["picture", "name", "colour", "width", "day", "curve", "tone"]
ROWS = 9


@pytest.fixture(scope="module")
def prepared(fitted: Any, tiny: pa.Table) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The modalities and the prepared cells of nine rows that have every cell."""
    rows = fitted.rows(tiny.slice(0, ROWS))
    assert list(rows.cells) == COLUMNS and all(
        cell is not None and len(cell) for cells in rows.cells.values() for cell in cells
    )
    return fitted.network.modalities, rows.cells


def equal(a: Batch, b: Batch) -> bool:
    """Equal to the bit, in whichever order the columns stand."""
    return (
        a.rows == b.rows and a.cells.keys() == b.cells.keys() and a.index.keys() == b.index.keys()
        and a.keys.keys() == b.keys.keys()
        and all(a.cells[c].keys() == b.cells[c].keys() for c in a.cells)
        and all(torch.equal(a.cells[c][k], b.cells[c][k]) for c in a.cells for k in a.cells[c])
        and all(torch.equal(a.index[c], b.index[c]) for c in a.index)
        and all(torch.equal(a.keys[c], b.keys[c]) for c in a.keys)
    )  # fmt: skip


present = st.lists(st.lists(st.booleans(), min_size=ROWS, max_size=ROWS), min_size=len(COLUMNS), max_size=len(COLUMNS))
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some(cells: dict[str, list[Any]], there: list[list[bool]]) -> dict[str, list[Any]]:
    """The cells of which ``there`` says so; every other missing one is None, the rest is empty."""
    return {
        column: [cell if there[i][row] else None if row % 2 else cell[:0] for row, cell in enumerate(cells[column])]
        for i, column in enumerate(COLUMNS)
    }


def test_every_subset_of_columns_is_as_if_there_were_no_others(prepared: Any) -> None:
    modalities, cells = prepared
    whole = collate(modalities, cells, ROWS)
    for bits in range(2 ** len(COLUMNS)):
        chosen = [c for i, c in enumerate(COLUMNS) if bits >> i & 1]
        without = collate({c: modalities[c] for c in chosen}, {c: cells[c] for c in chosen}, ROWS)
        assert equal(without, whole.only(chosen))
        gone = collate(modalities, {c: cells[c] if c in chosen else [None] * ROWS for c in COLUMNS}, ROWS)
        assert equal(without, gone)


@quick
@given(present)
def test_missing_cells_take_no_place(prepared: Any, there: list[list[bool]]) -> None:
    modalities, cells = prepared
    batch = collate(modalities, some(cells, there), ROWS)
    assert batch.rows == ROWS
    for i, column in enumerate(COLUMNS):
        rows = [row for row in range(ROWS) if there[i][row]]
        if not rows:
            assert column not in batch.cells and column not in batch.index and column not in batch.keys
            continue
        assert batch.index[column].tolist() == rows
        alone = modalities[column].collate([cells[column][row] for row in rows])
        assert all(torch.equal(batch.cells[column][key], value) for key, value in alone.items())
        assert (column in batch.keys) == modalities[column].matched


@quick
@given(present, st.permutations(COLUMNS))
def test_the_order_of_columns_does_not_matter(prepared: Any, there: list[list[bool]], order: list[str]) -> None:
    modalities, cells = prepared
    given_cells = some(cells, there)
    assert equal(collate(modalities, given_cells, ROWS), collate(modalities, {c: given_cells[c] for c in order}, ROWS))


@quick
@given(present, st.permutations(range(ROWS)))
def test_rows_in_another_order_are_the_same_rows(prepared: Any, there: list[list[bool]], order: list[int]) -> None:
    modalities, cells = prepared
    given_cells = some(cells, there)
    straight = collate(modalities, given_cells, ROWS)
    mixed = collate(modalities, {c: [values[row] for row in order] for c, values in given_cells.items()}, ROWS)
    assert straight.cells.keys() == mixed.cells.keys()
    for column in straight.cells:
        back = torch.tensor([order[row] for row in mixed.index[column].tolist()])
        place = torch.tensor([straight.index[column].tolist().index(row) for row in back.tolist()])
        assert all(torch.equal(mixed.cells[column][key], value[place]) for key, value in straight.cells[column].items())
        if column in straight.keys:
            assert torch.equal(mixed.keys[column], straight.keys[column][place])


@quick
@given(present, st.integers(1, 2 ** len(COLUMNS) - 1), st.data())
def test_the_network_hears_nothing_of_columns_that_are_not_there(
    prepared: Any, fitted: Any, there: list[list[bool]], bits: int, data: st.DataObject
) -> None:
    modalities, cells = prepared
    chosen = [c for i, c in enumerate(COLUMNS) if bits >> i & 1]
    asked = data.draw(st.sampled_from([c for c in ("name", "colour", "width", "day")]))
    chosen = [c for c in chosen if c != asked]
    given_cells, rows = some(cells, there), torch.arange(ROWS)
    network = fitted.network
    found = []
    for columns in (COLUMNS, chosen):
        batch = collate(modalities, {c: given_cells[c] for c in columns}, ROWS)
        with torch.no_grad():
            encoded = {c: network.encode(c, batch) for c in batch.cells}
            seen = network.seen_tokens(encoded, chosen, rows)
            target = torch.zeros(ROWS, 1, dtype=torch.int64) if asked in ("name", "colour") else torch.zeros(ROWS, 1, 1)
            found.append(
                (
                    network.gists(encoded, chosen, rows),
                    network.trunk(
                        seen,
                        [network.asked_tokens(asked, target, network.condition_vector(encoded, chosen, rows))],
                        [False],
                    )[0],
                )
            )
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_equal_content_has_an_equal_key_and_other_content_another() -> None:
    a = np.arange(6, dtype=np.int32)
    assert hash_of(a) == hash_of(a.copy()) == hash_of(np.arange(12, dtype=np.int32)[:6]) and 0 <= hash_of(a) < 2**63
    assert hash_of(np.asfortranarray(a.reshape(2, 3))) == hash_of(a.reshape(2, 3))
    assert len({hash_of(np.array([i])) for i in range(1000)}) == 1000


def test_no_rows_and_no_columns_are_a_batch(prepared: Any) -> None:
    modalities, _ = prepared
    assert collate(modalities, {}, 5).rows == 5 and collate(modalities, {c: [] for c in COLUMNS}, 0).cells == {}
