"""Tables: rows of any source, streamed as Arrow batches in bounded memory.

It knows columns and their types; what they mean is the schema's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import BadCell, UserError, unknown
from sensorium.data.blocks import BATCH_BYTES, rows_without_columns
from sensorium.data.cells import media_cells, plain_cells
from sensorium.data.options import ReadOptions
from sensorium.data.sources import BadRow, Opened, open_source

MAX_REORDERED_BYTES = 1 << 30
"""Bytes of a table up to which its rows are reordered at once."""


class Table:
    """Table: the rows of one source, or a selection of them.

    Attributes:
        name: a short name.
        folder: what paths in cells are relative to; None: the table lies in no folder.
        allow_outside: whether paths in cells may leave the folder.
        schema: the columns and the types they are read as: one string, binary and list type, µs timestamps.
        columns: their names.
        declared: columns that the source itself calls categories.
        rows: how many rows.
    """

    def __init__(self, opened: Opened, *, allow_outside: bool = False, index: np.ndarray | None = None) -> None:
        self._bad: dict[int, BadRow] | None = None
        self._opened, self._blocks, self._index = opened, opened.blocks, index
        self.name, self.folder, self.allow_outside = opened.name, opened.folder, allow_outside
        self.schema: pa.Schema = self._blocks.schema
        self.columns: list[str] = list(self.schema.names)
        self.declared: set[str] = self._blocks.declared
        self.rows: int = self._blocks.rows if index is None else len(index)

    @classmethod
    def open(cls, source: Any, *, allow_outside: bool = False, options: ReadOptions | None = None) -> Table:
        """Open a table from a file, folder, database or object.

        Args:
            source: a file, a glob or a list of files (Parquet, CSV, JSON lines, Arrow, Excel, SQLite, ORC, Avro,
                NumPy, HDF5, tar, ZIP …), of which ``FILE#PART`` names a sheet, a table or a group; a folder;
                ``sql:URL#QUERY``;
                ``hf:NAME``;
                a pandas or polars DataFrame, Arrow data, a datasets.Dataset, a list of dicts, a dict of lists; one
                row as a dict of cells; or a Table.
            allow_outside: let paths in cells leave the table's folder.
            options: encoding, delimiter and limits of files.

        Raises:
            UserError: there is no such thing, it can't be read, two columns share a name, or there are too many.
        """
        if isinstance(source, Table):
            if allow_outside == source.allow_outside:
                return source
            return cls(source._opened, allow_outside=allow_outside, index=source._index)
        options = options or ReadOptions()
        opened = open_source(source, options)
        options.check_columns(len(opened.blocks.schema.names), f"'{opened.name}'")
        if opened.bad and len(opened.bad) >= opened.blocks.rows:
            raise UserError(
                f"'{opened.name}' has no row that can be read. The first: {next(iter(opened.bad.values()))}."
            )
        return cls(opened, allow_outside=allow_outside)

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {self.rows:,} rows, {len(self.columns)} columns)"

    @property
    def starts(self) -> np.ndarray:
        """First row of each block, and last the number of rows, [blocks + 1]. A block is cheap to read as a whole.

        A selection counts as one block a run of rows that lie in one block of its source.
        """
        if self._index is None:
            return self._blocks.starts
        block = np.searchsorted(self._blocks.starts, self._index, side="right")
        cuts = np.flatnonzero(np.diff(block)) + 1
        return np.concatenate([[0], cuts, [self.rows]]).astype(np.int64) if self.rows else np.zeros(1, np.int64)

    @property
    def bad_rows(self) -> dict[int, BadRow]:
        """Unreadable rows by their number: they count as rows whose cells are all missing."""
        if self._bad is None:
            bad = self._opened.bad
            rows = (
                np.flatnonzero(np.isin(self._index, list(bad)))
                if bad and self._index is not None
                else np.zeros(0, np.int64)
            )
            self._bad = bad if self._index is None else {int(row): bad[int(self._index[row])] for row in rows}
        return self._bad

    @property
    def good(self) -> np.ndarray:
        """Mask of the readable rows, bool [rows]."""
        result = np.ones(self.rows, bool)
        result[list(self.bad_rows)] = False
        return result

    @property
    def notes(self) -> list[str]:
        """Notes to the user on how the source was read: encodings, mended lines, bad rows; a sentence each."""
        notes = list(self._opened.notes)
        if self.bad_rows:
            row, bad = next(iter(self.bad_rows.items()))
            notes.append(f"{len(self.bad_rows):,} row(s) can't be read; the first is row {row:,} ({bad})")
        for column, cells in self.repaired.items():
            notes.append(f"column '{column}': {cells:,} cell(s) held bytes that don't decode, and have U+FFFD there")
        return notes

    @property
    def found(self) -> dict[str, dict[str, Any]]:
        """Facts by file, for programs: encoding, delimiter, number of mended lines."""
        return {file: found for file, found in self._opened.found.items() if found}

    @property
    def remarks(self) -> dict[str, str]:
        """Remarks by column, where cells were read as another type."""
        return self._blocks.remarks

    @property
    def repaired(self) -> dict[str, int]:
        """Number of cells by column with text that didn't decode and now has U+FFFD there, as far as was read."""
        total = dict(self._opened.repaired)
        for name, cells in self._blocks.repairs().items():
            total[name] = total.get(name, 0) + cells
        return total

    def batches(self, size: int = 1024, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of all rows in order, each with the number of its first row.

        A batch has at most ``size`` rows and about ``BATCH_BYTES`` bytes.

        Raises:
            UserError: a column isn't there, or the source can't be read further.
        """
        names = self._named(columns)
        if not names:
            yield from ((at, rows_without_columns(min(size, self.rows - at))) for at in range(0, self.rows, size))
            return
        pending: list[pa.RecordBatch] = []
        n_pending = taken = row = 0
        for piece in self._pieces(size, names):
            at = 0
            while at < piece.num_rows:
                part = piece.slice(at, size - n_pending)
                if pending and taken + part.nbytes > BATCH_BYTES:
                    yield row, _one(pending)
                    row, n_pending, taken, pending = row + n_pending, 0, 0, []
                    continue
                pending.append(part)
                at, n_pending, taken = at + part.num_rows, n_pending + part.num_rows, taken + part.nbytes
                if n_pending == size:
                    yield row, _one(pending)
                    row, n_pending, taken, pending = row + size, 0, 0, []
        if n_pending:
            yield row, _one(pending)

    def take(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Take rows in the given order; only their blocks are read.

        Raises:
            IndexError: a row isn't there.
            UserError: a column isn't there, or the source can't be read.
        """
        names = self._named(columns)
        wanted = np.asarray(rows, np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.rows):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a table that has {self.rows}")
        if self._index is not None:
            wanted = self._index[wanted]
        if not names:  # pyarrow's `take` forgets how many rows a table without columns has
            return pa.table({"row": pa.nulls(len(wanted))}).select([])
        unique, back = np.unique(wanted, return_inverse=True)
        pieces = list(self._picked(unique, names, 1024))
        table = pa.Table.from_batches(pieces) if pieces else self._schema(names).empty_table()
        if np.array_equal(back, np.arange(len(table))):
            return table
        if table.nbytes < MAX_REORDERED_BYTES and len(back) <= len(unique):
            return table.combine_chunks().take(pa.array(back))
        # Rows of large files one by one: joined, or named often, they may not fit into one array.
        starts = np.cumsum([0, *(piece.num_rows for piece in pieces)])
        owners = np.searchsorted(starts, back, side="right") - 1
        rows_ = zip(owners.tolist(), (back - starts[owners]).tolist(), strict=True)
        return pa.Table.from_batches([pieces[owner].slice(place, 1) for owner, place in rows_], table.schema)

    def select(self, rows: Sequence[int] | Sequence[bool] | np.ndarray) -> Table:
        """View of some rows, given as a mask over all or as row numbers in the wanted order.

        Raises:
            IndexError: a row isn't there, or the mask is of another length.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (self.rows,):
                raise IndexError(f"a mask of {len(chosen)} for a table of {self.rows} rows")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64).reshape(-1)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= self.rows):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of a table that has {self.rows}")
        index = chosen if self._index is None else self._index[chosen]
        return Table(self._opened, allow_outside=self.allow_outside, index=index)

    def cells(self, batch: pa.RecordBatch | pa.Table, column: str, media: bool) -> Iterator[Any | BadCell | None]:
        """Cells of one column of a batch, None where missing.

        Args:
            batch: from ``batches`` or ``take``.
            column: its name; a column the batch doesn't have is missing in every row.
            media: turn bytes, paths and ``{bytes, path}`` into bytes; one that can't be had comes as a BadCell.
        """
        at = batch.schema.get_field_index(column)
        if at < 0:
            yield from (None for _ in range(batch.num_rows))
            return
        array = batch.column(at)
        for chunk in array.chunks if isinstance(array, pa.ChunkedArray) else [array]:
            yield from media_cells(chunk, self.folder, self.allow_outside) if media else plain_cells(chunk)

    def _named(self, columns: Sequence[str] | None) -> list[str]:
        for name in columns or ():
            if name not in self.columns:
                raise unknown("column", name, self.columns)
        return self.columns if columns is None else list(dict.fromkeys(columns))

    def _schema(self, names: list[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name) for name in names])

    def _pieces(self, size: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        if self._index is None:
            for block in range(len(self._blocks.starts) - 1):
                yield from self._blocks.read(block, names, size)
        elif self.rows < 2 or (np.diff(self._index) > 0).all():
            yield from self._picked(self._index, names, size)
        else:
            for at in range(0, self.rows, size):
                yield from self.take(np.arange(at, min(at + size, self.rows)), names).to_batches()

    def _picked(self, rows: np.ndarray, names: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Rows of the source, ascending and each once, block by block."""
        starts = self._blocks.starts
        cuts = np.searchsorted(rows, starts)
        for block in np.flatnonzero(np.diff(cuts)):
            wanted = rows[cuts[block] : cuts[block + 1]] - starts[block]
            at = done = 0
            for batch in self._blocks.read(int(block), names, size):
                until = int(np.searchsorted(wanted, at + batch.num_rows))
                if until > done:
                    inside = wanted[done:until] - at
                    whole = len(inside) == inside[-1] - inside[0] + 1
                    # Without columns, rows are only counted: `take` would forget how many there are.
                    first = inside[0] if whole else 0
                    yield batch.slice(first, len(inside)) if whole or not names else batch.take(pa.array(inside))
                at, done = at + batch.num_rows, until
                if done == len(wanted):
                    break


def _one(pieces: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)
