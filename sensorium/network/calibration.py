"""Calibration of a trained network: what is found after training, on training and validation rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from sensorium.network.types import IgnoredColumns
from sensorium.nn.linear_probe import LinearProbes
from sensorium.nn.out_of_distribution import OutOfDistribution
from sensorium.nn.row_memory import RowMemory


class Calibration(nn.Module):
    """Calibrated state of a network, from training and validation rows. A module, so that it moves between devices with
    it.

    Attributes:
        ignored: for each asked column what its answer leaves out, as validation rows are answered no worse without it.
        surprise_quantiles: quantiles of each column's surprise in validation rows: see ``inference.surprise``.
        out_of_distribution: gists of training rows, by which the distance of others is measured; None where there were
            too few validation rows.
        memory: gists and sketches of training rows, by which gists are refined, and the rows' values of short columns,
            which are mixed into answers; or the linear probes that stand for it in a model that is given away; None
            before training has ended.
        ensembles: for short columns the members that answer beside the network (``ensemble.ensemble.Ensemble``).
        counts: of some columns in how many training rows each value is, for ``export.redaction``.
    """

    memory: RowMemory | LinearProbes | None

    def __init__(self) -> None:
        super().__init__()
        self.ignored: dict[str, IgnoredColumns] = {}
        self.surprise_quantiles: dict[str, list[float]] = {}
        self.out_of_distribution: OutOfDistribution | None = None
        self.memory = None
        self.ensembles: dict[str, Any] = {}
        self.counts: dict[str, object] = {}

    def state(self) -> dict[str, Any]:
        """State that is written as JSON; tensors are written to files of their own."""
        return {
            "unheeded": {column: dataclasses.asdict(left) for column, left in self.ignored.items()},
            "usual": self.surprise_quantiles,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` gave."""
        self.ignored = {
            column: IgnoredColumns(tuple(left["columns"]), tuple(left["needed"]))
            for column, left in state.get("unheeded", {}).items()
        }
        self.surprise_quantiles = {
            column: [float(level) for level in levels] for column, levels in state.get("usual", {}).items()
        }
        self.counts = state.get("counts", {})
