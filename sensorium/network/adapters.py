"""Adapters (low-rank updates) of a network's language model: trained on their own, copied, and exchanged for others."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.network.network import Network
from sensorium.nn.external import ExternalModel


def adapter_parameters(network: Network) -> nn.ParameterDict:
    """Parameters of the language model's adapters, by name."""
    assert isinstance(network.trunk, ExternalModel), "the trunk is no pretrained language model"
    return network.trunk.learned


def require_adapters(network: Network) -> None:
    """Refuse a network whose language model has no tuned parameters.

    Raises:
        UserError: it has none.
    """
    if not adapter_parameters(network):
        raise UserError(
            "Nothing of this model's language model is tuned (trunk.tune=frozen), so there is nothing to teach. Fit it "
            "with trunk.tune=lora."
        )


@contextlib.contextmanager
def train_adapters_only(network: Network) -> Generator[None, None, None]:
    """Context in which only the language model's adapters require gradients, and the network is in evaluation mode."""
    learned = {id(parameter) for parameter in adapter_parameters(network).values()}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in learned]
    for parameter in others:
        parameter.requires_grad_(False)
    network.eval()
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def adapter_weights(network: Network) -> dict[str, torch.Tensor]:
    """Copies of the language model's adapter weights, by name."""
    return {name: parameter.detach().clone() for name, parameter in adapter_parameters(network).items()}


@contextlib.contextmanager
def use_adapter_weights(network: Network, weights: Mapping[str, torch.Tensor]) -> Generator[None, None, None]:
    """Context in which the language model has other adapter ``weights``."""
    learned = adapter_parameters(network)
    own = {name: learned[name].data for name in weights}
    try:
        for name, value in weights.items():
            learned[name].data = value.to(own[name])
        yield
    finally:
        for name, value in own.items():
            learned[name].data = value
