"""Reranking of sampled texts by the gist of what is seen, as images are chosen by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sensorium.core.errors import BadCell
from sensorium.inference.answers import to_numpy
from sensorium.network.batch import collate
from sensorium.network.network import Network
from sensorium.network.types import Encoded
from sensorium.nn.precision import Precision, autocast

LIKELIHOOD_WEIGHT = 0.01
"""What a nat of log-probability counts beside a cosine when a text is chosen."""


def rerank(
    network: Network,
    precision: Precision,
    column: str,
    encoded: dict[str, Encoded],
    seen: Sequence[str],
    rows: torch.Tensor,
    cells: list[Any],
    score: np.ndarray,
    count: np.ndarray,
    options: dict[str, Any],
) -> tuple[list[Any], np.ndarray]:
    """Reranked texts: of the text of each row and ``count`` - 1 sampled ones that whose gist is nearest to the gist
    of what is seen; and its score.

    All rows use the same random numbers, so that what is predicted of a row doesn't hang on its neighbours.
    """
    lot = np.concatenate([np.full((count > k).sum(), k) for k in range(1, count.max())] or [np.zeros(0, np.int64)])
    if not len(lot):
        return cells, score
    modality, device = network.asked_modality(column), rows.device
    sampling: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95} | {
        k: v for k, v in options.items() if k != "beam" and v != 0
    }
    owner = np.concatenate([np.arange(len(count)), *(np.flatnonzero(count > k) for k in range(1, count.max()))])
    again = torch.from_numpy(owner[len(count) :]).to(device)
    with autocast(precision, device):
        wanted = network.gists(encoded, seen, rows).float()
        output = network.sample(encoded, column, seen, rows, again=again, lots=torch.from_numpy(lot), **sampling)
    cells = cells + [modality.decode(tokens) for tokens in to_numpy(output.tokens)]
    score = np.concatenate([score, to_numpy(output.score)])
    read = [modality.read(cell) for cell in cells]
    there = [place for place, cell in enumerate(read) if len(cell)]
    ready: list[np.ndarray | None] = [None] * len(read)
    for place, cell in zip(there, modality.prepare_all([read[place] for place in there], keep=False), strict=True):
        ready[place] = None if isinstance(cell, BadCell) else cell
    batch = collate(network.modalities, {column: ready}, len(cells))
    value = np.full((count.max(), len(count)), -np.inf)
    lot = np.concatenate([np.zeros(len(count), np.int64), lot])
    value[lot, owner] = LIKELIHOOD_WEIGHT * score - 1
    if batch.cells:
        with autocast(precision, device):
            part = network.encode(column, batch.to(device))
        assert part.gist is not None, f"column '{column}' has no gist"
        at = to_numpy(part.index)
        value[lot[at], owner[at]] += 1 + to_numpy(
            (part.gist.float() * wanted[torch.from_numpy(owner[at]).to(device)]).sum(1)
        )
    place = np.zeros(value.shape, np.int64)
    place[lot, owner] = np.arange(len(lot))
    best = place[value.argmax(0), np.arange(len(count))]
    return [cells[i] for i in best], score[best]
