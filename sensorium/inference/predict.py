"""Predictions and embeddings of the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.seeds import mix
from sensorium.inference.answers import Answers
from sensorium.inference.trained import Trained, bad_row_column


def embed(
    trained: Trained, rows: Any, columns: Sequence[str] | None = None, note: Callable[[str], None] | None = None
) -> np.ndarray:
    """Embeddings: see ``Model.embed``."""
    trained.check(columns or ())
    found = []
    for part in trained.windows(rows, columns, note):
        found.append(part.gists(columns))
        found[-1][list(part.bad)] = np.nan
    return np.concatenate(found)


def predict(
    trained: Trained,
    rows: Any,
    column: str,
    seen: Sequence[str] | None = None,
    seed: int = 0,
    note: Callable[[str], None] | None = None,
    candidates: int = 0,
    **options: Any,
) -> pa.Table:
    """Predictions: see ``Model.predict``."""
    predictions = answers(trained, rows, column, seen, seed, note, candidates, **options)
    if not predictions.cells:  # the types that answers have
        return predict(trained, [{}], column, seen, **options).slice(0, 0)
    parts: dict[str, Any] = {
        "value": predictions.cells,
        "probability": pa.array(predictions.confidence, pa.float32(), from_pandas=True),
    }
    if predictions.sets is not None:
        parts["set"] = predictions.sets
    if predictions.interval is not None:
        parts |= {"low": [low for low, _ in predictions.interval], "high": [high for _, high in predictions.interval]}
    return pa.table(parts | bad_row_column(predictions.bad, len(predictions.cells)))


def answers(
    trained: Trained,
    rows: Any,
    column: str,
    seen: Sequence[str] | None,
    seed: int,
    note: Callable[[str], None] | None = None,
    candidates: int = 0,
    **options: Any,
) -> Answers:
    """Predicted cells of a column, with scores."""
    if candidates < 0:
        raise UserError(
            f"candidates={candidates}: give 1 for the likeliest text, more to choose from, or 0 for as many as are "
            "cheap."
        )
    trained.check_asked(column, seen)
    if column in trained.network.generative_columns:
        raise UserError(f"A cell of '{column}' is generated, not predicted. Ask for it with: generate.")
    wanted = [c for c in (trained.network.columns if seen is None else seen) if c != column]
    chosen = trained.options(column, None, options)
    predictions = [
        part.predict(column, seen, seed=mix(seed, i), candidates=candidates, **chosen).without(part.bad)
        for i, part in enumerate(trained.windows(rows, wanted, note))
    ]
    return Answers.concat(predictions)
