"""Block-wise reading: every source gives its rows in blocks.

A block is a row group, a record batch or a slice; any can be read by itself.

It knows where rows lie and how to read them, nothing of what columns mean.
"""

from __future__ import annotations

import abc
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.errors import UserError
from sensorium.data.arrow import as_normal, clean, common_type, is_media, normal_type, split_by_bytes
from sensorium.data.pycells import plain

BLOCK_ROWS, BATCH_BYTES = 8192, 8 << 20
"""Rows of a block where we choose it, and approximate bytes that are read at once."""
MAX_STRUCT_DEPTH = 4
"""Levels of structs that are flattened into columns."""


class Blocks(abc.ABC):
    """Rows that can be read block by block.

    A struct column opens into one column for each of its keys, named ``column.key``.

    Attributes:
        schema: names and normal types.
        starts: row number of each block's first row, and the number of rows at the end [blocks + 1].
        declared: columns whose type says that they are categories (dictionaries, class labels).
        repaired: for each column the rows whose text held bytes that were no UTF-8, as far as they were read.
        remarks: for some columns what their cells were read as, or why they can't be, in words.
    """

    def __init__(self, schema: pa.Schema, counts: Sequence[int], where: str) -> None:
        names = names_of(schema, where)
        check_distinct_names(names, where)
        self.inside: dict[str, tuple[str, ...]] = {}
        self.kinds: dict[str, pa.Field] = {}
        fields = []
        for path, field in flattened_fields(schema):
            name = ".".join(path)
            self.inside[name], self.kinds[name] = path, field
            fields.append((name, pa.timestamp("us") if period_of(field) else normal_type(field.type)))
        self.schema = pa.schema(fields)
        self.starts = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)
        self.declared = {name for name, field in self.kinds.items() if pa.types.is_dictionary(field.type)}
        self.repaired: dict[str, set[int]] = {}
        self.remarks = {name: words for name, field in self.kinds.items() if (words := remark_of(field))}
        self.where = where

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    def repairs(self) -> dict[str, int]:
        """Number of cells with invalid UTF-8 by column, among those read so far."""
        return {name: len(rows) for name, rows in self.repaired.items()}

    @abc.abstractmethod
    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The rows of one block in batches of at most ``size``, in any type that joins into the schema's.

        A column that this block doesn't have may be left out; structs come whole.
        """

    def read(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Rows of one block in batches of at most ``size`` rows and about ``BATCH_BYTES`` bytes.

        Types are normal and texts valid.

        Raises:
            UserError: the source can't be read there.
        """
        row, end = int(self.starts[block]), int(self.starts[block + 1])
        if not columns:
            yield from (rows_without_columns(min(size, end - at)) for at in range(row, end, size))
            return
        sources = list(dict.fromkeys(self.inside[name][0] for name in columns))
        try:
            for whole in self.stream(block, sources, size):
                for batch in split_by_bytes(whole, BATCH_BYTES):
                    yield self._normal(batch, columns, row)
                    row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.where} can't be read near row {row:,} of {self.rows:,}: {str(error).splitlines()[0]} "
                "The file may be damaged: copy it again, or leave it out."
            ) from error
        if row != end:
            raise UserError(f"{self.where} says it has {self.rows:,} rows, but ends near row {row:,}. Copy it again.")

    def _as(self, array: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
        """A column's cells as its normal type; nulls, and a remark, where Arrow can't turn them into it."""
        try:
            return as_normal(array, kind)
        except (
            pa.ArrowNotImplementedError,
            pa.ArrowTypeError,
            TypeError,
            ValueError,
            OverflowError,
            KeyError,
        ) as error:
            with contextlib.suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
                return pa.array(list(map(plain, array.to_pylist())), kind)
            self.remarks[name] = (
                f"cells of type {self.kinds[name].type} can't be read as {kind}: {str(error).splitlines()[0]}"
            )
            return pa.nulls(len(array), kind)

    def _normal(self, batch: pa.RecordBatch, columns: list[str], row: int) -> pa.RecordBatch:
        arrays = []
        for name in columns:
            kind, path = self.schema.field(name).type, self.inside[name]
            at = batch.schema.get_field_index(path[0])
            if at < 0 or (name in self.remarks and pa.types.is_null(kind)):
                arrays.append(pa.nulls(batch.num_rows, kind))
                continue
            array = batch.column(at)
            for key in path[1:]:
                array = pc.struct_field(array, key)
            array = dates_of(array, period) if (period := period_of(self.kinds[name])) else self._as(array, kind, name)
            array, bad = clean(array)
            if len(bad):
                self.repaired.setdefault(name, set()).update((bad + row).tolist())
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(name) for name in columns]))


def names_of(schema: pa.Schema, where: str) -> list[str]:
    """The names of a schema's columns.

    Raises:
        UserError: one is no text.
    """
    try:
        return list(schema.names)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} names a column in bytes that are no UTF-8 ({error.object[:40]!r}). "
            "Write the file again with another name."
        ) from error


def flattened_fields(schema: pa.Schema) -> Iterator[tuple[tuple[str, ...], pa.Field]]:
    """Path and field of each column: structs are flattened into their keys, except those of files (bytes, path)."""
    taken = set(schema.names)

    def inside(path: tuple[str, ...], field: pa.Field) -> Iterator[tuple[tuple[str, ...], pa.Field]]:
        kind = field.type
        keys = (
            [part.name for part in kind]
            if pa.types.is_struct(kind) and len(path) < MAX_STRUCT_DEPTH and not is_media(kind)
            else []
        )
        if not keys or len(set(keys)) < len(keys) or any(".".join((*path, key)) in taken for key in keys):
            yield path, field
            return
        for part in kind:
            yield from inside((*path, part.name), part)

    for field in schema:
        yield from inside((field.name,), field)


