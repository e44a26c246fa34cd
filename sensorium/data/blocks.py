"""Rows in blocks: what every source ends as. A block is a row group, a record batch or a slice; any can be read alone.

It knows where rows lie and how to read them, nothing of what columns mean.
"""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.data.arrow import clean, joined, normal, normal_type

BLOCK = 8192
"""Rows of a block where we choose it."""


class Blocks(abc.ABC):
    """Rows that can be read block by block.

    Attributes:
        schema: names and normal types.
        starts: row number of each block's first row, and the number of rows at the end [blocks + 1].
        declared: columns whose type says that they are categories (dictionaries, class labels).
        repaired: for each column the rows whose text held bytes that were no UTF-8, as far as they were read.
    """

    def __init__(self, schema: pa.Schema, counts: Sequence[int], where: str) -> None:
        distinct(schema.names, where)
        self.schema = pa.schema([(field.name, normal_type(field.type)) for field in schema])
        self.starts = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)
        self.declared = {field.name for field in schema if pa.types.is_dictionary(field.type)}
        self.repaired: dict[str, set[int]] = {}
        self.where = where

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.starts[-1])

    def repairs(self) -> dict[str, int]:
        """For each column how many cells, among those read so far, held text that was no UTF-8."""
        return {name: len(rows) for name, rows in self.repaired.items()}

    @abc.abstractmethod
    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The rows of one block in batches of at most ``size``, in any type that joins into the schema's.

        A column that this block doesn't have may be left out.
        """

    def read(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """The rows of one block in batches of at most ``size``: columns in the asked order, normal types, valid text.

        Raises:
            UserError: the source can't be read there.
        """
        row, end = int(self.starts[block]), int(self.starts[block + 1])
        if not columns:
            yield from (bare(min(size, end - at)) for at in range(row, end, size))
            return
        try:
            for batch in self.stream(block, columns, size):
                yield self._normal(batch, columns, row)
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.where} can't be read near row {row:,} of {self.rows:,}: {str(error).splitlines()[0]} "
                "The file may be damaged: copy it again, or leave it out."
            ) from error
        if row != end:
            raise UserError(f"{self.where} says it has {self.rows:,} rows, but ends near row {row:,}. Copy it again.")

    def _normal(self, batch: pa.RecordBatch, columns: list[str], row: int) -> pa.RecordBatch:
        arrays = []
        for name in columns:
            kind = self.schema.field(name).type
            at = batch.schema.get_field_index(name)
            if at < 0:
                arrays.append(pa.nulls(batch.num_rows, kind))
                continue
            array, bad = clean(normal(batch.column(at), kind))
            if len(bad):
                self.repaired.setdefault(name, set()).update((bad + row).tolist())
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([self.schema.field(name) for name in columns]))


class Memory(Blocks):
    """An Arrow table that is in memory already (or mapped into it)."""

    def __init__(self, table: pa.Table, where: str) -> None:
        self.batches = [batch for batch in table.to_batches(max_chunksize=BLOCK) if batch.num_rows]
        if not table.num_columns and table.num_rows:
            raise UserError(f"{where} has rows but no columns.")
        super().__init__(table.schema, [batch.num_rows for batch in self.batches], where)

    def stream(self, block: int, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Slices; nothing is copied."""
        batch = self.batches[block].select(columns)
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


class Joined(Blocks):
    """Several sources one after another; a column that one of them lacks is missing there.

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
                fields[field.name] = joined(fields.get(field.name, pa.null()), field.type)
        self.mark, self.marks = marks if marks and marks[0] not in fields else (None, [])
        if self.mark:
            fields[self.mark] = pa.string()
        counts = [int(n) for part in self.parts for n in np.diff(part.starts)]
        super().__init__(pa.schema(list(fields.items())), counts, where)
        self.declared = set().union(*(part.declared for part in self.parts))
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


def bare(rows: int) -> pa.RecordBatch:
    """Rows without columns."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def distinct(names: Sequence[str], where: str) -> None:
    """Refuse a table in which two columns share a name.

    Raises:
        UserError: naming them.
    """
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        named = ", ".join(map(repr, twice))
        raise UserError(f"{where} has several columns named {named}. Give each column its own name.")
