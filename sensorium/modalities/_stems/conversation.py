"""Stem of conversations."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sensorium.nn.stem import Cells, Stem


class ConversationStem(Stem):
    """Empty stem: conversations are asked, never seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, cells: Cells) -> tuple[Float[Tensor, "rows 0 width"], Bool[Tensor, "rows 0"]]:
        mask = cells["said"]
        return torch.zeros(len(mask), 0, self.width, device=mask.device), mask[:, :0]
