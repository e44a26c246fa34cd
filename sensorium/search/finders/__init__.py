"""Finder contract: approximate nearest neighbour index, which proposes rows that may be near to a query.

What it proposes is scored in full afterwards, so a finder may miss rows but not misjudge them.
"""

from __future__ import annotations

import abc
from pathlib import Path

import numpy as np


class Finder(abc.ABC):
    """Approximate nearest neighbour index of a part's vectors.

    The vectors never change, so it is written once and opened as often as wanted.
    """

    @classmethod
    @abc.abstractmethod
    def write(cls, path: Path, vectors: np.ndarray, rows: np.ndarray) -> None:
        """Write it to a file or folder ``path``.

        Args:
            vectors: float32 [n, size], of length 1 or mapped from a file.
            rows: int64 [m], ascending, which of them can be found.
        """

    @abc.abstractmethod
    def __init__(self, path: Path, rows: int, size: int) -> None:
        """Open what ``write`` made of ``rows`` vectors of ``size`` numbers.

        Raises:
            ValueError: it is something else, or cut short.
        """

    @abc.abstractmethod
    def propose(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Rows int64 [q, count] that may be nearest to queries float32 [q, size], -1 where there are fewer."""
