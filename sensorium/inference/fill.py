"""Imputation: empty cells of a table predicted or generated from the row's present ones, and several columns at once.

A filled cell is never taken for a known one: what was filled, and how sure, stands beside it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, warn
from sensorium.data.table import Table
from sensorium.inference.rows import Rows
from sensorium.inference.surprise import agreement
from sensorium.inference.trained import BAD_ROW, Trained, UnreadableCells
from sensorium.network.network import Network

WINDOW, GENERATED_ROWS = 1024, 64
"""Rows of a window, and where cells are generated, which takes long: what is filled when a user interrupts is kept."""
FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})

FILLED = "filled"
"""Column of a filled table: which cells were filled, and the confidence of each."""


class FillInterrupted(KeyboardInterrupt):
    """Interruption of a fill. ``table`` is as it was to be, but for rows from ``rows`` on, which are as they were."""

    def __init__(self, table: pa.Table, rows: int) -> None:
        super().__init__()
        self.table, self.rows = table, rows


def fill(
    network: Network,
    table: Table,
    columns: Sequence[str],
    *,
    jointly: bool = False,
    seed: int = 0,
    bad: Callable[[int, str, str], None] | None = None,
    done: Callable[[int], None] | None = None,
) -> pa.Table:
    """Table whose empty cells of ``columns`` are filled in by the network; a column that the table lacks is added.

    Args:
        columns: those to fill; what can't be asked stays as it is.
        jointly: what is filled is seen where the row's next column is filled. Else each is filled from what the table
            has.
        bad: is called for cells that can't be read (row, column, reason); they stay as they are, and are not looked at.
        done: is called with the number of rows that were filled.

    Returns:
        the table, and the column ``filled`` (and ``bad_row`` where rows can't be read; these stay as they are): for
        each row what was filled and how sure (0 to 1; of what is generated ``surprise.agreement``, None where there is
        none).

    Raises:
        UserError: the table has a column ``filled`` already, or one whose type can't hold what is to be filled in.
        FillInterrupted: interrupted, with what was filled so far.
    """
    for own in (FILLED, *([BAD_ROW] if table.bad_rows else [])):
        if own in table.columns:
            raise UserError(f"'{table.name}' has a column '{own}' already, which fill writes itself. Rename it.")
    for column in columns:
        kind = (
            table.schema.field(column).type
            if column in table.columns and network.modalities[column].media
            else pa.null()
        )
        if not (pa.types.is_null(kind) or pa.types.is_struct(kind) or pa.types.is_binary(kind) or is_text(kind)):
            raise UserError(
                f"Column '{column}' of '{table.name}' holds {kind}, and what would be filled in are files. Leave it "
                "out: name the columns to fill."
            )
    parts, size = [], GENERATED_ROWS if set(columns) & set(network.generative_columns) else WINDOW
    for start in range(0, max(table.rows, 1), size):
        part = table.select(np.arange(start, min(start + size, table.rows)))
        try:
            parts.append(
                fill_window(
                    network,
                    part,
                    columns,
                    jointly,
                    seed + start,
                    None if bad is None else lambda row, column, why, start=start: bad(start + row, column, why),
                )
            )
        except KeyboardInterrupt:
            if not parts:
                raise
            raise FillInterrupted(concat_windows([*parts, untouched(table, start, parts[0])]), start) from None
        if done:
            done(part.rows)
    whole = concat_windows(parts)
    if table.bad_rows:
        why = {row: str(bad) for row, bad in table.bad_rows.items()}
        whole = whole.append_column(BAD_ROW, pa.array([why.get(row) for row in range(table.rows)], pa.string()))
    return whole


def fill_table(
    trained: Trained,
    table: Any,
    columns: Sequence[str] | None = None,
    jointly: bool = False,
    seed: int = 0,
    note: Callable[[str], None] | None = None,
    done: Callable[[int], None] | None = None,
) -> pa.Table:
    """Filled table: see ``Model.fill``."""
    opened, tell = trained.open(table), note or warn
    network, unreadable = trained.network, UnreadableCells()
    for column in columns or ():
        trained.check_asked(column, None)
    trained.report_reading(opened, [c for c in network.columns if c not in (columns or ())], tell)
    if columns is not None and not columns:
        raise UserError(f"No column to fill was named. Possible: {', '.join(network.asked_columns)}.")
    wanted = [c for c in network.asked_columns if (c in opened.columns if columns is None else c in columns)]
    filled = fill(network, opened, wanted, jointly=jointly, seed=seed, bad=unreadable, done=done)
    for words in unreadable.messages():
        tell(words)
    return filled


def concat_windows(parts: Sequence[pa.Table]) -> pa.Table:
    """Table from its filled windows."""
    return pa.table({name: concat_chunks([part.column(name) for part in parts]) for name in parts[0].column_names})


def untouched(table: Table, start: int, like: pa.Table) -> pa.Table:
    """Rows from ``start`` on as they are, with the columns that were added to those before."""
    rest = table.take(np.arange(start, table.rows))
    nothing = {FILLED: pa.array([[]] * rest.num_rows, like.schema.field(FILLED).type)}
    return pa.table(
        {
            name: rest.column(name)
            if name in rest.column_names
            else nothing.get(name, pa.chunked_array([pa.nulls(rest.num_rows)]))
            for name in like.column_names
        }
    )


def fill_window(
    network: Network,
    table: Table,
    columns: Sequence[str],
    jointly: bool,
    seed: int,
    bad: Callable[[int, str, str], None] | None,
) -> pa.Table:
    """Filled rows of one window."""
    found, rows = table.take(np.arange(table.rows)), Rows.of(network, table, None, bad)
    filled: list[list[dict[str, Any]]] = [[] for _ in range(table.rows)]
    for column in columns:
        here, empty = (
            found.column(column) if column in table.columns else None,
            missing_rows(network, table, found, rows, column),
        )
        cells, confidence = answer_column(network, rows, column, None, empty, seed) if len(empty) else ([], [])
        if column in network.generative_columns and len(empty):
            confidence = agreement(rows.with_cells(column, empty, cells), column, empty)
        if here is not None and not len(empty):
            continue
        for row, cell, chance in zip(empty.tolist(), cells, confidence, strict=True):
            if cell is not None:
                filled[row].append({"column": column, "sure": chance})
        if jointly:
            rows = rows.with_cells(column, empty, cells)
        known = [None] * table.rows if here is None else here.to_pylist()
        kind = None if here is None else here.type
        if kind is not None and network.modalities[column].media and is_text(kind):  # beside paths no bytes can stand
            known, kind = [None if cell is None else {"path": cell} for cell in known], FILE
        for row, cell in zip(empty.tolist(), cells, strict=True):
            known[row] = cell
        array = to_array(known, kind)
        found = (
            found.append_column(column, array)
            if here is None
            else found.set_column(found.column_names.index(column), column, array)
        )
    return found.append_column(
        FILLED, pa.array(filled, pa.list_(pa.struct({"column": pa.string(), "sure": pa.float32()})))
    )


def missing_rows(network: Network, table: Table, found: pa.Table, rows: Rows, column: str) -> np.ndarray:
    """Rows without a cell of a column, as the model sees it: null, NaN, blank. A cell that can't be read is not
    empty."""
    if column not in table.columns:
        return np.flatnonzero(table.good)
    none = np.array([cell is None for cell in table.cells(found, column, network.modalities[column].media)], bool)
    blank = np.array([cell is not None and not len(cell) for cell in rows.read.get(column, [None] * table.rows)], bool)
    return np.flatnonzero((none | blank) & table.good)


def answer_column(
    network: Network, rows: Rows, column: str, seen: Sequence[str] | None, asked: np.ndarray, seed: int
) -> tuple[list[Any], list[float | None]]:
    """Predicted or generated cells of a column in some rows, and the confidence of each, None where it is generated."""
    if column in network.generative_columns:
        cells = [one[0] for one in rows.generate(column, seen, seed=seed, rows=asked)]
        return cells, [None] * len(cells)
    answers = rows.predict(column, seen, asked, seed)
    return answers.cells, [float(chance) for chance in answers.confidence]


def answer_columns(
    network: Network, rows: Rows, columns: Sequence[str], seen: Sequence[str] | None, *, jointly: bool, seed: int = 0
) -> list[dict[str, Any]]:
    """Predicted or generated cells of several columns of every row, from ``seen`` (by default all that ``rows`` have,
    which must be none of these). ``jointly``: each also from those before it, in order.
    """
    visible = None if seen is None else list(seen)
    every, result = np.arange(rows.count), [{} for _ in range(rows.count)]
    for number, column in enumerate(columns):
        cells, _ = answer_column(network, rows, column, visible, every, seed + number)
        for row, cell in zip(result, cells, strict=True):
            row[column] = cell
        if jointly:
            rows, visible = rows.with_cells(column, every, cells), None if visible is None else [*visible, column]
    return result


def concat_chunks(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Column of several windows in one type. Where these differ, as what filled them may, it is one that holds them
    all."""
    kinds = {part.type for part in parts if not pa.types.is_null(part.type)}
    if len(kinds) <= 1:
        kind = next(iter(kinds), pa.null())
        return pa.chunked_array([chunk.cast(kind) for part in parts for chunk in part.chunks], kind)
    if FILE in kinds:
        cells = [{"path": cell} if isinstance(cell, str) else cell for part in parts for cell in part.to_pylist()]
        return pa.chunked_array([pa.array(cells, FILE)])
    return pa.chunked_array([to_array([cell for part in parts for cell in part.to_pylist()], None)])


def complete_date(date: str) -> str:
    """Whole date, from one that may be a year or a month."""
    return date + "-01" * (2 - date.count("-")) if len(date) < 10 else date


def is_text(kind: pa.DataType) -> bool:
    """True where an Arrow type is text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def to_array(cells: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Array of cells in the column's type, or in another one where they don't fit into it."""
    if kind is not None and pa.types.is_struct(kind):
        cells = [{"bytes": cell} if isinstance(cell, bytes) else cell for cell in cells]
    if kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        cells = [
            cell if not isinstance(cell, str) else datetime.datetime.fromisoformat(complete_date(cell))
            for cell in cells
        ]
        if pa.types.is_date(kind):
            cells = [cell.date() if hasattr(cell, "date") else cell for cell in cells]
    for wanted in (kind, None):
        try:
            exact = wanted is not None and pa.types.is_integer(wanted)  # else pa.array drops the fraction of a number
            return pa.array(cells).cast(wanted) if exact else pa.array(cells, wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            continue
    return pa.array(
        [cell if cell is None or isinstance(cell, str) else json.dumps(cell, default=str) for cell in cells],
        pa.string(),
    )
