"""Readers of a time series' cells: lists, arrays, and JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from sensorium.core.errors import BadCell

BANDS = (0.03, 0.08, 0.2, 0.5)
"""Upper edges of the bands of the baselines' spectrum, in cycles per step."""
MAX_VALUES = 1 << 24
"""Values in one cell, at most; also the largest integer that float32 counts exactly."""


def from_text(cell: Any) -> Any:
    """List of numbers that is written as JSON, as a list; any other cell as it is."""
    if not isinstance(cell, str) or cell[:1] not in "[ " or not cell.lstrip().startswith("["):
        return cell
    try:
        return json.loads(re.sub(r"\binf\b", "Infinity", re.sub(r"\bnan\b", "NaN", cell)))
    except (ValueError, RecursionError):
        return cell


def nesting(cell: Any) -> int:
    """Nesting depth: 1 for a list of numbers, 2 for a list of such lists, 0 for anything else; looks at the first few
    elements."""
    if isinstance(cell, np.ndarray) and cell.dtype != object:
        return cell.ndim if cell.ndim in (1, 2) and cell.dtype.kind in "iufb" else 0
    if isinstance(cell, dict):
        cell = list(cell.values())
    if not isinstance(cell, (list, tuple, np.ndarray)) or not cell:
        return 0
    inner = [x for x in cell[:20] if x is not None]
    if inner and all(isinstance(x, (int, float, np.number)) and not isinstance(x, bool) for x in inner):
        return 1
    return 2 if inner and all(nesting(x) == 1 for x in inner) else 0


def numbers(cell: Any) -> np.ndarray:
    """Cell as float64 of one or more dimensions, NaN for None; rows of unequal length filled up with NaN."""
    if isinstance(cell, dict):  # A struct of channels.
        cell = list(cell.values())
    if isinstance(cell, list) and any(isinstance(item, dict) for item in cell):
        cell = [list(item.values()) if isinstance(item, dict) else item for item in cell]
    if isinstance(cell, (str, bytes)) or not isinstance(cell, (list, tuple, np.ndarray)):
        raise BadCell(f"expected a list of numbers, found {type(cell).__name__}")
    if isinstance(cell, np.ndarray) and cell.dtype.kind in "SUMmcV":
        raise BadCell(f"expected numbers, found {cell.dtype}")
    try:
        return np.asarray(cell, np.float64)
    except (ValueError, TypeError):
        pass
    try:
        rows = [np.asarray([] if row is None else row, np.float64) for row in cell]
        longest = max(len(row) for row in rows)
        if any(row.ndim != 1 for row in rows) or len(rows) * longest > MAX_VALUES:
            raise ValueError
        result = np.full((len(rows), longest), np.nan)
        for row, values in zip(result, rows, strict=True):
            row[: len(values)] = values
        return result
    except (ValueError, TypeError) as error:
        raise BadCell("the series holds something that is no number, or lists of unequal depth") from error


def statistics(y: np.ndarray) -> list[float]:
    """14 statistics of a channel [steps], with gaps: see ``Series.features``."""
    steps, known = np.arange(len(y)), np.isfinite(y)
    y = np.interp(steps, steps[known], y[known])
    off = y - y.mean()
    slope = (off @ (steps - steps.mean())) / max(((steps - steps.mean()) ** 2).sum(), 1e-9)
    crossings = (off[1:] * off[:-1] < 0).mean() if len(y) > 1 else 0
    change = np.abs(np.diff(y)).mean() if len(y) > 1 else 0
    power = np.abs(np.fft.rfft(off)) ** 2 / len(y) ** 2
    rate = np.fft.rfftfreq(len(y))
    bands = [power[(rate > a) & (rate <= b)].sum() for a, b in zip((0, *BANDS[:-1]), BANDS, strict=True)]
    return [
        y.mean(), y.std(), *np.quantile(y, (0, 0.25, 0.5, 0.75, 1)), slope, crossings, change,
        *np.log(np.array(bands[:3]) + 1e-12), rate[power.argmax()],
    ]  # fmt: skip


STRIDE = 16
"""Steps of a token."""


def whole(steps: int) -> int:
    """``steps`` rounded up to whole tokens."""
    return -(-max(steps, 1) // STRIDE) * STRIDE
