"""Prediction loss: weighted sum of the asked segments' own losses (cross-entropy, quantile, flow)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


def loss_name(column: str, generator_name: str | None) -> str:
    """Name of a column's loss, with its generator's where the column has several."""
    return f"tell {column}" + (f" by {generator_name}" if generator_name else "")


class Tell(Objective):
    """Mean loss of every asked column, weighted.

    Args:
        weight: of all. long: of a segment of many tokens (text). short: of one token (category, number, date).
        target: weight of a target. beside: relative weight of all others where there are targets.
        generative: weight of a picture, a video, a sound or a series that is learned to be generated.
        dialogue: weight of the assistant's messages in conversations.
        direct: weight of short columns predicted from each column's gist, without the trunk. It costs next to nothing
            and trains the stems with every row, not only with those that a plan sees.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        long: float = 1.0,
        short: float = 0.3,
        target: float = 1.0,
        beside: float = 0.1,
        generative: float = 1.0,
        dialogue: float = 1.0,
        direct: float = 1.5,
    ) -> None:
        super().__init__()
        self.weight, self.long, self.short = weight, long, short
        self.target, self.beside, self.generative, self.dialogue, self.direct = (
            target,
            beside,
            generative,
            dialogue,
            direct,
        )

    def forward(self, step: StepOutput) -> dict[str, Float[Tensor, ""]]:
        losses = defaultdict(list)
        for segment in step.losses:
            losses[segment.column, segment.generator_name].append(segment.loss)
        result = {}
        for (column, generator_name), parts in losses.items():
            if column in step.network.dialogue_columns:
                result[loss_name(column, None)] = self.weight * self.dialogue * torch.cat(parts).float().mean()
                continue
            tokens = step.network.asked_modality(column).tokens()
            often = (
                self.long
                if tokens.ordered
                else self.generative
                if column in step.network.generative_columns
                else self.short
            )
            weight = (
                self.target
                if column in step.network.targets
                else often * self.beside
                if step.network.targets
                else often
            )
            result[loss_name(column, generator_name)] = self.weight * weight * torch.cat(parts).float().mean()
        direct = self.from_gists(step) if self.direct else []
        if direct:
            result["direct"] = self.weight * self.direct * torch.stack(direct).mean()
        return result

    @staticmethod
    def from_gists(step: StepOutput) -> list[Float[Tensor, ""]]:
        """Mean loss of each short column from each matched column's gist, and of a target from all that its row has."""
        network, losses = step.network, []
        if network.conditioning.gist_token is None:
            return losses
        for column in network.asked_columns:
            sources = [
                (part.gist, part.index)
                for name, part in step.encoded.items()
                if part.gist is not None and name != column
            ]
            if (
                network.token_count(column) > 1
                or column in network.generative_columns
                or column not in step.encoded
                or not sources
            ):
                continue
            target, answers = network.asked_modality(column).target(step.batch.cells[column]), step.encoded[column]
            places = [answers.place[index] for _, index in sources]
            gists, place = torch.cat([gist for gist, _ in sources]), torch.cat(places).clamp(min=0)
            loss = network.generator(column).loss(network.tokens_from_gist(gists, column, target[place]), target[place])
            for each, own in zip(loss.split([len(p) for p in places]), places, strict=True):
                have = own >= 0
                if have.any():
                    losses.append(each[have].float().mean())
            if column in network.targets and network.trunk.early:
                others = [name for name in step.encoded if name not in network.targets]
                overview = network.condition_vector(step.encoded, others, answers.index)
                hidden = F.layer_norm(network.asked_tokens(column, target, overview), (network.width,))
                losses.append(network.generator(column).loss(hidden, target).float().mean())
        return losses
