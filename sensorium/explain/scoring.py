"""Scoring of known cells: how likely they are under any seen columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sensorium.inference.rows import Rows
from sensorium.network.batch import collate
from sensorium.network.types import Encoded, IgnoredColumns
from sensorium.nn.precision import autocast

DRAWS = 8
"""Moments and noises at which a generated cell is scored, the same for all that is compared."""


class CellScorer:
    """Scorer of answers for one column, one for each row, under any seen columns.

    Args:
        rows: what is seen. column, generator_name: of the answers. cells: one for each of ``rows``; those that are None
            or can't be read have no explanation. heedless: leave out the columns that answers ignore, as
            ``Rows.predict`` does by default where no ensemble answers.
    """

    def __init__(
        self,
        rows: Rows,
        column: str,
        cells: Sequence[Any],
        generator_name: str | None = None,
        seed: int = 0,
        heedless: bool = False,
    ) -> None:
        self.rows, self.column = rows, column
        self.generator_name = generator_name and (
            # A student has no likelihood, its teacher has.
            rows.network.generator(column, generator_name).teacher or generator_name
        )
        self.ensemble = rows.network.calibration.ensembles.get(column)
        leaves_out = heedless and self.ensemble is None
        self.unheeded = (
            rows.network.calibration.ignored.get(column, IgnoredColumns()) if leaves_out else IgnoredColumns()
        )
        network, explained = rows.network, rows.with_cells(column, np.arange(rows.count), cells)
        self.index = np.flatnonzero(explained.has(column))
        self.prepared = [explained.cells[column][row] for row in self.index]
        if not len(self.index):
            return
        batch = collate(network.modalities, {column: self.prepared}, len(self.index)).to(rows.device)
        target = network.asked_modality(column).target(batch.cells[column])
        self.n_draws = DRAWS if column in network.generative_columns else 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.targets = [
                network.generator(column, self.generator_name).with_noise(target) for _ in range(self.n_draws)
            ]

    @torch.inference_mode()
    def encoded(self, rows: Rows) -> dict[str, Encoded]:
        """Encoded columns of rows, all but the answers' own, without what an answer ignores."""
        return self.unheeded.left_out(rows.encoded_columns([c for c in rows.network.columns if c != self.column]))

    @torch.inference_mode()
    def weigh(self, seen: Sequence[str], rows: Rows | None = None, which: np.ndarray | None = None) -> np.ndarray:
        """Minus the loss of each token, [n, tokens], where the columns ``seen`` are seen.

        Args:
            rows: other cells to see than the scorer's own, by the network alone; which: of which of the answers each of
                them is.
        """
        by_ensemble = rows is None and self.ensemble is not None
        rows, which = rows or self.rows, np.arange(len(self.index)) if which is None else which
        encoded = {c: part for c, part in self.encoded(rows).items() if c in seen}
        losses: list[torch.Tensor] = []
        at = torch.from_numpy(self.index[which] if rows is self.rows else np.arange(len(which))).to(rows.device)
        for target in self.targets:
            with autocast(rows.precision, rows.device):
                own = target[torch.from_numpy(which).to(rows.device)]
                losses.append(
                    self.ensemble.loss(rows.question(self.column, encoded, at), own).unsqueeze(1)
                    if by_ensemble and self.ensemble is not None
                    else rows.network.nll(encoded, self.column, seen, at, own, self.generator_name)
                )
        return -(sum(losses[1:], losses[0]) / self.n_draws).float().cpu().numpy()
