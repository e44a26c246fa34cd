"""Pretrained models in a network: what of each is tuned, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sensorium.network.network import Network
from sensorium.nn.external import ExternalModel

if TYPE_CHECKING:
    pass


def tuned_of(network: Network) -> dict[str, dict[str, Any]]:
    """What of each pretrained model is learned further, in numbers, by what people call it."""
    found = (
        {}
        if not isinstance(network.trunk, ExternalModel)
        else {f"Language model '{network.trunk.language.name}'": network.trunk.facts()}
    )
    for column, key in network.stem_key.items():
        modality, stem = network.modalities[column], network.stems[key]
        if isinstance(stem, ExternalModel):
            found[f"Column '{column}', backbone '{modality.encoder.name}'"] = {
                "tune": modality.tuning.tune,
                **stem.share(),
            }
    return found
