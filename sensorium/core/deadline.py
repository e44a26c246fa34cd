"""Deadline of a piece of work: how many seconds are left, and how many of some rows fit into a part of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Deadline:
    """Deadline, so many seconds from now; ``math.inf`` for none."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(self.at - time.monotonic(), 0.0)

    def part(self, share: float) -> Deadline:
        """Deadline after a share of the time that is left."""
        return Deadline(share * self.left)

    def rows(self, count: int, work: Callable[[int], object], least: int = 16, tried: int = 32) -> int:
        """Number of rows, of ``count``, whose work fits into the time that is left.

        Args:
            work: does the work of so many rows. It is tried on ``tried`` rows, where there is a deadline and there are
                several times as many. least: as many at least.
        """
        if math.isinf(self.at) or count <= 2 * tried:
            return count
        started = time.monotonic()
        work(tried)
        each = (time.monotonic() - started) / tried
        return int(min(count, max(self.left / max(each, 1e-9), least)))
