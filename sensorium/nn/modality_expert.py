"""Modality expert: a second set of weights in a decoder for the tokens of one modality.

These tokens have feed-forward layers, queries, keys, values and norms of their own and attend to all others as before
(LMFusion, Shi et al. 2024, arXiv 2412.15188, section 3.1; BAGEL, Deng et al. 2025, arXiv 2505.14683). What a language
model makes of words stays unchanged.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.nn.quantized import QuantizedLinear


class ModalityExpert(nn.ModuleDict):
    """Copies of a decoder's layers, initialised from these.

    Args:
        decoder: with a list of layers, of linear layers and norms. Low-rank updates, where it has them, act on the
            other tokens only.

    Raises:
        UserError: a layer holds weights of another kind, as a mixture of experts does.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.originals = [dict(leaves(decoder))]  # in a list: they are no part of this one
        for name, part in self.originals[0].items():
            base = getattr(part, "base_layer", part)
            self[name.replace(".", "/")] = (
                base.as_linear() if isinstance(base, QuantizedLinear) else copy.deepcopy(base)
            ).requires_grad_(True)

    @contextlib.contextmanager
    def taking(self, mine: torch.Tensor) -> Generator[None, None, None]:
        """Context manager in which the tokens that ``mine`` marks, bool [n, s], go through the copies."""
        where = ExpertRouting(mine)
        hooks: list[Any] = []
        try:
            for twin, part in zip(self.values(), self.originals[0].values(), strict=True):
                routed = RoutedLinear(twin, where)
                hooks += [part.register_forward_pre_hook(routed.before), part.register_forward_hook(routed.after)]
            yield
        finally:
            for hook in hooks:
                hook.remove()


class ExpertRouting:
    """Routing of n * s tokens: indices of both groups, and the permutation that puts them back in order."""

    def __init__(self, mine: torch.Tensor) -> None:
        self.shape = tuple(mine.shape)
        flat = mine.flatten()
        self.others, self.mine = (~flat).nonzero().squeeze(1), flat.nonzero().squeeze(1)
        self.order = torch.cat([self.others, self.mine]).argsort()


class RoutedLinear:
    """Hooks that route tokens around one layer: others go through it, ``mine`` through its copy. Neither is computed
    for the other's tokens."""

    def __init__(self, twin: nn.Module, where: ExpertRouting) -> None:
        self.twin, self.where = twin, where

    def before(self, _: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        """Forward pre-hook: keep back the expert's tokens and pass on the others."""
        tokens = given[0].flatten(0, 1)
        self.own_tokens = tokens.index_select(0, self.where.mine)
        return (tokens.index_select(0, self.where.others),)

    def after(self, _: nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> torch.Tensor:
        """Forward hook: put both groups' outputs in order."""
        own, self.own_tokens = self.twin(self.own_tokens), None
        whole = torch.cat([found, own.to(found.dtype)]).index_select(0, self.where.order)
        return whole.unflatten(0, self.where.shape)


def leaves(decoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a decoder's layers that hold weights, and the norm after them, with their names; adapted ones whole.

    Raises:
        UserError: see ``ModalityExpert``.
    """
    inside: str | None = None
    for name, part in decoder.named_modules():
        if inside is not None and name.startswith(inside):
            continue
        own = dict(part.named_parameters(recurse=False))
        if hasattr(part, "base_layer"):
            inside = f"{name}."
        elif not isinstance(part, QuantizedLinear) and (not own or isinstance(part, nn.Embedding)):
            continue
        elif max((p.ndim for p in own.values()), default=0) > 2 or "expert" in name or len(own) > 2:
            raise UserError(
                f"trunk.expert=true: the layer '{name}' ({type(part).__name__}) isn't a linear one or a "
                "norm. Choose a language model without a mixture of experts, or trunk.expert=false."
            )
        yield name, part
