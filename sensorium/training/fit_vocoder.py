"""Vocoders and other refiners of generated cells: learned after training from training cells, and kept where they
restore validation cells better than the plain decoder.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from sensorium.core.errors import BadCell
from sensorium.core.seeds import mix
from sensorium.core.settings import Settable, at_least
from sensorium.data.order import evenly_spaced
from sensorium.data.table import Table
from sensorium.network.network import Network
from sensorium.nn.precision import Precision, autocast
from sensorium.nn.refiner import Refiner
from sensorium.training.settings import TrainerSettings
from sensorium.training.trainer import Trainer

MAX_CELLS, MAX_JUDGES, MIN_CELLS = 1000, 64, 4
"""Training cells and validation cells, evenly spread, at most; and the fewest of each."""

MAX_BYTES = 512 << 20
"""Size of the read cells that are in memory at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocoderSettings:
    """Settings of one column's refiner (section ``finish``).

    Args:
        share: of the training's steps, that many are spent on it; 0: none. most: steps at most.
        batch: pieces of cells in a step.
    """

    share: float = 0.5
    most: int = 1500
    batch: int = 16
    trainer: Annotated[TrainerSettings, Settable("lr", "weight_decay")] = TrainerSettings(
        lr=3e-3, weight_decay=0.01, beta1=0.8, beta2=0.95, max_grad_norm=5.0
    )


class VocoderTrainer(Trainer):
    """Training loop of one column's refiner, a vocoder for sounds (section ``finish``).

    Args:
        cells: read, to learn from. steps: that the training took. precision: of that training.
    """

    network: Refiner
    section = "finish"

    def __init__(
        self,
        refiner: Refiner,
        cells: Sequence[np.ndarray],
        folder: Path,
        seed: int,
        steps: int,
        precision: Precision,
        settings: VocoderSettings,
    ) -> None:
        share, most, batch = settings.share, settings.most, settings.batch
        at_least("finish", 1, batch=batch)
        at_least("finish", 0, share=share, most=most)
        trainer = dataclasses.replace(settings.trainer, precision=precision)
        super().__init__(refiner, {}, folder, seed, None, trainer)
        self.cells, self.batch, self.steps = cells, batch, min(most, round(share * steps))

    def make(self, step: int) -> tuple[torch.Tensor]:
        lots = np.random.default_rng([self.seed, step])
        chosen = lots.integers(len(self.cells), size=self.batch)
        return (torch.from_numpy(np.stack([self.network.piece(self.cells[i], lots) for i in chosen])),)

    def to_device(self, pieces: torch.Tensor) -> tuple[torch.Tensor]:
        return (pieces.to(self.device),)

    def row_count(self, pieces: torch.Tensor) -> int:
        return len(pieces)

    def losses(self, pieces: torch.Tensor) -> dict[str, torch.Tensor]:
        with autocast(self.precision, self.device):
            return self.network.losses(pieces)


def fit_vocoder(
    network: Network,
    table: Table,
    rows: Callable[[str, str], np.ndarray],
    folder: Path,
    seed: int,
    steps: int,
    precision: Precision,
    settings: VocoderSettings,
    bar: Callable[[str, int], Any],
) -> dict[str, dict[str, Any]]:
    """Fit the refiner of every generated column that has one.

    Args:
        rows: of the table that have a column, in a part of the split. steps: that training took.
        bar: a progress bar for some words and a number of steps, as a context that gives a function.

    Returns:
        for each such column ``steps``, ``away`` (from validation cells), ``plain_away`` (without the refiner), and
        whether it is ``kept``; ``stopped`` where it was interrupted, which a resumed run goes on with.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, column in enumerate(network.generative_columns):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, number))
            refiner = network.add_refiner(column)
        if refiner is None:
            continue
        cells, judges = (
            whole_cells(refiner, table, column, evenly_spaced(rows(column, part), most))
            for part, most in (("train", MAX_CELLS), ("validation", MAX_JUDGES))
        )
        trainer = None
        if min(len(cells), len(judges)) >= MIN_CELLS:
            trainer = VocoderTrainer(
                refiner, cells, folder / f"finish-{network.generator_key[column]}", seed, steps, precision, settings
            )
        if trainer is not None and trainer.steps:
            with bar(f"Learning what finishes {column}", trainer.steps) as done:
                found[column] = train_vocoder(trainer, judges, done)
        if not found.get(column, {}).get("kept"):
            network.remove_refiner(column)
        if found.get(column, {}).get("stopped"):
            break
    return found


def train_vocoder(trainer: VocoderTrainer, judges: Sequence[np.ndarray], done: Callable[[int], None]) -> dict[str, Any]:
    """Train and judge one column's refiner: see ``fit_vocoder``."""
    if any(trainer.folder.glob("step-*")):
        trainer.resume()
    done(trainer.at.step)
    at = trainer.run(lambda at, values: done(1))
    if at.stopped:
        return {"steps": at.step, "stopped": True, "kept": False}
    shutil.rmtree(trainer.folder, ignore_errors=True)
    pairs = np.array([trainer.network.compare(cell) for cell in judges])
    pairs = np.nan_to_num(pairs[np.isfinite(pairs[:, 1])], nan=np.inf)
    away, plain = pairs.mean(0).tolist() if len(pairs) else (math.inf, math.inf)
    return {"steps": at.step, "away": round(away, 4), "plain_away": round(plain, 4), "kept": away < plain}


def whole_cells(refiner: Refiner, table: Table, column: str, rows: np.ndarray) -> list[np.ndarray]:
    """Cells of a column in some rows that can be read and aren't empty, as many as ``MAX_BYTES`` hold."""
    result, taken = [], 0
    for start in range(0, len(rows), 64):
        for cell in table.cells(table.take(rows[start : start + 64], [column]), column, True):
            if cell is None or isinstance(cell, BadCell):
                continue
            try:
                read = refiner.read(cell)
            except BadCell:
                continue
            if len(read):
                result.append(read)
                taken += read.nbytes
            if taken > MAX_BYTES:
                return result
    return result
