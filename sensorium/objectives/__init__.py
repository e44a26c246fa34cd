"""The contract of an objective: a loss over one step of the network."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


class Objective(nn.Module, abc.ABC):
    """Constructor arguments are its settings. May own learned values (a temperature), hence a module."""

    @property
    def couples(self) -> bool:
        """Whether it compares rows of one thing, so that two of them should meet in a step."""
        return False

    @abc.abstractmethod
    def forward(self, step: StepOutput) -> dict[str, torch.Tensor]:
        """Named, weighted losses (scalars) of this step; the sum of all is minimised."""
