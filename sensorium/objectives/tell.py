"""Tell: each asked segment says its own loss (cross-entropy, quantile, flow); this weighs and adds them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from sensorium.objectives import Objective

if TYPE_CHECKING:
    from sensorium.network.network import StepOutput


def named(column: str, way: str | None) -> str:
    """What the loss of a column is called; ``way``: by which generator, where it has several."""
    return f"tell {column}" + (f" by {way}" if way else "")


class Tell(Objective):
    """The mean loss of every asked column.

    Args:
        weight: of all; long: weight of a segment of many tokens (text), short: of one token (category, number, date),
            target: of a target; beside: of all others where there are targets, relative; drawn: of a picture, a video, a sound or a series
            that is learned to be generated.
        talked: weight of what an assistant says in conversations.
        direct: weight of short columns told straight from each column's gist, past the trunk. It costs next to nothing
            and teaches the stems with every row, not with those alone that a plan shows.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        long: float = 1.0,
        short: float = 0.3,
        target: float = 1.0,
        beside: float = 0.1,
        drawn: float = 1.0,
        talked: float = 1.0,
        direct: float = 1.5,
    ) -> None:
        super().__init__()
        self.weight, self.long, self.short = weight, long, short
        self.target, self.beside, self.drawn, self.talked, self.direct = target, beside, drawn, talked, direct

    def forward(self, step: StepOutput) -> dict[str, torch.Tensor]:
        losses = defaultdict(list)
        for told in step.losses:
            losses[told.column, told.generator_name].append(told.loss)
        result = {}
        for (column, way), parts in losses.items():
            if column in step.network.dialogue_columns:
                result[named(column, None)] = self.weight * self.talked * torch.cat(parts).float().mean()
                continue
            tokens = step.network.asked_modality(column).tokens()
            often = (
                self.long if tokens.ordered else self.drawn if column in step.network.generative_columns else self.short
            )
            weight = (
                self.target
                if column in step.network.targets
                else often * self.beside
                if step.network.targets
                else often
            )
            result[named(column, way)] = self.weight * weight * torch.cat(parts).float().mean()
        direct = self.straight(step) if self.direct else []
        if direct:
            result["direct"] = self.weight * self.direct * torch.stack(direct).mean()
        return result

    @staticmethod
    def straight(step: StepOutput) -> list[torch.Tensor]:
        """The mean loss of each short column from each matched column's gist, and of a target from all that its row has."""
        network, losses = step.network, []
        if network.conditioning.gist_token is None:
            return losses
        for column in network.asked_columns:
            heard = [part for name, part in step.encoded.items() if part.gist is not None and name != column]
            if (
                network.token_count(column) > 1
                or column in network.generative_columns
                or column not in step.encoded
                or not heard
            ):
                continue
            target, answers = network.asked_modality(column).target(step.batch.cells[column]), step.encoded[column]
            places = [answers.place[part.index] for part in heard]
            gists, place = torch.cat([part.gist for part in heard]), torch.cat(places).clamp(min=0)
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
