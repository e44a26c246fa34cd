"""The contract of a source: one family of things that a table can be opened from, in one file."""

from __future__ import annotations

import abc
import bz2
import dataclasses
import glob
import gzip
import lzma
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.parts import find, names
from sensorium.data.blocks import Blocks
from sensorium.data.spool import Final, Spool, drop_with


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row of a source that could not become a row of the table.

    Attributes:
        where: file and line (or member) it was found at.
        reason: why, shown to the user.
        preview: the beginning of it.
    """

    where: str
    reason: str
    preview: str


@dataclasses.dataclass
class Opened:
    """What a source was opened as.

    Attributes:
        blocks: its rows.
        name: a short name, shown to the user.
        folder: what paths in cells are relative to; None: there is no such folder.
        bad_rows: rows that were left out, the first ``KEPT`` of them; ``bad_count`` counts all.
        repaired: for each column how many cells held text that was no UTF-8 and was mended while converting.
    """

    blocks: Blocks
    name: str
    folder: Path | None = None
    bad_rows: list[BadRow] = dataclasses.field(default_factory=list)
    bad_count: int = 0
    repaired: dict[str, int] = dataclasses.field(default_factory=dict)

    def bad(self, where: str, reason: str, preview: str = "") -> None:
        """Count a row that is left out, and remember it while they are few."""
        self.bad_count += 1
        if len(self.bad_rows) < KEPT:
            self.bad_rows.append(BadRow(where, reason, preview[:200]))

    def mended(self, column: str, cells: int) -> None:
        """Count cells whose text was mended."""
        if cells:
            self.repaired[column] = self.repaired.get(column, 0) + int(cells)


KEPT = 1000


class Source(abc.ABC):
    """One family of sources. ``accepts`` must import nothing heavy: it is asked for every source."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """File endings that are this family's; a compressed ``.gz``, ``.bz2`` or ``.xz`` may follow where it can stream."""
    packed: ClassVar[bool] = False
    """Whether compressed files of this family can be read."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """Whether ``given``, which is no list of files of one ending, is this family's (an object, a folder, a name)."""
        return False

    @classmethod
    @abc.abstractmethod
    def open(cls, given: Any) -> Opened:
        """The rows of ``given``: a non-empty list of files that end in ``suffixes``, or what ``accepts`` took.

        Raises:
            UserError: it can't be read, two columns share a name, or it holds what is refused (pickles).
        """


def open_source(given: Any) -> Opened:
    """Any source that one of this folder's parts can open.

    Raises:
        UserError: nothing is there, or it is no known kind.
    """
    if isinstance(given, (str, Path)):
        try:
            Path(given).expanduser().exists()
        except (OSError, RuntimeError) as error:
            raise UserError(f"'{str(given)[:80]}' is no path: {getattr(error, 'strerror', None) or error}.") from error
    for name in names(Source):
        part = find(Source, name)
        if part.accepts(given):
            return part.open(given)
    if isinstance(given, (str, Path)) or (
        isinstance(given, Sequence) and given and all(isinstance(path, (str, Path)) for path in given)
    ):
        files = _files(given)
        return _family(files).open(files)
    raise UserError(f"A {type(given).__module__}.{type(given).__name__} is no table. {_possible()}")


def _possible() -> str:
    endings = sorted({suffix for name in names(Source) for suffix in find(Source, name).suffixes})
    return (
        f"A table is a file or a glob of files ending in {', '.join(endings)}; a folder with metadata.csv, .jsonl or "
        ".parquet, or with one folder a class; hf:NAME on the Hugging Face hub; or a pandas, polars, Arrow or datasets "
        "object, a list of dicts or a dict of lists."
    )


def _files(given: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        if path.is_file():
            return [path]
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if found:
            return found
        if any(sign in str(given) for sign in "*?["):
            raise UserError(f"No file matches '{given}' from {Path.cwd()}.")
        raise UserError(f"No table '{given}' from {Path.cwd()}. {_possible()}")
    paths = [Path(path).expanduser() for path in given]
    gone = [str(path) for path in paths if not path.is_file()]
    if gone:
        raise UserError(f"No such file: {', '.join(gone[:5])}.")
    return paths


def suffix_of(path: Path) -> tuple[str, bool]:
    """A file's ending in lower case without what compressed it, and whether it is compressed."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] == ".tgz":
        return ".tar", True
    if len(endings) > 1 and endings[-1] in (".gz", ".bz2", ".xz"):
        return endings[-2], True
    return (endings[-1] if endings else ""), False


def _family(files: list[Path]) -> type[Source]:
    found: dict[type[Source] | None, Path] = {}
    for file in files:
        suffix, packed = suffix_of(file)
        part = next((p for p in (find(Source, name) for name in names(Source)) if suffix in p.suffixes), None)
        if part is None or (packed and not part.packed):
            raise UserError(f"'{file}' ends in '{''.join(file.suffixes)}', which is no kind of table. {_possible()}")
        found.setdefault(part, file)
    if len(found) > 1:
        raise UserError(f"One table can't mix kinds of files: {', '.join(map(str, found.values()))}. Name one kind.")
    return next(iter(found))  # type: ignore[return-value]


def read_stream(path: Path) -> BinaryIO:
    """A file's bytes from its beginning, decompressed by its ending."""
    openers = {".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return openers.get(path.suffix.lower(), open)(path, "rb")  # type: ignore[return-value, operator]


UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged file raises."""


def converted(spool: Spool, final: Final | None = None, empty: Sequence[str] = ()) -> Blocks:
    """The blocks of what was spooled; the file goes when they are no longer used.

    Args:
        final: as ``Spool.finish`` takes it.
        empty: the columns' names where there are no rows.
    """
    if not spool.rows:
        spool.discard()
        names_ = list(spool.fields) or list(empty)
        return open_source(pa.table({name: pa.nulls(0) for name in names_})).blocks
    path = spool.finish(final)
    blocks = open_source([path]).blocks
    blocks.where = spool.where
    drop_with(blocks, path)
    return blocks


def folder_of(files: Sequence[Path]) -> Path:
    """The folder that all files share: what paths in their cells are relative to."""
    folders = {file.parent.resolve() for file in files}
    shared = folders.pop()
    for folder in folders:
        while not folder.is_relative_to(shared):
            shared = shared.parent
    return shared


def name_of_files(files: Sequence[Path]) -> str:
    """A short name for one file or several."""
    stem = files[0].name.split(".")[0] or files[0].name
    return stem if len(files) == 1 else f"{stem} and {len(files) - 1} more"
