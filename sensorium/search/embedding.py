"""Embedding of a table's rows for an index: their vectors and plain cells, and the recall of fewer dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.core.errors import UserError, unknown
from sensorium.data.table import Table
from sensorium.inference.rows import Rows
from sensorium.search.exact import nearest
from sensorium.search.part_search import near
from sensorium.search.store import WHOLE, StorePart, VectorStoreWriter, turned

ROW = "sensorium.row"
"""Column of the stored cells that holds the row numbers of a part."""
RECALL_QUERIES, RECALL_ROWS, RECALL_GALLERY = 256, 10, 100_000
"""Queries of each kind, rows found by each, and rows that are searched at most, by which recall is measured."""

Windows = Callable[[Any, Sequence[str] | None], Iterator[Rows]]
"""Reader of a table's rows for the network, a window at a time."""


def has_any(rows: Rows, columns: Iterable[str]) -> np.ndarray:
    """Mask of the rows that have any of some columns, bool [n]."""
    return np.any([rows.has(c) for c in columns], 0)


def embed(
    writer: VectorStoreWriter,
    table: Table,
    windows: Windows,
    columns: Sequence[str],
    done: Callable[[int], None] | None,
) -> np.ndarray:
    """Embed a table's rows into a part; return the sum of the outer products of its vectors, [gist, gist]."""
    simple, start, total = [field.name for field in table.schema if is_plain(field.type) and field.name != ROW], 0, 0.0
    for rows in windows(table, columns):
        cells = table.take(np.arange(start, start + rows.count), simple).append_column(
            ROW, pa.array(np.arange(start, start + rows.count))
        )
        vectors = {}
        for kind in writer.kinds:
            if kind == WHOLE:
                some = np.flatnonzero(has_any(rows, columns))
                vectors[kind] = some, rows.gists(columns)[some]
            elif kind in rows.cells:
                vectors[kind] = rows.column_gists(kind)
        writer.add(cells, vectors)
        total = total + sum(part.T @ part for _, part in vectors.values())
        start += rows.count
        if done:
            done(rows.count)
    return np.asarray(total, np.float64)


def truncated_recall(writer: VectorStoreWriter, turn: np.ndarray, few: int) -> float | None:
    """Recall of the leading ``few`` dimensions: the share of the ten rows found by all dimensions that they find too.

    Queries are cells of single columns; None where there is none.
    """
    shares, several = [], {kind: np.flatnonzero(have) for kind, have in zip(writer.kinds, writer.has, strict=True)}
    whole = np.array(writer.whole[WHOLE][:: -(-writer.rows // RECALL_GALLERY)])
    sides = [turned(whole, turn[:, :some]) for some in (turn.shape[1], few)]
    for kind in writer.kinds[1:]:
        rows = several[kind][:: max(1, len(several[kind]) // RECALL_QUERIES)][:RECALL_QUERIES]
        if len(rows):
            asked = np.array(writer.whole[kind][rows])
            full, cut = (
                nearest(turned(asked, turn[:, : side.shape[1]]), side, min(RECALL_ROWS, len(whole)))[1]
                for side in sides
            )
            shares += overlap(full, cut)
    return round(float(np.mean(shares)), 4) if shares else None


def truncated_recalls(writer: VectorStoreWriter, turn: np.ndarray) -> dict[str, float]:
    """Recall of the leading 64, 128 and 256 dimensions, by their number; none without queries."""
    found = {str(few): truncated_recall(writer, turn, few) for few in (64, 128, 256) if few < turn.shape[1]}
    return {few: recall for few, recall in found.items() if recall is not None}


def overlap(wanted: np.ndarray, found: np.ndarray) -> list[float]:
    """Share of the wanted rows that were found, for each line of rows [n, k]."""
    return [len(set(a) & set(b)) / len(set(a)) for a, b in zip(wanted.tolist(), found.tolist(), strict=True)]


def check_key(cells: Sequence[pa.Table], key: str | None, name: str) -> None:
    """Check that a key is there in every row and differs between all.

    Raises:
        UserError: it isn't.
    """
    if key is None:
        return
    if any(key not in part.column_names for part in cells):
        raise UserError(f"The column '{key}' of '{name}' holds no plain cells. A key is a text, a number or a date.")
    column = pa.chunked_array([chunk for part in cells for chunk in part.column(key).chunks])
    if column.null_count or pc.count_distinct(column).as_py() < len(column):
        raise UserError(
            f"The key '{key}' of '{name}' is missing in {column.null_count} rows and has "
            f"{pc.count_distinct(column).as_py():,} values in {len(column):,} rows; each row needs its own."
        )


def is_plain(kind: pa.DataType) -> bool:
    """True for types whose cells can be shown and compared as they are."""
    return (
        pt.is_string(kind)
        or pt.is_large_string(kind)
        or pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_boolean(kind)
        or pt.is_temporal(kind)
        or pt.is_decimal(kind)
        or pt.is_dictionary(kind)
    )


def weighted_gists(rows: Rows, columns: Sequence[str], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted sums of the gists of single columns, scaled to length 1, [n, gist].

    Args:
        columns: those of the index. weights: of some of them; of the others 1.

    Raises:
        UserError: weights of columns that aren't there, or that leave nothing of a row.
    """
    for column in weights:
        if column not in columns:
            raise unknown("column of this index:", column, columns)
    if not all(math.isfinite(float(weight)) for weight in weights.values()):
        raise UserError(f"The weights {dict(weights)} are no numbers that a column could count.")
    total = sum(
        float(weights.get(c, 1.0)) * rows.gists([c]) * rows.has(c)[:, None] for c in columns if rows.has(c).any()
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    if (length < 1e-6).any():
        raise UserError(
            f"The weights {dict(weights)} leave nothing of the query. Give at least one column a weight above 0."
        )
    return total / length


def finder_recall(part: StorePart, kinds: Sequence[str]) -> float | None:
    """Recall of a part's finder: the share of the ten nearest rows that it finds as well.

    Queries are cells of single columns; None where there is none.
    """
    shares = []
    for kind in kinds[1:]:
        rows = np.flatnonzero(part.has[kind])
        asked = np.array(part.vectors[kind][rows[:: max(1, len(rows) // RECALL_QUERIES)][:RECALL_QUERIES]])
        here = part.has[WHOLE]
        if len(asked):
            _, all_rows = nearest(asked, part.vectors[WHOLE], RECALL_ROWS, here, part.rough[WHOLE])
            _, proposed = near(part, WHOLE, asked, RECALL_ROWS, here)
            shares += overlap(all_rows, proposed)
    return round(float(np.mean(shares)), 4) if shares else None
