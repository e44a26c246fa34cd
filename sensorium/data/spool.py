"""Spooling: sources without random access (CSV, JSON lines, tar) are streamed into one Parquet file.

The file lies in a folder of this process, below ``SENSORIUM_CACHE`` or the system's folder for temporary files, and is
removed when it is no longer used; what a killed process left behind goes when the next one starts.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from sensorium.core.errors import UserError
from sensorium.data.arrow import as_normal, common_type
from sensorium.data.blocks import Blocks, check_distinct_names

try:
    import fcntl
except ImportError:  # not POSIX: leftovers are not swept
    fcntl = None

PIECE_ROWS = 8192
PIECE_BYTES = 32 << 20
"""Rows and bytes of the pieces in which a source gives its rows; the first limit that is reached ends one."""

Final = Mapping[str, tuple[pa.DataType, Callable[[pa.Array], pa.Array]]]
"""Final type of some columns, and the function that parses a written array into it."""

_PREFIX = "sensorium-tables-"
_folders: dict[Path, tuple[int, Path, object]] = {}


class Spool:
    """Spool of a table: pieces in, one Parquet file out.

    Each column has the smallest type that fits all its cells.

    While the types stay, a piece goes straight to the file. Where a later piece needs wider ones a second file begins,
    and ``finish`` joins them, streaming.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.folder = Path(tempfile.mkdtemp(prefix="table-", dir=cache_folder()))
        self.rows = self.bare = 0
        self.fields: dict[str, pa.DataType] = {}
        self.parts: list[Path] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, columns: Mapping[str, pa.Array], rows: int) -> None:
        """Write ``rows`` rows; a column that isn't given is missing in them.

        Raises:
            UserError: the disk is full.
        """
        if not rows:
            return
        wider = dict(self.fields)
        for name, array in columns.items():
            wider[name] = common_type(wider.get(name, pa.null()), array.type)
        if not wider:  # no column is known yet: a Parquet file has no rows without one
            self.bare, self.rows = self.bare + rows, self.rows + rows
            return
        if self._writer is None or wider != self.fields:
            self._close()
            self.fields = wider
            self.parts.append(self.folder / f"part-{len(self.parts)}.parquet")
            self._writer = _writer(self.parts[-1], self.schema)
        with _writing(self.folder):
            if self.bare:
                self._writer.write_batch(_batch({}, self.schema, self.bare))
                self.bare = 0
            self._writer.write_batch(_batch(columns, self.schema, rows))
        self.rows += rows

    def add_blocks(self, blocks: Blocks) -> None:
        """Write all rows of ``blocks``, piece by piece."""
        for block in range(len(blocks.starts) - 1):
            for piece in blocks.read(block, blocks.schema.names, PIECE_ROWS):
                self.add(dict(zip(piece.schema.names, piece.columns, strict=True)), piece.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """Schema of the columns so far."""
        return pa.schema(list(self.fields.items()))

    def pieces(self) -> Iterator[pa.RecordBatch]:
        """Batches written so far, in order."""
        self._close()
        for part in self.parts:
            with pq.ParquetFile(part, buffer_size=1 << 20, pre_buffer=False) as file:
                yield from file.iter_batches(PIECE_ROWS)

    def finish(self, final: Final | None = None) -> Path:
        """Finish the file, parse the cells of some columns, and give its path."""
        self._close()
        final = {name: parse for name, parse in (final or {}).items() if parse[0] != self.fields.get(name)}
        for name, (kind, _) in final.items():
            self.fields[name] = kind
        path = self.folder / "table.parquet"
        if len(self.parts) == 1 and not final:
            os.replace(self.parts[0], path)
            return path
        part = path.with_suffix(".part")
        with _writing(self.folder), _writer(part, self.schema) as writer:
            for piece in self.pieces():
                arrays = dict(zip(piece.schema.names, piece.columns, strict=True))
                arrays |= {name: parse(arrays[name]) for name, (_, parse) in final.items() if name in arrays}
                writer.write_batch(_batch(arrays, self.schema, piece.num_rows))
        for old in self.parts:
            old.unlink()
        os.replace(part, path)
        return path

    def _close(self) -> None:
        if self._writer is not None:
            with _writing(self.folder):
                self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Remove all that was written."""
        with contextlib.suppress(Exception):
            self._close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def spooling(where: str) -> Generator[Spool]:
    """Context of a spool that leaves nothing behind when its source fails."""
    spool = Spool(where)
    try:
        yield spool
    except BaseException:
        spool.discard()
        raise


def drop_with(owner: object, path: Path) -> None:
    """Remove the finished file at ``path`` when ``owner`` is no longer used."""
    weakref.finalize(owner, _remove, path.parent, os.getpid())


def _batch(columns: Mapping[str, pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    arrays = [as_normal(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    check_distinct_names(schema.names, "The table")
    repeated = [field.name for field in schema if pt.is_string(field.type)]
    with _writing(path.parent):
        return pq.ParquetWriter(
            path, schema, compression="lz4", use_dictionary=repeated or False, write_statistics=False, version="2.6"
        )


@contextlib.contextmanager
def _writing(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise UserError(
                f"No space left on the disk while converting a table in {folder.parent}. Free some, or set the "
                "environment variable SENSORIUM_CACHE to a folder on a larger disk."
            ) from error
        raise


def cache_folder() -> Path:
    """Folder of this process for converted tables; it is made at the first call and removed at exit."""
    root = Path(os.environ.get("SENSORIUM_CACHE") or tempfile.gettempdir())
    if root in _folders and _folders[root][0] == os.getpid() and _folders[root][1].is_dir():
        return _folders[root][1]
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            lock = _lock(folder)
            if folder.is_dir():
                break
            os.close(lock)  # another process took it for a leftover before the lock was ours
    except OSError as error:
        raise UserError(
            f"Tables are converted below {root}, where no folder can be made: {error.strerror}. Set the environment "
            "variable SENSORIUM_CACHE to a folder that can be written."
        ) from error
    _folders[root] = (os.getpid(), folder, lock)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _lock(folder: Path) -> int:
    """Lock file that stays locked for as long as this process lives, however it ends."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _sweep(root: Path) -> None:
    """Remove the folders of processes that are no more: nobody holds their lock."""
    if fcntl is None:
        return
    for folder in root.glob(f"{_PREFIX}*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(lock)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child must not take its parent's files away
        shutil.rmtree(folder, ignore_errors=True)
