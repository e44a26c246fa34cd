"""Question to an ensemble: some rows that show certain columns, of which one is asked.

What members have in common is computed once: the network's answer from the same columns, and each column's features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from sensorium.ensemble.features import FeatureRows, count_terms
from sensorium.generators import GeneratorOutput
from sensorium.modalities import Modality
from sensorium.network.network import Network
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.row_memory import MemoryAnswer

if TYPE_CHECKING:
    from scipy import sparse


class ShortGenerator(Protocol):
    """Generator of a column that is asked by one token, whose answers can be mixed with others."""

    width: int
    causal: bool
    query: Tensor
    """Learned query token [1, width]."""
    covers: list[float]
    """Of a value, the coverages for which intervals are calibrated."""

    def loss(self, hidden: Tensor, target: Tensor, recalled: MemoryAnswer | None = None) -> Tensor:
        """Loss of each row [n], from the trunk's output, mixed with the row memory's answer."""

    def residual(self, hidden: Tensor, target: Tensor, recalled: MemoryAnswer | None = None) -> Tensor:
        """Residuals of rows as of ``residual_of``, from the trunk's output."""

    def calibrate(self, residual: Tensor) -> None:
        """Calibrate answers without a memory by the residuals of validation rows."""

    def distribution(self, hidden: Tensor, recalled: MemoryAnswer | None) -> tuple[Tensor, Tensor]:
        """Distribution of each row before calibration, and the calibration (``margin``)."""

    def loss_of(self, distribution: Tensor, target: Tensor) -> Tensor:
        """Loss of each row [n]."""

    def residual_of(self, distribution: Tensor, target: Tensor) -> Tensor:
        """Residuals of rows, which ``margin`` takes."""

    def margin(self, residual: Tensor) -> Tensor:
        """Calibration by residuals."""

    def bounds(self, distribution: Tensor, cover: float) -> Tensor:
        """Of a value, ends of the interval before calibration [n, 2, 1]."""

    def answer(
        self, distribution: Tensor, margin: Tensor, generator: torch.Generator | None, **options: object
    ) -> GeneratorOutput:
        """Answers from distributions and their calibration."""


def short_generator(network: Network, column: str) -> ShortGenerator:
    """Generator of a short column."""
    return cast("ShortGenerator", network.generator(column))


@dataclasses.dataclass
class AskedRows:
    """Rows of which a column is asked.

    Attributes:
        encoded: the columns that are visible, of more rows. rows: which of these are asked [n].
        features: plain features of a column of the asked rows [n, d], as if it were seen. terms: of those of texts.
        ready: the network's distributions, by the columns that it sees.
    """

    network: Network
    column: str
    encoded: Mapping[str, Encoded]
    rows: Tensor
    features: Callable[[str], np.ndarray]
    terms: Callable[[str], sparse.csr_matrix]
    ready: dict[tuple[tuple[str, ...], bool], tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    _blocks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def modality(self) -> Modality:
        """Modality of the asked column."""
        return self.network.modalities[self.column]

    def shows(self, column: str) -> np.ndarray:
        """Rows that show a column, bool [n]."""
        if column not in self.encoded:
            return np.zeros(len(self.rows), dtype=bool)
        return (self.encoded[column].place[self.rows] >= 0).cpu().numpy()

    def block(self, column: str, width: int) -> np.ndarray:
        """Features of a column [n, width], NaN in rows that don't show it."""
        if column not in self._blocks:
            visible = self.shows(column)
            if visible.any():
                self._blocks[column] = np.where(visible[:, None], self.features(column), np.nan)
            else:
                self._blocks[column] = np.full((len(visible), width), np.nan)
        return self._blocks[column]

    def feature_rows(self, widths: Mapping[str, int]) -> FeatureRows:
        """Features of the rows; widths are those of the columns' features."""
        blocks = {c: self.block(c, width) for c, width in widths.items()}
        terms = {
            c: self.terms(c) if self.shows(c).any() else count_terms([None] * len(self.rows))
            for c in widths
            if self.network.modalities[c].is_text
        }
        return FeatureRows(blocks, terms)

    def by_network(self, columns: Sequence[str] | None = None, ignoring: bool = False) -> tuple[Tensor, Tensor]:
        """Distribution of the network's answer, with its row memory's, and its calibration.

        Args:
            columns: those that it sees; None: all that are visible. ignoring: without those that mislead.
        """
        seen = tuple(c for c in self.encoded if columns is None or c in columns)
        key = seen, ignoring
        if key not in self.ready:
            network, ignored = self.network, self.network.calibration.ignored.get(self.column, IgnoredColumns())
            visible = {c: self.encoded[c] for c in seen}
            visible = ignored.left_out(visible) if ignoring else visible
            trunk = network.conditioned_trunk(visible, self.column, list(visible), self.rows)
            generator = short_generator(network, self.column)
            query = generator.query.expand(len(self.rows), -1, -1).to(self.rows.device)
            recalled = network.memory_answer(visible, self.column, self.rows)
            self.ready[key] = generator.distribution(trunk(query, 0), recalled)
        return self.ready[key]
