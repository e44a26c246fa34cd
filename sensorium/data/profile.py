"""Column profiles, from which modalities are inferred: a spread sample of cells, and counts.

Up to ``MAX_PROFILED_ROWS`` rows are read, in stretches over the whole table; of columns that hold files or lists, far
fewer. Distinct cells are counted exactly up to ``MAX_EXACT_DISTINCT`` and estimated beyond.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sensorium.core.errors import BadCell
from sensorium.core.types import Profile
from sensorium.data.arrow import is_list, is_media, type_name
from sensorium.data.cells import plain_cells
from sensorium.data.hashes import cell_hashes
from sensorium.data.media import HEAD_BYTES, is_frames, media_head
from sensorium.data.table import Table

MAX_PROFILED_ROWS = 1 << 18
MAX_STRETCHES = 64
MAX_EXACT_DISTINCT = 1 << 14
MAX_HEAVY_CELLS = 256
"""Cells that are sampled of a column of files or lists."""
MAX_HEADS = 64
MAX_CELL_BYTES = 1 << 16
"""Bytes or characters of a cell that a sample keeps."""

MIN_OWN_SHARE = 0.9
"""Share of distinct cells from which a folder that a cell names may be its row's own frames.

Below that it is more likely a class."""
_PATH = re.compile(r"[^\n\r\0]{1,1000}\.[A-Za-z0-9]{2,5}")


@dataclasses.dataclass
class ColumnProfile:
    """Profile of a column, with the statistics that distinguish an id from a number.

    Attributes:
        profile: the part that modalities see.
        low, high: smallest and largest of whole numbers; None for other types.
        rising: whole numbers that grow from each sampled row to the next.
        exact: ``profile.distinct`` was counted, not estimated.
        infinite: how many of the sampled numbers are infinite, which count as missing.
    """

    profile: Profile
    low: int | None = None
    high: int | None = None
    rising: bool = False
    exact: bool = True
    infinite: int = 0


def profile_columns(table: Table, columns: Sequence[str] | None = None, sample: int = 2048) -> dict[str, ColumnProfile]:
    """Profile columns of a table (all by default), streaming; unreadable rows are left out.

    Args:
        sample: most cells of a column in its profile.
    """
    names = table.columns if columns is None else list(columns)
    table = table.select(table.good) if table.bad_rows else table
    heavy = [name for name in names if _heavy(table.schema.field(name).type)]
    light = [name for name in names if name not in heavy]
    found = _scan(table, light, MAX_PROFILED_ROWS, sample, 4096) if light else {}
    for name in heavy:
        found |= _scan(table, [name], 4 * MAX_HEAVY_CELLS, min(sample, MAX_HEAVY_CELLS), _size(table, name))
    return {name: found[name] for name in names}


def _heavy(kind: pa.DataType) -> bool:
    return (
        pt.is_binary(kind)
        or is_list(kind)
        or pt.is_map(kind)
        or (pt.is_struct(kind) and any(_heavy(field.type) for field in kind))
    )


def _size(table: Table, name: str) -> int:
    """Batch size for a column of large cells, so that a batch takes about 16 MiB."""
    first = next((batch.nbytes / batch.num_rows for _, batch in table.batches(16, [name])), 1.0)
    return int(np.clip((16 << 20) / max(first, 1.0), 16, 1024))


def stretches(rows: int, wanted: int, parts: int = MAX_STRETCHES) -> np.ndarray:
    """About ``wanted`` of ``rows`` row numbers, ascending, in evenly spaced stretches; all if they are so few."""
    if rows <= wanted:
        return np.arange(rows, dtype=np.int64)
    length = max(1, wanted // parts)
    starts = np.linspace(0, rows - length, parts).astype(np.int64)
    return np.unique((starts[:, None] + np.arange(length)).ravel())


def _scan(table: Table, names: list[str], wanted: int, sample: int, size: int) -> dict[str, ColumnProfile]:
    heavy = len(names) == 1 and _heavy(table.schema.field(names[0]).type)
    rows = stretches(table.rows, wanted, 16 if heavy else MAX_STRETCHES)
    part = table if len(rows) == table.rows else table.select(rows)
    watchers = {name: _ProfileBuilder(name, table.schema.field(name).type, sample) for name in names}
    rng = np.random.default_rng(0)
    for _, batch in part.batches(size, names):
        chance = rng.random(batch.num_rows)
        for name, watcher in watchers.items():
            watcher.update(batch.column(name), chance)
        if heavy and watchers[names[0]].full:
            break
    return {name: watcher.result(table) for name, watcher in watchers.items()}


class _ProfileBuilder:
    """Streaming profile of one column: counts and a reservoir sample of bounded size."""

    def __init__(self, name: str, kind: pa.DataType, sample: int) -> None:
        self.name, self.kind, self.sample = name, kind, sample
        self.rows = self.present = self.bytes = 0
        self.low = self.high = None
        self.rising, self.infinite = pt.is_integer(kind), 0
        self.smallest = np.empty(0, np.uint64)
        self.exact = True
        self.reservoir: list[tuple[float, Any]] = []
        self.limit = 1.0

    @property
    def full(self) -> bool:
        """True when enough was read of a column of large cells."""
        return self.bytes > 256 << 20

    def update(self, array: pa.Array, chance: np.ndarray) -> None:
        """Count a batch; ``chance`` [rows] decides which cells the sample keeps: those with the smallest."""
        hashes = cell_hashes(array)
        there = hashes != 0
        self.rows += len(array)
        self.present += int(there.sum())
        self.bytes += array.nbytes
        self._distinct(hashes[there])
        if pt.is_floating(self.kind):
            self.infinite += pc.sum(pc.is_inf(array)).as_py() or 0
        if pt.is_integer(self.kind):
            self._range(array.filter(pa.array(there)))
        chosen = np.flatnonzero(there & (chance < self.limit))
        if len(chosen):
            cut = pt.is_binary(self.kind) and not pc.any(pc.equal(pc.binary_slice(array, 4, 8), b"ftyp")).as_py()
            some = pc.binary_slice(array, 0, MAX_CELL_BYTES) if cut else array
            cells = [_cut(cell) for cell in plain_cells(some.take(pa.array(chosen)))]
            pairs = zip(chance[chosen].tolist(), cells, strict=True)
            self.reservoir += [(chance_, cell) for chance_, cell in pairs if not isinstance(cell, BadCell)]
        if len(self.reservoir) > 2 * self.sample:
            self._shrink()

    def _shrink(self) -> None:
        self.reservoir = sorted(self.reservoir, key=lambda pair: pair[0])[: self.sample]
        self.limit = self.reservoir[-1][0] if len(self.reservoir) == self.sample else 1.0

    def _distinct(self, hashes: np.ndarray) -> None:
        """Count distinct cells by the k smallest hashes (KMV sketch, Bar-Yossef et al. 2002)."""
        if not self.exact:
            hashes = hashes[hashes < self.smallest[-1]]
        self.smallest = np.union1d(self.smallest, hashes)
        if len(self.smallest) > MAX_EXACT_DISTINCT:
            self.smallest, self.exact = self.smallest[:MAX_EXACT_DISTINCT], False

    def _range(self, array: pa.Array) -> None:
        if not len(array):
            return
        values = array.to_numpy(zero_copy_only=False)
        later = self.high is None or values[0] > self.high
        self.rising = self.rising and later and bool((values[1:] > values[:-1]).all())
        low, high = int(values.min()), int(values.max())
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    def result(self, table: Table) -> ColumnProfile:
        self._shrink()
        cells = [cell for _, cell in self.reservoir]
        distinct = len(self.smallest)
        if not self.exact:
            distinct = min(self.present, round((MAX_EXACT_DISTINCT - 1) / (float(self.smallest[-1]) / 2.0**64)))
        kind = type_name(self.kind)
        if self.name in table.declared and 2 * distinct <= self.present:
            kind = f"dictionary<{kind}>"
        profile = Profile(
            name=self.name,
            type=kind,
            sample=cells,
            present=self.present,
            rows=self.rows,
            distinct=distinct,
            heads=_heads(cells, self.kind, table, folders=distinct >= MIN_OWN_SHARE * self.present > 1),
        )
        return ColumnProfile(profile, self.low, self.high, self.rising and self.present > 1, self.exact, self.infinite)


def _cut(cell: Any) -> Any:
    if isinstance(cell, bytes):
        head = media_head(cell, None, False, HEAD_BYTES)
        return head if len(cell) > MAX_CELL_BYTES and not cell.startswith(head) else cell[:MAX_CELL_BYTES]
    if isinstance(cell, str):
        return cell[:MAX_CELL_BYTES]
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return {**cell, "bytes": _cut(cell["bytes"])}
    return cell


def _heads(cells: list[Any], kind: pa.DataType, table: Table, folders: bool) -> list[bytes]:
    """First bytes of the files in a sample.

    These are bytes, ``{bytes, path}``, and texts that may well be paths; ``folders``: also of one of a folder of
    frames.
    """
    if pt.is_string(kind):
        paths = [
            cell
            for cell in cells[:MAX_HEADS]
            if _PATH.fullmatch(cell) or (folders and is_frames(cell, table.folder, table.allow_outside))
        ]
        if 2 * len(paths) < len(cells[:MAX_HEADS]):
            return []
        cells = paths
    elif not (pt.is_binary(kind) or is_media(kind)):
        return []
    heads = []
    for cell in cells[:MAX_HEADS]:
        try:
            heads.append(media_head(cell, table.folder, table.allow_outside, HEAD_BYTES))
        except BadCell:
            continue
    return heads
