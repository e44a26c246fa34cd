"""Baselines of a fit: plain models for every category, number and date, on the same split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.registry import name_of
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.data.schema import Schema
from sensorium.data.table import Table
from sensorium.evaluation.baselines import MAX_ROWS, fit_baselines


class BaselineSettings:
    """Time of the baselines beside training (section ``baselines``).

    Args:
        share: part of the training time that the plain models get; 0 leaves them out.
        most: seconds they get at most.
    """

    def __init__(self, *, share: float = 0.1, most: float = 40.0) -> None:
        self.share, self.most = share, most


def plain_models(
    table: Table,
    prepared: Prepared,
    modalities: Mapping[str, Any],
    schema: Schema,
    folder: Path,
    seconds: float,
    seed: int,
) -> None:
    """Fit the baselines for every category, number and date on the same split."""
    kinds = {c: name_of(m) for c, m in modalities.items() if m.is_categorical or m.is_scalar}
    if not kinds:
        return

    def some(part: str) -> np.ndarray:
        rows = prepared.rows.get(part, np.zeros(0, np.int64))
        return evenly_spaced(rows, MAX_ROWS)

    def features(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {
            c: np.stack([modalities[c].features(cell) for cell in prepared.read.cells(c, rows)])
            for c in modalities
            if c in prepared.read.columns and len(rows)
        }

    def truth(rows: np.ndarray) -> dict[str, list[Any]]:
        taken = table.take(prepared.source[rows], list(kinds))
        return {c: taken.column(c).to_pylist() for c in kinds}

    train, valid = some("train"), some("validation")
    fit_baselines(
        features(train), truth(train), kinds, (features(valid), truth(valid)), folder / "baselines", seconds, seed
    )
