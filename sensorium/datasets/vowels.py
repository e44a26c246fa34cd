"""Japanese vowels: nine men say "ae"; who is it? 7 to 29 steps of twelve cepstral coefficients.

Kudo, Toyama and Shimbo 1999 (UCI, "Japanese Vowels"), with its own split, as the package aeon carries it. Series of
different lengths, and a test part whose classes are not as frequent as in training.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sensorium.datasets import Builder, Progress
from sensorium.datasets._parquet import SERIES, beginning, check_rows, data_file, write
from sensorium.datasets._ts import cases

CREDITS = (
    "Recordings: M. Kudo, J. Toyama, M. Shimbo 1999, 'Japanese Vowels' (UCI, CC BY 4.0), in aeon (BSD-3-Clause); "
    "package aeon {version}",
)
SCHEMA = pa.schema([("id", pa.string()), ("series", SERIES), ("speaker", pa.string()), ("split", pa.string())])


class Vowels(Builder):
    """640 rows: ``series`` is [7 to 29 steps][12 coefficients], ``speaker`` one of nine.

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
                "aeon", f"datasets/data/JapaneseVowels/JapaneseVowels_{split.upper()}.ts", "vowels"
            )
            rows += [
                {"id": f"{split}-{i:03}", "series": series, "speaker": f"speaker {label}", "split": split}
                for i, (series, label) in enumerate(cases(path))
            ]
        credits = [line.format(version=version) for line in CREDITS]
        return write(out, "vowels", beginning(rows, self.rows), SCHEMA, credits, progress)
