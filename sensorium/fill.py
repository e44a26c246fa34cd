"""Fill: every empty cell of a table asked from the row's present ones, and columns said together, each seeing those before.

A filled cell is never taken for a known one: what was filled, and how sure, stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import BadCell, UserError
from sensorium.data.table import Table
from sensorium.inference import Rows
from sensorium.network import Network

WINDOW = 1024
"""Rows that are held in memory at once."""
FILLED = "filled"
"""The column that says what was filled."""


def fill(network: Network, table: Table, columns: Sequence[str], *, jointly: bool = False, seed: int = 0,
         bad: Callable[[int, str, str], None] | None = None, done: Callable[[int], None] | None = None) -> pa.Table:
    """The table with empty cells of ``columns`` said by the network; a column that the table lacks is added.

    Args:
        columns: those to fill; what can't be asked stays as it is.
        jointly: what is filled is seen where the row's next column is filled. Else each is said from what the table has.
        bad: hears of cells that can't be read (row, column, reason); they stay as they are, and are not looked at.
        done: hears how many rows were filled.

    Returns:
        the table, and the column ``filled``: for each row what was filled and how sure (0 to 1; None for what is drawn).

    Raises:
        UserError: the table has a column ``filled`` already.
    """
    if FILLED in table.columns:
        raise UserError(f"'{table.name}' has a column '{FILLED}' already, which would say what was filled. Rename it.")
    parts = []
    for start in range(0, table.rows, WINDOW):
        part = table.select(np.arange(start, min(start + WINDOW, table.rows)))
        parts.append(window(network, part, columns, jointly, seed + start,
                            None if bad is None else lambda row, column, why, start=start: bad(start + row, column, why)))
        if done:
            done(part.rows)
    return pa.concat_tables(parts, promote_options="permissive") if parts else table.take([])


def window(network: Network, table: Table, columns: Sequence[str], jointly: bool, seed: int,
           bad: Callable[[int, str, str], None] | None) -> pa.Table:
    """Some rows, filled."""
    found, rows = table.take(np.arange(table.rows)), Rows.of(network, table, None, bad)
    filled: list[list[dict[str, Any]]] = [[] for _ in range(table.rows)]
    for column in columns:
        here = found.column(column) if column in table.columns else None
        empty = np.flatnonzero(here.is_null().to_numpy()) if here is not None else np.arange(table.rows)
        if not len(empty):
            continue
        cells, sure = said(network, rows, column, None, empty, seed)
        for row, cell, chance in zip(empty.tolist(), cells, sure, strict=True):
            if cell is not None:
                filled[row].append({"column": column, "sure": chance})
        if jointly:
            rows = rows.having(column, empty, cells)
        known = [None] * table.rows if here is None else here.to_pylist()
        if here is not None and network.modalities[column].media and pa.types.is_string(here.type):  # paths, beside which bytes can't stand
            known = [bytes(cell) if isinstance(cell, (bytes, memoryview)) else None for cell in
                     (None if isinstance(c, BadCell) else c for c in table.cells(found, column, True))]
            here = None
        for row, cell in zip(empty.tolist(), cells, strict=True):
            known[row] = cell
        array = typed(known, None if here is None else here.type)
        found = found.append_column(column, array) if column not in found.column_names else \
            found.set_column(found.column_names.index(column), column, array)
    kind = pa.list_(pa.struct({"column": pa.string(), "sure": pa.float32()}))
    return found.append_column(FILLED, pa.array(filled, kind))


def said(network: Network, rows: Rows, column: str, seen: Sequence[str] | None, asked: np.ndarray, seed: int) -> tuple[list[Any], list[float | None]]:
    """A column of some rows, and how sure each is; None where it is drawn."""
    if column in network.drawn_columns:
        cells = [one[0] for one in rows.draw(column, seen, seed=seed, rows=asked)]
        return cells, [None] * len(cells)
    answers = rows.say(column, seen, asked, seed)
    return answers.cells, [float(chance) for chance in answers.confidence]


def together(network: Network, rows: Rows, columns: Sequence[str], seen: Sequence[str] | None, *, jointly: bool, seed: int = 0) -> list[dict[str, Any]]:
    """Several columns of every row, said from ``seen`` (by default all but these); ``jointly``: and from those said before, in order."""
    shown = [c for c in (network.columns if seen is None else seen) if c not in columns]
    every, result = np.arange(rows.count), [{} for _ in range(rows.count)]
    for number, column in enumerate(columns):
        cells, _ = said(network, rows, column, shown, every, seed + number)
        for row, cell in zip(result, cells, strict=True):
            row[column] = cell
        if jointly:
            rows, shown = rows.having(column, every, cells), [*shown, column]
    return result


def typed(cells: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Cells as an array of the column's type, of another one where they don't fit into it."""
    if kind is not None and pa.types.is_struct(kind):
        cells = [{"bytes": cell} if isinstance(cell, bytes) else cell for cell in cells]
    if kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        cells = [cell if not isinstance(cell, str) else np.datetime64(cell, "us").astype(object) for cell in cells]
        if pa.types.is_date(kind):
            cells = [cell.date() if hasattr(cell, "date") else cell for cell in cells]
    for wanted in (kind, None):
        try:
            exact = wanted is not None and pa.types.is_integer(wanted)  # else pa.array drops the fraction of a number
            return pa.array(cells).cast(wanted) if exact else pa.array(cells, wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            continue
    return pa.array([cell if cell is None or isinstance(cell, str) else json.dumps(cell, default=str) for cell in cells], pa.string())
