"""The contract of a modality: everything Sensorium knows about one kind of column, in one file.

A cell goes   read → (learn) → prepare → collate → augment → stem → tokens   on its way in, and
              generator → decode → cell                                       on its way out.

Arrays are NumPy on the reading side, so that cells can be read in workers and stored on disk. One instance serves one
column; ``state`` and ``load_state`` carry what ``learn`` found (JSON only).
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.backbones import AT_ONCE, Backbone, Kind, features
from sensorium.backbones._open import open_backbone
from sensorium.backbones._tuning import Tuning
from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.nn.external import ExternalModel
from sensorium.nn.feature_projection import FeatureProjection
from sensorium.nn.refiner import Refiner
from sensorium.nn.shape_buckets import recurring

Cells = dict[str, torch.Tensor]
"""The collated cells of one column: tensors whose first dimension is the rows that have the column."""


class Modality(abc.ABC):
    """One kind of column. Constructor arguments are its settings (``column.NAME.key=value``)."""

    media: ClassVar[bool] = False
    """Cells are files: bytes, a path, or ``{bytes, path}``; ``read`` is given the bytes."""
    matched: ClassVar[bool] = False
    """Rows can be told apart by such a cell, so it gets a gist that is matched with the others of its row."""
    ending: ClassVar[str] = ""
    """How the name of a file ends that holds what ``decode`` makes; empty where that is no file."""
    generator: ClassVar[str | None] = None
    """Name of the generator that says such a cell; None where it can't be asked yet."""
    is_dialogue: ClassVar[bool] = False
    """Cells are conversations, which refer to other cells of their rows: they are asked of a trunk that talks, and never seen."""
    llava: bool = False
    """In conversations cells stand as all patches of their encoder (``Image.llava``)."""
    encoder: Backbone | None = None
    """The pretrained encoder whose features stand for the cells (``column.NAME.backbone``)."""
    tuning: Tuning | None = None
    """How it is learned further (``column.NAME.tune``). None: it stays as it is, so that its features of a cell are computed once, not in each step."""
    refiner: Refiner | None = None
    """What finishes drawn cells, once that was learned."""
    as_written: bool = False
    """Cells of text files (CSV) are taken as they are written, not as the numbers or dates that they look like."""
    clamped: tuple[str, ...] = ()
    """What of its settings was out of range and what is used instead, in words."""

    @classmethod
    @abc.abstractmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """How sure this modality is that the column is its own; None if it can't be."""

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        """Whether a column that the user says is of this kind, with these settings, is taken as it is written; see ``as_written``."""
        return False

    @abc.abstractmethod
    def read(self, cell: Any) -> np.ndarray:
        """One cell, as found in the table, to an array that no statistics touched.

        The first dimension may differ from cell to cell; the others and the dtype don't.

        Raises:
            BadCell: the cell can't be read; the reason is shown to the user.
        """

    def use_backbone(self, backbone: str, kind: Kind, tune: str, rank: int, rate: float, patches: bool = False) -> bool:
        """Let the features of a pretrained encoder stand for the cells, if one is named; see ``Tuning`` for how it is learned further.

        Raises:
            UserError: it can't be opened, or there is none to be tuned.
        """
        tuning = Tuning(tune, rank, rate=rate, where="column.NAME")
        if not backbone and tuning.kind != "frozen":
            raise UserError(
                f"column.NAME.tune={tune} says how a backbone is learned further, and none is named: column.NAME.backbone=FOLDER."
            )
        if backbone:
            self.encoder, self.tuning = (
                open_backbone(backbone, kind, patches),
                None if tuning.kind == "frozen" else tuning,
            )
        return bool(backbone)

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Take statistics from a sample of read training cells (vocabulary, mean, quantiles)."""

    def clamp(self, name: str, given: float, least: int, most: int | None = None, multiple: int = 1) -> int:
        """A size or length as near to ``given`` as it may be; where that isn't it, ``clamped`` says so."""
        used = max(least, round(given / multiple) * multiple)
        used = used if most is None else min(used, most)
        if used != given:
            possible = f"{least:,} and more" if most is None else f"{least:,} to {most:,}"
            self.clamped += (
                f"{name}={given:g} isn't possible ({possible}{f', multiples of {multiple}' * (multiple > 1)} are): {name}={used} is used",
            )
        return used

    def nearest_divisor(self, name: str, given: int, size: int) -> int:
        """As ``within``, of what divides ``size``; of two that are equally near the larger one."""
        used = min(
            (part for part in range(1, size + 1) if size % part == 0), key=lambda part: (abs(part - given), -part)
        )
        if used != given:
            self.clamped += (f"{name}={given} doesn't divide size={size}: {name}={used} is used",)
        return used

    def as_image(self, read: np.ndarray) -> np.ndarray | None:
        """What the model has of a read cell as a picture uint8 [h, w, 3], on which ``parts`` lie: squares line by line, or from left to right. Default: there is none."""
        return None

    def truncation_note(self) -> str:
        """What is not read of long cells, and the setting that reads it, in words; empty where nothing is left out. Known once statistics are."""
        return ""

    @classmethod
    def learn_together(cls, columns: dict[str, tuple[Modality, Sequence[np.ndarray]]]) -> None:
        """Learn from all columns of this modality at once; a modality that shares a vocabulary overrides this."""
        for modality, cells in columns.values():
            modality.learn(cells)

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """A read cell to what training consumes, once statistics are known (words to ids). Default: as it is, or the features that an encoder
        gives that stays as it is, float16 [tokens, width].

        Raises:
            BadCell: it can't be.
        """
        return read if self.encoder is None or self.tuning is not None else features(self.encoder, [read])[0]

    def prepare_all(self, cells: Sequence[np.ndarray], keep: bool = True) -> list[np.ndarray | BadCell]:
        """``prepare`` of several cells, those that can't be prepared as their reason; an encoder sees them together, and what it says of cells that won't
        come again isn't to be kept."""
        if self.encoder is not None and self.tuning is None:
            return list(features(self.encoder, cells, keep))
        result: list[np.ndarray | BadCell] = []
        for cell in cells:
            try:
                result.append(self.prepare(cell))
            except BadCell as error:
                result.append(error)
        return result

    def describe_unknown(self, cells: Sequence[np.ndarray | None]) -> str:
        """What the column knows, in words, where it knows none of some prepared cells; empty where it knows any, or that says nothing. Default: empty."""
        return ""

    @property
    def prepares(self) -> bool:
        """Whether prepared cells are other than read ones."""
        return (self.encoder is not None and self.tuning is None) or type(self).prepare is not Modality.prepare

    @abc.abstractmethod
    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """Prepared cells of several rows to tensors, padded where ragged."""

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """A random variation that leaves the meaning as it is. Training only."""
        return cells

    @abc.abstractmethod
    def stem(self, width: int) -> Stem:
        """The module that turns collated cells into tokens of the trunk's width."""

    def shared(self) -> str | None:
        """Columns that give the same word share one stem, one gist head and one generator; None: its own.

        They go through the stem together, the shorter ones padded with zeros along the second dimension.
        """
        return None

    def tokens(self) -> Tokens | None:
        """What the tokens of the asked cell are; None where it can't be asked."""
        return None

    def target(self, cells: Cells) -> torch.Tensor:
        """The tokens a generator should say: ids [n, length] or vectors [n, length, width]."""
        raise NotImplementedError(type(self).__name__)

    def decode(self, tokens: np.ndarray) -> Any:
        """One said segment (ids [length] or vectors [length, width]) to a cell, as a user would write it."""
        raise NotImplementedError(type(self).__name__)

    def make_refiner(self) -> Refiner | None:
        """A module with fresh weights that learns to finish cells that are drawn, and that ``decode`` asks from then on (kept as ``finished_by``);
        None where nothing is to be finished, which is the default."""
        return None

    def prefix_tokens(self, cells: Sequence[np.ndarray], horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Read cells as the beginnings of segments whose next ``horizon`` steps are asked: vectors [n, length, width] and which numbers
        of them are known. For modalities whose cells can be continued."""
        raise NotImplementedError(type(self).__name__)

    def continuation(self, tokens: np.ndarray, cell: np.ndarray, horizon: int) -> Any:
        """The ``horizon`` steps of a said segment that follow on a read cell, as a user would write them."""
        raise NotImplementedError(type(self).__name__)

    @abc.abstractmethod
    def show(self, cell: Any) -> str:
        """A cell of the table as a small piece of HTML (text escaped, media embedded as data URLs)."""

    @abc.abstractmethod
    def features(self, read: np.ndarray | None) -> np.ndarray:
        """A read cell as a fixed-length float vector for the plain baselines; NaN where the cell is missing."""

    def score(self, truth: Sequence[Any], said: Sequence[Any]) -> dict[str, float]:
        """What is measured on this column: cells of the table against said ones."""
        return {}

    def parts(self, read: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """The parts of a read cell that can be left out: for each its name, and the read cell without it. Default: none."""
        return []

    def interpolate_parts(self, cell: np.ndarray, rest: Sequence[np.ndarray | None], keep: torch.Tensor) -> Cells:
        """A prepared cell n times, each of its parts there as far as ``keep`` [n, parts], 0 to 1, says; gradients pass to it.

        ``rest``: the cell without each of its ``parts``, prepared; None where nothing was left. Default: what a part changes is taken away in that measure.
        """
        result = {}
        for key, value in self.collate([cell, *(cell if other is None else other for other in rest)]).items():
            here = value.to(keep.device)
            if value.ndim == 1 or value.dtype == torch.bool:  # lengths and masks, which no part changes
                result[key] = here[:1].expand(len(keep), *here.shape[1:])
            else:
                gone = (here[1:].float() - here[:1].float()).flatten(1)
                result[key] = here[:1].float() + ((1 - keep) @ gone).view(len(keep), *value.shape[1:])
        return result

    def sketch(self, cells: Sequence[np.ndarray]) -> np.ndarray | None:
        """Prepared cells as unit vectors [n, any], float32, by which they are alike before anything is learned (a text's words); zeros
        where there is nothing to tell. None: such cells have no sketch, which is the default."""
        return None

    def state(self) -> dict[str, Any]:
        """What ``learn`` found, as JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""


def claim_files(
    profile: Profile,
    begins: Callable[[bytes], bool],
    endings: tuple[str, ...],
    what: str,
    settings: dict[str, Any] | None = None,
    rank: tuple[float, float] = (0.9, 0.09),
) -> Claim | None:
    """A claim on a column of files: sure where their first bytes are such files', less so where only their names say it.

    Args:
        begins: whether a file's first bytes are those of such a file; endings: of their names; what: as "pictures".
        rank: how sure at least, and how much surer where all files begin so; of two kinds that claim the same files the surer one wins.
    """
    if profile.heads:
        share = sum(map(begins, profile.heads)) / len(profile.heads)
        if share >= 0.5:
            return Claim(
                sure=rank[0] + rank[1] * share,
                why=f"{share:.0%} of the files begin as {what}s do",
                settings=settings or {},
            )
    texts = [cell.lower() for cell in profile.sample if isinstance(cell, str)]
    named = sum(text.endswith(endings) for text in texts)
    if texts and named >= 0.8 * len(profile.sample):
        return Claim(sure=0.85, why=f"{named / len(texts):.0%} of the cells are names of {what} files")
    return None


class Stem(nn.Module, abc.ABC):
    """A small encoder of one modality."""

    similarity_size: int = 0
    """Size of the vectors that ``kin`` gives, and ``alike`` compares; 0: it gives none."""

    @abc.abstractmethod
    def forward(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Tokens [rows, length, width] and a mask [rows, length], True where a token is present (None: all are)."""

    def features(self, cells: Cells) -> Cells:
        """Cells as ``forward`` and ``kin`` begin with them, so that what both need is computed once. Default: as they are."""
        return cells

    def initialise(self, cells: Cells, things: torch.Tensor | None = None) -> None:
        """Look at collated training cells before the first step, and at which of them are of one thing, [rows], where that is known. Default: nothing is to be seen."""

    def similarity_features(self, cells: Cells) -> torch.Tensor | None:
        """Vectors [rows, kindred] by which it is told which cells are of one thing, as far as ``begin`` has seen, whatever is learned. Default: none."""
        return None

    def compare(self, mine: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """How much the cells of some such vectors [n, kindred] seem to be of one thing with others' [m, kindred]: [n, m], to be compared within a row. Default: by their angle."""
        return mine @ known.T


def collate_features(cells: Sequence[np.ndarray]) -> Cells:
    """Features of several cells, float16 [tokens, width], as ``features`` float32 [n, tokens, width], padded with zeros, and which are ``there`` [n, tokens]."""
    longest = recurring(max(map(len, cells)))
    whole = np.zeros((len(cells), longest, cells[0].shape[1]), np.float32)
    for row, cell in zip(whole, cells, strict=True):
        row[: len(cell)] = cell
    return {
        "features": torch.from_numpy(whole),
        "there": torch.from_numpy(np.arange(longest) < np.array([len(cell) for cell in cells])[:, None]),
    }


def encoded(encoder: Backbone, tuning: Tuning | None, cells: Sequence[Any]) -> Cells:
    """Collated cells of a column that stands on an encoder: what was computed of them, or what the encoder takes."""
    return collate_features(cells) if tuning is None else encoder.batch(cells)


def standing(width: int, encoder: Backbone, tuning: Tuning | None, places: int, dropout: float, laid: int = 0) -> Stem:
    """The stem of a column that stands on an encoder; see ``Projected``."""
    return (
        FrozenFeatures(width, encoder.width, places, dropout, laid)
        if tuning is None
        else TunedFeatures(encoder, tuning, width, places, dropout, laid)
    )


class FrozenFeatures(FeatureProjection, Stem):
    """What is made of the features of an encoder that stays as it is."""


class TunedFeatures(ExternalModel, FeatureProjection, Stem):
    """An encoder that is learned further, and what is made of its features."""

    def __init__(
        self, encoder: Backbone, tuning: Tuning, width: int, places: int, dropout: float, laid: int = 0
    ) -> None:
        super().__init__(width, encoder.width, places, dropout, laid)
        self.encoder = [encoder]
        self.wrap(tuning.of(copy.deepcopy(encoder.model)), tuning.relative, steady=True)

    def features(self, cells: Cells) -> Cells:
        """What the encoder takes to its features as they are now; features as they are."""
        if "features" in cells:
            return cells
        found, there = self.encoder[0].tokens(cells, self.wrapped[0])
        there = torch.ones(found.shape[:2], dtype=torch.bool, device=found.device) if there is None else there
        more = recurring(found.shape[1]) - found.shape[1]
        return {"features": F.pad(found * there.unsqueeze(2), (0, 0, 0, more)), "there": F.pad(there, (0, more))}

    def forward(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(self.features(cells))

    @torch.no_grad()
    def similarity_features(self, cells: Cells) -> torch.Tensor | None:
        return super().similarity_features(self.features(cells)) if self.n_placed else None

    @torch.no_grad()
    def initialise(self, cells: Cells, things: torch.Tensor | None = None) -> None:
        count = len(next(iter(cells.values())))
        parts = (
            [
                self.features({key: value[at : at + AT_ONCE] for key, value in cells.items()})
                for at in range(0, count, AT_ONCE)
            ]
            if self.n_placed
            else []
        )
        super().initialise(
            {"features": torch.cat([part["features"].float() for part in parts])}
            if parts
            else {"features": self.places[:0]},
            things,
        )
