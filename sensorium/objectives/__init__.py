"""Contract of an objective: a loss over one step of the network."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


class Objective(nn.Module, abc.ABC):
    """Abstract objective. Constructor arguments are its settings; it may own learned values, such as a temperature."""

    @property
    def couples(self) -> bool:
        """True where it compares rows of one thing, so that two of them should be in one batch."""
        return False

    @abc.abstractmethod
    def forward(self, step: StepOutput) -> dict[str, Float[Tensor, ""]]:
        """Named, weighted losses (scalars) of this step; the sum of all is minimised."""
