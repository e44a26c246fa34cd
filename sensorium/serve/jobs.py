"""Jobs in the worker: requests of one kind that are answered together, and their answers taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sensorium.inference.rows import Rows

Job = dict[str, Any]
"""Request: ``rows``, the first ``strict`` of which must be readable, perhaps ``without``, and what its verb needs."""


class RequestRefused(Exception):
    """Error in one request; ``row`` and ``column`` say where."""

    def __init__(self, words: str, row: int | None = None, column: str | None = None) -> None:
        super().__init__(words)
        self.result = {"error": words, "row": row, "column": column}


def split_by_job(values: Any, jobs: Sequence[Job]) -> list[Any]:
    """Values of all rows, one part a job."""
    result, at = [], 0
    for job in jobs:
        result.append(values[at : at + len(job["rows"])])
        at += len(job["rows"])
    return result


def count_tokens(rows: Rows) -> np.ndarray:
    """Tokens that the trunk reads of each row, [n]."""
    count = np.zeros(rows.count, np.int64)
    for part in rows.encoded_cache.values():
        count[part.index.cpu().numpy()] += part.mask.sum(1).cpu().numpy()
    return count


def with_tokens(name: str, values: Any, rows: Rows, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Answers of all jobs: each its values under ``name``, and ``tokens``, how many were read."""
    parts = zip(split_by_job(values, jobs), split_by_job(count_tokens(rows), jobs), strict=True)
    return [{name: part, "tokens": int(count.sum())} for part, count in parts]
