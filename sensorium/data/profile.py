"""What a column looks like before its kind is known: a spread sample of its cells and counts over what was looked at.

Up to ``LOOK`` rows are looked at, in stretches over the whole table; of columns that hold files or lists, far fewer.
Distinct cells are counted exactly up to ``EXACT`` and estimated beyond.
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
from sensorium.data.arrow import is_list, is_media, words
from sensorium.data.cells import plain_cells
from sensorium.data.hashes import cell_hashes
from sensorium.data.media import HEAD, is_frames, media_head
from sensorium.data.table import Table

LOOK = 1 << 18
STRETCHES = 64
EXACT = 1 << 14
HEAVY = 256
"""Cells that are looked at of a column of files or lists."""
HEADS = 64
CUT = 1 << 16
"""Bytes or characters of a cell that a sample keeps."""

OWN = 0.9
"""Where so large a share of a column's cells are distinct, a folder that one names may be its row's own frames; else it is more likely a class."""
_PATH = re.compile(r"[^\n\r\0]{1,1000}\.[A-Za-z0-9]{2,5}")


@dataclasses.dataclass
class Look:
    """A profile and what else tells an id from a number.

    Attributes:
        profile: as the modalities see it.
        low, high: smallest and largest of whole numbers; None for other types.
        rising: whole numbers that grow from each looked-at row to the next.
        exact: ``profile.distinct`` was counted, not estimated.
        infinite: how many of the looked-at numbers are infinite, which count as missing.
    """

    profile: Profile
    low: int | None = None
    high: int | None = None
    rising: bool = False
    exact: bool = True
    infinite: int = 0


def look(table: Table, columns: Sequence[str] | None = None, sample: int = 2048) -> dict[str, Look]:
    """Look at columns of a table (all by default), streaming; rows that can't be read are not looked at.

    Args:
        sample: how many cells of a column a profile holds at most.
    """
    names = table.columns if columns is None else list(columns)
    table = table.select(table.good) if table.bad_rows else table
    heavy = [name for name in names if _heavy(table.schema.field(name).type)]
    light = [name for name in names if name not in heavy]
    found = _watch(table, light, LOOK, sample, 4096) if light else {}
    for name in heavy:
        found |= _watch(table, [name], 4 * HEAVY, min(sample, HEAVY), _size(table, name))
    return {name: found[name] for name in names}


def _heavy(kind: pa.DataType) -> bool:
    return (
        pt.is_binary(kind)
        or is_list(kind)
        or pt.is_map(kind)
        or (pt.is_struct(kind) and any(_heavy(field.type) for field in kind))
    )


def _size(table: Table, name: str) -> int:
    """How many rows of a column of large cells to read at once, so that they take about 16 MiB."""
    first = next((batch.nbytes / batch.num_rows for _, batch in table.batches(16, [name])), 1.0)
    return int(np.clip((16 << 20) / max(first, 1.0), 16, 1024))


def stretches(rows: int, wanted: int, parts: int = STRETCHES) -> np.ndarray:
    """About ``wanted`` of ``rows`` row numbers, ascending, in even stretches over all; all of them if they are so few."""
    if rows <= wanted:
        return np.arange(rows, dtype=np.int64)
    length = max(1, wanted // parts)
    starts = np.linspace(0, rows - length, parts).astype(np.int64)
    return np.unique((starts[:, None] + np.arange(length)).ravel())


def _watch(table: Table, names: list[str], wanted: int, sample: int, size: int) -> dict[str, Look]:
    heavy = len(names) == 1 and _heavy(table.schema.field(names[0]).type)
    rows = stretches(table.rows, wanted, 16 if heavy else STRETCHES)
    part = table if len(rows) == table.rows else table.select(rows)
    watchers = {name: _Watcher(name, table.schema.field(name).type, sample) for name in names}
    rng = np.random.default_rng(0)
    for _, batch in part.batches(size, names):
        chance = rng.random(batch.num_rows)
        for name, watcher in watchers.items():
            watcher.see(batch.column(name), chance)
        if heavy and watchers[names[0]].full:
            break
    return {name: watcher.look(table) for name, watcher in watchers.items()}


class _Watcher:
    """One column's counts and sample, of bounded size however many cells go by."""

    def __init__(self, name: str, kind: pa.DataType, sample: int) -> None:
        self.name, self.kind, self.sample = name, kind, sample
        self.rows = self.present = self.bytes = 0
        self.low = self.high = None
        self.rising, self.infinite = pt.is_integer(kind), 0
        self.smallest = np.empty(0, np.uint64)
        self.exact = True
        self.kept: list[tuple[float, Any]] = []
        self.limit = 1.0

    @property
    def full(self) -> bool:
        """Enough was read of a column of large cells."""
        return self.bytes > 256 << 20

    def see(self, array: pa.Array, chance: np.ndarray) -> None:
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
            some = pc.binary_slice(array, 0, CUT) if cut else array
            cells = [_cut(cell) for cell in plain_cells(some.take(pa.array(chosen)))]
            pairs = zip(chance[chosen].tolist(), cells, strict=True)
            self.kept += [(chance_, cell) for chance_, cell in pairs if not isinstance(cell, BadCell)]
        if len(self.kept) > 2 * self.sample:
            self._shrink()

    def _shrink(self) -> None:
        self.kept = sorted(self.kept, key=lambda pair: pair[0])[: self.sample]
        self.limit = self.kept[-1][0] if len(self.kept) == self.sample else 1.0

    def _distinct(self, hashes: np.ndarray) -> None:
        """Keep the smallest distinct hashes; how small the last is says how many there are (Bar-Yossef et al. 2002)."""
        if not self.exact:
            hashes = hashes[hashes < self.smallest[-1]]
        self.smallest = np.union1d(self.smallest, hashes)
        if len(self.smallest) > EXACT:
            self.smallest, self.exact = self.smallest[:EXACT], False

    def _range(self, array: pa.Array) -> None:
        if not len(array):
            return
        values = array.to_numpy(zero_copy_only=False)
        later = self.high is None or values[0] > self.high
        self.rising = self.rising and later and bool((values[1:] > values[:-1]).all())
        low, high = int(values.min()), int(values.max())
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    def look(self, table: Table) -> Look:
        self._shrink()
        cells = [cell for _, cell in self.kept]
        distinct = len(self.smallest)
        if not self.exact:
            distinct = min(self.present, round((EXACT - 1) / (float(self.smallest[-1]) / 2.0**64)))
        kind = words(self.kind)
        if self.name in table.declared and 2 * distinct <= self.present:
            kind = f"dictionary<{kind}>"
        profile = Profile(
            name=self.name,
            type=kind,
            sample=cells,
            present=self.present,
            rows=self.rows,
            distinct=distinct,
            heads=_heads(cells, self.kind, table, folders=distinct >= OWN * self.present > 1),
        )
        return Look(profile, self.low, self.high, self.rising and self.present > 1, self.exact, self.infinite)


def _cut(cell: Any) -> Any:
    if isinstance(cell, bytes):
        head = media_head(cell, None, False, HEAD)
        return head if len(cell) > CUT and not cell.startswith(head) else cell[:CUT]
    if isinstance(cell, str):
        return cell[:CUT]
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        return {**cell, "bytes": _cut(cell["bytes"])}
    return cell


def _heads(cells: list[Any], kind: pa.DataType, table: Table, folders: bool) -> list[bytes]:
    """First bytes of the files in a sample: of bytes, of ``{bytes, path}``, and of text that may well be a path; ``folders``: also of one of a
    folder of frames."""
    if pt.is_string(kind):
        paths = [
            cell
            for cell in cells[:HEADS]
            if _PATH.fullmatch(cell) or (folders and is_frames(cell, table.folder, table.allow_outside))
        ]
        if 2 * len(paths) < len(cells[:HEADS]):
            return []
        cells = paths
    elif not (pt.is_binary(kind) or is_media(kind)):
        return []
    heads = []
    for cell in cells[:HEADS]:
        try:
            heads.append(media_head(cell, table.folder, table.allow_outside, HEAD))
        except BadCell:
            continue
    return heads
