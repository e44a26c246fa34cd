"""Generation methods of a model: cells of a column, forecasts, several columns at once, empty cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.data.media import Files
from sensorium.inference.fill import answer_columns, fill_table
from sensorium.inference.predict import answers
from sensorium.inference.rows import Rows
from sensorium.inference.trained import GENERATED_WINDOW, Trained
from sensorium.modalities._capabilities import Continuable


class GenerationMixin(Trained):
    """Methods that generate cells, inherited by ``Model``."""

    def generate(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        candidates: int = 0,
        samples: int = 1,
        generator: str | None = None,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Generated cells of a column, from the row's others, in the kind of the column: text, the bytes of a PNG,
        lists of numbers. Files show themselves in a notebook.

        ``temperature``, ``top_p`` and ``beam`` are options for text. Of pictures, videos, sounds, series and points
        ``samples`` are generated for each row; with more than one each row's are a list. ``generator`` is one of those
        that the run learned. ``steps``, ``guidance`` and ``solver`` are options for the generator "flow",
        ``temperature`` for the others. Of ``candidates`` texts the one that recognises best what is seen is chosen; 0:
        up to 32, 1 where other options are given.
        """
        if samples < 1:
            raise UserError(f"samples={samples}: give at least 1.")
        if column not in self.network.generative_columns:
            if samples > 1:
                raise UserError(
                    f"samples={samples}: of '{column}' one cell is generated. Possible for: "
                    f"{', '.join(self.network.generative_columns) or 'none'}."
                )
            if generator is not None and column in self.network.asked_columns:
                self.network.generator(column, generator)
            return answers(self, rows, column, seen, seed, note, candidates, **options).cells
        if candidates:
            raise UserError(
                f"candidates={candidates} is for text; of '{column}' generate several with samples={candidates}."
            )
        samples_of_rows = list(self.iter_generate(rows, column, seen, seed, samples, note, generator, **options))
        cells = samples_of_rows if samples > 1 else [cells[0] for cells in samples_of_rows]
        return Files(cells) if self.network.modalities[column].media else cells

    def iter_generate(
        self,
        rows: Any,
        column: str,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        generator: str | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """Generated cells, for one row after the other; see ``generate``. None for one that failed. Arguments are
        checked at once."""
        self.check_asked(column, seen)
        chosen = self.options(column, generator, options)
        wanted = [c for c in (self.network.columns if seen is None else seen) if c != column]
        return (
            cells
            for number, part in enumerate(self.windows(rows, wanted, note, size=GENERATED_WINDOW))
            for cells in without_bad(
                part,
                samples,
                lambda good, part=part, number=number: part.generate(
                    column, seen, samples, mix(seed, number), generator, good, **chosen
                ),
            )
        )

    def forecast(
        self,
        rows: Any,
        column: str,
        horizon: int,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> list[list[Any]]:
        """Forecasts: the next ``horizon`` steps of each row's series, from the series so far and the columns ``seen``.

        Returns:
            for each row ``samples`` continuations, as the column's cells are; none for a row without a series. A
            horizon that is longer than what can be generated is cut to that, and ``note`` is called.

        Raises:
            UserError: a column that can't be continued, or no horizon.
        """
        return list(self.iter_forecast(rows, column, horizon, seen, seed, samples, note, **options))

    def iter_forecast(
        self,
        rows: Any,
        column: str,
        horizon: int,
        seen: Sequence[str] | None = None,
        seed: int = 0,
        samples: int = 1,
        note: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Iterator[list[Any]]:
        """Forecasts as of ``forecast``, row after row as they are finished."""
        self.check_asked(column, [c for c in seen or () if c != column])
        modality = self.network.modalities[column]
        generator_name = self.continuation_generator(column)
        if generator_name is None or not isinstance(modality, Continuable):
            able = [c for c in self.network.generative_columns if self.continuation_generator(c)]
            raise UserError(
                f"'{column}' can't be continued: that takes a series that the run learned to generate by flow. "
                f"Possible: {', '.join(able) or 'none'}."
            )
        chosen = self.options(column, generator_name, options)
        if modality.longest > modality.span:
            raise UserError(
                f"'{column}' can't be continued: training had series of {modality.longest} steps, and averaged them to "
                f"{modality.span}. Fit with "
                f"column.{column}.length={modality.longest}."
            )
        if samples < 1 or horizon < 1:
            raise UserError(
                f"horizon={horizon}, samples={samples}: needed are at least 1 sample and a horizon of 1 to "
                f"{modality.span - 1} steps, as "
                f"{modality.span} steps of '{column}' are generated in all."
            )
        if horizon >= modality.span:
            if note:
                note(
                    f"column '{column}': {modality.span - 1} steps follow instead of {horizon:,}: {modality.span} are "
                    "generated in all, the first of them given."
                )
            horizon = modality.span - 1
        span, steps = modality.span, modality.steps

        def windows() -> Iterator[list[Any]]:
            for number, part in enumerate(
                self.windows(
                    rows, self.network.columns if seen is None else [*seen, column], note, size=GENERATED_WINDOW
                )
            ):
                long = sum(steps(cell) + horizon > span for cell in part.read.get(column, []) if cell is not None)
                if long and note:
                    note(
                        f"column '{column}': of {long} series only the last {span - horizon} steps are seen: "
                        f"training saw {span} in all."
                    )
                yield from part.continue_(column, horizon, seen, samples, mix(seed, number), generator_name, **chosen)

        return windows()

    def continuation_generator(self, column: str) -> str | None:
        """Generator of a column that can continue a prefix; None where there is none."""
        if not isinstance(self.network.modalities[column], Continuable):
            return None
        return next(
            (
                generator_name
                for generator_name in self.network.generator_keys.get(column, ())
                if self.network.generator(column, generator_name).can_continue
            ),
            None,
        )

    def generate_together(
        self,
        rows: Any,
        columns: Sequence[str],
        seen: Sequence[str] | None = None,
        seed: int = 0,
        jointly: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Generated cells of several columns of each row, from ``seen`` (by default all but these); ``jointly``: each
        also from those before it.

        Raises:
            UserError: a column that the model doesn't know or can't be asked for, or one that is both asked and seen.
        """
        return list(self.iter_generate_together(rows, columns, seen, seed, jointly, note))

    def iter_generate_together(
        self,
        rows: Any,
        columns: Sequence[str],
        seen: Sequence[str] | None = None,
        seed: int = 0,
        jointly: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Generated cells as of ``generate_together``, row after row as they are finished."""
        self.check(columns)
        for column in columns:
            self.check_asked(column, seen)
        if not columns:
            raise UserError(f"No column was asked for. Possible: {', '.join(self.network.asked_columns)}.")
        if set(columns) & set(seen or ()):
            raise UserError(
                f"Asked: {', '.join(columns)}; seen: {', '.join(seen or ())}. A column is either asked or seen."
            )
        wanted = [c for c in (self.network.columns if seen is None else seen) if c not in columns]
        return (
            dict.fromkeys(columns) if place in part.bad else row
            for number, part in enumerate(self.windows(rows, wanted, note, size=GENERATED_WINDOW))
            for place, row in enumerate(
                answer_columns(self.network, part, columns, seen, jointly=jointly, seed=mix(seed, number))
            )
        )

    def fill(
        self,
        table: Any,
        columns: Sequence[str] | None = None,
        jointly: bool = False,
        seed: int = 0,
        note: Callable[[str], None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> pa.Table:
        """Table with its empty cells filled in from the present ones; see ``inference.fill.fill``.

        Args:
            columns: those to fill, which are added where the table lacks them; by default those of its columns that can
                be asked.
            jointly: what is filled is seen where the row's next column is filled.
        """
        return fill_table(self, table, columns, jointly, seed, note, done)


def without_bad(
    part: Rows, samples: int, draw: Callable[[np.ndarray | None], Iterator[list[Any]]]
) -> Iterator[list[Any]]:
    """Generated cells for the rows of a window, None for those that can't be read.

    ``draw`` takes the rows to generate for, None for all.
    """
    if not part.bad:
        yield from draw(None)
        return
    samples_of_rows = draw(np.array([row for row in range(part.count) if row not in part.bad], np.int64))
    for row in range(part.count):
        yield [None] * samples if row in part.bad else next(samples_of_rows)
