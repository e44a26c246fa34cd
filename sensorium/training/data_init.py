"""Data-dependent initialisation: stems look at training cells before the first step."""

from __future__ import annotations


import numpy as np
import torch

from sensorium.data.order import evenly_spaced
from sensorium.data.prepare import Prepared
from sensorium.modalities import Stem
from sensorium.network.batch import hash_of
from sensorium.network.network import Network


LOOKED, FEW = 4096, 64
"""Training cells that a stem looks at before the first step, and those of which it looks at all patches."""


def look_first(network: Network, prepared: Prepared, things: np.ndarray | None) -> None:
    """Let each stem look at training cells, no cell twice, before the first step (``Stem.begin``)."""
    for column, key in network.stem_key.items():
        stem = network.stems[key]
        if type(stem).initialise is Stem.initialise or column not in prepared.ready.columns:
            continue
        rows = prepared.rows["train"]
        rows = rows[np.diff(prepared.ready.columns[column].offsets)[rows] > 0]
        cells = prepared.ready.cells(column, evenly_spaced(rows, LOOKED * 4))
        first = {hash_of(cell): number for number, cell in reversed(list(enumerate(cells)))}
        kept = sorted(first.values())[:LOOKED]
        if (
            kept and network.dialogue is not None and key in network.dialogue.projectors
        ):  # few do: each has hundreds of patches
            few = {
                name: value.to(network.seen_mark.weight.device)
                for name, value in network.modalities[column].collate([cells[number] for number in kept[:FEW]]).items()
            }
            network.dialogue.projectors[key].initialise(
                network.dialogue.projectors[key].patches(stem.features(few)), network.trunk.loud.item()
            )
            if "features" in few:
                cells = [cell[: stem.n_placed] for cell in cells]
        if kept:
            own = None if things is None else torch.from_numpy(things[evenly_spaced(rows, LOOKED * 4)][kept])
            stem.initialise(
                {
                    key: value.to(network.seen_mark.weight.device)
                    for key, value in network.modalities[column].collate([cells[number] for number in kept]).items()
                },
                own,
            )
