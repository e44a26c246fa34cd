"""Baselines: chance, the best single column, and gradient-boosted trees on plain features.

They know feature vectors and true values, no modality. Saved are their training data and the choices made, in NumPy's
own format and JSON; the trees are grown again from these when they are needed, for any set of seen columns.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.data.order import evenly_spaced
from sensorium.ensemble.features import bounded_features, relevance, select_features, widest_features
from sensorium.evaluation.baseline_targets import BaselineTarget, code, read_truth
from sensorium.evaluation.trees import MAX_FEATURES, TreeCost, Trees, fit_trees, grow_trees, last_round

Features = Mapping[str, np.ndarray]

MAX_ROWS, MAX_VALIDATION_ROWS = 20_000, 3_000
"""The most rows trained on, and chosen by."""
MIN_SECONDS = 0.2
"""Seconds below which no trees are grown for a target."""
TIME_SHARES = (0.25, 0.5, 1.0)
"""Parts of a target's time that are over when each column was tried, the best two were, and all together were."""
SCORE_MARGIN = 0.1
"""A column that says so much less than the best one by a few trees isn't tried with more."""
UNCHOSEN_SECONDS = 3.0
"""Seconds for trees on a set of columns for which nothing was chosen before."""


class Baselines:
    """Fitted plain models of every target.

    Attributes:
        targets: the choices made for each target.
        notes: in words, everything that the limits on time and size cut.
        seconds: what fitting took.
    """

    def __init__(
        self,
        columns: dict[str, np.ndarray],
        truth: dict[str, np.ndarray],
        selected: dict[str, list[int]],
        widths: dict[str, int],
        seed: int,
    ) -> None:
        self.columns, self.truth, self.selected, self.widths, self.seed = columns, truth, selected, widths, seed
        self.targets: dict[str, BaselineTarget] = {}
        self.notes: list[str] = []
        self.seconds = 0.0
        self._grown: dict[tuple[str, tuple[str, ...]], tuple[Trees, np.ndarray, int] | None] = {}

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, target: str, features: Features, seen: Sequence[str]) -> dict[str, Any]:
        """Predict some rows by the plain models.

        Args:
            target: a column of ``targets``.
            features: for each column [m, d], as those given to ``fit_baselines``; NaN, or no column, where missing.
            seen: the columns that may be used; the target itself never is.

        Returns:
            ``{"chance": [m], "one_column": (its name or None, [m]), "trees": [m]}``, in units of the cells: classes as
            given, floats (ints where all were whole), datetimes in UTC for dates.

        Raises:
            UserError: no such target, no features at all, or features of another width.
        """
        if target not in self.targets:
            raise UserError(
                f"No baselines were fitted for '{target}'. There are some for: {', '.join(self.targets) or 'none'}."
            )
        if not features:
            raise UserError("Baselines need the features of at least one column to know how many rows there are.")
        chosen, rows = self.targets[target], len(next(iter(features.values())))
        chance = np.zeros(rows)  # code of the most frequent class, distance from the mean
        able = [column for column in self.columns if column in seen and column != target]
        best = chosen.best(able)
        one = chance if best is None else self._output(target, [best], features, rows)
        trees = one if len(able) == 1 else self._output(target, able, features, rows)
        return {
            "chance": chosen.cells(chance),
            "one_column": (best, chosen.cells(one)),
            "trees": chosen.cells(trees),
        }

    def _output(self, target: str, columns: list[str], features: Features, rows: int) -> np.ndarray:
        """Codes or values [rows] by the trees on some columns, which are grown on the first call."""
        key = (target, tuple(columns))
        if key not in self._grown:
            self._grown[key] = self._regrow(target, columns)
        grown = self._grown[key]
        if grown is None:
            return np.zeros(rows)
        model, picked, rounds = grown
        x = np.concatenate([self._reduced(column, features.get(column), rows) for column in columns], axis=1)
        return last_round(model, x[:, picked], rounds)

    def _regrow(self, target: str, columns: list[str]) -> tuple[Trees, np.ndarray, int] | None:
        """Trees as they were chosen; for a set of columns that nothing was chosen for, rounds by rows held out."""
        chosen = self.targets[target]
        if not chosen.quick or not columns:
            return None
        for names, rounds, width, count in chosen.grown:
            if names == columns:
                return self._grow(target, columns, evenly_spaced(self._training_rows(target), count), width, rounds)
        rows, y = self._training_rows(target), self.truth[target]
        hold = np.arange(len(rows)) % 7 == 0
        return self._choose(
            target,
            columns,
            rows[~hold],
            {c: self.columns[c][rows[hold]] for c in columns},
            y[rows[hold]],
            UNCHOSEN_SECONDS,
        )[0]

    def _grow(
        self, target: str, columns: list[str], rows: np.ndarray, width: int, rounds: int
    ) -> tuple[Trees, np.ndarray, int] | None:
        """Fit so many rounds of trees on the most telling features of some columns."""
        x, y, picked = self._table(target, columns, rows, width)
        if not len(picked) or not rounds:
            return None
        return fit_trees(x, y, self.targets[target].classes is not None, rounds, self.seed), picked, rounds

    def _choose(
        self,
        target: str,
        columns: list[str],
        rows: np.ndarray,
        validation: Features,
        answers: np.ndarray,
        seconds: float,
    ) -> tuple[tuple[Trees, np.ndarray, int] | None, float, int, int]:
        """Trees for as long as they help and time allows: (trees, score on held-out rows, features, rows)."""
        sort, total = self.targets[target].classes is not None, sum(self.columns[c].shape[1] for c in columns)
        trees = self.targets[target].trees
        width = min(total, MAX_FEATURES, self.cost.width(len(rows), trees, seconds))
        rows = evenly_spaced(rows, self.cost.rows(len(rows), width, trees, seconds))
        x, y, picked = self._table(target, columns, rows, width)
        if not len(picked):
            return None, -math.inf, width, len(rows)
        seen = np.concatenate([validation[c] for c in columns], axis=1)[:, picked]
        model, score, rounds = grow_trees(x, y, seen, answers, sort, seconds, self.seed)
        return (model, picked, rounds), score, width, len(rows)

    def _table(
        self, target: str, columns: list[str], rows: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features [n, at most width], truth [n], which of all the columns' features they are)."""
        x, y = np.concatenate([self.columns[c][rows] for c in columns], axis=1), self.truth[target][rows]
        picked = select_features(
            x, y, self.targets[target].classes is not None, [self.columns[c].shape[1] for c in columns], width
        )
        return x[:, picked], y, picked

    @functools.cached_property
    def cost(self) -> TreeCost:
        """Cost of trees on this machine."""
        return TreeCost(self.seed)

    def _training_rows(self, target: str) -> np.ndarray:
        """The stored rows that the trees of a target learn from."""
        y, chosen = self.truth[target], self.targets[target]
        usable = y >= 0 if chosen.classes is not None else np.isfinite(y)
        if chosen.holdout:
            usable &= np.arange(len(y)) % 7 != 0
        return np.flatnonzero(usable)

    def _reduced(self, column: str, given: np.ndarray | None, rows: int) -> np.ndarray:
        selected = self.selected[column]
        if given is None:
            return np.full((rows, len(selected)), np.nan)
        if given.ndim != 2 or given.shape != (rows, self.widths[column]):
            raise UserError(
                f"Features of '{column}' have shape {list(given.shape)}; expected [{rows}, {self.widths[column]}]."
            )
        return bounded_features(given[:, selected])

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write ``baselines.npz`` (features and truth) and ``baselines.json`` (choices) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"column{i}": array for i, array in enumerate(self.columns.values())}
        arrays |= {f"truth{i}": array for i, array in enumerate(self.truth.values())}
        np.savez_compressed(folder / "baselines.npz", allow_pickle=False, **arrays)
        (folder / "baselines.json").write_text(
            json.dumps(
                {
                    "columns": list(self.columns),
                    "truth": list(self.truth),
                    "kept": self.selected,
                    "widths": self.widths,
                    "seed": self.seed,
                    "notes": self.notes,
                    "seconds": self.seconds,
                    "targets": {name: target.to_json() for name, target in self.targets.items()},
                },
                ensure_ascii=True,
            ),
            encoding="utf-8",
        )

    @classmethod
    def load(cls, folder: Path) -> Baselines:
        """The inverse of ``save``.

        Raises:
            UserError: the files aren't there or can't be read.
        """
        try:
            found = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))
            with (folder / "baselines.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                columns = {name: arrays[f"column{i}"] for i, name in enumerate(found["columns"])}
                truth = {name: arrays[f"truth{i}"] for i, name in enumerate(found["truth"])}
            self = cls(columns, truth, found["kept"], found["widths"], found["seed"])
            for name, fields in found["targets"].items():
                self.targets[name] = BaselineTarget.from_json(fields)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(
                f"The baselines in '{folder}' can't be read ({error}). Fit the run again to have them."
            ) from error
        except Exception as error:
            if type(error).__name__ not in ("BadZipFile", "error"):
                raise
            raise UserError(
                f"The baselines in '{folder}' are damaged ({error}). Fit the run again to have them."
            ) from error
        self.notes, self.seconds = found["notes"], found["seconds"]
        return self


# --- fitting ----------------------------------------------------------------------------------------------------------


def fit_baselines(
    features: Features,
    truth: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, str],
    valid: tuple[Features, Mapping[str, Sequence[Any]]],
    folder: Path,
    seconds: float,
    seed: int = 0,
    note: Callable[[str], None] = lambda words: None,
) -> Baselines:
    """Fit the plain models of every target within a time, and write them to a folder.

    Args:
        features: for each column the training rows' features, float [n, d], NaN where a cell is missing.
        truth: for each target its n cells: classes, numbers or dates (dates, datetimes, ISO 8601 texts); None or NaN:
            missing.
        kinds: for each target "category", "number" or "date".
        valid: features and truth of other rows, by which columns and rounds are chosen.
        folder: where ``baselines.npz`` and ``baselines.json`` are written.
        seconds: time for all of it; what it cuts stands in ``notes``.
        note: is called with which target is being fitted.
    """
    started, rng = time.monotonic(), np.random.default_rng(seed)
    count = max((len(array) for array in features.values()), default=0)
    rows = np.sort(rng.choice(count, MAX_ROWS, replace=False)) if count > MAX_ROWS else np.arange(count)
    columns, selected, widths, notes = {}, {}, {}, []
    if count > MAX_ROWS:
        notes.append(f"{MAX_ROWS} of {count} training rows were used.")
    for column, array in features.items():
        array, widths[column] = bounded_features(np.asarray(array)[rows]), array.shape[1]
        selected[column] = widest_features(array)
        columns[column] = array[:, selected[column]]
        if len(selected[column]) < array.shape[1]:
            notes.append(
                f"{len(selected[column])} of the {array.shape[1]} features of '{column}' were used, "
                "those that vary most."
            )
    self = Baselines(columns, {}, selected, widths, seed)
    self.notes = notes
    checked = valid_rows(self, valid[0])
    for name, cells in truth.items():
        values, target = read_truth(name, [cells[i] for i in rows], kinds[name], notes)
        if target is not None:
            self.truth[name], self.targets[name] = values, target
    # What a target leaves of its time goes to those after it, so those that need most come last.
    waiting = sorted(self.targets, key=lambda name: self.targets[name].trees)
    while waiting:
        note(waiting[0])
        needs = [math.sqrt(self.targets[name].trees) for name in waiting]
        left = (seconds - (time.monotonic() - started)) * needs[0] / sum(needs)
        name = waiting.pop(0)
        answers = code(list(valid[1].get(name, [])), self.targets[name])
        fit_target(self, name, checked, answers[:MAX_VALIDATION_ROWS], max(left, 0.0))
    self.seconds = round(time.monotonic() - started, 2)
    self.save(folder)
    return self


