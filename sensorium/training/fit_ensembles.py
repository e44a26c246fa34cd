"""Ensembles of a trained network's predictable columns: plain models are fitted on training rows, and all members are
weighed on validation rows, from all columns, from each alone and from random ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from sensorium.core.deadline import Deadline
from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import names
from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.ensemble.bag import Bag
from sensorium.ensemble.ensemble import Ensemble, View
from sensorium.ensemble.features import FeatureRows, count_terms
from sensorium.ensemble.members import Member
from sensorium.network.network import Network
from sensorium.training.calibrate import MAX_ROWS, encode, short_columns
from sensorium.training.fit_members import ColumnFit
from sensorium.training.weigh_members import MIN_ROWS, Weighing

MAX_COLUMNS, MIN_COLUMNS, MAX_COMPARED = 32, 2, 3
"""Columns that have an ensemble, at most, targets first, and however short the time is; and for which it is said what a
random split would have."""
COLUMN_SECONDS, CROSS_FITTING_SECONDS = 1.0, 3.0
"""Time of a column, at least, if there are more; and in which it is cross-fitted."""
TARGET_TIMES, FITTING_SHARE = 3.0, 0.65
"""How many times the time of another column one has, at least, that the user named as a target; and part of a column's
time in which its members are fitted: in the rest they are weighed."""
MAX_TRAIN_ROWS, MIN_TRAIN_ROWS = 10_000, 20
"""Training rows of plain models, at most and at least."""


class AnswerSettings:
    """Settings of answers (section ``answer``).

    Args:
        members: kinds of models that predictions combine, joined by commas: ``network`` and those of
            ``ensemble/members``; or ``all``, or ``network`` alone.
        share: part of the training time in which the plain models are fitted.
    """

    def __init__(self, *, members: str = "all", share: float = 0.5) -> None:
        known = ["network", *names(Member)]
        given = known if members == "all" else [name.strip() for name in members.split(",") if name.strip()]
        for name in given:
            if name not in known:
                raise unknown("answer.members:", name, ["all", *known])
        if not share >= 0:
            raise UserError(f"answer.share={share}: give a share of the training time, for instance 0.15.")
        self.kinds, self.share = [name for name in given if name != "network"], share


def fit_ensembles(
    network: Network,
    prepared: Prepared,
    settings: AnswerSettings,
    seconds: float,
    seed: int,
    note: Callable[[str], None] = lambda words: None,
    groups: np.ndarray | None = None,
    compare: bool = False,
) -> dict[str, tuple[float, float]]:
    """Set ``network.calibration.ensembles`` of columns whose answers are judged on validation rows.

    Args:
        groups: of each row of the store; rows of one group are in one fold.
        compare: also find what a random split would have said.

    Returns:
        with ``compare`` for the first columns the score of trees, and what it would be after a random split.
    """
    compared: dict[str, tuple[float, float]] = {}
    network.calibration.ensembles = {}
    rows = prepared.rows.get("validation", np.zeros(0, np.int64))
    columns = [c for c in short_columns(network) if c in prepared.ready.columns]
    targets = [c for c in columns if c in network.targets]
    most = min(MAX_COLUMNS, max(len(targets), MIN_COLUMNS, int(seconds / COLUMN_SECONDS)))
    columns = [*targets, *(c for c in columns if c not in targets)][:most]
    if len(rows) < MIN_ROWS or not settings.kinds or not columns:
        return compared
    rows, train = evenly_spaced(rows, MAX_ROWS), evenly_spaced(prepared.rows["train"], MAX_TRAIN_ROWS)
    deadline = Deadline(seconds)
    data = {part: plain_features(network, prepared, some) for part, some in (("train", train), ("valid", rows))}
    with torch.inference_mode():
        parts = encode(network, prepared, rows)
    more = max(TARGET_TIMES, 2 * (len(columns) - len(targets)) / max(len(targets), 1))
    parts_of_time = [more if c in targets else 1.0 for c in columns]
    for number, column in enumerate(columns):
        note(column)
        mine = deadline.part(parts_of_time[number] / sum(parts_of_time[number:]))
        mine_groups = None if groups is None else groups[train]
        features, in_time = (data["train"], data["valid"]), mine.left > CROSS_FITTING_SECONDS
        fit = ColumnFit(network, prepared, column, (train, rows), features, seed, mine_groups, in_time)
        if fit.known(1).sum() < MIN_ROWS or len(fit.truths[0]) < MIN_TRAIN_ROWS or not fit.columns:
            continue
        if compare and len(compared) < MAX_COMPARED and "trees" in settings.kinds:
            with contextlib.suppress(UserError):  # it is said where trees are fitted
                if both := fit.by_random_split(0.1 * mine.left):
                    compared[column] = both
        bags = fit.bags(settings.kinds, FITTING_SHARE * mine.left)
        network.calibration.ensembles[column] = ensemble = new_ensemble(fit, bags)
        Weighing(fit, ensemble, parts).weigh(mine)
    return compared


def new_ensemble(fit: ColumnFit, bags: list[Bag]) -> Ensemble:
    """Ensemble whose members aren't weighed yet."""
    prior = np.bincount(fit.truths[0][fit.truths[0] >= 0].astype(np.int64), minlength=fit.classes)
    return Ensemble(
        [View()],
        bags,
        fit.columns,
        {c: fit.rows[0].blocks[c].shape[1] for c in fit.columns},
        {c: float((~fit.rows[0].shows(c)).mean()) for c in fit.columns},
        (prior + 1.0) / (prior.sum() + fit.classes) if fit.classes else np.zeros(0),
        fit.mean,
        fit.std,
    )


def plain_features(network: Network, prepared: Prepared, rows: np.ndarray) -> FeatureRows:
    """Plain features of some rows, NaN where a cell is missing, and the terms of texts."""
    found = {
        c: np.stack([modality.features(cell) for cell in prepared.read.cells(c, rows)])
        for c, modality in network.modalities.items()
        if c in prepared.read.columns and c not in network.dialogue_columns
    }
    found = {c: block for c, block in found.items() if block.shape[1]}
    terms = {
        c: count_terms([*map(network.modalities[c].terms, prepared.read.cells(c, rows))])
        for c in found
        if network.modalities[c].is_text
    }
    prepared.read.release()
    return FeatureRows(found, terms)
