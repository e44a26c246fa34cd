"""Capabilities of a modality beyond its contract: abstract classes that callers test with ``isinstance``.

A modality inherits from those that it has, instead of ``Modality`` alone.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sensorium.core.quantiles import Quantiles
from sensorium.core.types import Tokens
from sensorium.modalities import Modality
from sensorium.nn.platt import PlattScaler

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float
    from torch import Tensor

    from sensorium.backbones._language_model import LanguageModel
    from sensorium.nn.geometry import Geometry
    from sensorium.nn.refiner import Refiner
    from sensorium.nn.stem import Cells


class Generable(Modality):
    """A modality whose cells can be asked: a generator predicts or generates their tokens."""

    generator: ClassVar[str]
    """Name of the generator that makes such cells."""

    @property
    def is_generable(self) -> bool:
        """True where the column, as it is set, can be asked. False, for instance, where an encoder reads the cells."""
        return True

    @abc.abstractmethod
    def tokens(self) -> Tokens:
        """Specification of the tokens of an asked cell. It holds where ``is_generable``."""

    @abc.abstractmethod
    def target(self, cells: Cells) -> Tensor:
        """Target tokens of a generator: ids [n, length] or vectors [n, length, width]."""

    @abc.abstractmethod
    def decode(self, tokens: np.ndarray) -> Any:
        """Cell of one generated segment (ids [length] or vectors [length, width]), as a user would write it."""


class Scalar(Generable):
    """A modality whose cells are one real number, which a generator knows as its normal score.

    Attributes:
        quantiles: the transform between values and normal scores, learned from training rows.
        error_unit: values in the unit in which errors are given: a day, for a date.
    """

    error_unit: ClassVar[float] = 1.0

    quantiles: Quantiles


class Continuable(Generable):
    """A modality whose cells go on in time, so that a cell can be continued (forecasting).

    Attributes:
        span: steps of a generated segment. longest: steps of the longest training cell.
    """

    span: int
    longest: int

    @abc.abstractmethod
    def steps(self, read: np.ndarray) -> int:
        """Number of steps of a read cell."""

    @abc.abstractmethod
    def prefix_tokens(
        self, cells: Sequence[np.ndarray], horizon: int
    ) -> tuple[Float[Tensor, "n length width"], Bool[Tensor, "n length width"]]:
        """Prefixes of segments whose next ``horizon`` steps are asked, from read cells: vectors [n, length, width], and
        a mask of their known numbers."""

    @abc.abstractmethod
    def continuation(self, tokens: np.ndarray, cell: np.ndarray, horizon: int) -> Any:
        """The ``horizon`` steps of a generated segment that follow on a read cell, as a user would write them."""


class Attributable(Modality):
    """A modality whose cells have parts, to which an answer can be attributed."""

    @abc.abstractmethod
    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Parts of a read cell that can be left out: for each its name, and the read cell without it."""

    def as_image(self, read: np.ndarray) -> np.ndarray | None:
        """Picture uint8 [h, w, 3] of what the model has of a read cell.

        The ``parts`` lie on it as squares line by line, or from left to right. Default: None, there is no picture.
        """
        return None

    def interpolate_parts(self, cell: np.ndarray, rest: Sequence[np.ndarray | None], keep: Tensor) -> Cells:
        """Interpolation of a prepared cell: n copies, each part present as far as ``keep`` [n, parts], 0 to 1, says.

        Gradients pass to ``keep``. Default: what a part changes is taken away in that measure.

        Args:
            rest: the cell without each of its ``parts``, prepared; None where nothing was left.
        """
        import torch

        result = {}
        for key, value in self.collate([cell, *(cell if other is None else other for other in rest)]).items():
            here = value.to(keep.device)
            if value.ndim == 1 or value.dtype == torch.bool:  # lengths and masks, which no part changes
                result[key] = here[:1].expand(len(keep), *here.shape[1:])
            else:
                gone = (here[1:].float() - here[:1].float()).flatten(1)
                result[key] = here[:1].float() + ((1 - keep) @ gone).view(len(keep), *value.shape[1:])
        return result


class Refinable(Generable):
    """A modality whose generated cells have more than their tokens, which a refiner adds (a sound's phases)."""

    refiner: Refiner | None = None
    """Trained refiner of generated cells, which ``decode`` uses."""

    @abc.abstractmethod
    def make_refiner(self) -> Refiner:
        """Refiner with fresh weights."""


class Spatial(Modality):
    """A modality of images, whose random geometry in training others follow that lie on it (masks, other views).

    Attributes:
        follows: the column whose geometry this one takes; empty: its own (``column.NAME.of``).
    """

    follows: str = ""

    @abc.abstractmethod
    def draw_geometry(self, n: int, generator: torch.Generator, device: torch.device) -> tuple[Geometry, Tensor]:
        """Random geometry of n images, and further random numbers, [3, n]."""

    @abc.abstractmethod
    def augment(
        self, cells: Cells, generator: torch.Generator, lead: Callable[[Geometry], Geometry] | None = None
    ) -> Cells:
        """Random augmentation that keeps the meaning.

        Args:
            lead: puts the geometry of the images that these lie on in place of their own.
        """


class Dialogue(Modality):
    """A modality of conversations, which refer to other cells of their rows.

    They are asked of a trunk that is a language model, and never seen.

    Attributes:
        system: system message of conversations that have none; empty: none is added.
        recall: column of names; beside a referred cell a conversation gets those of known rows that are similar.
        recalled: number of these. remembered: number of rows that are known, the newest ones.
        tokens_of_cells: tokens of a referred cell, the first ones; 0: all.
        referred: columns, or kinds of columns, that training conversations refer to.
        bare: some conversations refer to no cell. again: some show things more than once.
        beside: some refer to rows after their own.
        sureness: calibration of short answers on validation conversations; None before.
    """

    system: str
    recall: str
    recalled: int
    remembered: int
    tokens_of_cells: int
    referred: set[str]
    bare: bool
    again: bool
    beside: bool
    sureness: PlattScaler | None

    @property
    @abc.abstractmethod
    def language(self) -> LanguageModel:
        """Language model whose words and template are used.

        Raises:
            UserError: none was given.
        """

    @abc.abstractmethod
    def shortened(self, messages: list[Any], answer: bool = False) -> tuple[list[int], list[int]]:
        """Token ids of a conversation and a mask, 1 where the assistant speaks, without what is too long.

        Args:
            answer: end where the assistant is to speak.

        Raises:
            BadCell: the last exchange by itself is too long.
        """


def generable(modality: Modality) -> Generable | None:
    """The modality as one that can be asked; None where its column, as it is set, can't be."""
    return modality if isinstance(modality, Generable) and modality.is_generable else None
