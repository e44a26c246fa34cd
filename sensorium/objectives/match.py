"""Contrastive loss (InfoNCE or SigLIP): gists of one row must recognise each other among the rows of the batch.

Compared are all pairs of matched columns, the fused gist of several columns with each column that it did not see, and
cells of one column in rows that are of one thing.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.settings import at_least
from sensorium.nn.losses.contrastive import contrastive
from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput

MAX_CELLS = 1024
"""Maximum number of cells of one column that are compared with one another: memory doesn't grow with the square of the
batch."""


class Match(Objective):
    """Contrastive alignment of gists.

    InfoNCE: van den Oord et al. 2018 (arXiv 1807.03748), both directions as in CLIP (arXiv 2103.00020), with every row
    whose cell has equal content as one more positive. SigLIP: Zhai et al. 2023 (arXiv 2303.15343).

    Args:
        kind: infonce or siglip.
        weight: of the mean over pairs; by default 1, and 0.02 where there are targets, so that what the user asks for
            leads.
        fused: weight of gists of several columns, relative to those of one.
        same_modality: weight of a pair of columns of one modality, relative to pairs across modalities.
        same_thing: weight of each column's own cells in rows of one thing (``data.entity_key``): two drawings of it,
            two voices.
        temperature: initial value of the learned temperature.
    """

    def __init__(
        self,
        *,
        kind: Literal["infonce", "siglip"] = "infonce",
        weight: float | None = None,
        fused: float = 0.3,
        same_modality: float = 0.25,
        same_thing: float = 1.0,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        at_least("match", 0, weight=weight or 0.0, fused=fused, same_modality=same_modality, same_thing=same_thing)
        self.kind, self.weight, self.fused = kind, weight, fused
        self.same_modality, self.same_thing = same_modality, same_thing
        start = math.log(1 / temperature) if kind == "infonce" else math.log(10.0)
        self.log_scale = nn.Parameter(torch.tensor(start))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if kind == "siglip" else None

    @property
    def couples(self) -> bool:
        return self.same_thing > 0

    def forward(self, step: StepOutput) -> dict[str, Float[Tensor, ""]]:
        scale = self.scale()
        lone, weights = [], []
        parts = {c: (e, e.gist) for c, e in step.encoded.items() if e.gist is not None}
        for (a, (left, left_gist)), (b, (right, right_gist)) in itertools.combinations(parts.items(), 2):
            rows = torch.nonzero((left.place >= 0) & (right.place >= 0)).squeeze(1)
            if len(rows) < 2:
                continue
            at, to = left.place[rows], right.place[rows]
            lone.append(
                self.pair(
                    left_gist.index_select(0, at),
                    right_gist.index_select(0, to),
                    scale,
                    step.batch.keys[a][at],
                    step.batch.keys[b][to],
                )
            )
            kinds = {type(step.network.modalities[c]) for c in (a, b)}
            weights.append(1.0 if len(kinds) == 2 else self.same_modality)
        result, weight = {}, self.weight if self.weight is not None else 0.02 if step.network.targets else 1.0
        if lone:
            # The largest column stands for one: adding translations of a name doesn't make the whole louder.
            total = torch.stack([loss * w for loss, w in zip(lone, weights, strict=True)]).sum()
            result["match"] = weight * total / max(sum(weights), 1e-6) * min(len(parts) - 1, 3)
        together = []
        for fused in step.fused:
            if not fused.seen:
                continue
            for column, (part, gist) in parts.items():
                place = part.place[fused.rows]
                if column in fused.seen or (place >= 0).sum() < 2:
                    continue
                have = place >= 0
                together.append(
                    self.pair(
                        fused.gist[have],
                        gist.index_select(0, place[have]),
                        scale,
                        None,
                        step.batch.keys[column][place[have]],
                    )
                )
        if together:
            result["fuse"] = weight * self.fused * torch.stack(together).mean()
        if step.batch.entities is not None and self.same_thing and parts:
            losses = [
                self.same_thing_loss(gist, step.batch.entities[part.index], step.batch.keys[c], scale)
                for c, (part, gist) in parts.items()
            ]
            result["same"] = weight * self.same_thing * torch.stack(losses).sum()
        return result

    def same_thing_loss(
        self,
        gist: Float[Tensor, "n gist"],
        things: Int[Tensor, " n"],
        keys: Int[Tensor, " n"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, ""]:
        """Supervised contrastive loss of a column's gists [n, gist]: positives are other cells of the same thing.

        A mean over n, of 0 for a cell without positives. SupCon (Khosla et al. 2020, arXiv 2004.11362, eq. 2), or
        SigLIP's loss of the same pairs. Cells of equal content are no pair, neither a positive nor a negative one.
        """
        losses = []
        for part, thing, key in zip(gist.split(MAX_CELLS), things.split(MAX_CELLS), keys.split(MAX_CELLS), strict=True):
            differ = key[:, None] != key
            right = (thing[:, None] == thing) & differ
            with torch.autocast(gist.device.type, enabled=False):
                logits = part.float() @ part.float().T * scale
                if self.bias is None:
                    some = right.sum(1)
                    each = (logits * right).sum(1) / some.clamp(min=1)
                    among = logits.masked_fill(~differ, -math.inf).logsumexp(1)
                    losses.append(torch.where(some > 0, among - each, 0.0))
                else:
                    wrong = differ & ~right & right.any(1, keepdim=True)
                    logits = logits + self.bias
                    losses.append((F.softplus(-logits) * right + F.softplus(logits) * wrong).sum(1))
        return torch.cat(losses).mean()

    def scale(self) -> Float[Tensor, ""]:
        """Factor of the cosines: the inverse of the learned temperature, at most 100."""
        return self.log_scale.clamp(max=math.log(100.0)).exp()

    def pair(
        self,
        a: Float[Tensor, "n gist"],
        b: Float[Tensor, "n gist"],
        scale: Float[Tensor, ""],
        key_a: Int[Tensor, " n"] | None,
        key_b: Int[Tensor, " n"],
    ) -> Float[Tensor, ""]:
        """Contrastive loss between two gists of each of n rows; ``key_a``, ``key_b``: hashes of their content."""
        keys = (key_b if key_a is None else key_a, key_b)
        with torch.autocast(a.device.type, enabled=False):  # a sum over a batch of exponentials wants fp32
            return contrastive(a, b, scale, kind=self.kind, bias=self.bias, same=keys)
