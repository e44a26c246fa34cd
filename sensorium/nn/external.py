"""A pretrained model that another one holds: its weights stay in their own file, and what is learned of them stands beside the holder's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from sensorium.nn.quantized import weights_in


class ExternalModel(nn.Module):
    """To be inherited by who holds such a model, before any other module.

    Attributes:
        held: the model, in a list: what isn't learned is no part of what is kept. learned: those of its parameters that ask for gradients. rate: their learning rate, relative to the others'.
    """

    wrapped: list[Any]
    learned: nn.ParameterDict
    rate: float = 0.0
    steady: bool = False
    """The model stays as it is in use while it is learned, too: without dropout, and norms as they were."""
    foreign: bool = False
    """Others' low-rank updates are heard, not those that were learned here."""

    def wrap(self, model: nn.Module, rate: float, steady: bool = False) -> None:
        """Keep a model in which what is to be learned asks for gradients."""
        self.wrapped, self.rate, self.steady = [model], rate, steady
        self.learned = nn.ParameterDict(
            {
                name.replace(".", "/"): parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        )
        if steady:
            model.eval()

    def _apply(self, fn: Any, recurse: bool = True) -> ExternalModel:
        super()._apply(fn, recurse)
        self.wrapped[0]._apply(fn)
        return self

    def train(self, mode: bool = True) -> ExternalModel:
        super().train(mode)
        self.wrapped[0].train(mode and not self.steady)
        return self

    def tuned_parameters(self) -> Iterable[tuple[nn.Parameter, float]]:
        """What is learned of the model, with its rate."""
        return [(parameter, self.rate) for parameter in self.learned.values()]

    def share(self) -> dict[str, Any]:
        """How much of it is learned, in numbers, and the bytes that all of it takes."""
        model, some = self.wrapped[0], sum(p.numel() for p in self.learned.values())
        every = weights_in(model)
        size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        return {"tuned_parameters": some, "tuned_share": round(some / every, 5), "all_parameters": every, "bytes": size}

    @property
    def adapted(self) -> bool:
        """Whether low-rank updates are what was learned."""
        return any("lora_" in name for name in self.learned)

    def as_it_was(self) -> Any:
        """A context in which the model is as it was before anything was learned, where that is known: where low-rank updates are all that was."""
        return WithoutExternal(
            [part for part in self.wrapped[0].modules() if hasattr(part, "enable_adapters") and hasattr(part, "lora_A")]
        )


class WithoutExternal:
    """Layers without their adapters meanwhile."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers

    def __enter__(self) -> None:
        for layer in self.layers:
            layer._disable_adapters = True

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer._disable_adapters = False
