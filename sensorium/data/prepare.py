"""Preprocessing of a table, once: read every cell, quarantine bad ones, fit statistics, store the cells for training.

Memory doesn't grow with rows: the table streams by row group, and cells go to the store as they are read.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium.core.errors import BadCell
from sensorium.data.order import evenly_spaced
from sensorium.data.quarantine import Quarantine
from sensorium.data.store import CellStore, CellStoreWriter
from sensorium.data.table import Table
from sensorium.modalities import Modality

MEDIA_BATCH_ROWS, BATCH_ROWS = 128, 1024
"""Rows of a batch, with and without media."""
CELLS_PER_TASK = 8
"""Cells of one task of a worker."""

RELEASE_ROWS = 65_536
"""Rows after which mapped pages are released."""

WHOLE_ROW = "(row)"
"""Name in the quarantine, in place of a column, where a whole row can't be read."""
MAX_LEARN_ROWS = 20_000
"""Most training rows from which statistics are fitted, evenly spaced."""


@dataclasses.dataclass
class Prepared:
    """Prepared table, ready for training.

    Attributes:
        read: the store of read cells; ready: the store of prepared cells (the same where nothing is prepared).
        rows: for each part of the split the store's rows, ascending; source: the table's row of each store row.
    """

    read: CellStore
    ready: CellStore
    rows: dict[str, np.ndarray]
    source: np.ndarray


Parts = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""``parts(left_out)``: the split of a table's rows without some of them (bool for each row), its parts ascending."""


def read_rows(
    table: Table,
    modalities: Mapping[str, Modality],
    wanted: np.ndarray,
    quarantine: Quarantine | None = None,
    workers: int = 2,
    done: Callable[[int], None] = lambda rows: None,
    bad: Callable[[int, str, str], None] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray | None]]]:
    """Read the rows where ``wanted`` (bool for each row of the table) is true: (row, read cells).

    A row with a cell that can't be read goes to the quarantine and is left out; without a quarantine the cell is
    treated as missing, and ``bad(row, column, reason)`` is called.
    """
    present = [column for column in modalities if column in table.columns]
    with ThreadPoolExecutor(workers) as pool:
        for start, count, keep, part, reading in prefetch(read_batches(table, modalities, present, wanted, pool)):
            if len(keep):
                columns = {column: list(cells) for column, cells in reading.items()}
                for i, row in enumerate((keep + start).tolist()):
                    cells = {column: values[i] for column, values in columns.items()}
                    wrong = {column: value for column, value in cells.items() if isinstance(value, BadCell)}
                    if quarantine is None:
                        for column, error in wrong.items():
                            if bad is not None:
                                bad(row, column, str(error))
                        yield row, {column: None if column in wrong else value for column, value in cells.items()}
                    elif wrong:
                        for column, error in wrong.items():
                            cell = next(iter(table.cells(part.slice(i, 1), column, False)), None)
                            quarantine.add(row, column, str(error), cell)
                    else:
                        yield row, cells
                if quarantine is not None:
                    quarantine.check(int(wanted[: start + count].sum()) + len(table.bad_rows), final=False)
            done(count)


PendingBatch = tuple[int, int, np.ndarray, pa.RecordBatch, dict[str, Iterator[Any]]]
"""Batch whose cells the workers are reading.

Its first row, its number of rows, the positions of the wanted ones, these rows only, and their cells by column."""


def read_batches(
    table: Table,
    modalities: Mapping[str, Modality],
    columns: Sequence[str],
    wanted: np.ndarray,
    pool: ThreadPoolExecutor,
) -> Iterator[PendingBatch]:
    """Start reading the batches of a table: media in the workers, all else lazily."""
    size = MEDIA_BATCH_ROWS if any(modalities[column].media for column in columns) else BATCH_ROWS
    for start, batch in table.batches(size, columns=columns):
        keep = np.flatnonzero(wanted[start : start + batch.num_rows])
        part = batch.take(keep) if len(keep) < batch.num_rows else batch
        reading = {}
        for column in columns if len(keep) else ():
            modality = modalities[column]
            cells = table.cells(part, column, modality.media)
            read = functools.partial(try_read, modality)
            reading[column] = map_cells(pool, read, list(cells)) if modality.media else map(read, cells)
        yield start, batch.num_rows, keep, part, reading


def map_cells(pool: ThreadPoolExecutor, read: Callable[[object], Any], cells: Sequence[object]) -> Iterator[Any]:
    """Parallel map of ``read`` over cells, in order.

    A task has several cells, as waking a worker costs as much as a small picture.
    """
    parts = (cells[at : at + CELLS_PER_TASK] for at in range(0, len(cells), CELLS_PER_TASK))
    return itertools.chain.from_iterable(pool.map(lambda part: [read(cell) for cell in part], parts))


def prefetch(batches: Iterator[PendingBatch]) -> Iterator[PendingBatch]:
    """Prefetch: each batch is given out once the next one is started, so that workers are never idle."""
    current = next(batches, None)
    while current is not None:
        following = next(batches, None)
        yield current
        current = following


def try_read(modality: Modality, cell: object) -> np.ndarray | BadCell | None:
    """Read a cell: the result, None where missing, or a BadCell with the reason."""
    if cell is None or isinstance(cell, BadCell):
        return cell
    try:
        return modality.read(cell)
    except BadCell as error:
        return BadCell(str(error))  # without the frames that hold the cell


