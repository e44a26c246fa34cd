"""Contract of a trunk, which fuses columns: each asked segment attends to all that is seen and to itself, no more."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Seen = dict[str, tuple[Float[Tensor, "_ _ _"], Bool[Tensor, "_ _"]]]
"""Seen tokens by column: tokens [n, k, width] and mask [n, k] (all False where a row lacks the column). There is always
one column "" of one token that every row has, so that a row without cells has a token, too."""


class Trunk(nn.Module, abc.ABC):
    """Abstract trunk. Constructor: ``(width, columns, *, settings)``; ``columns`` are the names that may be seen."""

    early: ClassVar[bool] = False
    """Asked tokens may begin with a vector of all columns together; not where fusion comes later by design."""
    is_language_model: ClassVar[bool] = False
    """True where it is a language model, which takes part in conversations."""
    embedding_size: int = 0
    """Size of its word embeddings; 0 where it has none."""

    def tuned_parameters(self) -> Iterable[tuple[nn.Parameter, float]]:
        """Pretrained parameters, with their learning rates relative to the others'. Default: none."""
        return ()

    def generative_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that only generative segments go through. Default: none."""
        return ()

    def facts(self) -> dict[str, Any]:
        """Facts about it for people, by name. Default: none."""
        return {}

    @abc.abstractmethod
    def forward(
        self,
        seen: Seen,
        asked: list[Float[Tensor, "n _ width"]],
        causal: list[bool],
        generative: Sequence[bool] = (),
    ) -> list[Float[Tensor, "n _ width"]]:
        """Hidden states of asked segments [n, k, width], all in one pass, [n, k, width] each.

        Args:
            causal: for each segment, whether its tokens see only those before them.
            generative: for each segment, whether it is a picture, a sound, a clip or a series that is being generated.
                No other segment attends to it, so a trunk may have weights only for it. Empty: none is.
        """

    @abc.abstractmethod
    def prefill(self, seen: Seen) -> Any:
        """State of the seen tokens, computed once, from which ``decode`` goes on."""

    @abc.abstractmethod
    def decode(
        self, state: Any, tokens: Float[Tensor, "n k width"], generative: bool = False
    ) -> tuple[Float[Tensor, "n k width"], Any]:
        """Hidden states [n, k, width] of asked tokens [n, k, width] that follow on those before, and the new state.

        Tokens of one call see one another and those of earlier calls.
        """

    @abc.abstractmethod
    def reorder(self, state: Any, rows: Int[Tensor, " m"]) -> Any:
        """State of the rows with these indices [m] (beam search, several samples)."""
