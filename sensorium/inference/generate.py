"""Generated cells of the rows of a table: text, pictures, sounds, series, forecasts, several columns at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.data.media import Files
from sensorium.inference.fill import answer_columns
from sensorium.inference.predict import answers
from sensorium.inference.rows import Rows
from sensorium.inference.trained import GENERATED_WINDOW, Trained
from sensorium.modalities._capabilities import Continuable


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


def generate(
    trained: Trained,
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
    """Generated cells: see ``Model.generate``."""
    if samples < 1:
        raise UserError(f"samples={samples}: give at least 1.")
    if column not in trained.network.generative_columns:
        if samples > 1:
            raise UserError(
                f"samples={samples}: of '{column}' one cell is said. Possible for: "
                f"{', '.join(trained.network.generative_columns) or 'none'}."
            )
        if generator is not None and column in trained.network.asked_columns:
            trained.network.generator(column, generator)
        return answers(trained, rows, column, seen, seed, note, candidates, **options).cells
    if candidates:
        raise UserError(f"candidates={candidates} is for text; of '{column}' draw several with samples={candidates}.")
    samples_of_rows = list(draw(trained, rows, column, seen, seed, samples, note, generator, **options))
    cells = samples_of_rows if samples > 1 else [cells[0] for cells in samples_of_rows]
    return Files(cells) if trained.network.modalities[column].media else cells


def draw(
    trained: Trained,
    rows: Any,
    column: str,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    samples: int = 1,
    note: Callable[[str], None] | None = None,
    generator: str | None = None,
    **options: Any,
) -> Iterator[list[Any]]:
    """Generated cells, row by row: see ``Model.draw``."""
    trained.check_asked(column, seen)
    chosen = trained.options(column, generator, options)
    wanted = [c for c in (trained.network.columns if seen is None else seen) if c != column]
    return (
        cells
        for number, part in enumerate(trained.windows(rows, wanted, note, size=GENERATED_WINDOW))
        for cells in without_bad(
            part,
            samples,
            lambda good, part=part, number=number: part.generate(
                column, seen, samples, mix(seed, number), generator, good, **chosen
            ),
        )
    )


def forecast(
    trained: Trained,
    rows: Any,
    column: str,
    horizon: int,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    samples: int = 1,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> list[list[Any]]:
    """Forecasts: see ``Model.forecast``."""
    return list(continued(trained, rows, column, horizon, seen, seed, samples, note, **options))


def continued(
    trained: Trained,
    rows: Any,
    column: str,
    horizon: int,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    samples: int = 1,
    note: Callable[[str], None] | None = None,
    **options: Any,
) -> Iterator[list[Any]]:
    """Forecasts, row by row: see ``Model.continued``."""
    trained.check_asked(column, [c for c in seen or () if c != column])
    modality = trained.network.modalities[column]
    generator_name = continues(trained, column)
    if generator_name is None or not isinstance(modality, Continuable):
        able = [c for c in trained.network.generative_columns if continues(trained, c)]
        raise UserError(
            f"'{column}' can't be continued: that takes a series that the run learned to draw by flow. Possible: "
            f"{', '.join(able) or 'none'}."
        )
    chosen = trained.options(column, generator_name, options)
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
            f"{modality.span} steps of '{column}' are drawn in all."
        )
    if horizon >= modality.span:
        if note:
            note(
                f"column '{column}': {modality.span - 1} steps follow instead of {horizon:,}, as {modality.span} are "
                "drawn in all, and one at least is what they follow on."
            )
        horizon = modality.span - 1
    span, steps = modality.span, modality.steps

    def windows() -> Iterator[list[Any]]:
        for number, part in enumerate(
            trained.windows(
                rows, trained.network.columns if seen is None else [*seen, column], note, size=GENERATED_WINDOW
            )
        ):
            long = sum(steps(cell) + horizon > span for cell in part.read.get(column, []) if cell is not None)
            if long and note:
                note(
                    f"column '{column}': of {long} series only the last {span - horizon} steps are looked at, as "
                    f"training saw {span} in all."
                )
            yield from part.continue_(column, horizon, seen, samples, mix(seed, number), generator_name, **chosen)

    return windows()


def continues(trained: Trained, column: str) -> str | None:
    """Generator of a column that can continue a prefix; None where there is none."""
    if not isinstance(trained.network.modalities[column], Continuable):
        return None
    return next(
        (
            generator_name
            for generator_name in trained.network.generator_keys.get(column, ())
            if trained.network.generator(column, generator_name).can_continue
        ),
        None,
    )


def generate_together(
    trained: Trained,
    rows: Any,
    columns: Sequence[str],
    seen: Sequence[str] | None = None,
    seed: int = 0,
    jointly: bool = False,
    note: Callable[[str], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Generated cells of several columns, row by row: see ``Model.generate_together``."""
    trained.check(columns)
    for column in columns:
        trained.check_asked(column, seen)
    if not columns:
        raise UserError(f"No column was asked for. Possible: {', '.join(trained.network.asked_columns)}.")
    if set(columns) & set(seen or ()):
        raise UserError(
            f"Asked: {', '.join(columns)}; seen: {', '.join(seen or ())}. A column is either asked or seen."
        )
    wanted = [c for c in (trained.network.columns if seen is None else seen) if c not in columns]
    return (
        dict.fromkeys(columns) if place in part.bad else row
        for number, part in enumerate(trained.windows(rows, wanted, note, size=GENERATED_WINDOW))
        for place, row in enumerate(
            answer_columns(trained.network, part, columns, seen, jointly=jointly, seed=mix(seed, number))
        )
    )
