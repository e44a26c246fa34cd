"""A memory of rows, by which a gist leans towards what rows like it hold in their other columns.

"Retrieval-enhanced contrastive vision-text models" (Iscen et al. 2023, arXiv 2306.07196) looks for neighbours in the query's own
modality and fuses what they hold in the other one; attention over stored patterns is that of "Hopfield networks is all you
need" (arXiv 2008.02217). Here it learns nothing: gists of one training share one space, so what the neighbours hold is added.
This file knows gists by column, nothing of cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 512
"""Gists that look around at once, so that memory doesn't grow with their number."""


class Memory(nn.Module):
    """Gists of some rows, by column.

    Args:
        gists: for each column unit vectors [rows, gist], zeros where a row lacks it.
        sharpness: of the softmax over cosines; strength: what is found counts beside the gist that looks.
    """

    def __init__(self, gists: Mapping[str, Tensor], sharpness: float, strength: float) -> None:
        super().__init__()
        self.columns, self.sharpness, self.strength = list(gists), float(sharpness), float(strength)
        self.register_buffer("known", torch.stack([gists[column].half() for column in self.columns]), persistent=False)

    def forward(self, column: str, gist: Tensor) -> Tensor:
        """Unit vectors [n, gist] of a column, refined; as they are where no row that is remembered has it and others."""
        if not self.strength or column not in self.columns or not len(gist):
            return gist
        own = self.known[self.columns.index(column)].float()
        others = self.known.sum(0, dtype=torch.float32) - own
        able = (own.abs().sum(1) > 0) & (others.abs().sum(1) > 1e-3)
        if not able.any():
            return gist
        own, others = own[able], F.normalize(others[able], dim=1)
        found = torch.cat([(self.sharpness * part.float() @ own.T).softmax(1) @ others for part in gist.split(ROWS)])
        return F.normalize(gist.float() + self.strength * F.normalize(found, dim=1), dim=1)
