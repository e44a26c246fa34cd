"""Contract of a modality: everything Sensorium knows about one kind of column, in one file.

A cell goes   read → (learn) → prepare → collate → augment → stem → tokens   on its way in, and
              generator → decode → cell                                       on its way out.

Arrays are NumPy on the reading side, so that cells can be read in workers and stored on disk. One instance serves one
column; ``state`` and ``load_state`` carry what ``learn`` found (JSON only). What only some modalities can (being asked,
continued, attributed to its parts) is in ``_capabilities``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sensorium.core.errors import BadCell, UserError
from sensorium.core.types import LAST_RANK, Claim, Profile

if TYPE_CHECKING:
    import torch

    from sensorium.backbones import Backbone, Kind
    from sensorium.backbones._tuning import Tuning
    from sensorium.nn.stem import Cells, Stem


class Modality(abc.ABC):
    """Abstract kind of column. Constructor arguments are its settings (``column.NAME.key=value``)."""

    media: bool = False
    """Cells are files: bytes, a path, or ``{bytes, path}``; ``read`` is given the bytes."""
    matched: ClassVar[bool] = False
    """Such a cell can tell rows apart, so it gets a gist that is matched with the others of its row."""
    is_text: ClassVar[bool] = False
    """Cells are running text, in words."""
    is_categorical: ClassVar[bool] = False
    """Cells are one of a few classes."""
    is_scalar: ClassVar[bool] = False
    """Cells are one real number or can be ordered as such, so that an answer has an interval."""
    is_nested: ClassVar[bool] = False
    """Cells are lists of numbers, which a CSV file can't hold."""
    is_spatial: ClassVar[bool] = False
    """Tokens of a cell lie on a square grid."""
    display_rank: ClassVar[int] = LAST_RANK
    """Place among the columns of a row where people see them: 0 is the first."""
    display_cost: ClassVar[int] = 0
    """How costly a cell is to show: those of a higher cost are made last, where there is room."""
    metric: ClassVar[str] = ""
    """Main one of the metrics of ``score``; empty: there is none."""
    ending: str = ""
    """File name extension of decoded cells, with its dot; empty where they are no files."""
    llava: bool = False
    """In conversations cells stand as all patches of their encoder (``Image.llava``)."""
    encoder: Backbone | None = None
    """Pretrained encoder whose features stand for the cells (``column.NAME.backbone``)."""
    tuning: Tuning | None = None
    """Fine-tuning of the encoder (``column.NAME.tune``).

    None: it is frozen, so that its features of a cell are computed once, not in each step.
    """
    clamped: tuple[str, ...] = ()
    """Notes on settings that were out of range, each with the value that is used instead."""

    @classmethod
    @abc.abstractmethod
    def claim(cls, profile: Profile) -> Claim | None:
        """Claim on a column, with how sure this modality is; None if it can't be its own."""

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        """``as_written`` of a column that the user gives this kind and these settings, before it is made."""
        return False

    @property
    def as_written(self) -> bool:
        """True where cells of text files (CSV) stay as written, not the numbers or dates that they look like."""
        return False

    @abc.abstractmethod
    def read(self, cell: Any) -> np.ndarray:
        """Array of one cell as found in the table, before any statistics.

        The first dimension may differ from cell to cell; the others and the dtype don't.

        Raises:
            BadCell: the cell can't be read; the reason is shown to the user.
        """

    def use_backbone(self, backbone: str, kind: Kind, tune: str, rank: int, rate: float, patches: bool = False) -> bool:
        """Use the features of a pretrained encoder for the cells, if one is named. See ``Tuning`` for fine-tuning.

        Raises:
            UserError: it can't be opened, or there is none to be tuned.
        """
        if not backbone and tune == "frozen":
            return False
        from sensorium.backbones._open import open_backbone
        from sensorium.backbones._tuning import Tuning

        tuning = Tuning(tune, rank, rate=rate, where="column.NAME")
        if not backbone:
            raise UserError(
                f"column.NAME.tune={tune} sets how a backbone is tuned, and none is named: column.NAME.backbone=FOLDER."
            )
        self.encoder = open_backbone(backbone, kind, patches)
        self.tuning = None if tuning.kind == "frozen" else tuning
        return True

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        """Fit statistics (vocabulary, mean, quantiles) to a sample of read training cells."""

    def clamp(self, name: str, given: float, least: int, most: int | None = None, multiple: int = 1) -> int:
        """A size or length as near to ``given`` as possible; where that isn't it, ``clamped`` says so."""
        used = max(least, round(given / multiple) * multiple)
        used = used if most is None else min(used, most)
        if used != given:
            possible = f"{least:,} and more" if most is None else f"{least:,} to {most:,}"
            multiples = f", multiples of {multiple}" * (multiple > 1)
            self.clamped += (f"{name}={given:g} isn't possible ({possible}{multiples} are): {name}={used} is used",)
        return used

    def nearest_divisor(self, name: str, given: int, size: int) -> int:
        """As ``clamp``, of what divides ``size``; of two that are equally near the larger one."""
        used = min(
            (part for part in range(1, size + 1) if size % part == 0), key=lambda part: (abs(part - given), -part)
        )
        if used != given:
            self.clamped += (f"{name}={given} doesn't divide size={size}: {name}={used} is used",)
        return used

    def truncation_note(self) -> str:
        """Note on what is not read of long cells, and on the setting that reads it; empty where nothing is left out.

        Known once statistics are.
        """
        return ""

    @classmethod
    def learn_together(cls, columns: dict[str, tuple[Modality, Sequence[np.ndarray]]]) -> None:
        """Fit all columns of this modality at once; a modality that shares a vocabulary overrides this."""
        for modality, cells in columns.values():
            modality.learn(cells)

    def prepare(self, read: np.ndarray) -> np.ndarray:
        """Array that training consumes of a read cell, once statistics are known (words to ids).

        Default: as it is, or the features of a frozen encoder, float16 [tokens, width].

        Raises:
            BadCell: it can't be prepared.
        """
        from sensorium.backbones import features

        return read if self.encoder is None or self.tuning is not None else features(self.encoder, [read])[0]

    def prepare_all(self, cells: Sequence[np.ndarray], keep: bool = True) -> list[np.ndarray | BadCell]:
        """``prepare`` of several cells, or the reason where one can't be prepared. An encoder sees them together.

        Args:
            keep: cache an encoder's features; not worth it for cells that won't come again.
        """
        from sensorium.backbones import features

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
        """Examples of what the column knows, in words, where it knows none of some prepared cells.

        Empty where it knows any, or where that says nothing (the default).
        """
        return ""

    @property
    def prepares(self) -> bool:
        """True where prepared cells differ from read ones."""
        return (self.encoder is not None and self.tuning is None) or type(self).prepare is not Modality.prepare

    @abc.abstractmethod
    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        """Tensors of several rows' prepared cells, padded where ragged."""

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Random augmentation that keeps the meaning. Training only."""
        return cells

    @abc.abstractmethod
    def stem(self, width: int) -> Stem:
        """Module that turns collated cells into tokens of the trunk's width."""

    def shared(self) -> str | None:
        """Key of columns that share one stem, one gist head and one generator; None: the column has its own.

        They go through the stem together, the shorter ones padded with zeros along the second dimension.
        """
        return None

    @abc.abstractmethod
    def show(self, cell: Any) -> str:
        """Small piece of HTML for a cell of the table (text escaped, media embedded as data URLs)."""

    @abc.abstractmethod
    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Float vector of fixed length of a read cell, for the plain baselines; NaN where the cell is missing."""

    def terms(self, read: np.ndarray | None) -> np.ndarray | None:
        """Places of the hashed terms of a read cell, each as often as it occurs: of a text its words, pairs of words
        and runs of letters. None: such cells have no terms (the default), or the cell is missing."""
        return None

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """Metrics of this kind of column: cells of the table against predicted ones."""
        return {}

    def sketch(self, cells: Sequence[np.ndarray]) -> np.ndarray | None:
        """Unit vectors of prepared cells [n, any], float32, by whose angles they are similar before anything is trained
        (a text's words).

        Zeros where there is nothing to compare. None: such cells have no sketch (the default).
        """
        return None

    def state(self) -> dict[str, Any]:
        """Fitted statistics, as JSON."""
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
    """Claim on a column of files: sure where their first bytes match, less so where only their names do.

    Args:
        begins: test of a file's first bytes. endings: of the files' names. what: a word for them, as "picture".
        rank: how sure at least, and how much surer where all files begin so. Of two kinds that claim the same files the
            surer one wins.
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


def __getattr__(name: str) -> Any:
    """``Cells`` and ``Stem``, which need torch, are imported when they are asked for."""
    if name in ("Cells", "Stem"):
        from sensorium.nn import stem

        return getattr(stem, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
