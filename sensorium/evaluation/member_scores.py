"""Scores of an ensemble's members, each by itself, and their weights in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sensorium.inference.rows import ROWS_PER_BATCH, Rows
from sensorium.nn.precision import autocast


@torch.inference_mode()
def member_scores(
    rows: Rows, column: str, seen: Sequence[str], have: np.ndarray, truth: Sequence[Any]
) -> dict[str, dict[str, float]]:
    """Score and mean weight of each member of a column's ensemble on some rows, by its name; empty without one.

    Args:
        seen: the columns that are seen. have: the rows that are asked. truth: their cells.
    """
    ensemble = rows.network.calibration.ensembles.get(column)
    if ensemble is None or not len(have):
        return {}
    modality, metric = rows.network.asked_modality(column), rows.network.asked_modality(column).metric
    encoded = rows.encoded_columns([c for c in seen if c != column])
    answers, weights = [], []
    for part in torch.from_numpy(np.asarray(have, np.int64)).to(rows.device).split(ROWS_PER_BATCH):
        question = rows.question(column, encoded, part)
        with autocast(rows.precision, rows.device):
            answers.append(ensemble.member_answers(question))
        weights.append(ensemble.weights(question))
    found, weight, result = np.concatenate(answers, 1), np.concatenate(weights).mean(0), {}
    for number, name in enumerate(ensemble.names):
        has = np.flatnonzero(~np.isnan(found[number, :, 0]))
        if not len(has):
            continue
        tokens = (
            found[number, has].argmax(1)[:, None] + 1
            if ensemble.classes
            else ensemble.scores(modality, found[number, has])
        )
        cells = [modality.decode(token) for token in tokens]
        score = modality.score([truth[row] for row in has], cells).get(metric)
        if score is not None:
            result[name] = {metric: score, "weight": round(float(weight[number]), 4), "n": len(has)}
    return result
