"""Settings of the section ``data``."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from sensorium.core.errors import UserError
from sensorium.core.settings import at_least
from sensorium.data.options import ReadOptions
from sensorium.data.table import Table


class DataSettings:
    """Read settings of a table (section ``data``).

    Args:
        split: auto, hash, column:NAME, group:NAME or time:NAME. auto: by the column that says it; or else by a group
            that rows are of, or by time where rows are in its order; or else hash.
        validation: share of training rows kept for calibration and choices.
        max_bad: share or number of rows that may be bad.
        outside: media paths may leave the table's folder.
        workers: threads that read media.
        entity_key: key column; rows that share its value are of one entity, as in ``evaluate --entity-key``:
            ``match.same_thing`` brings them together, and where validation is taken from a split column's training
            rows all of them are held out or none.
        dialogue_validation: share of training rows that are then held out whatever they are of, where there are
            conversations, so that it is known how often answers about known entities are right.
        encoding: of text files, as Python names it; empty: detected.
        delimiter: of CSV files, one character, or tab, comma, semicolon, pipe, space; empty: detected.
        max_columns: a table with more columns is refused.
        max_cell_mb: MiB of the longest line or cell of a text file.
    """

    def __init__(
        self,
        *,
        split: str = "auto",
        validation: float = 0.1,
        max_bad: str = "10%",
        outside: bool = False,
        workers: int = 2,
        entity_key: str | None = None,
        dialogue_validation: float = 0.02,
        encoding: str = "",
        delimiter: str = "",
        max_columns: int = 4096,
        max_cell_mb: float = 16.0,
    ) -> None:
        at_least("data", 1, workers=workers)
        for name, share in (("validation", validation), ("dialogue_validation", dialogue_validation)):
            if not 0 <= share < 1:
                raise UserError(
                    f"data.{name}={share} is no share of the training rows. Give a number from 0 on, below 1."
                )
        self.split, self.validation, self.max_bad, self.outside, self.workers = (
            split,
            validation,
            max_bad,
            outside,
            workers,
        )
        self.entity_key, self.dialogue_validation = entity_key, dialogue_validation
        self.read_options = ReadOptions(
            encoding=encoding, delimiter=delimiter, max_columns=max_columns, max_cell_mb=max_cell_mb
        )

    def open(self, table: Any, as_written: Collection[str] = ()) -> Table:
        """Open a table with these settings; ``as_written``: columns whose cells in text files stay text."""
        options = dataclasses.replace(self.read_options, as_written=frozenset(as_written))
        return Table.open(table, allow_outside=self.outside, options=options)
