"""Quarantine of every cell that can't be read, with row, column and reason; too many of them stop the run."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.data.media import HEAD_BYTES, sniff

PREVIEW_LENGTH = 200
MIN_ROWS_TO_STOP = 1000
"""Rows that must have been read before a share of bad ones stops an unfinished run."""


def parse_max_bad(value: str | float | int) -> float | int:
    """``"10%"`` and ``0.1`` as the share 0.1, ``"50"`` and ``50`` as the number 50 of rows.

    Raises:
        UserError: it is neither, or out of range.
    """
    error = UserError(f"--max-bad {value} is neither a share of rows (10% or 0.1) nor a number of rows (50).")
    if isinstance(value, bool):
        raise error
    text = str(value).strip()
    try:
        if text.endswith("%"):
            share: float | int = float(text[:-1]) / 100
        else:
            share = int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise error from None
    if math.isnan(share) or share < 0 or (isinstance(share, float) and share > 1):
        raise error
    return share


class Quarantine:
    """Quarantine of bad cells, written as JSON lines while a run goes on and counted exactly.

    Args:
        path: the file; one that is there is gone on with (a resumed run says each cell once). None: only count.
        max_bad: how many bad rows a run bears: a share (a float up to 1, "10%") or a number (an int, "50").

    Attributes:
        rows: numbers of the rows with at least one bad cell.
        columns: bad cells of each column.
    """

    def __init__(self, path: Path | str | None, max_bad: str | float | int = 0.1) -> None:
        self.path = None if path is None else Path(path)
        self.max_bad = parse_max_bad(max_bad)
        self.rows: set[int] = set()
        self.columns: Counter[str] = Counter()
        self._cells: set[tuple[int, str]] = set()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        if self.path is not None and self.path.exists():
            self._load(self.path)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: int, column: str, reason: str, cell: Any = None) -> bool:
        """Quarantine one cell; True if it is new. Safe to call from several threads."""
        with self._lock:
            if not self._count(int(row), column, str(reason)):
                return False
            if self.path is not None:
                entry = {"row": int(row), "column": column, "reason": str(reason), "cell": preview(cell)}
                with open(self.path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
            return True

    def check(self, rows_seen: int, final: bool = True) -> None:
        """Stop a run that has too many bad rows.

        Args:
            rows_seen: rows looked at so far, the bad ones included.
            final: all rows were read; while they are not, a share isn't judged by fewer than ``MIN_ROWS_TO_STOP``
                rows.

        Raises:
            UserError: more than ``max_bad`` of them are bad.
        """
        share = isinstance(self.max_bad, float)
        allowed = self.max_bad * rows_seen if share else self.max_bad
        if len(self.rows) <= allowed + 1e-9 or (share and not final and rows_seen < MIN_ROWS_TO_STOP):
            return
        limit = f"{self.max_bad:.4g} of them ({self.max_bad:.1%})" if share else f"{self.max_bad:,}"
        worst = "; ".join(f"{column}: {reason} ({n:,})" for (column, reason), n in self._reasons.most_common(3))
        where = f" All of them, with their reasons, are in {self.path}." if self.path else ""
        raise UserError(
            f"{len(self.rows):,} of {rows_seen:,} rows hold a cell that can't be read, more than the limit of {limit}. "
            f"Most often: {worst}.{where} Mend these cells, leave a column out, or raise the limit with --max-bad."
        )

    def _count(self, row: int, column: str, reason: str) -> bool:
        if (row, column) in self._cells:
            return False
        self._cells.add((row, column))
        self.rows.add(row)
        self.columns[column] += 1
        self._reasons[column, reason[:80]] += 1
        return True

    def _load(self, path: Path) -> None:
        """Load the entries of an earlier run; a line torn by a kill is cut off."""
        whole = 0
        with open(path, "rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    row, column, reason = int(entry["row"]), str(entry["column"]), str(entry["reason"])
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                self._count(row, column, reason)
                whole += len(line)
        if whole < path.stat().st_size:
            with open(path, "r+b") as file:
                file.truncate(whole)


def preview(cell: Any) -> str | None:
    """Preview of a cell as short text; of bytes the media type, their number, and the first 16 in hex."""
    if cell is None:
        return None
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        cell = cell["bytes"]
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return f"{sniff(bytes(cell[:HEAD_BYTES])) or 'bytes'}, {len(cell):,} bytes, {bytes(cell[:16]).hex()}"
    if isinstance(cell, str):
        text = cell[: PREVIEW_LENGTH + 1]
    else:
        shape = getattr(cell, "shape", None)
        text = f"array {list(shape)}" if shape else (repr(cell) if not isinstance(cell, list) else repr(cell[:20]))
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= PREVIEW_LENGTH else text[:PREVIEW_LENGTH] + "…"
