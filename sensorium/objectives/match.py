"""Match: gists of one row must recognise each other among the rows of the batch (InfoNCE or SigLIP).

All pairs of matched columns alone, and what several columns say together against each column they did not see.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sensorium.layers.contrastive import contrastive
from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network import Step


class Match(Objective):
    """Contrastive alignment of gists.

    InfoNCE: van den Oord et al. 2018 (arXiv 1807.03748), both directions as in CLIP (arXiv 2103.00020), with every row
    whose cell has equal content as one more positive. SigLIP: Zhai et al. 2023 (arXiv 2303.15343).

    Args:
        kind: infonce or siglip.
        weight: of the mean over pairs; fused: weight of gists of several columns, relative to those alone.
        same_modality: weight of a pair of columns of one modality, relative to pairs across modalities.
        temperature: where the learned temperature starts.
    """

    def __init__(
        self,
        *,
        kind: Literal["infonce", "siglip"] = "infonce",
        weight: float = 1.0,
        fused: float = 0.3,
        same_modality: float = 0.25,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.kind, self.weight, self.fused, self.same_modality = kind, weight, fused, same_modality
        start = math.log(1 / temperature) if kind == "infonce" else math.log(10.0)
        self.log_scale = nn.Parameter(torch.tensor(start))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if kind == "siglip" else None

    def forward(self, step: Step) -> dict[str, torch.Tensor]:
        scale = self.scale()
        lone, weights = [], []
        gists = {c: e for c, e in step.encoded.items() if e.gist is not None}
        for (a, left), (b, right) in itertools.combinations(gists.items(), 2):
            rows = torch.nonzero((left.place >= 0) & (right.place >= 0)).squeeze(1)
            if len(rows) < 2:
                continue
            at, to = left.place[rows], right.place[rows]
            lone.append(self.pair(left.gist.index_select(0, at), right.gist.index_select(0, to), scale, step.batch.keys[a][at], step.batch.keys[b][to]))
            kinds = {type(step.network.modalities[c]) for c in (a, b)}
            weights.append(1.0 if len(kinds) == 2 else self.same_modality)
        result = {}
        if lone:
            # The largest column stands for one: adding translations of a name doesn't make the whole louder.
            total = torch.stack([loss * w for loss, w in zip(lone, weights, strict=True)]).sum()
            result["match"] = self.weight * total / max(sum(weights), 1e-6) * min(len(gists) - 1, 3)
        together = []
        for fused in step.fused:
            if not fused.seen:
                continue
            for column, part in gists.items():
                place = part.place[fused.rows]
                if column in fused.seen or (place >= 0).sum() < 2:
                    continue
                have = place >= 0
                together.append(self.pair(fused.gist[have], part.gist.index_select(0, place[have]), scale, None, step.batch.keys[column][place[have]]))
        if together:
            result["fuse"] = self.weight * self.fused * torch.stack(together).mean()
        return result

    def scale(self) -> torch.Tensor:
        """What cosines are multiplied by: the inverse of the learned temperature, at most 100."""
        return self.log_scale.clamp(max=math.log(100.0)).exp()

    def pair(self, a: torch.Tensor, b: torch.Tensor, scale: torch.Tensor, key_a: torch.Tensor | None,
             key_b: torch.Tensor) -> torch.Tensor:
        """The loss between two sets of gists [n, gist] of the same rows."""
        keys = (key_b if key_a is None else key_a, key_b)
        with torch.autocast(a.device.type, enabled=False):  # a sum over a batch of exponentials wants fp32
            return contrastive(a, b, scale, kind=self.kind, bias=self.bias, same=keys)
