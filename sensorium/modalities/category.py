"""Categorical cells: one of the classes seen in training, or an unseen one (id 0), which is never predicted."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from sensorium.core.errors import BadCell
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.modalities._capabilities import Generable

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

EMPTY = np.zeros(0, np.uint8)
MAX_BYTES = 1000
"""Bytes of a class's name; what is longer is no category."""
CODE = re.compile(r"(?=.*\d)[\w.\-/+:#]{1,16}")
"""Short word with a digit in it."""
MAX_ONE_HOT = 32
"""Number of classes up to which the baselines get one number each; beyond it they get the class's rank."""


class Category(Generable):
    """Text, truth value or whole number out of a few. Predictions have the type of the training cells.

    Args:
        max_classes: the most frequent ones are kept, the rest count as unseen.
        forget: share of the seen cells that training turns to "unseen", so that a new class means something.
    """

    display_rank = 5
    generator = "categorical"
    is_categorical = True
    metric = "accuracy"

    def __init__(self, *, max_classes: int = 4096, forget: float = 0.02) -> None:
        self.max_classes, self.forget = max_classes, forget
        self.classes: list[str | bool | int | float] = []
        self._exact: dict[bytes, int] = {}
        self._loose: dict[str, int] = {}

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        return True

    @property
    def as_written(self) -> bool:
        """True where all classes are texts: ``3.10`` is another than ``3.1``."""
        return bool(self.classes) and all(isinstance(value, str) for value in self.classes)

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        cells, distinct = [cell for cell in profile.sample if cell is not None], profile.distinct
        if profile.type.startswith("dictionary"):
            return Claim(sure=0.95, why=f"declared as categories, {distinct} distinct")
        if not cells or not distinct:
            return None
        if all(isinstance(cell, bool) for cell in cells):
            return Claim(sure=0.99, why="true or false")
        if all(isinstance(cell, str) for cell in cells):
            words = sum(len(cell[:2000].split()) for cell in cells) / len(cells)
            longest = max(len(cell) for cell in cells)
            few = distinct <= min(1000, max(20, 0.05 * profile.present)) and distinct < max(2, 0.8 * profile.present)
            # Codes are said as they are or not at all, so each that comes twice is a class: 049.96, 3.10, B-12.
            few = few or (distinct <= min(1000, 0.5 * profile.present) and all(CODE.fullmatch(cell) for cell in cells))
            if not few or longest > 200:
                return None
            return Claim(sure=0.9 if words <= 5 else 0.5, why=f"{distinct} distinct texts in {profile.present} rows")
        if all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in cells):
            values = {float(cell) for cell in cells if abs(cell) < 2**53}
            codes = (
                bool(values) and all(v == int(v) for v in values) and distinct <= 10 and profile.present >= 2 * distinct
            )
            if codes and min(values) >= 0 and max(values) - min(values) < 10:
                return Claim(sure=0.85, why=f"{distinct} distinct small whole numbers: codes")
        return None

    def read(self, cell: Any) -> np.ndarray:
        """Value with its type, as UTF-8 bytes [n]; none, NaN and blank texts are missing, [0].

        Raises:
            BadCell: a list, a mapping, an infinite number, or a text too long for a name.
        """
        if isinstance(cell, np.generic):
            cell = cell.item()
        if isinstance(cell, (bytes, bytearray)):
            if len(cell) > MAX_BYTES:
                raise BadCell(f"{len(cell)} bytes are too many for a category")
            try:
                cell = bytes(cell).decode()
            except UnicodeDecodeError as error:
                raise BadCell("bytes that aren't UTF-8") from error
        if cell is None or (isinstance(cell, str) and not cell[: MAX_BYTES + 1].strip()):
            return EMPTY
        if isinstance(cell, Decimal):
            cell = int(cell) if cell.is_finite() and cell == cell.to_integral_value() else float(cell)
        if isinstance(cell, float):
            if math.isnan(cell):
                return EMPTY
            if math.isinf(cell):
                raise BadCell("infinite number")
            cell = int(cell) if cell.is_integer() and abs(cell) < 2**53 else cell
        if isinstance(cell, str):
            cell = (
                cell[: MAX_BYTES + 1].replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            )
        elif not isinstance(cell, (bool, int, float)):
            cell = self._other(cell)
        if isinstance(cell, int) and abs(cell) >= 2**63:
            raise BadCell("whole number beyond 64 bits")
        raw = json.dumps(cell, ensure_ascii=False).encode()
        if len(raw) > MAX_BYTES:
            raise BadCell("text too long for a category")
        return np.frombuffer(raw, np.uint8)

    @staticmethod
    def _other(cell: Any) -> str:
        """Text of dates and the like, as every source writes it."""
        if hasattr(cell, "isoformat"):
            return cell.isoformat()
        raise BadCell(f"{type(cell).__name__} is no category")

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        counts = Counter(cell.tobytes() for cell in cells if len(cell))
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: self.max_classes]
        self._set([json.loads(raw) for raw, _ in ranked])

    def _set(self, classes: list[Any]) -> None:
        self.classes = classes
        self._exact = {self.read(value).tobytes(): i for i, value in enumerate(classes, 1)}
        self._loose = {}
        for i, value in enumerate(classes, 1):
            for word in _spellings(value):
                self._loose.setdefault(word, i)

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Id of the class, int64 [1]; a value in another type than in training ("3", 3, 3.0) is found as well."""
        raw = read.tobytes()
        found = self._exact.get(raw)
        if found is None and raw:
            value = json.loads(raw)
            found = next((self._loose[word] for word in _spellings(value) if word in self._loose), None)
        return np.array([found or 0])

    def describe_unknown(self, cells: Sequence[np.ndarray | None]) -> str:
        """The first classes, where no cell is one of the classes."""
        there = [int(cell[0]) for cell in cells if cell is not None and len(cell)]
        return ", ".join(repr(value) for value in self.classes[:4]) if there and not any(there) else ""

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        import torch

        return {"ids": torch.from_numpy(np.array([cell[0] for cell in cells], np.int64)[:, None])}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        import torch

        ids = cells["ids"]
        gone = (torch.rand(ids.shape, generator=generator) < self.forget).to(ids.device)
        return {**cells, "ids": ids.masked_fill(gone, 0), "whole": ids}

    def stem(self, width: int) -> Stem:
        from sensorium.modalities._stems.category import CategoryStem

        return CategoryStem(len(self.classes) + 1, width)

    def tokens(self) -> Tokens:
        return Tokens(length=1, vocabulary=len(self.classes) + 1)

    def target(self, cells: Cells) -> torch.Tensor:
        return cells.get("whole", cells["ids"])

    def decode(self, tokens: np.ndarray) -> Any:
        """Class of ids [1]; None for an id that is no class."""
        i = int(np.asarray(tokens).reshape(-1)[0])
        return self.classes[i - 1] if 0 < i <= len(self.classes) else None

    def show(self, cell: Any) -> str:
        return html.escape(str(cell)[:100])

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """One-hot vector, or the class's rank by frequency where there are many; unseen: zeros or -1."""
        n = len(self.classes)
        missing = read is None or not len(read)
        i = -1 if read is None or not len(read) else int(self.prepare(read)[0]) - 1
        if n > MAX_ONE_HOT:
            return np.array([np.nan if missing else float(i)])
        return np.full(max(n, 1), np.nan) if missing else (np.arange(max(n, 1)) == i).astype(np.float64)

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``accuracy``, and ``balanced_accuracy``: the mean over the true classes of the share found."""
        if not len(truth):
            return {}
        pairs = [(t, t == s) for t, s in zip(map(self._identity, truth), map(self._identity, predicted), strict=True)]
        classes: dict[Any, list[bool]] = {}
        for t, hit in pairs:
            classes.setdefault(t, []).append(hit)
        return {
            "accuracy": sum(hit for _, hit in pairs) / len(pairs),
            "balanced_accuracy": sum(sum(hits) / len(hits) for hits in classes.values()) / len(classes),
        }

    def _identity(self, cell: Any) -> int | bytes:
        """Id of the class, or the value itself where it is no class: an unseen truth is always a miss."""
        read = self.read(cell)
        return int(self.prepare(read)[0]) or read.tobytes()

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def load_state(self, state: dict[str, Any]) -> None:
        self._set(list(state["classes"]))


def _spellings(value: str | float) -> list[str]:
    """Spellings of a value in other sources: types change between files, and truth values become 0 and 1."""
    if isinstance(value, bool):
        return ["true", "True", "1"] if value else ["false", "False", "0"]
    if isinstance(value, str):
        return [value, value.strip()]
    return [str(value), f"{value:.1f}"] if isinstance(value, int) else [str(value)]
