"""Optimizers: torch's AdamW, SGD and Adafactor, and Muon, with weight decay on matrices only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import nn

from sensorium.generators import Generator
from sensorium.nn.conv import ConvBlock
from sensorium.nn.external import ExternalModel
from sensorium.training.muon import Muon
from sensorium.trunks import Trunk

Name = Literal["adamw", "sgd", "adafactor", "muon"]


class Optimizer:
    """Optimizer of a run: one or two of torch's behind one interface.

    Muon updates the weights of linear and convolutional layers, each a matrix, in all but the generators' last layers.
    All else is AdamW's. Updates are equally large, so one rate serves both.

    Args:
        modules: what is trained (network and objectives).
        name: adamw, sgd, adafactor or muon.
        lr: peak learning rate; weight_decay: on matrices; beta1, beta2: of AdamW.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        name: Name = "muon",
        lr: float = 5e-3,
        weight_decay: float = 0.05,
        beta1: float = 0.9,
        beta2: float = 0.98,
    ) -> None:
        named = list(
            itertools.chain.from_iterable(module.named_parameters(prefix=str(i)) for i, module in enumerate(modules))
        )
        named = [(key, p) for key, p in named if p.requires_grad]
        parts = [part for module in modules for part in module.modules()]
        embedding = {id(part.weight) for part in parts if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
        output_weights = {id(p) for part in parts if isinstance(part, Generator) for p in part.output_parameters()}
        layers = {id(part.weight) for part in parts if isinstance(part, nn.Linear | ConvBlock)} - output_weights
        rates = {
            id(p): rate
            for part in parts
            if isinstance(part, Trunk | ExternalModel)
            for p, rate in part.tuned_parameters()
        }
        self.parameters = dict(named)
        tuned = [
            {"params": [p for _, p in named if rates.get(id(p)) == rate], "weight_decay": 0.0, "rate": rate}
            for rate in sorted(set(rates.values()))
        ]
        named = [(key, p) for key, p in named if id(p) not in rates]
        matrices = [p for _, p in named if p.ndim >= 2 and id(p) not in embedding]
        rest = [p for _, p in named if p.ndim < 2 or id(p) in embedding]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}, *tuned]
        groups = [group for group in groups if group["params"]]
        fused = self.fused = name in ("adamw", "muon") and all(
            p.device.type in ("cpu", "cuda") for p in matrices + rest
        )
        match name:
            case "adamw":
                self.parts: list[torch.optim.Optimizer] = [
                    torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), fused=fused)
                ]
            case "sgd":
                self.parts = [torch.optim.SGD(groups, lr=lr, momentum=beta1, nesterov=True)]
            case "adafactor":
                self.parts = [torch.optim.Adafactor(groups, lr=lr)]
            case "muon":
                hidden = [p for p in matrices if id(p) in layers and min(p.shape) > 1]
                others = [p for p in matrices if id(p) not in layers or min(p.shape) <= 1]
                groups = [
                    {"params": others, "weight_decay": weight_decay},
                    {"params": rest, "weight_decay": 0.0},
                    *tuned,
                ]
                self.parts = [
                    torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(beta1, beta2), fused=fused)
                ]
                if hidden:
                    self.parts.append(Muon(hidden, lr=lr, weight_decay=weight_decay))
        self.peak = lr

    def step(self, share: float) -> None:
        """Update at ``share`` of the peak learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.peak * share * group.get("rate", 1.0)
            part.step()
        torch.autograd.graph.increment_version(
            list(self.parameters.values())
        )  # fused ones don't, and copies of weights are made again when that changes

    def zero(self) -> None:
        """Set the gradients to None."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """State of the optimizer, by parameter: ``name/key``."""
        names = {id(p): key for key, p in self.parameters.items()}
        result = {}
        for part in self.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    result[f"{names[id(parameter)]}/{key}"] = (
                        value if torch.is_tensor(value) else torch.tensor(float(value))
                    )
        return result

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what ``tensors`` gave."""
        owner = {id(p): part for part in self.parts for group in part.param_groups for p in group["params"]}
        for name, value in tensors.items():
            key, _, slot = name.rpartition("/")
            parameter = self.parameters[key]
            where = (
                parameter.device if slot != "step" or self.fused else value.device
            )  # only fused ones count on the device
            owner[id(parameter)].state.setdefault(parameter, {})[slot] = value.to(where, copy=True)


def clip(parameters: Iterable[nn.Parameter], most: float) -> float:
    """Scale gradients so that their common norm is at most ``most``; the norm before (may be infinite or NaN)."""
    return float(nn.utils.clip_grad_norm_(list(parameters), most if most > 0 else float("inf"), foreach=True))
