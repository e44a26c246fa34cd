"""Search in a table without an index: the rows nearest to a query of any columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, warn
from sensorium.inference.trained import Trained
from sensorium.search.index import Index, Windows


def search_table(
    trained: Trained,
    query: Mapping[str, Any],
    *,
    among: Any,
    column: str | None = None,
    k: int = 10,
    note: Callable[[str], None] | None = None,
) -> pa.Table:
    """The nearest rows of a table: see ``Model.search``."""
    trained.check([*query, *([column] if column else [])])
    if k < 1:
        raise UserError(f"k={k}: a search finds at least one row.")
    notes: list[str] = []
    one = trained.rows([dict(query)], list(query), notes.append) if query else None
    if one is None or not any(one.has(c).any() for c in query):
        why = "; ".join(notes) or f"{', '.join(query) or 'it'} is empty"
        raise UserError(f"The query is empty: {why}.")
    for words in notes:
        (note or warn)(words)
    asked = one.gists(list(query))
    numbers, parts, start = [], [], 0
    for part in trained.windows(among, [column] if column else None, note):
        if column is None:
            number = np.array([row for row in range(part.count) if row not in part.bad], np.int64)
            gists = part.gists()[number]
        elif trained.network.modalities[column].matched:
            number, gists = part.column_gists(column)
        else:
            number = np.flatnonzero(part.has(column))
            gists = part.gists([column])[number]
        numbers.append(number + start)
        parts.append(gists)
        start += part.count
    number, gists = np.concatenate(numbers), np.concatenate(parts)
    scores = gists @ asked[0]
    best = np.argsort(-scores, kind="stable")[:k]
    return pa.table({"row": pa.array(number[best], pa.int64()), "score": pa.array(scores[best], pa.float32())})


def build_index(
    trained: Trained,
    table: Any,
    out: Path,
    identity: Mapping[str, str],
    note: Callable[[str], None] | None = None,
    *,
    columns: Sequence[str] | None = None,
    **options: Any,
) -> Index:
    """Index of a table's rows, written to a folder: see ``Model.index``.

    Args:
        identity: where the model is kept, and what tells it from others. options: of ``Index.build``.
    """
    trained.check(columns or ())
    about = {
        "columns": trained.columns,
        "matched": [c for c in trained.columns if trained.network.modalities[c].matched],
        "gist": trained.network.gist_size,
        **identity,
    }
    return Index.build(out, trained.open(table), reader(trained, note), about, columns=columns, **options)


def reader(trained: Trained, note: Callable[[str], None] | None) -> Windows:
    """Reader of a table's rows for a model, a window at a time."""
    return lambda table, columns: trained.windows(table, columns, note)
