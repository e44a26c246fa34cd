"""What finishes a drawn cell: a module that learns, when a run has ended, what cells have beyond their tokens (a sound's phases)."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
from torch import nn


class Refiner(nn.Module, abc.ABC):
    """One column's, kept where it is nearer to cells that were held out than what stands in for it."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @abc.abstractmethod
    def read(self, cell: Any) -> np.ndarray:
        """A cell of the table to what is learned from; the first dimension may differ from cell to cell.

        Raises:
            BadCell: it can't be read.
        """

    @abc.abstractmethod
    def piece(self, read: np.ndarray, lots: np.random.Generator) -> np.ndarray:
        """A piece of what was read, drawn at random, of the same shape for all."""

    @abc.abstractmethod
    def losses(self, pieces: torch.Tensor) -> dict[str, torch.Tensor]:
        """The losses of a step on pieces [n, …], to be added."""

    @abc.abstractmethod
    def compare(self, read: np.ndarray) -> tuple[float, float]:
        """How far from a read cell is what is finished by this module, and what by its stand-in."""
