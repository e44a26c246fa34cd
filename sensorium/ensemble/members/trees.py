"""Gradient-boosted trees of rows as they are: in a row that lacks a column that training rows had, no answer."""

from __future__ import annotations

from typing import ClassVar

from sensorium.ensemble.members._boosting import Boosted


class Trees(Boosted):
    """Boosted trees of rows as they are."""

    whole: ClassVar[bool] = True
