"""The contract of a generator: p(asked segment | what the trunk says at its tokens), with a loss and a way to draw.

A generator knows ids or vectors (``Tokens``), never a modality: any modality whose tokens fit can be said by it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from sensorium.core.types import Tokens

Trunk = Callable[[torch.Tensor, int], torch.Tensor]
"""``trunk(tokens [n, k, width], start) -> hidden [n, k, width]``: runs asked tokens at positions start..start+k after
what was seen; what was run before is remembered (cached keys and values)."""


@dataclasses.dataclass
class Said:
    """What a generator drew for n rows.

    Attributes:
        tokens: ids [n, length] or vectors [n, length, width].
        score: log-probability of what was said, [n].
        probabilities: [n, vocabulary] for categories, else None.
        interval: lower and upper vectors [n, 2, width] for numbers, else None.
    """

    tokens: torch.Tensor
    score: torch.Tensor
    probabilities: torch.Tensor | None = None
    interval: torch.Tensor | None = None


class Generator(nn.Module, abc.ABC):
    """How one kind of asked segment is said. Constructor: ``(tokens, width, *, settings)``."""

    causal: bool = False
    """True where a token of the segment sees only those before it."""
    leans: bool = False
    """True where a segment is one token and ``loss`` and ``sample`` (and ``residual``, where there is one) take ``recalled``: what
    remembered rows say, to be mixed into the answer."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__()
        self.said, self.width = tokens, width

    @classmethod
    @abc.abstractmethod
    def fits(cls, tokens: Tokens) -> bool:
        """True where this generator can say such tokens."""

    @abc.abstractmethod
    def ask(self, target: torch.Tensor) -> torch.Tensor:
        """The asked segment's input tokens [n, k, width] in training, where the target is known."""

    @abc.abstractmethod
    def loss(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of each row, [n], from what the trunk gave at the asked tokens."""

    @abc.abstractmethod
    def sample(self, trunk: Trunk, rows: int, device: torch.device, generator: torch.Generator | None = None,
               **options: object) -> Said:
        """Draw (or choose) the segment of ``rows`` rows, asking the trunk as often as needed."""
