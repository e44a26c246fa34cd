"""Targets of the baselines: their cells as numbers and back, and the choices made for each.

It knows cells of three kinds (categories, numbers, dates), no features and no trees.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.data.moments import seconds

MAX_CLASSES = 64
"""The most classes that trees tell apart."""


@dataclasses.dataclass
class BaselineTarget:
    """Choices made for one target column.

    Attributes:
        kind: category, number or date.
        mean, unit: of numbers and dates (seconds since 1970, UTC); trees predict the distance from the mean in such
            units.
        classes: the classes that trees tell apart, most frequent first; None for numbers and dates.
        moments: dates were given as dates, and are predicted as datetimes; whole: all values are whole numbers.
        single: for each other column the validation score of trees on it alone, where time allowed them; quick: what
            a quick look at its features says (``relevance``).
        grown: for each set of columns whose trees were fitted to the end: (rounds, features, rows they learn from).
        holdout: there were too few validation rows; every seventh training row was held out to choose by.
    """

    kind: str
    mean: float = 0.0
    unit: float = 1.0
    classes: list[Any] | None = None
    moments: bool = False
    whole: bool = False
    single: dict[str, float] = dataclasses.field(default_factory=dict)
    quick: dict[str, float] = dataclasses.field(default_factory=dict)
    grown: list[tuple[list[str], int, int, int]] = dataclasses.field(default_factory=list)
    holdout: bool = False

    def to_json(self) -> dict[str, Any]:
        """Its fields, as ``baselines.json`` names them."""
        fields = dataclasses.asdict(self)
        fields["held"] = fields.pop("holdout")
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> BaselineTarget:
        """The inverse of ``to_json``."""
        own = {key: value for key, value in fields.items() if key not in ("held", "grown")}
        return cls(**own, holdout=fields["held"], grown=[tuple(trees) for trees in fields["grown"]])

    def cells(self, values: np.ndarray) -> list[Any]:
        """Codes or values as cells."""
        if self.classes is not None:
            return [self.classes[int(code)] for code in values]
        values = self.mean + self.unit * values
        if self.moments:
            low, high = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp() for year in (1, 9999))
            return [
                datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=s)
                for s in np.clip(values, low, high).tolist()
            ]
        return [round(v) for v in values.tolist()] if self.whole else values.tolist()

    @property
    def trees(self) -> int:
        """Number of trees that a round of boosting grows."""
        return len(self.classes) if self.classes is not None and len(self.classes) > 2 else 1

    def best(self, able: Sequence[str]) -> str | None:
        """The column that tells most by itself; one that was tried before one that was only looked at."""
        known = [column for column in able if column in self.quick]
        return max(known, key=lambda c: (c in self.single, self.single.get(c, 0.0), self.quick[c]), default=None)


def read_truth(name: str, cells: list[Any], kind: str, notes: list[str]) -> tuple[np.ndarray, BaselineTarget | None]:
    """A target's cells as ``code`` gives them, float64 [n], and what is known of it; None where nothing is."""
    if kind not in ("category", "number", "date"):
        raise UserError(f"Baselines can't predict '{name}', which is {kind}. They predict: category, number, date.")
    present = [cell for cell in map(plain, cells) if cell is not None]
    if kind == "category":
        counts: dict[Any, int] = {}
        for cell in present:
            counts[cell] = counts.get(cell, 0) + 1
        classes = sorted(counts, key=lambda cell: (-counts[cell], str(cell)))
        if len(classes) > MAX_CLASSES:
            notes.append(f"'{name}': trees predict the {MAX_CLASSES} most frequent of {len(classes)} classes apart.")
        target = BaselineTarget(kind=kind, classes=classes[:MAX_CLASSES]) if classes else None
    else:
        moments = kind == "date" and any(not isinstance(cell, (int, float)) for cell in present)
        target = BaselineTarget(kind=kind, moments=moments)
    if target is None:
        notes.append(f"'{name}' has no known value in the training rows: no baseline stands beside it.")
        return np.zeros(0), None
    values = code(cells, target)
    if kind != "category":
        known = values[np.isfinite(values)]
        if lost := len(present) - len(known):
            notes.append(f"'{name}': {lost} cells that are no {kind} were left out.")
        if not len(known):
            notes.append(f"'{name}' has no known value in the training rows: no baseline stands beside it.")
            return values, None
        largest = float(np.abs(known).max()) or 1.0  # squares of large numbers overflow
        target.mean = float((known / largest).mean() * largest)
        target.unit = float(((known - target.mean) / largest).std() * largest) or 1.0
        values = code(cells, target)
        target.whole = not target.moments and all(isinstance(cell, int) for cell in present)
    return values, target


def code(cells: Sequence[Any], target: BaselineTarget) -> np.ndarray:
    """Cells as float64 [n]: codes (-1: a class not told apart), or distances from the mean; NaN where missing."""
    if target.classes is not None:
        index = {cell: float(number) for number, cell in enumerate(target.classes)}
        return np.array(
            [np.nan if (cell := plain(given)) is None else index.get(cell, -1.0) for given in cells], np.float64
        )
    values = np.array([moment(given) if target.moments else number(given) for given in cells], np.float64)
    return (values - target.mean) / target.unit


def plain(cell: Any) -> Any:
    """A cell as something that JSON holds, or a date; None where missing."""
    if isinstance(cell, np.generic) and not isinstance(cell, np.datetime64):
        cell = cell.item()
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if isinstance(cell, np.datetime64):
        return None if np.isnat(cell) else cell.astype("datetime64[us]").item()
    if cell is None or isinstance(cell, (bool, int, float, str, datetime.date)):
        return cell
    return str(cell)


def number(cell: Any) -> float:
    """A cell as a finite float, NaN where it is none."""
    try:
        value = float(cell) if cell is not None else math.nan
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return value if abs(value) < 1e300 else math.nan


def moment(cell: Any) -> float:
    """A date, datetime or ISO 8601 text in seconds since 1970, UTC where no zone is given; NaN where it is none."""
    return seconds(plain(cell))
