"""Search in a table without an index: the rows nearest to a query of any columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, warn
from sensorium.inference.trained import Trained


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
        raise UserError(f"The query says nothing that could be looked for: {why}.")
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
