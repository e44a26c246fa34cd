"""Names of things in questions: the column that says what a row is, and cells as short texts."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.core.registry import find
from sensorium.modalities import Modality

MAX_LETTERS = 60
"""Letters of a value that a question or an answer repeats, at most."""


def naming_column(kinds: Mapping[str, str], values: Mapping[str, Sequence[str | None]]) -> str | None:
    """The column that says what a row is: called so, or else the first of short texts, or else of categories."""
    short_texts = [
        c
        for c, kind in kinds.items()
        if find(Modality, kind).is_text and 0 < np.mean([len(v.split()) for v in values[c] if v] or [99]) <= 5
    ]
    categories = [c for c, kind in kinds.items() if find(Modality, kind).is_categorical]
    for word in ("name", "title", "label", "caption", "class"):
        for column in (*short_texts, *categories):
            if column.lower() == word:
                return column
    return next(iter(short_texts or categories), None)


def short_text(value: Any) -> str | None:
    """A cell as a question says it; None where there is none, or more than a question can hold."""
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = (value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else str(value)).strip()
    return text if 0 < len(text) <= MAX_LETTERS else None
