"""Time plan of a fit: ``--minutes`` bounds the whole command, so training ends early enough for what follows it.

From two minutes on, all ends by 1.2 times the minutes and half a minute. Shorter runs, which are for trying things out,
train for all of their minutes, and have a minute more for what follows.
"""

from __future__ import annotations

import math
import time

from sensorium.core.deadline import Deadline

MIN_MINUTES = 2.0
"""Minutes from which they bound the whole command."""
TRAINING_SHARE, MIN_TRAINING_SHARE = 0.6, 0.35
"""Part of the minutes in which training happens, with what reading takes beyond ``READING_SECONDS``; and what is left
of it at least, however long reading took."""
READING_SECONDS = 15.0
OVERRUN, OVERRUN_SECONDS = 1.2, 20.0
"""All ends by so many times the minutes, and so many seconds: ten are left for what can't be cut short."""


class TimePlan:
    """Time plan of one fit.

    Args:
        minutes: those of the whole; None where epochs say how long training is. started: when it began, by
            ``time.monotonic``.
    """

    def __init__(self, minutes: float | None, started: float) -> None:
        self.started, self.minutes = started, minutes
        self.bounds = minutes is not None and minutes >= MIN_MINUTES

    def training_minutes(self) -> float | None:
        """Minutes of training, where it begins now; None for epochs."""
        if self.minutes is None or not self.bounds:
            return self.minutes
        reading = max(0.0, time.monotonic() - self.started - READING_SECONDS) / 60
        return max(TRAINING_SHARE * self.minutes - reading, MIN_TRAINING_SHARE * self.minutes)

    def deadline(self) -> Deadline:
        """Deadline of the whole."""
        if self.minutes is None:
            return Deadline(math.inf)
        passed, more = time.monotonic() - self.started, OVERRUN_SECONDS + 60 * (not self.bounds)
        return Deadline(max(OVERRUN * 60 * self.minutes + more - passed, 1.0))