def prepare(
    table: Table,
    modalities: Mapping[str, Modality],
    parts: Parts,
    folder: Path,
    quarantine: Quarantine,
    stored: Collection[str] = ("train", "validation"),
    workers: int = 2,
    done: Callable[[int], None] = lambda rows: None,
) -> Prepared:
    """Read the rows of a split, store some parts in ``folder``, fit the modalities to "train", prepare all cells.

    A row that can't be read counts as absent: the split and all statistics are those of the other rows.

    Args:
        parts: the split of the rows that can be read.
        stored: the parts that training uses; the others are read only to find their bad cells.

    Raises:
        UserError: more bad rows than allowed, or the disk is full.
    """
    for row, bad in table.bad_rows.items():
        quarantine.add(row, WHOLE_ROW, str(bad), bad.preview)
    code, names = part_codes(table.rows, parts(~table.good))
    wanted = code >= 0
    looked = int(wanted.sum()) + len(table.bad_rows)
    quarantine.check(looked, final=False)
    writer, source = CellStoreWriter(folder / "read", list(modalities)), array("q")
    with writer:
        for row, cells in read_rows(table, modalities, wanted, quarantine, workers, done):
            if names[code[row]] in stored:
                writer.add(cells)
                source.append(row)
        quarantine.check(looked)
        read = writer.close()
    stored_rows = np.array(source, dtype=np.int64)
    while True:
        before = len(quarantine)
        if quarantine.rows:
            left_out = np.zeros(table.rows, dtype=bool)
            left_out[list(quarantine.rows)] = True
            code, names = part_codes(table.rows, parts(left_out))
        rows = {
            name: np.flatnonzero(code[stored_rows] == number) for number, name in enumerate(names) if name in stored
        }
        learn_from(read, modalities, rows.get("train", np.zeros(0, np.int64)))
        ready = prepare_cells(read, modalities, stored_rows, code[stored_rows] >= 0, folder / "ready", quarantine)
        if len(quarantine) == before:
            read.release()
            ready.release()
            return Prepared(read, ready, rows, stored_rows)
        quarantine.check(looked)


def part_codes(rows: int, parts: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Number of each row's part, int8 [rows], -1 where it is in none; and the parts' names."""
    code = np.full(rows, -1, dtype=np.int8)
    for number, part in enumerate(parts.values()):
        code[part] = number
    return code, list(parts)


def prepare_cells(
    read: CellStore,
    modalities: Mapping[str, Modality],
    source: np.ndarray,
    wanted: np.ndarray,
    folder: Path,
    quarantine: Quarantine,
) -> CellStore:
    """Store with prepared cells of wanted rows, where their modality prepares; a cell that fails is quarantined."""
    changed = [c for c, m in modalities.items() if m.prepares and c in read.columns]
    if not changed:
        return read
    with CellStoreWriter(folder, changed) as writer:
        for start in range(0, read.rows, MEDIA_BATCH_ROWS):
            if start % RELEASE_ROWS == 0:
                read.release()
            rows = range(start, min(start + MEDIA_BATCH_ROWS, read.rows))
            found: dict[str, dict[int, np.ndarray | BadCell]] = {}
            for column in changed:
                given = {row: cell for row in rows if wanted[row] and (cell := read.columns[column][row]) is not None}
                found[column] = dict(zip(given, modalities[column].prepare_all(list(given.values())), strict=True))
            for row in rows:
                cells = {column: ready.get(row) for column, ready in found.items()}
                for column, cell in cells.items():
                    if isinstance(cell, BadCell):
                        quarantine.add(int(source[row]), column, str(cell), read.columns[column][row])
                writer.add({column: None if isinstance(cell, BadCell) else cell for column, cell in cells.items()})
        ready = writer.close()
    ready.columns = {column: ready.columns.get(column, read.columns[column]) for column in read.columns}
    return ready


def learn_from(store: CellStore, modalities: Mapping[str, Modality], rows: np.ndarray) -> None:
    """Fit each modality's statistics to up to ``MAX_LEARN_ROWS`` evenly spaced training rows."""
    some = evenly_spaced(rows, MAX_LEARN_ROWS)
    kinds: dict[type[Modality], dict[str, tuple[Modality, Sequence[np.ndarray]]]] = {}
    for column, modality in modalities.items():
        kind = type(modality)
        if kind.learn is Modality.learn and kind.learn_together.__func__ is Modality.learn_together.__func__:
            continue
        cells = Sample(store, column, some)
        kinds.setdefault(kind, {})[column] = (modality, cells)
    for kind, columns in kinds.items():
        kind.learn_together(columns)


class Sample(Sequence):
    """Lazy sequence of the present cells of some rows, fetched from the store on access."""

    def __init__(self, store: CellStore, column: str, rows: np.ndarray) -> None:
        self.part = store.columns[column]
        self.rows = [int(r) for r in rows if self.part.offsets[int(r) + 1] > self.part.offsets[int(r)]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self.part[row] for row in itertools.islice(self.rows, *i.indices(len(self.rows)))]
        return self.part[self.rows[i]]
