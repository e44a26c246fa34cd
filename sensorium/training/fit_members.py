"""Members of one column's ensemble that aren't the network: fitted on training rows, and cross-fitted where validation
rows are few."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from sensorium.core.errors import UserError, warn
from sensorium.core.registry import find, name_of
from sensorium.data.prepare import Prepared
from sensorium.ensemble.bag import Bag
from sensorium.ensemble.features import FeatureRows, relevance
from sensorium.ensemble.members import FitData, Member
from sensorium.network.network import Network

SINGLE_MODELS = 2
"""Columns from which alone trees are members."""
ENOUGH_VALIDATION, MAX_CROSS_FITTED = 400, 2500
"""Validation rows from which on nothing is cross-fitted; and the most rows of which it is."""
FOLDS, FEW_ROWS, MORE_FOLDS = 4, 800, 6
"""Folds of training rows; and of fewer rows than so many."""


class ColumnFit:
    """Members of one column's ensemble.

    Args:
        rows: training and validation rows of the store. features: of these. groups: of each training row: those of one
            group are in one fold.
    """

    def __init__(
        self,
        network: Network,
        prepared: Prepared,
        column: str,
        rows: tuple[np.ndarray, np.ndarray],
        features: tuple[FeatureRows, FeatureRows],
        seed: int,
        groups: np.ndarray | None = None,
    ) -> None:
        self.network, self.column, self.seed = network, column, seed
        self.modality = network.asked_modality(column)
        self.classes = len(self.modality.state()["classes"]) if self.modality.is_categorical else 0
        truths = [self.truth(prepared, some) for some in rows]
        self.have = [np.isfinite(truth) for truth in truths]
        self.mean = self.std = 0.0
        if not self.classes:
            known = truths[0][self.have[0]]
            self.mean, self.std = (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)
            truths = [(truth - self.mean) / self.std for truth in truths]
        self.truths = [truth[have] for truth, have in zip(truths, self.have, strict=True)]
        self.groups = None if groups is None else groups[self.have[0]]
        self.valid_row = np.cumsum(self.have[1]) - 1
        others = [c for c in features[0].blocks if c != column]
        self.rows = [some.columns(others).rows(have) for some, have in zip(features, self.have, strict=True)]
        self.columns = [c for c in others if self.rows[0].shows(c).any()]
        self.folds = self.fold_of_rows()

    def truth(self, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
        """Codes (-1: an unseen class) or values of some rows [n], NaN where missing."""
        found = np.full(len(rows), np.nan)
        for number, cell in enumerate(prepared.read.cells(self.column, rows)):
            if cell is not None and len(cell):
                found[number] = float(self.modality.prepare(cell)[0]) - 1 if self.classes else float(cell[0])
        return found

    def known(self, part: int) -> np.ndarray:
        """Training (0) or validation (1) rows whose truth members can learn, bool [n]."""
        return self.truths[part] >= 0 if self.classes else np.isfinite(self.truths[part])

    def fold_of_rows(self) -> np.ndarray:
        """Fold of each training row; empty where nothing is cross-fitted. Validation rows are the fold after them.

        Folds are alike in the target; rows of one group are in one.
        """
        y = self.truths[0]
        if self.known(1).sum() >= ENOUGH_VALIDATION or len(y) > MAX_CROSS_FITTED:
            return np.zeros(0, np.int64)
        count = MORE_FOLDS if len(y) < FEW_ROWS else FOLDS
        rng = np.random.default_rng(self.seed)
        if self.groups is not None:
            names, which = np.unique(self.groups, return_inverse=True)
            if len(names) >= 2 * count:
                return (rng.permutation(len(names)) % count)[which.reshape(-1)]
        order = np.lexsort((rng.random(len(y)), y))
        folds = np.empty(len(y), np.int64)
        folds[order] = np.arange(len(y)) % count
        return folds

    def data(self, seconds: float) -> list[FitData]:
        """What members learn from, for each fold: one alone where nothing is cross-fitted."""
        given = FitData(self.rows[0], self.truths[0], self.rows[1], self.truths[1], self.classes, seconds, self.seed)
        if not len(self.folds):
            return [given]
        known, found = self.known(1), []
        own, own_truth = self.rows[1].rows(known), self.truths[1][known]
        count = int(self.folds.max()) + 1 + bool(known.any())
        for fold in range(int(self.folds.max()) + 1):
            out = self.folds == fold
            rows = FeatureRows.joined([self.rows[0].rows(~out), own])
            truth = np.concatenate([self.truths[0][~out], own_truth])
            held = FeatureRows.joined([self.rows[0].rows(out)]), self.truths[0][out]
            found.append(FitData(rows, truth, *held, self.classes, seconds / count, self.seed))
        if known.any():
            found.append(dataclasses.replace(given, valid=own, valid_target=own_truth, seconds=seconds / count))
        return found

    def bags(self, kinds: Sequence[str], seconds: float) -> list[Bag]:
        """Members of all columns, and of the most relevant ones alone, within a time."""
        blocks = {c: self.rows[0].blocks[c] for c in self.columns}
        tells = {c: float(relevance(b, self.truths[0], bool(self.classes)).max(initial=0.0)) for c, b in blocks.items()}
        best = sorted(tells, key=lambda c: -tells[c])[:SINGLE_MODELS] if len(self.columns) > 1 else []
        plans = [(find(Member, kind), self.columns) for kind in kinds]
        plans += [(part, [c]) for c in best for part, _ in plans[: len(kinds)] if part.whole]
        bags, started, missing = [], time.monotonic(), {}
        for number, (part, columns) in enumerate(plans):
            left = (seconds - (time.monotonic() - started)) / (len(plans) - number)
            try:
                parts = [part.fit(data, columns) for data in self.data(max(left, 0.2))]
            except UserError as error:
                missing.setdefault(str(error), []).append(name_of(part).replace("_", " "))
                continue
            found = [member for member in parts if member is not None]
            if len(found) == len(parts):
                bags.append(Bag(found))
        for reason, parts in missing.items():
            warn(f"'{self.column}' is answered without {', '.join(dict.fromkeys(parts))}: {reason}")
        return bags
