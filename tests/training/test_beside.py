"""Rows that conversations of a batch refer to are looked at with it, wherever they lie, and only those that are learned
from.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from sensorium.nn.packing import reference
from sensorium.training.table_trainer import TableTrainer

PHOTO = {(reference("photo", later)): ("photo", later) for later in range(16)}


def talk(*later: int) -> np.ndarray:
    ids = [5, *(reference("photo", k) for k in later), 7]
    return np.array([*ids, *[0] * (len(ids) - 1), 1], np.int32)


def loop_of(
    talks: dict[int, np.ndarray], photos: list[int], known: list[int], source: list[int] | None = None
) -> TableTrainer:
    """Row r's photo is [r], and None of rows that aren't in ``photos``."""

    def cells(column: str, rows: list[int]) -> list[np.ndarray | None]:
        return [talks.get(int(row)) if column == "talk" else np.array([row]) if row in photos else None for row in rows]

    loop = TableTrainer.__new__(TableTrainer)
    loop.store, loop.rows, loop.source = (
        SimpleNamespace(cells=cells),
        np.array(known),
        None if source is None else np.array(source),
    )
    loop.modalities = {"talk": SimpleNamespace(beside=True), "photo": SimpleNamespace()}
    loop.network = SimpleNamespace(
        dialogue_columns=["talk"],
        dialogue=SimpleNamespace(references=lambda rows: PHOTO),
        dialogue_modality=lambda column: loop.modalities[column],
    )
    return loop


def looked(loop: TableTrainer, rows: list[int]) -> tuple[list[int], dict, dict]:
    cells = {column: list(loop.store.cells(column, rows)) for column in ("photo", "talk")}
    more, beside = loop.referred_rows(np.array(rows), cells)
    return more.tolist(), beside, cells


def test_what_is_in_the_batch_is_found_there_and_the_rest_is_put_behind() -> None:
    loop = loop_of({0: talk(0, 1), 4: talk(0, 2), 6: talk(0)}, list(range(10)), list(range(10)))
    more, beside, cells = looked(loop, [4, 0, 1, 6])
    assert more == [] and beside == {(0, 2): 3, (1, 1): 2} and len(cells["photo"]) == 4
    more, beside, cells = looked(loop, [4, 0])
    assert more == [6, 1] and beside == {(0, 2): 2, (1, 1): 3}
    assert [cell[0] for cell in cells["photo"]] == [4, 0, 6, 1] and cells["talk"][2:] == [None, None]


def test_a_row_that_is_twice_in_a_batch_is_no_matter() -> None:
    loop = loop_of({0: talk(0, 1), 4: talk(0, 2)}, list(range(10)), list(range(10)))
    more, beside, cells = looked(loop, [4, 0, 4])
    assert more == [6, 1] and beside == {(0, 2): 3, (1, 1): 4, (2, 2): 3} and len(cells["photo"]) == 5


def test_a_conversation_about_a_row_that_is_held_out_or_lacks_the_cell_is_left_out() -> None:
    loop = loop_of({0: talk(0, 1), 2: talk(1), 4: talk(0, 1), 6: talk(0, 3)}, [0, 1, 2, 4, 6, 9], [0, 1, 2, 4, 5, 6, 8])
    more, beside, cells = looked(loop, [0, 2, 4, 6])
    assert more == [1] and beside == {(0, 1): 4}
    assert [cell is None for cell in cells["talk"][:4]] == [
        False,
        True,
        True,
        True,
    ]  # 3 is held out, 5 has no photo, 9 is neither


def test_rows_are_those_of_the_table_where_some_could_not_be_read() -> None:
    loop = loop_of(
        {0: talk(0, 1), 1: talk(0, 1)}, list(range(5)), list(range(5)), source=[0, 2, 3, 4, 7]
    )  # the table's rows 1, 5 and 6 are bad
    more, beside, cells = looked(loop, [0, 1])
    assert more == [2] and beside == {(1, 1): 2} and cells["talk"][0] is None


def test_nothing_is_looked_for_where_no_conversation_refers_to_other_rows() -> None:
    loop = loop_of({0: talk(0, 1)}, [0, 1], [0, 1])
    loop.modalities["talk"].beside = False
    assert looked(loop, [0])[:2] == ([], {})
