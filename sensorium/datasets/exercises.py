"""Shoulder exercises on a smart watch: 5-second windows of acceleration and turning, split by person.

Ten people did seven physiotherapy exercises with either arm (Burns et al. 2018, arXiv 1802.01489); the recordings come
with the package seglearn. Windows of one recording overlap and people repeat themselves, so only a split by person
tells how well an exercise of somebody new is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.datasets import Builder, Progress
from sensorium.datasets._parquet import SERIES, beginning, check_rows, data_file, write

HERTZ = 50
STEPS, HOP = 250, 125
"""Length and distance of windows: 5 seconds every 2.5 seconds."""
VALIDATION, TEST = (7,), (8, 9, 10)
"""People whose windows aren't trained on."""
CREDITS = ("Recordings: D. Burns et al. 2018 (arXiv 1802.01489), in seglearn (BSD); package seglearn {version}",)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("arm", pa.string()),
        ("exercise", pa.string()),
        ("start_s", pa.float32()),
        ("series", SERIES),
        ("split", pa.string()),
    ]
)


class Exercises(Builder):
    """1,737 windows: ``series`` is [250 steps][acceleration x y z, angular velocity x y z].

    Args:
        rows: how many rows; None: all. A small table is the beginning of the whole one.
    """

    def __init__(self, *, rows: int | None = None) -> None:
        check_rows(rows)
        self.rows = rows

    def build(self, out: Any, *, progress: Progress | None = None) -> dict[str, Any]:
        """Write the table; see ``Builder.build``."""
        version = data_file("seglearn", "data/watch_dataset.npy", "exercises")[1]
        from seglearn.datasets import load_watch

        watch = load_watch()
        rows = []
        for number, values in enumerate(watch["X"]):
            person = int(watch["subject"][number])
            known = {
                "subject": f"person {person}",
                "arm": "right" if watch["side"][number] else "left",
                "exercise": str(watch["y_labels"][int(watch["y"][number])]),
                "split": part(person),
            }
            values = np.asarray(values, np.float32)
            for start in range(0, len(values) - STEPS + 1, HOP):
                rows.append(
                    {
                        "id": f"recording-{number:03}-{start:05}",
                        "start_s": start / HERTZ,
                        **known,
                        "series": values[start : start + STEPS],
                    }
                )
        rows = beginning(rows, self.rows)
        for row in rows:
            row["series"] = row["series"].tolist()
        return write(out, "exercises", rows, SCHEMA, [line.format(version=version) for line in CREDITS], progress)


def part(person: int) -> str:
    """Part of the split of a person's windows."""
    return "validation" if person in VALIDATION else "test" if person in TEST else "train"
