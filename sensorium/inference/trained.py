"""Trained networks with all that is needed to ask them about tables: schema, settings, and rows read as they
read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError, unknown, warn
from sensorium.core.registry import name_of
from sensorium.core.settings import build, check, plain
from sensorium.data.schema import Schema
from sensorium.data.settings import DataSettings
from sensorium.data.table import Table
from sensorium.generators import INTERNAL_OPTIONS
from sensorium.inference.rows import Rows
from sensorium.network.build import able_to_generate
from sensorium.network.network import Network

WINDOW = 4096
"""Rows that are held in memory at once where a large table is asked."""
BAD_ROW = "bad_row"
"""Column of an answer that says why a row can't be read."""
GENERATED_WINDOW = 64
"""Rows that are read at once where cells are generated, which takes long: finished rows are handed out early."""


class Trained:
    """Trained network, its schema, its settings and facts of its training.

    Attributes:
        network: the torch module; schema: its columns; settings: the ones it was made with.
        facts: of its training (rows, seconds, seed, results on the validation part).
        folder: where it was loaded from or fitted to; None for one that is in memory only.
    """

    def __init__(
        self,
        network: Network,
        schema: Schema,
        settings: Mapping[str, Any],
        facts: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        self.network, self.schema, self.settings, self.facts = network.eval(), schema, dict(settings), dict(facts)
        self.folder = folder
        self.data = build(DataSettings, plain(self.settings, "data"), "data")

    @property
    def columns(self) -> list[str]:
        """Columns that the model knows."""
        return list(self.network.columns)

    def open(self, table: Any) -> Table:
        """Table opened as this model's run opened its own: the same encoding and limits, and paths out of the table's
        folder where these were allowed.
        """
        if isinstance(table, Table):
            return table
        return self.data.open(
            table, [name for name, modality in self.network.modalities.items() if modality.as_written]
        )

    def rows(self, table: Any, columns: Sequence[str] | None = None, note: Callable[[str], None] | None = None) -> Rows:
        """Rows read and prepared once, to be asked many times. For tables that fit into memory; see ``windows``."""
        return list(self.windows(table, columns, note, size=None))[0]

    def windows(
        self,
        table: Any,
        columns: Sequence[str] | None = None,
        note: Callable[[str], None] | None = None,
        size: int | None = WINDOW,
    ) -> Iterator[Rows]:
        """Rows of a table, a window at a time, so that memory doesn't grow with the table.

        ``note`` is called once with notes on how the table was read, with columns that lack, and for each column with
        cells that can't be read, which count as missing; by default these are warnings.

        Raises:
            UserError: the table has columns, and none of them is the model's.
        """
        if isinstance(table, Rows):
            yield table
            return
        opened, tell = self.open(table), note or warn
        self.check(columns or ())
        self.report_reading(
            opened, [c for c in self.network.columns if columns is None or c in columns], tell, row_by_row(table)
        )
        unreadable, strange = UnreadableCells(), dict.fromkeys(() if row_by_row(table) else self.network.columns, "")
        for start in range(0, max(opened.rows, 1), size or max(opened.rows, 1)):
            part = (
                opened
                if size is None or opened.rows <= size
                else opened.select(np.arange(start, min(start + size, opened.rows)))
            )
            read = Rows.of(
                self.network, part, columns, lambda row, column, why, start=start: unreadable(start + row, column, why)
            )
            for column in list(strange):
                found = self.network.modalities[column].describe_unknown(read.cells.get(column, []))
                if found or not read.has(column).any():
                    strange[column] = found or strange[column]
                else:
                    del strange[column]
            yield read
        for column, known in strange.items():
            if known:
                tell(f"column '{column}': none of its cells is one that the model knows, as {known}")
        for words in unreadable.messages():
            tell(words)

    def report_reading(
        self, opened: Table, wanted: Sequence[str], tell: Callable[[str], None], partial: bool = False
    ) -> None:
        """Report how a table was read and which wanted columns it lacks.

        ``partial``: its rows were written by hand, with what is known of each.

        Raises:
            UserError: it has columns, and none of them is the model's.
        """
        known = set(self.network.columns)
        if opened.columns and not known & set(opened.columns):
            raise UserError(
                f"'{opened.name}' has none of this model's columns: it has "
                f"{', '.join(opened.columns[:8])}{', …' if len(opened.columns) > 8 else ''}, and the model knows "
                f"{', '.join(self.network.columns)}. Rename the table's columns."
            )
        lacking = [c for c in wanted if c not in opened.columns]
        if lacking and (not partial or set(opened.columns) - known):
            strange = [c for c in opened.columns if c not in known] if partial else []
            tell(
                f"'{opened.name}' has no column {', '.join(map(repr, lacking))}: the model answers without."
                + (f" It has {', '.join(map(repr, strange[:8]))}." if strange else "")
            )
        for words in opened.notes:
            tell(words)

    def check(self, columns: Iterable[str]) -> None:
        """Refuse columns that the model doesn't know."""
        if isinstance(columns, str):
            raise UserError(f"Columns are given as a list: ['{columns}'], not '{columns}'.")
        for column in columns:
            if column not in self.network.columns:
                raise unknown("column of this model:", column, self.network.columns)

    def check_asked(self, column: str, seen: Sequence[str] | None) -> None:
        """Refuse columns that the model doesn't know or can't be asked for."""
        self.check([column])
        self.check(seen or ())
        if seen and set(seen) == {column}:
            raise UserError(f"Asked: {column}; seen: {', '.join(seen or ())}. A column is either asked or seen.")
        if column not in self.network.asked_columns:
            kind = name_of(self.network.modalities[column])
            able = column in able_to_generate(self.network.modalities)
            why = (
                f"which this run did not learn to generate. Fit with --generate {column}."
                if able
                else "which can be read but not generated."
            )
            raise UserError(
                f"Column '{column}' holds {kind}, {why} Possible: {', '.join(self.network.asked_columns) or 'none'}."
            )

    def options(self, column: str, generator: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options for predicting or generating a column, in the types that its generator takes.

        Raises:
            UserError: one that the generator doesn't have or that is out of range.
        """
        part = self.network.generator(column, generator)
        chosen = check(part.sample, given, f"generate for '{column}'", INTERNAL_OPTIONS)
        if part.is_generative:  # nothing of no rows, but what is out of range is told before the first row is read
            part.sample(
                lambda tokens, _: tokens.new_zeros(*tokens.shape[:2], part.width),
                0,
                self.network.seen_mark.weight.device,
                **chosen,
            )
        return chosen


class UnreadableCells:
    """Counter of cells that can't be read: of each column how many, the first row and why."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}

    def __call__(self, row: int, column: str, why: str) -> None:
        self.columns.setdefault(column, [0, row, why])[0] += 1

    def messages(self) -> list[str]:
        """Messages for the user, a line a column."""
        return [
            f"column '{column}': {count} cell(s) can't be read and count as missing; the first is row {first}: {why}"
            for column, (count, first, why) in self.columns.items()
        ]


def row_by_row(table: Any) -> bool:
    """True where rows were written by hand: a dict of cells or a list of dicts, which hold what is known of
    each row."""
    return isinstance(table, Mapping) or (
        isinstance(table, list | tuple) and all(isinstance(row, Mapping) for row in table)
    )


def bad_row_column(bad: Mapping[int, str], rows: int) -> dict[str, pa.Array]:
    """Column ``bad_row``: why a row can't be read, null for those that can; nothing where all can."""
    return {BAD_ROW: pa.array([bad.get(row) for row in range(rows)], pa.string())} if bad else {}


def keep_split(table: Table, split: str | None, column: str | None) -> Table:
    """Rows of one part of the split column."""
    if split is None:
        return table
    column = column or "split"
    if column not in table.columns:
        raise UserError(
            f"--split {split} was asked, but '{table.name}' has no column '{column}'. "
            f"Columns: {', '.join(table.columns)}."
        )
    values = np.array(
        [str(cell) for _, batch in table.batches(columns=[column]) for cell in batch.column(0).to_pylist()],
        dtype=object,
    )
    rows = np.flatnonzero(values == split)
    if not len(rows):
        raise unknown(f"value of '{column}' in '{table.name}':", split, set(values.tolist()))
    return table.select(rows)
