"""TODO: docstring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from sensorium.core.errors import UserError
from sensorium.network.network import Network


def able(network: Network) -> None:
    """Refuse a network of whose language model nothing is tuned.

    Raises:
        UserError: it is such.
    """
    if not network.trunk.learned:
        raise UserError(
            "Nothing of this model's language model is tuned (trunk.tune=frozen), so there is nothing to teach. Fit it with trunk.tune=lora."
        )


@contextlib.contextmanager
def alone(network: Network) -> Iterator[None]:
    """Nothing but what is tuned of the language model asks for gradients meanwhile, and answers are weighed as they are given."""
    learned = {id(parameter) for parameter in network.trunk.learned.values()}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in learned]
    for parameter in others:
        parameter.requires_grad_(False)
    network.eval()
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def tuned(network: Network) -> dict[str, torch.Tensor]:
    """What is tuned of the language model, as it is now."""
    return {name: parameter.detach().clone() for name, parameter in network.trunk.learned.items()}


@contextlib.contextmanager
def other(network: Network, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The language model with other tuned ``weights`` meanwhile."""
    learned = network.trunk.learned
    own = {name: learned[name].data for name in weights}
    try:
        for name, value in weights.items():
            learned[name].data = value.to(own[name])
        yield
    finally:
        for name, value in own.items():
            learned[name].data = value
