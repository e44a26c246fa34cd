"""Natural split of a table without a split column: by a group that rows belong to, or by time.

Rows of one person, device or day are alike, and so are rows that follow each other. A random split has such twins on
both sides and promises more than new persons, or the days to come, will show.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

import numpy as np
import pyarrow as pa

from sensorium.data.moments import cells_of, moments
from sensorium.data.schema import Schema
from sensorium.data.table import Table

GROUP_NAMES = re.compile(
    r"(?:.*_)?(?:subject|patient|person|participant|speaker|voice|user|customer|student|pupil|driver|household|home|"
    r"house|device|sensor|machine|vehicle|site|station|hospital|centre|center|recording|session|scene|trip|drive|"
    r"artist|author)"
    r"(?:_?(?:id|no|nr|number|name|key|code))?",
    re.IGNORECASE,
)
"""Names of columns that say what a row is of."""
TIME_NAMES = re.compile(
    r"(?:.*_)?(?:timestamp|datetime|date_?time|time|date|day|until|measured|recorded|created|observed|start|end)"
    r"(?:_?at)?",
    re.IGNORECASE,
)
"""Names of columns that say when a row was."""
MIN_GROUPS, MIN_GROUP_ROWS, MAX_GROUP_SHARE = 8, 2.0, 0.3
"""Groups at least, rows in them on average, and the largest share of the rows that one may have."""
MIN_DISTINCT, MIN_ORDERED, MIN_ROWS = 0.3, 0.98, 40
"""Share of moments that differ, and of rows that follow the one before them, of a clock; fewest rows of a table."""


@dataclasses.dataclass(frozen=True)
class NaturalSplit:
    """Natural split.

    Attributes:
        by: as ``split_rows`` takes it, for instance group:person. why: for people.
    """

    by: str
    why: str


def natural_split(table: Table, schema: Schema, targets: Collection[str] = ()) -> NaturalSplit | None:
    """Natural split of a table; None where there is none, or a column says what is for training.

    Args:
        targets: columns that are to be predicted, by which nothing is split.
    """
    if schema.split is not None or table.rows < MIN_ROWS:
        return None
    names = [name for name in table.columns if name not in targets]
    for name in (name for name in names if GROUP_NAMES.fullmatch(name)):
        if (groups := group_count(cells_of(table, name))) is not None:
            why = f"rows of one '{name}' are alike, and answers about a new one are what counts ({groups:,} of them)"
            return NaturalSplit(f"group:{name}", why)
    clocks = [name for name in names if name in schema.columns and schema.columns[name].kind == "date"]
    for name in (name for name in clocks if TIME_NAMES.fullmatch(name)):
        if is_clock(moments(cells_of(table, name))):
            return NaturalSplit(
                f"time:{name}", f"rows are in the order of '{name}', and answers about later ones count"
            )
    return None


def group_count(cells: pa.ChunkedArray) -> int | None:
    """Number of groups, where the cells are groups: several rows each, and no giant among them."""
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type) or pa.types.is_integer(cells.type)):
        return None
    counts = np.array([entry["counts"] for entry in cells.drop_null().value_counts().to_pylist()])
    if len(counts) < MIN_GROUPS or counts.sum() < 0.9 * len(cells):
        return None
    several = counts.mean() >= MIN_GROUP_ROWS and counts.max() <= MAX_GROUP_SHARE * counts.sum()
    return len(counts) if several else None


def is_clock(found: np.ndarray) -> bool:
    """True where moments are known, mostly differ, and rows are in their order."""
    known = found[np.isfinite(found)]
    if len(known) < 0.95 * len(found) or len(np.unique(known)) < MIN_DISTINCT * len(known):
        return False
    steps = np.diff(known)
    return max(float((steps >= 0).mean()), float((steps <= 0).mean())) >= MIN_ORDERED
