"""Dataset splits for training, validation and tests, decided by content, never by the order of rows.

A row's part is a pure function of its content (or of its group's cell) and the seed, so equal rows are always on one
side, and so are the rows of one group. Codes take one byte a row.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sensorium.core.errors import UserError, unknown
from sensorium.core.files import atomic_write
from sensorium.data.cells import plain_cells
from sensorium.data.hashes import cell_hashes, mix, row_hashes
from sensorium.data.moments import cells_of, moments
from sensorium.data.schema import Schema
from sensorium.data.table import Table

__all__ = ["Splits", "entity_ids", "row_hashes", "split_rows"]

TRAIN, VALIDATION, TEST, ROWWISE = "train", "validation", "test", "alone"
ALIASES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "eval": VALIDATION,
}
"""Other names of the first two parts; any other part keeps its own."""
CARVED_SHARE, MAX_CARVED_ROWS = 0.1, 2000
"""Share of train, and most rows, that become validation where a split column has no such part."""
FEW_CARVED_ROWS, MAX_CARVED_SHARE = 24, 0.2
"""Rows that it has at least, as long as they are no larger a share of a small table."""


@dataclasses.dataclass
class Splits:
    """Split of a table: the part of each row.

    Attributes:
        names: the parts.
        codes: int8 [rows], a position in ``names``; -1 where a row is in none.
    """

    names: tuple[str, ...]
    codes: np.ndarray

    def rows(self, name: str) -> np.ndarray:
        """Rows of one part, ascending, int64.

        Raises:
            UserError: there is no such part.
        """
        if name not in self.names:
            raise unknown("part of the split", name, self.names)
        return np.flatnonzero(self.codes == self.names.index(name)).astype(np.int64)

    def counts(self) -> dict[str, int]:
        """Number of rows of each part."""
        return {name: int((self.codes == i).sum()) for i, name in enumerate(self.names)}

    def save(self, path: Path | str) -> None:
        """Write as Parquet, atomically."""
        table = pa.table({"code": pa.array(self.codes, pa.int8())}).replace_schema_metadata(
            {"names": json.dumps(self.names)}
        )
        with atomic_write(Path(path)) as part:
            pq.write_table(table, part)

    @classmethod
    def load(cls, path: Path | str) -> Splits:
        """Load what ``save`` wrote.

        Raises:
            UserError: it can't be read.
        """
        try:
            table = pq.read_table(path)
            names = tuple(json.loads(table.schema.metadata[b"names"]))
            return cls(names, table.column("code").to_numpy().astype(np.int8))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise UserError(f"The splits in '{path}' can't be read: {error}") from error


def split_rows(
    table: Table,
    schema: Schema,
    *,
    by: str = "auto",
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    group: str | None = None,
    carved: float = CARVED_SHARE,
    entity: str | None = None,
    rowwise: float = 0.0,
    but: Sequence[str] = (),
) -> Splits:
    """Split the rows of a table.

    Args:
        by: "auto": by the schema's split column, or by hash where there is none; "hash": by the hash of a row's
            content; "column:NAME": as that column says; "group:NAME": by the hash of that column's cell, so that no
            group is on both sides; "time:NAME": the last rows by that column are for tests, those before them for
            validation.
        shares: of train, validation and test, where a hash decides.
        seed: another one divides otherwise.
        carved: share of train that becomes validation where the split column has no such part.
        group: a column whose equal cells stay on one side, also where validation is carved from a column's train.
        entity: the same, but only where validation is carved: rows of one entity are all held out or none, so that
            validation measures generalisation to entities that training never saw.
        rowwise: share of train that becomes a part of its own ("alone"), row by row whatever their entities, so
            that it measures known entities. Rows that differ only in the columns ``but`` stay together.

    Raises:
        UserError: ``by`` or a column isn't known, the shares don't add up to 1, or no row is for training.
    """
    method, _, name = by.partition(":")
    if method not in ("auto", "hash", "column", "group", "time") or (method in ("column", "group", "time")) != bool(
        name
    ):
        raise UserError(f"Can't split by '{by}'. Possible: auto, hash, column:NAME, group:NAME, time:NAME.")
    if method == "group":
        group, method = name, "hash"
    if method == "auto":
        method, name = ("column", schema.split) if schema.split in table.columns else ("hash", "")
    for column in filter(None, (name if method in ("column", "time") else None, group, entity)):
        if column not in table.columns:
            raise unknown("column to split by:", column, table.columns)
    if method == "time":
        splits = _by_time(table, name, shares)
    elif method == "hash":
        splits = _by_hash(_keys(table, schema, group), shares, seed)
    else:
        splits = _by_column(table, str(name))
        if TRAIN not in splits.names:
            found = ", ".join(map(repr, splits.names)) or "nothing"
            raise UserError(
                f"The column '{name}' says of no row that it is for training. Found: {found}; needed: 'train'."
            )
        if VALIDATION not in splits.names:
            _carve(splits, VALIDATION, _keys(table, schema, group or entity, splits.rows(TRAIN)), seed, carved)
    if rowwise and ROWWISE not in splits.names:
        _carve(splits, ROWWISE, _keys(table, schema, group, splits.rows(TRAIN), but), seed + 1, rowwise)
    return splits


def entity_ids(table: Table, schema: Schema, entity_key: str, rows: np.ndarray) -> np.ndarray:
    """Entity of each of some rows, int64 [rows]: rows whose cells of ``entity_key`` are equal are of one entity."""
    return _keys(table, schema, entity_key, rows).view(np.int64)


def _keys(
    table: Table, schema: Schema, group: str | None, rows: np.ndarray | None = None, but: Sequence[str] = ()
) -> np.ndarray:
    """Keys that decide each row's part, uint64 [rows].

    A key is the hash of the row's group cell, or, without one, of its content except the columns ``but``.
    """
    part = table if rows is None else table.select(rows)
    keys = np.zeros(part.rows, np.uint64)
    if group is not None:
        for row, batch in part.batches(4096, [group]):
            keys[row : row + batch.num_rows] = cell_hashes(batch.column(0))
    ungrouped = np.flatnonzero(keys == 0)
    if len(ungrouped):
        content = [name for name in schema.columns if name in table.columns and name not in but]
        content = content or [name for name in table.columns if name != schema.split]
        rest = part if len(ungrouped) == part.rows else part.select(ungrouped)
        keys[ungrouped] = mix(row_hashes(rest, content) + np.uint64(1))
    return keys


def _uniform(keys: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each key and seed, float64."""
    salt = mix(np.array([(seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) % 2**64], np.uint64))
    return (mix(keys ^ salt) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _by_hash(keys: np.ndarray, shares: Sequence[float], seed: int) -> Splits:
    parts = tuple(float(share) for share in shares)
    if len(parts) != 3 or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        raise UserError(f"Shares {tuple(shares)} aren't three shares (train, validation, test) that add up to 1.")
    unique, at = np.unique(keys, return_inverse=True)
    chance = _uniform(unique, seed)
    ends = np.cumsum(parts)
    codes = np.minimum(np.searchsorted(ends, chance, side="right"), 2).astype(np.int8)
    # A small table's part may come out empty: it gets the key nearest to it from the fullest part that can spare one.
    for part in (code for code in range(3) if parts[code] > 0):
        counts = np.bincount(codes, minlength=3)
        if counts[part] == 0 and counts.max() > 1:
            from_ = np.flatnonzero(codes == counts.argmax())
            codes[from_[np.abs(chance[from_] - (ends[part] - parts[part] / 2)).argmin()]] = part
    return Splits((TRAIN, VALIDATION, TEST), codes[at.reshape(-1)].astype(np.int8))


def _by_time(table: Table, column: str, shares: Sequence[float]) -> Splits:
    """Split by time: rows without a moment are for training, and rows of one moment stay together."""
    found = moments(cells_of(table, column))
    known = np.sort(found[np.isfinite(found)])
    if not len(known):
        raise UserError(f"The column '{column}' holds no moment to split by. Split by another one, or: data.split=hash")
    ends = [known[min(int(share * len(known)), len(known) - 1)] for share in np.cumsum(shares)[:2]]
    codes = np.where(found >= ends[1], 2, np.where(found >= ends[0], 1, 0))
    return Splits((TRAIN, VALIDATION, TEST), codes.astype(np.int8))


def _by_column(table: Table, column: str) -> Splits:
    """Split by a column's values, whatever its type; a row with a missing cell is in no part."""
    names: dict[str, int] = {}
    codes = np.full(table.rows, -1, np.int8)
    for row, batch in table.batches(8192, [column]):
        coded = pc.dictionary_encode(batch.column(0))
        known = []
        for cell in plain_cells(coded.dictionary):
            name = "" if cell is None else str(cell).strip()
            name = ALIASES.get(name.lower(), name)
            known.append(names.setdefault(name, len(names)) if name else -1)
            if len(names) > 100:
                raise UserError(f"The column '{column}' has more than 100 different values, so it is no split.")
        known = np.array([*known, -1], np.int8)  # the last one is for null
        indices = coded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
        codes[row : row + batch.num_rows] = known[indices]
    # The parts' order must not depend on the rows' order.
    first = {TRAIN: 0, VALIDATION: 1}
    order = sorted(names, key=lambda name: (first.get(name, 2), name))
    renumbered = np.array([*(order.index(name) for name in names), -1], np.int8)
    return Splits(tuple(order), renumbered[codes])


def _carve(splits: Splits, name: str, keys: np.ndarray, seed: int, share: float) -> None:
    """Make a share of train a part of its own, in place: whole keys with the smallest chances, up to the bound."""
    train = splits.rows(TRAIN)
    unique, at, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(_uniform(unique, seed), kind="stable")
    least = min(FEW_CARVED_ROWS, int(MAX_CARVED_SHARE * len(train))) if share == CARVED_SHARE else 1
    room = max(1, least, min(MAX_CARVED_ROWS, int(share * len(train))))
    chosen = np.zeros(len(unique), bool)
    for i in order.tolist() if len(unique) > 1 else []:
        if counts[i] <= room:
            chosen[i] = True
            room -= int(counts[i])
        if not room:
            break
    if not chosen.any() and len(unique) > 1:
        chosen[order[counts[order].argmin()]] = True
    position = splits.names.index(TRAIN) + 1
    splits.codes[splits.codes >= position] += 1
    splits.names = (*splits.names[:position], name, *splits.names[position:])
    splits.codes[train[chosen[at.reshape(-1)]]] = position
