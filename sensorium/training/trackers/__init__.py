"""Trackers: where a run's metrics go besides ``metrics.jsonl``. One file each."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.registry import find


class Tracker(abc.ABC):
    """Contract of a tracker. Constructor: ``(folder, settings)``."""

    @abc.abstractmethod
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin a run whose files are in ``folder``."""

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the metrics of one step."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the run."""


def make_trackers(wanted: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> list[Tracker]:
    """Trackers of a run, by their names."""
    return [find(Tracker, name)(folder, settings) for name in wanted]
