"""The cells that a conversation shows, dealt out to columns and rows: the first picture to the first column of pictures, the second to the second, and when there are no more to the first of another row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sensorium.core.errors import UserError

ROWS = 16
"""Rows whose cells one conversation may refer to: so many pictures, one after the other."""


def deal(kind: str, columns: Sequence[str], rows: list[dict[str, Any]]) -> tuple[int, str]:
    """Where one more cell of a kind goes: the first row, or a new one, and the column of those of its kind in which nothing stands yet.

    Raises:
        UserError: there is no such column, or there are too many rows.
    """
    if not columns:
        raise UserError(f"This model can't look at {kind}: it has no column of such cells.")
    for row, cells in enumerate(rows):
        free = next((column for column in columns if column not in cells), None)
        if free is not None:
            return row, free
    if len(rows) >= ROWS:
        raise UserError(
            f"One conversation looks at {ROWS * len(columns)} cells of kind {kind} at most. Leave one out, or begin a new conversation."
        )
    rows.append({})
    return len(rows) - 1, columns[0]
