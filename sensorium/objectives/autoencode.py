"""Autoencoding loss: columns are reconstructed from their gist, as in the multimodal autoencoder (Ngiam et al. 2011).

The trunk sees one token, made from the gist, and is asked for the columns that the gist was made of. As gists of
different columns are matched, what is learned from one column's gist serves the gists of all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sensorium.core.errors import UserError
from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


class Autoencode(Objective):
    """Reconstruction loss of each column that can be asked, from its own gist and from the gist of all that a plan saw.

    Args:
        weight: of the mean over columns.
        share: of a column's rows, those that are reconstructed from the column's own gist in a step.
    """

    def __init__(self, *, weight: float = 0.5, share: float = 0.25) -> None:
        super().__init__()
        self.weight, self.share = weight, share

    def forward(self, step: StepOutput) -> dict[str, Float[Tensor, ""]]:
        if step.network.conditioning.gist_token is None:
            raise UserError("The objective autoencode tells from gists, so it needs network.summary=true.")
        asked, losses = set(step.network.asked_columns), []
        for column, part in step.encoded.items():
            if part.gist is not None and column in asked:
                some = part.index[: max(1, round(len(part.index) * self.share))]
                losses.append(self.reconstruction(step, column, part.gist[part.place[some]], some, column))
        for fused in step.fused:
            for column in fused.seen:
                if column in asked and column in step.encoded:
                    have = step.encoded[column].place[fused.rows] >= 0
                    if have.any():
                        losses.append(
                            self.reconstruction(step, column, fused.gist[have], fused.rows[have], fused.seen[0])
                        )
        return {"autoencode": self.weight * torch.stack(losses).mean()} if losses else {}

    @staticmethod
    def reconstruction(
        step: StepOutput, column: str, gist: Float[Tensor, "n gist"], rows: Int[Tensor, " n"], source: str
    ) -> Float[Tensor, ""]:
        """Mean loss of one column's cells in ``rows`` [n], from gists [n, gist] of these rows, seen as cells of the
        column ``source``."""
        network = step.network
        seen = network.gist_as_seen(gist, source)
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
