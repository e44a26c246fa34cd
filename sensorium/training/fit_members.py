"""Members of one column's ensemble that aren't the network: fitted on training rows, and cross-fitted where validation
rows are few."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sensorium.core.deadline import Deadline
from sensorium.core.errors import UserError, warn
from sensorium.core.machine import cores
from sensorium.core.registry import find, name_of
from sensorium.data.prepare import Prepared
from sensorium.ensemble.bag import Bag
from sensorium.ensemble.features import FeatureRows, column_relevance
from sensorium.ensemble.members import FitData, Member
from sensorium.network.network import Network

SINGLE_MODELS, LEFT_OUT = 2, 2
"""Columns from which alone trees are members; and how many of the most telling columns others do without."""
ENOUGH_VALIDATION, MAX_CROSS_FITTED = 400, 2500
"""Validation rows from which on nothing is cross-fitted; and the most rows of which it is."""
FOLDS, FEW_ROWS, MORE_FOLDS = 4, 800, 6
"""Folds of training rows; and of fewer rows than so many."""


class ColumnFit:
    """Members of one column's ensemble.

    Args:
        rows: training and validation rows of the store. features: of these. groups: of each training row: those of one
            group are in one fold. cross_fit: there is time for cross-fitting, if it helps.
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
        cross_fit: bool = True,
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
        self.folds = self.fold_of_rows() if cross_fit else np.zeros(0, np.int64)

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
        """Data that members learn from, for each fold: one alone where nothing is cross-fitted."""
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
            rest = FeatureRows.joined([self.rows[0].rows(out)]), self.truths[0][out]
            found.append(FitData(rows, truth, *rest, self.classes, seconds / count, self.seed))
        if known.any():
            found.append(dataclasses.replace(given, valid=own, valid_target=own_truth, seconds=seconds / count))
        return found

    def by_random_split(self, seconds: float) -> tuple[float, float] | None:
        """Score of trees on validation rows, and what it would be had the same rows been split at random: the share of
        right classes, or R²; None where there is nothing to learn."""
        known = [self.known(part) for part in (0, 1)]
        rows = FeatureRows.joined([self.rows[part].columns(self.columns).rows(known[part]) for part in (0, 1)])
        truth = np.concatenate([self.truths[part][known[part]] for part in (0, 1)])
        order, count = np.random.default_rng(self.seed).permutation(len(truth)), int(known[0].sum())
        found = []
        for some in (np.arange(len(truth)), order):
            halves = [(rows.rows(part), truth[part]) for part in (some[:count], some[count:])]
            data = FitData(*halves[0], *halves[1], self.classes, seconds / 2, self.seed)
            member = find(Member, "trees").fit(data, self.columns)
            if member is None or not len(halves[1][1]):
                return None
            predicted, true = member.predict(halves[1][0]), halves[1][1]
            if self.classes:
                found.append(float((predicted.argmax(1) == true).mean()))
            else:
                found.append(1 - float(((predicted - true) ** 2).mean() / max(true.var(), 1e-12)))
        return found[0], found[1]

    @functools.cached_property
    def telling(self) -> list[str]:
        """Columns, those first that tell most by themselves."""
        y = self.truths[0]
        tells = {c: column_relevance(self.rows[0].blocks[c], y, bool(self.classes)) for c in self.columns}
        return sorted(tells, key=lambda c: -tells[c])

    @property
    def left_out(self) -> list[list[str]]:
        """Sets of the most telling columns without which there are members too: others of a row are often labels that
        give one another away, and are as unknown as what is asked. So are the other targets that the user named."""
        found = [self.telling[:count] for count in range(1, LEFT_OUT + 1)]
        targets = [c for c in self.telling if c in self.network.targets and self.column in self.network.targets]
        found = [left for left in [targets, *found] if 0 < len(left) < len(self.columns)]
        return [left for number, left in enumerate(found) if left not in found[:number]]

    def bags(self, kinds: Sequence[str], seconds: float) -> list[Bag]:
        """Members of all columns, of the most telling ones alone, and without them, within a time.

        Each is fitted by one thread; as many at once as there are cores.
        """
        plans = [(find(Member, kind), self.columns) for kind in kinds]
        some = [[c] for c in self.telling[:SINGLE_MODELS] if len(self.columns) > 1]
        some += [[c for c in self.columns if c not in left] for left in self.left_out]
        some = [columns for number, columns in enumerate(some) if columns not in some[:number]]
        plans += [(part, columns) for columns in some for part, _ in plans[: len(kinds)] if part.whole]
        bags, deadline, missing = [], Deadline(seconds), {}
        waiting = len(plans)

        def fit(part: type[Member], columns: Sequence[str]) -> list[Member | None] | UserError:
            nonlocal waiting
            at_once = min(waiting, cores())
            mine, waiting = deadline.left * at_once / waiting, waiting - 1
            try:
                return [part.fit(data, columns) for data in self.data(max(mine, 0.2))]
            except UserError as error:
                return error

        # Of warnings Python knows one state for all threads: none of them may set it while others work.
        with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(cores()) as pool:
            fitted = list(pool.map(lambda plan: fit(*plan), plans))
        for (part, _), parts in zip(plans, fitted, strict=True):
            if isinstance(parts, UserError):
                missing.setdefault(str(parts), []).append(name_of(part).replace("_", " "))
            elif all(member is not None for member in parts):
                bags.append(Bag([member for member in parts if member is not None]))
        for reason, parts in missing.items():
            warn(f"'{self.column}' is answered without {', '.join(dict.fromkeys(parts))}: {reason}")
        return bags
