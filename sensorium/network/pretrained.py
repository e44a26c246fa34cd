"""Pretrained models in a network: the number of tuned parameters of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sensorium.network.network import Network
from sensorium.nn.external import ExternalModel

if TYPE_CHECKING:
    from sensorium.trunks.causal_lm import CausalLM


def tuned_of(network: Network) -> dict[str, dict[str, Any]]:
    """Numbers of tuned and of all parameters of each pretrained model, by the name that people know it by."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(network.trunk, ExternalModel):
        found[f"Language model '{cast('CausalLM', network.trunk).language.name}'"] = network.trunk.facts()
    for column, key in network.stem_key.items():
        modality, stem = network.modalities[column], network.stems[key]
        if isinstance(stem, ExternalModel):
            assert modality.encoder is not None and modality.tuning is not None
            found[f"Column '{column}', backbone '{modality.encoder.name}'"] = {
                "tune": modality.tuning.tune,
                **stem.share(),
            }
    return found
