"""Gradient-boosted trees that also learned from rows with random columns hidden, so that they answer from any."""

from __future__ import annotations

import numpy as np

from sensorium.ensemble.features import Blocks, masked, matrix
from sensorium.ensemble.members._boosting import Boosted


class RobustTrees(Boosted):
    """Boosted trees for any columns, by augmentation with hidden columns."""

    def rows(self, blocks: Blocks, target: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        visible = {c: blocks[c] for c in self.columns}
        parts = [visible, masked(visible, seed)]
        x = [matrix({c: part[c][:, self.picked[c]] for c in self.columns}, self.columns) for part in parts]
        return np.concatenate(x), np.concatenate([target] * len(parts))
