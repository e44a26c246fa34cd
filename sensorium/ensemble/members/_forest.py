"""Forest: boosted trees as arrays, which answer without the package that grew them.

Importing LightGBM takes longer than a whole prediction; and arrays go into safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ROWS_PER_BATCH = 512
"""Rows that go through the trees at once, so that memory doesn't grow with their number."""


class Forest:
    """Trees of numerical splits.

    Args:
        arrays: for each node ``feature``, ``threshold`` (at most which it goes left), ``left`` and ``right`` (nodes; a
            leaf is its own), ``default_left`` (where NaN goes), ``nan_is_zero`` (NaN is compared as 0 instead), and
            ``value``; ``roots``: of the trees, round by round, in each a tree for each class.
        classes: 0 for values, else the number of classes.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], classes: int) -> None:
        self.arrays, self.classes = dict(arrays), classes
        self.depth = self._depth()

    @classmethod
    def of(cls, dump: Mapping[str, Any], classes: int) -> Forest:
        """Forest of a LightGBM booster, from its ``dump_model``."""
        nodes: list[tuple[int, float, int, int, bool, bool, float]] = []

        def add(node: Mapping[str, Any]) -> int:
            place = len(nodes)
            if "leaf_value" in node:
                nodes.append((0, 0.0, place, place, True, False, float(node["leaf_value"])))
                return place
            if node["decision_type"] != "<=":
                raise ValueError(f"a split is {node['decision_type']}, not numerical")
            nodes.append((0, 0.0, 0, 0, False, False, 0.0))
            left, right = add(node["left_child"]), add(node["right_child"])
            missing = node["missing_type"]
            nodes[place] = (
                int(node["split_feature"]),
                float(node["threshold"]),
                left,
                right,
                bool(node["default_left"]),
                missing != "NaN",
                0.0,
            )
            return place

        roots = [add(tree["tree_structure"]) for tree in dump["tree_info"]]
        columns = list(zip(*nodes, strict=True)) if nodes else [()] * 7
        kinds = {
            "feature": np.int32,
            "threshold": np.float64,
            "left": np.int32,
            "right": np.int32,
            "default_left": bool,
            "nan_is_zero": bool,
            "value": np.float64,
        }
        arrays = {name: np.array(column, kind) for (name, kind), column in zip(kinds.items(), columns, strict=True)}
        return cls({**arrays, "roots": np.array(roots, np.int32)}, classes)

    def _depth(self) -> int:
        """Steps from a root to the farthest leaf."""
        at, depth = self.arrays["roots"], 0
        left, right = self.arrays["left"], self.arrays["right"]
        while len(at := at[left[at] != at]):
            at, depth = np.concatenate([left[at], right[at]]), depth + 1
        return depth

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probabilities [n, classes], or values [n], of features [n, d]."""
        raw = np.concatenate(
            [self._raw(x[start : start + ROWS_PER_BATCH]) for start in range(0, max(len(x), 1), ROWS_PER_BATCH)]
        )
        if not self.classes:
            return raw[:, 0]
        if self.classes == 2:
            second = 1 / (1 + np.exp(-raw[:, 0].clip(-500, 500)))
            return np.stack([1 - second, second], 1)
        raw = np.exp(raw - raw.max(1, keepdims=True))
        return raw / raw.sum(1, keepdims=True)

    def _raw(self, x: np.ndarray) -> np.ndarray:
        """Sums of leaves [n, trees of a round]."""
        part, rows = self.arrays, np.arange(len(x))[:, None]
        at = np.broadcast_to(part["roots"], (len(x), len(part["roots"])))
        for _ in range(self.depth):
            value = x[rows, part["feature"][at]].astype(np.float64)
            missing = np.isnan(value)
            left = np.where(missing, 0.0, value) <= part["threshold"][at]
            left = np.where(missing & ~part["nan_is_zero"][at], part["default_left"][at], left)
            at = np.where(left, part["left"][at], part["right"][at])
        each = max(self.classes, 1) if self.classes != 2 else 1
        return part["value"][at].reshape(len(x), len(part["roots"]) // each, each).sum(1)
