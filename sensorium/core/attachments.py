"""Placement of a conversation's attached cells in columns and rows.

The first picture goes to the first column of pictures, the second to the second. When there are no more such columns,
the next one goes to the first column of another row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensorium.core.errors import UserError

MAX_ROWS = 16
"""Rows whose cells one conversation may refer to: so many pictures per column of pictures."""


def assign_cell(kind: str, columns: Sequence[str], rows: list[dict[str, Any]]) -> tuple[int, str]:
    """Row and column of one more cell of a kind.

    That is the first column of its kind in which nothing stands yet, of the first row that has one, or of a new row.

    Raises:
        UserError: there is no such column, or there are too many rows.
    """
    if not columns:
        raise UserError(f"This model can't look at {kind}: it has no column of such cells.")
    for row, cells in enumerate(rows):
        free = next((column for column in columns if column not in cells), None)
        if free is not None:
            return row, free
    if len(rows) >= MAX_ROWS:
        raise UserError(
            f"One conversation looks at {MAX_ROWS * len(columns)} cells of kind {kind} at most. "
            "Leave one out, or begin a new conversation."
        )
    rows.append({})
    return len(rows) - 1, columns[0]
