"""Contract of a generator: p(asked segment | hidden of the trunk at its tokens), with a loss and a sampler.

A generator knows ids or vectors (``Tokens``), never a modality: it serves any modality whose tokens fit.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sensorium.core.types import Tokens

Target = Int[Tensor, "n k"] | Float[Tensor, "n k size"]
"""Ids, or vectors of which a part may be noise of training: see ``Generator.with_noise``."""

Trunk = Callable[[Float[Tensor, "n k width"], int], Float[Tensor, "n k width"]]
"""Callable ``trunk(tokens [n, k, width], start) -> hidden [n, k, width]``: runs asked tokens at positions
start..start+k after what was seen. What was run before is cached (keys and values). At ``start`` 0 the segment begins
anew."""


INTERNAL_OPTIONS = ("unconditional", "given", "judged", "lots", "watch")
"""Options of ``sample`` that the program gives, and no user."""


@dataclasses.dataclass
class GeneratorOutput:
    """Output of a generator for n rows.

    Attributes:
        tokens: ids [n, length] or vectors [n, length, width].
        score: log-probability of the tokens, [n].
        probabilities: [n, vocabulary] for categories, else None.
        interval: lower and upper vectors [n, 2, width] for numbers, else None.
        sets: prediction sets, the ids in a set of the asked coverage, bool [n, vocabulary], for categories where one
            was asked.
    """

    tokens: Int[Tensor, "n length"] | Float[Tensor, "n length width"]
    score: Float[Tensor, " n"]
    probabilities: Float[Tensor, "n vocabulary"] | None = None
    interval: Float[Tensor, "n 2 width"] | None = None
    sets: Bool[Tensor, "n vocabulary"] | None = None


class Generator(nn.Module, abc.ABC):
    """Base class of generators: the output head of one kind of asked segment. Constructor: ``(tokens, width, *,
    settings)``."""

    causal: bool = False
    """True where a token of the segment sees only those before it."""
    uses_memory: bool = False
    """True where a segment is one token and ``loss`` and ``sample`` (and ``residual``, where there is one) take
    ``recalled``: the answer of remembered rows, to be mixed into the output."""

    is_generative: bool = False
    """True where a segment is sampled rather than predicted, as many are right (a picture): a run trains it where that
    is asked for, and ``sample`` takes ``unconditional``: a trunk that sees nothing, beside the conditional one."""
    one_token_per_vector: bool = False
    """True where the segment is asked all at once, by a token for each of its vectors, in their order."""
    can_continue: bool = False
    """True where ``sample`` takes ``given``: a prefix that it continues."""
    teacher: str = ""
    """Name of the generator that it is distilled from when a run has ended; empty where it is trained in the run."""

    def __init__(self, tokens: Tokens, width: int) -> None:
        super().__init__()
        self.output_tokens, self.width = tokens, width

    @classmethod
    @abc.abstractmethod
    def fits(cls, tokens: Tokens) -> bool:
        """True where this generator can output such tokens."""

    def with_noise(self, target: Target) -> Target:
        """Target with the random variables of a training step (noise, a moment), which ``asked_tokens`` and ``loss``
        then share. Default: as it is."""
        return target

    @abc.abstractmethod
    def asked_tokens(self, target: Target) -> Float[Tensor, "n k width"]:
        """Input tokens [n, k, width] of the asked segment in training, of a target from ``with_noise``."""

    def output_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that turn ids or vectors to tokens or hidden to ids or vectors, which optimizers for hidden layers
        leave to others. Default: all."""
        return self.parameters()

    @abc.abstractmethod
    def loss(self, hidden: Float[Tensor, "n k width"], target: Target) -> Float[Tensor, " n"]:
        """Loss of each row, [n], from the trunk's output at the asked tokens."""

    def token_nll(self, hidden: Float[Tensor, "n k width"], target: Target) -> Float[Tensor, "n parts"]:
        """Negative log-likelihood of each token of each row, [n, k], whose mean over the tokens that are there is the
        loss but for its terms beside a likelihood. Where it has no parts, [n, 1]."""
        return self.loss(hidden, target).unsqueeze(1)

    @abc.abstractmethod
    def sample(
        self, trunk: Trunk, rows: int, device: torch.device, generator: torch.Generator | None = None
    ) -> GeneratorOutput:
        """Sample (or choose) the segment of ``rows`` rows, calling the trunk as often as needed.

        Options of a generator are further parameters of its own method, each with a default.
        """
