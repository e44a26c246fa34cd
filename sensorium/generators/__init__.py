"""The contract of a generator: p(asked segment | what the trunk says at its tokens), with a loss and a way to draw.

A generator knows ids or vectors (``Tokens``), never a modality: any modality whose tokens fit can be said by it.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sensorium.core.types import Tokens

Trunk = Callable[[torch.Tensor, int], torch.Tensor]
"""``trunk(tokens [n, k, width], start) -> hidden [n, k, width]``: runs asked tokens at positions start..start+k after
what was seen; what was run before is remembered (cached keys and values). At ``start`` 0 the segment begins anew."""


INTERNAL_OPTIONS = ("blank", "given", "judged", "lots", "watch")
"""Options of ``sample`` that the program gives, and no user."""


@dataclasses.dataclass
class GeneratorOutput:
    """What a generator drew for n rows.

    Attributes:
        tokens: ids [n, length] or vectors [n, length, width].
        score: log-probability of what was said, [n].
        probabilities: [n, vocabulary] for categories, else None.
        interval: lower and upper vectors [n, 2, width] for numbers, else None.
        sets: which ids a set of the asked coverage holds, bool [n, vocabulary], for categories where one was asked.
    """

    tokens: torch.Tensor
    score: torch.Tensor
    probabilities: torch.Tensor | None = None
    interval: torch.Tensor | None = None
    sets: torch.Tensor | None = None


class Generator(nn.Module, abc.ABC):
    """How one kind of asked segment is said. Constructor: ``(tokens, width, *, settings)``."""

    causal: bool = False
    """True where a token of the segment sees only those before it."""
    uses_memory: bool = False
    """True where a segment is one token and ``loss`` and ``sample`` (and ``residual``, where there is one) take ``recalled``: what
    remembered rows say, to be mixed into the answer."""

    is_generative: bool = False
    """True where a segment is drawn rather than predicted, as many are right (a picture): a run learns it where that is asked for, and
    ``sample`` takes ``blank``: a trunk that is shown nothing, beside the one that is shown what is seen."""
    one_token_per_vector: bool = False
    """True where the segment is asked all at once, by a token for each of its vectors, in their order."""
    can_continue: bool = False
    """True where ``sample`` takes ``given``: a beginning that it goes on from."""
    teacher: str = ""
    """Name of the generator that it learns from when a run has ended, as its student; empty where it learns with the run."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__()
        self.output_tokens, self.width = tokens, width

    @classmethod
    @abc.abstractmethod
    def fits(cls, tokens: Tokens) -> bool:
        """True where this generator can say such tokens."""

    def with_noise(self, target: torch.Tensor) -> torch.Tensor:
        """A target with what training draws at random for it (noise, a moment), which ``ask`` and ``loss`` then share. Default: as it is."""
        return target

    @abc.abstractmethod
    def asked_tokens(self, target: torch.Tensor) -> torch.Tensor:
        """The asked segment's input tokens [n, k, width] in training, where the target, as ``drawn`` gave it, is known."""

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that turn ids or vectors to tokens or hidden to ids or vectors, which optimizers for hidden layers leave to others.
        Default: all."""
        return self.parameters()

    @abc.abstractmethod
    def loss(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of each row, [n], from what the trunk gave at the asked tokens."""

    def token_nll(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """How unlikely each token of each row is, [n, k], in the mean over the tokens that are there: the loss, but for what it has beside a
        likelihood. Where that has no parts, [n, 1]."""
        return self.loss(hidden, target).unsqueeze(1)

    @abc.abstractmethod
    def sample(
        self, trunk: Trunk, rows: int, device: torch.device, generator: torch.Generator | None = None, **options: object
    ) -> GeneratorOutput:
        """Draw (or choose) the segment of ``rows`` rows, asking the trunk as often as needed."""
