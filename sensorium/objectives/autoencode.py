"""Autoencode: tell what was seen through the gist alone, the multimodal autoencoder (Ngiam et al. 2011).

The trunk is shown one token, made from the gist, and asked for the columns the gist was made of. As gists of different
columns are matched, what is learned from one column's gist serves the gists of all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sensorium.core.errors import UserError
from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


class Autoencode(Objective):
    """The loss of each column that can be asked, from its own gist and from the gist of all that a plan saw.

    Args:
        weight: of the mean over columns.
        share: share of a column's rows that are told back from the column's own gist in a step.
    """

    def __init__(self, *, weight: float = 0.5, share: float = 0.25) -> None:
        super().__init__()
        self.weight, self.share = weight, share

    def forward(self, step: StepOutput) -> dict[str, torch.Tensor]:
        if step.network.conditioning.gist_token is None:
            raise UserError("The objective autoencode tells from gists, so it needs network.summary=true.")
        asked, losses = set(step.network.asked_columns), []
        for column, part in step.encoded.items():
            if part.gist is not None and column in asked:
                some = part.index[: max(1, round(len(part.index) * self.share))]
                losses.append(self.told(step, column, part.gist[part.place[some]], some, column))
        for fused in step.fused:
            for column in fused.seen:
                if column in asked and column in step.encoded:
                    have = step.encoded[column].place[fused.rows] >= 0
                    if have.any():
                        losses.append(self.told(step, column, fused.gist[have], fused.rows[have], fused.seen[0]))
        return {"autoencode": self.weight * torch.stack(losses).mean()} if losses else {}

    @staticmethod
    def told(step: StepOutput, column: str, gist: torch.Tensor, rows: torch.Tensor, shown: str) -> torch.Tensor:
        """The mean loss of one column's cells in some rows, from gists [n, gist] of these rows, in the place of ``shown``."""
        network = step.network
        seen = network.gist_as_seen(gist, shown)
        place = step.encoded[column].place[rows]
        generator = network.generator(column)
        target = generator.with_noise(
            network.asked_modality(column).target({k: v[place] for k, v in step.batch.cells[column].items()})
        )
        hidden = network.trunk(
            seen,
            [network.asked_tokens(column, target, network.conditioning.of_gist(gist))],
            [generator.causal],
            [generator.is_generative],
        )[0]
        return generator.loss(hidden, target).float().mean()
