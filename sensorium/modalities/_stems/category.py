"""Stem of categories."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from sensorium.nn.stem import Cells, Stem


class CategoryStem(Stem):
    """Embedding table of the classes."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows 1 width"], None]:
        return self.table(cells["ids"]), None
