"""Contract of a stem, the encoder of a column's collated cells."""

from __future__ import annotations

import abc

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Cells = dict[str, torch.Tensor]
"""Collated cells of one column: tensors whose first dimension is the rows that have the column."""


class Stem(nn.Module, abc.ABC):
    """Small encoder of one kind of cells."""

    similarity_size: int = 0
    """Size of the vectors of ``similarity_features``, which ``compare`` takes; 0: there are none."""

    @abc.abstractmethod
    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows length width"], Bool[Tensor, "rows length"] | None]:
        """Tokens [rows, length, width] and a mask [rows, length], True where a token is present (None: all are)."""

    def features(self, cells: Cells) -> Cells:
        """Cells as ``forward`` and ``similarity_features`` begin with them, so that what both need is computed once.

        Default: as they are.
        """
        return cells

    def initialise(self, cells: Cells, things: Tensor | None = None) -> None:
        """Initialise from collated training cells before the first step. Default: nothing is done.

        Args:
            things: which of the cells are of one thing, [rows], where that is known.
        """

    def similarity_features(self, cells: Cells) -> Float[Tensor, "rows kindred"] | None:
        """Vectors [rows, kindred] that tell which cells are of one thing, as fitted by ``initialise``, whatever is
        trained. Default: none."""
        return None

    def compare(self, mine: Float[Tensor, "n kindred"], known: Float[Tensor, "m kindred"]) -> Float[Tensor, "n m"]:
        """Similarity [n, m] of some such vectors [n, kindred] to others [m, kindred], to be compared within a row.

        Default: their inner product.
        """
        return mine @ known.T
