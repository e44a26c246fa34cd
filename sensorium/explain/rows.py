"""Explanations of the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.data.order import evenly_spaced
from sensorium.explain.attribution import check_method
from sensorium.explain.columns import Explanation, explain
from sensorium.inference.rows import Rows
from sensorium.inference.trained import GENERATED_WINDOW, Trained

MAX_REFERENCE_ROWS = 2000
"""Rows of known classes beside which an explained answer is put."""


def explain_rows(
    trained: Trained,
    rows: Any,
    column: str,
    cells: Sequence[Any] | None = None,
    seen: Sequence[str] | None = None,
    among: Any = None,
    seed: int = 0,
    generator: str | None = None,
    note: Callable[[str], None] | None = None,
    done: Callable[[int], None] | None = None,
    inside: str = "occlusion",
) -> list[Explanation | None]:
    """Explanations: see ``Model.explain``."""
    trained.check_asked(column, seen)
    check_method(inside, trained.network)
    trained.network.generator(column, generator)
    wanted = [c for c in (trained.network.columns if seen is None else seen) if c != column]
    known, which = None, np.zeros(0, np.int64)
    if among is not None:
        near = trained.open(among) if not isinstance(among, Rows) else None
        which = np.arange(near.rows if near is not None else among.count)
        if near is not None and trained.network.modalities[column].is_categorical:
            which = evenly_spaced(which, MAX_REFERENCE_ROWS)
            known = trained.rows(near.select(which), [column, *wanted], note)
        else:
            known = trained.rows(among, [column], note)
    if known is not None and not known.has(column).any():
        raise UserError(
            f"The table to look for near copies in has no cell of '{column}' that can be read. Give the one that the "
            "run was trained on."
        )
    result: list[Explanation | None] = []
    for number, part in enumerate(trained.windows(rows, wanted, note, size=GENERATED_WINDOW)):
        here = list(
            current_cells(trained, part, column, seen, mix(seed, number), generator)
            if cells is None
            else cells[len(result) : len(result) + part.count]
        )
        for row in part.bad:
            here[row : row + 1] = [None]
        if len(here) != part.count:
            raise UserError(
                f"{len(cells or ())} cells to explain, but more rows. Give one cell for each row, "
                "None for those to leave out."
            )
        result += explain(part, column, here, seen, generator, mix(seed, number), known, done, inside)
    for why in result:
        if why is not None:
            why.nearest, why.contrast = (
                [(int(which[row]), away) for row, away in some] for some in (why.nearest, why.contrast)
            )
            if why.turned is not None:
                why.turned.row = int(which[why.turned.row])
    return result


def current_cells(
    trained: Trained, rows: Rows, column: str, seen: Sequence[str] | None, seed: int, generator: str | None
) -> list[Any]:
    """Answers of a column for rows that were read, predicted or generated."""
    if column in trained.network.generative_columns:
        return [cells[0] for cells in rows.generate(column, seen, 1, seed, generator)]
    return rows.predict(column, seen, seed=seed).cells
