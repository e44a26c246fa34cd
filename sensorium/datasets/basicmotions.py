"""BasicMotions: four students stand, walk, run and play badminton with a smart watch; 10 seconds of six channels.

The problem of that name in the UEA archive (Bagnall et al. 2018, arXiv 1811.00075), with its own split, as the package
aeon carries it. 40 rows to learn from and 40 to be tested by: as small as a table gets.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sensorium.datasets import Builder, Progress
from sensorium.datasets._parquet import SERIES, beginning, check_rows, data_file, write
from sensorium.datasets._ts import cases

CREDITS = (
    "Recordings: BasicMotions, J. Clements, UEA time series archive (Bagnall et al. 2018, arXiv 1811.00075), in aeon "
    "(BSD-3-Clause); package aeon {version}",
)
SCHEMA = pa.schema([("id", pa.string()), ("series", SERIES), ("activity", pa.string()), ("split", pa.string())])


class BasicMotions(Builder):
    """BasicMotions, 80 rows: ``series`` and ``activity``, one of four.

    A series is [100 steps][acceleration x y z, angular velocity x y z] at 10 Hz.

    Args:
        rows: how many rows; None: all. A small table is the beginning of the whole one.
    """

    def __init__(self, *, rows: int | None = None) -> None:
        check_rows(rows)
        self.rows = rows

    def build(self, out: Any, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``."""
        rows, version = [], ""
        for split in ("train", "test"):
            path, version = data_file(
                "aeon", f"datasets/data/BasicMotions/BasicMotions_{split.upper()}.ts", "basicmotions"
            )
            rows += [
                {"id": f"{split}-{i:03}", "series": series, "activity": label.lower(), "split": split}
                for i, (series, label) in enumerate(cases(path))
            ]
        credits = [line.format(version=version) for line in CREDITS]
        return write(out, "basicmotions", beginning(rows, self.rows), SCHEMA, credits, progress)
