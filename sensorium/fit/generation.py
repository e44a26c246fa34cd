"""Generation in a fit: which columns a run learns to generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sensorium.core.errors import UserError
from sensorium.core.progress import ProgressReporter
from sensorium.data.prepare import Prepared
from sensorium.data.table import Table
from sensorium.network.build import (
    able_to_generate,
    generated,
)

MINUTES_TO_GENERATE = 5.0, 30.0
"""Minutes from which on a run learns to generate pictures, videos, sounds, series and points unasked: on a GPU, and on
a CPU."""


MIN_ROWS_TO_GENERATE = 16
"""Training rows that a column must have to be learned to be generated."""


def with_generated(
    given: dict[str, Any], modalities: Mapping[str, Any], minutes: float | None, device: torch.device
) -> dict[str, Any]:
    """Settings with ``questions.generate`` by names, where "auto" is all columns if there is time to learn it.

    Raises:
        UserError: a column that can't be generated.
    """
    wanted = given.get("questions", {}).get("generate", "auto")
    if wanted == "auto":
        enough = minutes is not None and minutes >= (
            MINUTES_TO_GENERATE[1] if device.type == "cpu" else MINUTES_TO_GENERATE[0]
        )
        wanted = ",".join(able_to_generate(modalities)) if enough else ""
    given = {**given, "questions": {**given.get("questions", {}), "generate": wanted}}
    generated(modalities, given)
    return given


def enough_to_generate(
    given: dict[str, Any],
    modalities: Mapping[str, Any],
    prepared: Prepared,
    *,
    table: Table,
    asked: bool,
    progress: ProgressReporter,
) -> dict[str, Any]:
    """Settings without columns that have too few training rows to be learned to be generated.

    Raises:
        UserError: the user ``asked`` for one of them.
    """
    enough = []
    for column in generated(modalities, given):
        count = len(rows_with(prepared, column, "train"))
        if count >= MIN_ROWS_TO_GENERATE:
            enough.append(column)
        elif asked:
            raise UserError(
                f"--generate {column}: '{table.name}' has {count} training rows with it, and to learn to generate it "
                f"takes at least {MIN_ROWS_TO_GENERATE}. "
                "Leave it out of --generate, or give a table with more rows."
            )
        else:
            progress.log(
                f"'{column}' isn't learned to be generated: {count} training rows have it, {MIN_ROWS_TO_GENERATE} are "
                "needed"
            )
    return {**given, "questions": {**given["questions"], "generate": ",".join(enough)}}


def rows_with(prepared: Prepared, column: str, part: str) -> np.ndarray:
    """Rows of a part of the split that have a column, by number in the table."""
    rows, cells = prepared.rows.get(part, np.zeros(0, np.int64)), prepared.read.columns.get(column)
    return prepared.source[rows[np.diff(cells.offsets)[rows] > 0]] if cells is not None else np.zeros(0, np.int64)
