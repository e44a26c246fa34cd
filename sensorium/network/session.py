"""Sessions of the trunk: what is seen is run once and cached, and asked tokens are decoded from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sensorium.trunks import Seen, Trunk

MarkAsked = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``mark(tokens, condition)``: asked tokens with their column's mark and the condition of what is seen."""


class ConditionedTrunk:
    """Trunk as a generator calls it: asked tokens in, hidden states out; what is seen is run once and cached.

    ``start`` 0 begins the segment anew; a caller that has passed another start can't come back to it.

    Args:
        seen: the seen tokens. mark: see ``MarkAsked``. condition: [n, width] or [n, k, width], or None.
        generative: the segment is generated rather than predicted.
    """

    def __init__(
        self, trunk: Trunk, seen: Seen, mark: MarkAsked, condition: torch.Tensor | None, generative: bool = False
    ) -> None:
        self.trunk, self.mark, self.condition, self.generative = trunk, mark, condition, generative
        self.state: Any = trunk.prefill(seen)
        self.first: Any = self.state

    def __call__(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        if start:
            self.first = None  # else beams would copy it in each step
        state = self.state if start else self.first
        hidden, self.state = self.trunk.decode(state, self.mark(tokens, self.condition), self.generative)
        return hidden

    def reorder(self, rows: torch.Tensor) -> None:
        """Reorder the cached rows by index (beams, samples)."""
        self.state, at_first = self.trunk.reorder(self.state, rows), self.state is self.first
        self.first = self.state if at_first else None
        self.condition = None if self.condition is None else self.condition[rows]
