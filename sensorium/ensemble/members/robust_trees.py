"""Gradient-boosted trees that also learned from rows with random columns hidden, so that they answer from any."""

from __future__ import annotations

import numpy as np

from sensorium.ensemble.features import FeatureRows
from sensorium.ensemble.members._boosting import Boosted


class RobustTrees(Boosted):
    """Boosted trees for any columns, by augmentation with hidden columns."""

    def examples(self, rows: FeatureRows, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        visible = rows.columns(self.columns)
        return np.concatenate([self.design(visible), self.design(visible.masked(seed))]), np.tile(target, 2)