def remark_of(field: pa.Field) -> str:
    """Remark on a column that is read as another type, or can't be read; else empty."""
    kind = field.type
    if period := period_of(field):
        known = period.lstrip("0123456789").partition("-")[0] in PERIOD_UNITS
        return (
            f"periods ({period}), read as the dates they begin at"
            if known
            else f"periods of {period} can't be read; write them as dates"
        )
    if pa.types.is_duration(kind):
        return "durations, read as numbers of seconds"
    if pa.types.is_null(normal_type(kind)) and not pa.types.is_null(kind) and not pa.types.is_struct(kind):
        return f"cells of type {kind} can't be read; write them as numbers, dates or text"
    return ""


def period_of(field: pa.Field) -> str | None:
    """The frequency of a column of pandas periods, as "M"; None for any other column."""
    kind, metadata = field.type, field.metadata or {}
    if getattr(kind, "extension_name", "") == "pandas.period" and hasattr(kind, "freq"):
        return str(kind.freq)
    if metadata.get(b"ARROW:extension:name") == b"pandas.period":
        try:
            return str(json.loads(metadata[b"ARROW:extension:metadata"])["freq"])
        except (ValueError, KeyError, TypeError):
            return None
    return None


PERIOD_UNITS = {
    "Y": "M", "A": "M", "Q": "M", "M": "M", "W": "W", "D": "D", "h": "h", "H": "h", "min": "m", "T": "m", "s": "s",
    "S": "s", "ms": "ms",
    "L": "ms", "us": "us", "U": "us",
}  # fmt: skip
"""NumPy's units of pandas' frequencies; years and quarters are counted in months."""
MONTHS = {"Y": 12, "A": 12, "Q": 3}
YEAR_ENDS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEK_ENDS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


def dates_of(array: pa.Array, period: str) -> pa.Array:
    """Start of each pandas period, timestamps in µs; null where the frequency isn't known.

    ``Q-JAN`` are quarters of years that end with January, ``W-SAT`` weeks that end with Saturday.
    """
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    unit, _, ends = period.lstrip("0123456789").partition("-")
    if unit not in PERIOD_UNITS:
        return pa.nulls(len(array), pa.timestamp("us"))
    numbers = pc.fill_null(storage.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) * MONTHS.get(unit, 1)
    if unit in MONTHS:
        numbers = numbers + YEAR_ENDS.index(ends or "DEC") - 11
    begin = numbers.astype(f"datetime64[{PERIOD_UNITS[unit]}]")
    if unit == "W":  # NumPy's weeks begin on Thursdays
        begin = begin.astype("datetime64[D]") - np.timedelta64(10 - WEEK_ENDS.index(ends or "SUN"), "D")
    return pa.array(
        begin.astype("datetime64[us]"), pa.timestamp("us"), mask=~storage.is_valid().to_numpy(zero_copy_only=False)
    )


class MemoryBlocks(Blocks):
    """An Arrow table that is in memory already (or mapped into it)."""

    def __init__(self, table: pa.Table, where: str) -> None:
        self.batches = [batch for batch in table.to_batches(max_chunksize=BLOCK_ROWS) if batch.num_rows]
        counts = [batch.num_rows for batch in self.batches] if table.num_columns else [table.num_rows]
        super().__init__(table.schema, counts, where)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices; nothing is copied."""
        batch = self.batches[block].select(columns)
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


class ConcatenatedBlocks(Blocks):
    """Concatenation of several sources; a column that one of them lacks is missing there.

    Args:
        parts: the sources.
        where: what they are, for messages.
        marks: a column to add and its value in each part, such as ``("split", ["train", "test"])``.
    """

    def __init__(self, parts: Sequence[Blocks], where: str, marks: tuple[str, Sequence[str]] | None = None) -> None:
        self.parts = list(parts)
        fields: dict[str, pa.DataType] = {}
        for part in self.parts:
            for field in part.schema:
                fields[field.name] = common_type(fields.get(field.name, pa.null()), field.type)
        self.mark, self.marks = marks if marks and marks[0] not in fields else (None, [])
        if self.mark:
            fields[self.mark] = pa.string()
        counts = [int(n) for part in self.parts for n in np.diff(part.starts)]
        super().__init__(pa.schema(list(fields.items())), counts, where)
        self.declared = set().union(*(part.declared for part in self.parts))
        for part in self.parts:
            self.remarks |= part.remarks
        self.owner = [(i, block) for i, part in enumerate(self.parts) for block in range(len(part.starts) - 1)]

    def repairs(self) -> dict[str, int]:
        """The parts' own counts, added."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.repairs())
        return dict(total)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The batches of the part that the block belongs to."""
        index, inner = self.owner[block]
        part = self.parts[index]
        names = [name for name in columns if name in part.schema.names]
        for batch in part.read(inner, names, size):
            if self.mark in columns:
                mark = pa.array([self.marks[index]]).take(pa.array(np.zeros(batch.num_rows, np.int64)))
                yield pa.RecordBatch.from_arrays([*batch.columns, mark], names=[*names, self.mark])
            else:
                yield batch


def rows_without_columns(rows: int) -> pa.RecordBatch:
    """Record batch of rows without columns."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def check_distinct_names(names: Sequence[str], where: str) -> None:
    """Refuse a table in which two columns share a name.

    Raises:
        UserError: naming them.
    """
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        named = ", ".join(map(repr, twice))
        raise UserError(f"{where} has several columns named {named}. Give each column its own name.")
