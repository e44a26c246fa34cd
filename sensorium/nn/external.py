"""Wrapper of a pretrained model: its weights stay in their own file, and the trained ones are saved with the
wrapper's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn

from sensorium.nn.quantized import weights_in

Self = TypeVar("Self", bound="ExternalModel")
"""Type of the module itself: beartype, which checks methods, doesn't take ``typing.Self`` there."""


class ExternalModel(nn.Module):
    """Base class of modules that wrap a pretrained model; to be inherited before any other module.

    Attributes:
        wrapped: the model, in a list: what isn't trained is no part of the saved weights.
        learned: those of its parameters that require gradients.
        rate: their learning rate, relative to the others'.
    """

    wrapped: list[Any]
    learned: nn.ParameterDict
    rate: float = 0.0
    steady: bool = False
    """The model stays in evaluation mode while it is trained: without dropout, and norms as they were."""
    foreign: bool = False
    """Low-rank updates from elsewhere are active, not those that were trained here."""

    def wrap(self, model: nn.Module, rate: float, steady: bool = False) -> None:
        """Wrap a model in which the parameters to be trained require gradients."""
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

    def _apply(self: Self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.wrapped[0]._apply(fn)
        return self

    def train(self: Self, mode: bool = True) -> Self:
        super().train(mode)
        self.wrapped[0].train(mode and not self.steady)
        return self

    def tuned_parameters(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Trained parameters of the model, with their relative learning rate."""
        return [(parameter, self.rate) for parameter in self.learned.values()]

    def share(self) -> dict[str, Any]:
        """Number and share of trained parameters, number of all, and the bytes that all of them take."""
        model, some = self.wrapped[0], sum(p.numel() for p in self.learned.values())
        every = weights_in(model)
        size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        return {"tuned_parameters": some, "tuned_share": round(some / every, 5), "all_parameters": every, "bytes": size}

    @property
    def adapted(self) -> bool:
        """True where low-rank updates are what was trained."""
        return any("lora_" in name for name in self.learned)

    def as_it_was(self) -> Any:
        """Context manager in which the model is the pretrained one, where that is known: where low-rank updates are all
        that was trained."""
        return WithoutExternal(
            [part for part in self.wrapped[0].modules() if hasattr(part, "enable_adapters") and hasattr(part, "lora_A")]
        )


class WithoutExternal:
    """Context manager that disables the adapters of layers."""

    def __init__(self, layers: list[Any]) -> None:
        self.layers = layers

    def __enter__(self) -> None:
        for layer in self.layers:
            layer._disable_adapters = True

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer._disable_adapters = False
