"""Run of a fit: its request, and the state that its stages fill in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.core.progress import ProgressReporter
from sensorium.data.prepare import Prepared
from sensorium.data.quarantine import Quarantine
from sensorium.data.schema import Schema
from sensorium.data.settings import DataSettings
from sensorium.data.split import Splits, split_rows
from sensorium.data.table import Table
from sensorium.fit.time_plan import TimePlan
from sensorium.modalities import Modality
from sensorium.network.network import Network
from sensorium.objectives import Objective
from sensorium.training.table_trainer import TableTrainer


@dataclasses.dataclass(frozen=True)
class Run:
    """Request of one fit.

    Attributes:
        table: the opened table. folder: where the run is kept. settings: nested by section.
        data: the section ``data``. target: columns to be predicted first of all.
        minutes, epochs: how long; one of them is None. plan: what the minutes are spent on.
        seed: of everything random. resume: go on with a run.
        device: where the network lives. progress: where the user is told how it goes.
    """

    table: Table
    folder: Path
    settings: dict[str, Any]
    data: DataSettings
    target: list[str]
    minutes: float | None
    plan: TimePlan
    epochs: float | None
    seed: int
    resume: bool
    device: torch.device
    progress: ProgressReporter


class Splitter:
    """Split of a table's rows, once it is known which of them can't be read.

    Attributes:
        splits: the split; without parts before the first call.
    """

    def __init__(self, table: Table, schema: Schema, **options: Any) -> None:
        self.table, self.schema, self.options = table, schema, options
        self.splits = Splits((), np.zeros(0, np.int8))

    def __call__(self, left_out: np.ndarray) -> dict[str, np.ndarray]:
        """Rows of each part, where those of ``left_out``, bool [rows], are in none: as of the table that lacks them."""
        if left_out.any():
            rest = split_rows(self.table.select(~left_out), self.schema, **self.options)
            codes = np.full(self.table.rows, -1, np.int8)
            codes[~left_out] = rest.codes
            self.splits = Splits(rest.names, codes)
        else:
            self.splits = split_rows(self.table, self.schema, **self.options)
        return {name: self.splits.rows(name) for name in self.splits.names}


@dataclasses.dataclass
class State:
    """State of a fit; each stage fills in what it makes.

    Attributes:
        settings: as the run's, with columns to generate by their names. schema, modalities: by ``infer_columns``.
        split: by ``split``. prepared, quarantine: by ``prepare``. network, objectives, trainer: by ``build``.
        entities: for each stored row the number of the entity it is of (``data.entity_key``), int64, or None.
        natural: the split by a group or by time, where the table gave it; empty otherwise.
        seconds_a_row: of reading.
        tuned: what of pretrained models is tuned, in numbers. facts: of the training, for ``model.json``.
    """

    settings: dict[str, Any]
    schema: Schema = dataclasses.field(init=False)
    modalities: dict[str, Modality] = dataclasses.field(init=False)
    split: Splitter = dataclasses.field(init=False)
    prepared: Prepared = dataclasses.field(init=False)
    quarantine: Quarantine = dataclasses.field(init=False)
    network: Network = dataclasses.field(init=False)
    objectives: dict[str, Objective] = dataclasses.field(init=False)
    trainer: TableTrainer = dataclasses.field(init=False)
    entities: np.ndarray | None = None
    natural: str = ""
    seconds_a_row: float = 0.0
    tuned: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """True where the user has interrupted the run."""
        return self.trainer.at.stopped
