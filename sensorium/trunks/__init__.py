"""The contract of a trunk: what fusion is. Every asked segment hears all that is seen, and itself, nothing else."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

Seen = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""For each seen column its tokens [n, k, width] and mask [n, k] (all False where a row lacks the column). There is
always one column "" of one token that every row has, so that nothing seen is also something."""


class Trunk(nn.Module, abc.ABC):
    """Constructor: ``(width, columns, *, settings)``; ``columns`` are the names that may be seen."""

    early: ClassVar[bool] = False
    """Asked tokens may begin with what all columns say together; not where fusion comes later by design."""
    is_language_model: ClassVar[bool] = False
    """It is a language model, which takes part in conversations."""
    embedding_size: int = 0
    """Size of a word's vector in it."""

    def tuned_parameters(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Parameters that were learned elsewhere, with their learning rates relative to the others'. Default: none."""
        return ()

    def generative_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that only what is drawn goes through. Default: none."""
        return ()

    def facts(self) -> dict[str, Any]:
        """What there is to know of it, for people. Default: nothing."""
        return {}

    @abc.abstractmethod
    def forward(
        self, seen: Seen, asked: list[torch.Tensor], causal: list[bool], drawn: Sequence[bool] = ()
    ) -> list[torch.Tensor]:
        """Asked segments [n, k, width], all in one pass, to what is said at each token, [n, k, width] each.

        ``causal`` tells for each segment whether its tokens see only those before them, ``drawn`` whether it is a picture, a sound, a clip or a series that is being drawn; nobody else hears it,
        so a trunk may have weights for it alone. Empty: none is.
        """

    @abc.abstractmethod
    def prefill(self, seen: Seen) -> Any:
        """Run what is seen once; the state that ``go_on`` continues from."""

    @abc.abstractmethod
    def decode(self, state: Any, tokens: torch.Tensor, drawn: bool = False) -> tuple[torch.Tensor, Any]:
        """Asked tokens [n, k, width] after those before: (hidden [n, k, width], new state).

        Tokens of one call see one another and those of earlier calls.
        """

    @abc.abstractmethod
    def reorder(self, state: Any, rows: torch.Tensor) -> Any:
        """The state with its rows taken by index (beam search, several samples)."""
