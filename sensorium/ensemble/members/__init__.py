"""Contract of a member of an ensemble: a model that answers one column from plain features. One kind a file."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from sensorium.ensemble.features import FeatureRows


@dataclasses.dataclass(frozen=True)
class FitData:
    """Rows that a member learns from, and those that it is chosen by.

    Attributes:
        rows, target: of training rows: codes 0 to ``classes`` - 1, or standardised values [n].
        valid, valid_target: of validation rows.
        classes: number of classes; 0 where the target is a value.
        seconds: time for fitting; a member that would need more learns from less.
    """

    rows: FeatureRows
    target: np.ndarray
    valid: FeatureRows
    valid_target: np.ndarray
    classes: int
    seconds: float
    seed: int = 0


class Member(abc.ABC):
    """Abstract member of an ensemble. It answers from the columns that it was fitted on.

    Attributes:
        columns: those; whole: it needs all of them, where training rows had them: it has not learned to do without.
    """

    whole: ClassVar[bool] = False

    columns: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Of a member that is ``whole``, the columns without which it has no answer."""
        return self.columns

    @classmethod
    @abc.abstractmethod
    def fit(cls, data: FitData, columns: Sequence[str]) -> Member | None:
        """Member fitted on some columns; None where there is nothing to learn from."""

    @abc.abstractmethod
    def predict(self, rows: FeatureRows) -> np.ndarray:
        """Probabilities [n, classes], or standardised values [n], of rows that show some of its columns."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Description as JSON, and arrays by name."""

    @classmethod
    @abc.abstractmethod
    def load(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Member:
        """The inverse of ``state``."""
