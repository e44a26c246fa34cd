"""Data-dependent initialisation of stems, by training cells, before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.network.batch import hash_of
from sensorium.network.network import Network
from sensorium.nn.stem import Stem
from sensorium.training.calibrate import present_cells

if TYPE_CHECKING:
    from sensorium.trunks.causal_lm import CausalLM

MAX_CELLS, MAX_PATCHED_CELLS = 4096, 64
"""Training cells that a stem looks at before the first step, and those of which it looks at all patches."""


def initialise_stems(network: Network, prepared: Prepared, entities: np.ndarray | None) -> None:
    """Initialise each stem by training cells, no cell twice, before the first step (``Stem.initialise``).

    Args:
        entities: for each stored row the number of the entity it is of, or None.
    """
    for column, key in network.stem_key.items():
        stem = network.stem(column)
        if type(stem).initialise is Stem.initialise or column not in prepared.ready.columns:
            continue
        rows = prepared.rows["train"]
        rows = rows[np.diff(prepared.ready.columns[column].offsets)[rows] > 0]
        cells = present_cells(prepared, column, evenly_spaced(rows, MAX_CELLS * 4))
        first = {hash_of(cell): number for number, cell in reversed(list(enumerate(cells)))}
        chosen = sorted(first.values())[:MAX_CELLS]
        projector = None if network.dialogue is None else network.dialogue.projector(key)
        if chosen and projector is not None:  # few columns have one: each cell has hundreds of patches
            trunk = cast("CausalLM", network.trunk)
            few = {
                name: value.to(network.seen_mark.weight.device)
                for name, value in network.modalities[column]
                .collate([cells[number] for number in chosen[:MAX_PATCHED_CELLS]])
                .items()
            }
            projector.initialise(projector.patches(stem.features(few)), trunk.loud.item())
            if "features" in few:
                cells = [cell[: projector.n_placed] for cell in cells]
        if chosen:
            own = None if entities is None else torch.from_numpy(entities[evenly_spaced(rows, MAX_CELLS * 4)][chosen])
            stem.initialise(
                {
                    key: value.to(network.seen_mark.weight.device)
                    for key, value in network.modalities[column].collate([cells[number] for number in chosen]).items()
                },
                own,
            )
