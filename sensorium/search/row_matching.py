"""Matching of an index's rows to those of a table: by key, or by number and cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.errors import UserError
from sensorium.data.table import Table
from sensorium.search.store import VectorStore


def matching_rows(cells: pa.Table, key: str | None, table: Table) -> np.ndarray:
    """Row number in a table of each of an index's rows: see ``Index.rows_in``."""
    numbers = np.arange(cells.num_rows)
    if key is not None and key in table.columns:
        own, other = common_type(cells.column(key), table.take(np.arange(table.rows), [key]).column(key))
        return (
            pc.fill_null(pc.index_in(own, value_set=other.combine_chunks(), skip_nulls=True), -1)
            .to_numpy()
            .astype(np.int64)
        )
    common = [name for name in cells.column_names if name in table.columns]
    count = min(len(numbers), table.rows)
    theirs, same = table.take(np.arange(count), common), np.ones(count, bool)
    for name in common:
        own, other = common_type(cells.column(name).slice(0, count), theirs.column(name))
        equal = pc.fill_null(pc.equal(own, other), False).to_numpy()
        same &= equal | (own.is_null().to_numpy() & other.is_null().to_numpy()) | (is_nan(own) & is_nan(other))
    return np.where(np.pad(same, (0, len(numbers) - count)), numbers, -1)


def common_type(one: pa.ChunkedArray, other: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns cast to a common type: text where theirs differ."""
    return (one, other) if one.type == other.type else (one.cast(pa.string()), other.cast(pa.string()))


def is_nan(cells: pa.ChunkedArray) -> np.ndarray:
    """Mask of the NaN cells, which equal not even themselves."""
    return (
        pc.fill_null(pc.is_nan(cells), False).to_numpy()
        if pa.types.is_floating(cells.type)
        else np.zeros(len(cells), bool)
    )


def mask_of(numbers: Sequence[Any], store: VectorStore) -> np.ndarray:
    """Mask of the rows that have these numbers, bool [rows].

    Raises:
        UserError: the store has no such rows.
    """
    if not all(
        isinstance(number, int | np.integer) and not isinstance(number, bool) and 0 <= number < store.rows
        for number in numbers
    ):
        raise UserError(f"'{store.folder}' has rows 0 to {store.rows - 1}; {numbers[:8]} were to be removed.")
    found = np.zeros(store.rows, bool)
    found[np.array(numbers, np.int64)] = True
    return found
