"""Generation methods of a model: cells of a column, forecasts, several columns at once, empty cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from sensorium.inference import generate as generation
from sensorium.inference.fill import fill_table
from sensorium.inference.trained import Trained


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
        return generation.generate(self, rows, column, seen, seed, candidates, samples, generator, note, **options)

    def draw(
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
        return generation.draw(self, rows, column, seen, seed, samples, note, generator, **options)

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
        return generation.forecast(self, rows, column, horizon, seen, seed, samples, note, **options)

    def continued(
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
        return generation.continued(self, rows, column, horizon, seen, seed, samples, note, **options)

    def continues(self, column: str) -> str | None:
        """Generator of a column that can continue a prefix; None where there is none."""
        return generation.continues(self, column)

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
        return list(self.together(rows, columns, seen, seed, jointly, note))

    def together(
        self,
        rows: Any,
        columns: Sequence[str],
        seen: Sequence[str] | None = None,
        seed: int = 0,
        jointly: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Generated cells as of ``generate_together``, row after row as they are finished."""
        return generation.generate_together(self, rows, columns, seen, seed, jointly, note)

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