def valid_rows(self: Baselines, features: Features) -> dict[str, np.ndarray]:
    """The validation rows' features, reduced as the training rows' were."""
    count = max((len(array) for array in features.values()), default=0)
    return {c: self._reduced(c, features.get(c), count)[:MAX_VALIDATION_ROWS] for c in self.columns}


def fit_target(self: Baselines, name: str, checked: Features, answers: np.ndarray, seconds: float) -> None:
    """Choose the best column, the rounds of boosting and the features of a target; record the trees for ``predict``."""
    target, y = self.targets[name], self.truth[name]
    if (np.isfinite(answers) & (answers >= (0 if target.classes else -np.inf))).sum() < 20:
        target.holdout = True
        hold = np.arange(len(y)) % 7 == 0
        checked, answers = {c: array[hold] for c, array in self.columns.items()}, y[hold]
    able, train = np.isfinite(answers), self._training_rows(name)
    others = [column for column in self.columns if column != name]
    if len(train) < 10 or len(np.unique(y[train])) < 2 or not able.any() or not others:
        self.notes.append(
            f"'{name}' has too few known values, or only one, in the training rows: chance alone stands beside it."
        )
        return
    if seconds < MIN_SECONDS:
        self.notes.append(f"The time was over before '{name}': chance alone stands beside it.")
        return
    started = time.monotonic()
    checked, answers = {c: checked[c][able] for c in others}, answers[able]

    def grow(columns: list[str], limit: float) -> tuple[Any, float, int, int]:
        return self._choose(name, columns, train, checked, answers, limit)

    def left(share: float) -> float:
        return share * seconds - (time.monotonic() - started)

    sort = target.classes is not None
    target.quick = {c: float(relevance(self.columns[c][train], y[train], sort).max(initial=0.0)) for c in others}
    ranked = sorted(others, key=lambda c: -target.quick[c])  # time cuts the least likely
    for number, column in enumerate(ranked):
        if number and left(TIME_SHARES[0]) < 0.05:
            self.notes.append(
                f"'{name}': time allowed to try {number} of {len(ranked)} columns alone, the likeliest by a quick look."
            )
            break
        target.single[column] = grow([column], left(TIME_SHARES[0]) / (len(ranked) - number))[1]
    again = sorted(target.single, key=lambda c: -target.single[c])[:2]
    again = [column for column in again if target.single[column] > target.single[again[0]] - SCORE_MARGIN]
    for number, column in enumerate(again):
        record_choice(self, name, [column], grow([column], left(TIME_SHARES[1]) / (len(again) - number)))
    record_choice(self, name, others, grow(others, left(TIME_SHARES[2])))


def record_choice(self: Baselines, name: str, columns: list[str], chosen: tuple[Any, float, int, int]) -> None:
    """Record trees that were chosen, and note what the limit on time cut."""
    trees, score, width, rows = chosen
    target, total, train = (
        self.targets[name],
        sum(self.columns[c].shape[1] for c in columns),
        len(self._training_rows(name)),
    )
    self._grown[name, tuple(columns)] = trees
    target.grown.append((columns, trees[2] if trees else 0, width, rows))
    if len(columns) == 1:
        target.single[columns[0]] = max(score, target.single[columns[0]])
    what = f"'{name}' from {'all columns' if len(columns) > 1 else repr(columns[0])}"
    if width < total:
        why = "" if width == MAX_FEATURES else ", to end in time"
        self.notes.append(f"{what}: trees were given the {width} most telling of {total} features{why}.")
    if rows < train:
        self.notes.append(f"{what}: trees were grown on {rows} of {train} rows, to end in time.")
