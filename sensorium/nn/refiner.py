"""Contract of a refiner of generated cells: a module, trained after a run, of what cells have beyond their tokens (a
sound's phases)."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


class Refiner(nn.Module, abc.ABC):
    """Refiner of one column, used where it is nearer to validation cells than its stand-in."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @abc.abstractmethod
    def read(self, cell: Any) -> np.ndarray:
        """Training array of a cell of the table; the first dimension may differ from cell to cell.

        Raises:
            BadCell: it can't be read.
        """

    @abc.abstractmethod
    def piece(self, read: np.ndarray, lots: np.random.Generator) -> np.ndarray:
        """Random piece of an array that was read, of the same shape for all."""

    @abc.abstractmethod
    def losses(self, pieces: Float[Tensor, " n *piece"]) -> dict[str, Float[Tensor, ""]]:
        """Losses of a step on pieces [n, …], to be added."""

    @abc.abstractmethod
    def compare(self, read: np.ndarray) -> tuple[float, float]:
        """Distances from a cell that was read: of the output of this module, and of its stand-in's."""
