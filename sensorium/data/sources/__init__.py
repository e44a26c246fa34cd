"""Sources: the contract of a family of things that a table can be opened from, one family a file."""

from __future__ import annotations

import abc
import dataclasses
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from sensorium.core.errors import UserError
from sensorium.core.registry import find, names
from sensorium.data.blocks import Blocks, MemoryBlocks, rows_without_columns
from sensorium.data.contents import COMPRESSION_SUFFIXES, compression, ending_by_content
from sensorium.data.encodings import detect
from sensorium.data.options import ReadOptions
from sensorium.data.spool import Final, Spool, drop_with

MAX_BAD_PREVIEWS = 1000
"""Bad rows of which a preview is kept."""
SPLIT_NAME = re.compile(r"(train|training|val|valid|validation|dev|test|eval|holdout)([_\-.].*)?", re.IGNORECASE)
"""Names of folders and keys that are parts of a split."""
MAX_NOTED_FILES = 3
"""Files that a note names."""


@dataclasses.dataclass(frozen=True, slots=True)
class BadRow:
    """Unreadable row of a source; in the table all its cells are missing.

    Attributes:
        where: file and line (or member) it was found at.
        reason: why, shown to the user.
        preview: the beginning of it.
    """

    where: str
    reason: str
    preview: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclasses.dataclass
class Opened:
    """Opened source: its blocks, name, and notes on how it was read.

    Attributes:
        blocks: its rows.
        name: a short name, shown to the user.
        folder: what paths in cells are relative to; None: there is no such folder.
        bad: rows that can't be read, by their number in the table.
        repaired: for each column how many cells held text that didn't decode and has U+FFFD there.
        remarks: what was found out about files or mended in them (their encoding, padded lines), and of which files.
        found: the same by file, for programs: ``{"a.csv": {"encoding": "cp1252", "delimiter": ";"}}``.
        blocks_before: rows of the parts that were taken over so far.
    """

    blocks: Blocks
    name: str
    folder: Path | None = None
    bad: dict[int, BadRow] = dataclasses.field(default_factory=dict)
    repaired: dict[str, int] = dataclasses.field(default_factory=dict)
    remarks: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    found: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    blocks_before: int = 0

    @classmethod
    def empty(cls, name: str, folder: Path | None = None) -> Opened:
        """A source of which nothing was read yet: it has no rows until ``blocks`` is set."""
        return cls(MemoryBlocks(pa.table({}), name), name, folder)

    def bad_row(self, row: int, where: str, reason: str, preview: str = "") -> None:
        """Mark a row that can't be read."""
        self.bad[row] = BadRow(where, reason, preview[:200] if len(self.bad) < MAX_BAD_PREVIEWS else "")

    def mended(self, column: str, cells: int) -> None:
        """Count cells whose text was mended."""
        if cells:
            self.repaired[column] = self.repaired.get(column, 0) + int(cells)

    def remark(self, words: str, file: str = "", **found: Any) -> None:
        """Add a remark for the user, and the file it is about; ``found``: the same for programs. Empty ``words``: only
        for programs."""
        if words:
            self.remarks.setdefault(words, []).append(file)
        self.found.setdefault(file, {}).update(found)

    def take(self, other: Opened, first: int = 0) -> None:
        """Take over the findings of another source, whose rows begin at row ``first`` here."""
        self.bad |= {first + row: bad for row, bad in other.bad.items()}
        for column, cells in other.repaired.items():
            self.mended(column, cells)
        for words, files in other.remarks.items():
            self.remarks.setdefault(words, []).extend(files)
        for file, found in other.found.items():
            self.found.setdefault(file, {}).update(found)

    @property
    def notes(self) -> list[str]:
        """Remarks as sentences for the user, each with the files it is about."""
        return [f"{_some(files)}: {words}" if any(files) else words for words, files in self.remarks.items()]


def _some(files: Sequence[str]) -> str:
    named = list(dict.fromkeys(file for file in files if file))
    more = len(named) - MAX_NOTED_FILES
    return ", ".join(f"'{file}'" for file in named[:MAX_NOTED_FILES]) + (f" and {more:,} more" if more > 0 else "")


class Source(abc.ABC):
    """Family of sources. ``accepts`` must import nothing heavy, as it is called for every source."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """File name suffixes of this family; ``.gz``, ``.bz2``, ``.xz``, ``.zst`` or ``.lz4`` may follow where it can
    stream."""
    packed: ClassVar[bool] = False
    """True where compressed files of this family can be read."""

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True where ``given``, which is no list of files of one suffix, is this family's (an object, a folder, a
        name)."""
        return False

    @classmethod
    @abc.abstractmethod
    def open(cls, given: Any, options: ReadOptions) -> Opened:
        """Open the rows of ``given``: a non-empty list of files whose content or ending is this family's, or what
        ``accepts`` took.

        Raises:
            UserError: it can't be read, two columns share a name, or it holds what is refused (pickles).
        """


def open_source(given: Any, options: ReadOptions | None = None) -> Opened:
    """Open a source by the first family that accepts it.

    Raises:
        UserError: nothing is there, or it is no known kind.
    """
    options = options or ReadOptions()
    for name in names(Source):
        part = find(Source, name)
        if part.accepts(given):
            return part.open(given, options)
    if isinstance(given, (str, Path)):
        try:
            Path(given).expanduser().exists()
        except (OSError, RuntimeError) as error:
            raise UserError(f"'{str(given)[:80]}' is no path: {getattr(error, 'strerror', None) or error}.") from error
    if isinstance(given, (str, Path)) or (
        isinstance(given, Sequence) and given and all(isinstance(path, (str, Path)) for path in given)
    ):
        return open_files(_files(given), options)
    raise UserError(f"A {type(given).__module__}.{type(given).__name__} is no table. {_possible()}")


def _possible() -> str:
    endings = sorted({suffix for name in names(Source) for suffix in find(Source, name).suffixes})
    return (
        f"A table is a file or a glob of files ending in {', '.join(endings)}, of which FILE#PART names a sheet, a "
        "table or a group; a folder with metadata.csv, .jsonl or .parquet, with one folder a class, with table files, "
        "or of a Delta or Iceberg table; sql:URL#QUERY; hf:NAME on the Hugging Face hub; or a pandas, polars, Arrow or "
        "datasets object, a list of dicts or a dict of lists."
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


def suffix_of(path: Path) -> str:
    """Suffix of a file name in lower case, without that of its compression."""
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] == ".tgz":
        return ".tar"
    if len(endings) > 1 and endings[-1] in COMPRESSION_SUFFIXES:
        return endings[-2]
    return endings[-1] if endings else ""


def family_of(path: Path) -> tuple[type[Source], str]:
    """Source family of a file, and its suffix by content where the name's is another (else empty).

    Raises:
        UserError: no source does.
    """
    found, named = ending_by_content(path), suffix_of(path)
    parts = [find(Source, name) for name in names(Source)]
    for suffix in (found, named):
        part = next((part for part in parts if suffix and suffix in part.suffixes), None)
        if part is not None:
            break
    with open(path, "rb") as file:
        packed = compression(file.read(8))
    if part is None or (packed and not part.packed):
        what = f"holds {found} data" if part is not None and found else f"ends in '{''.join(path.suffixes)}'"
        raise UserError(
            f"'{path}' {what}{f', compressed by {packed},' if packed else ','} which is no table. {_possible()}"
        )
    return part, found if found in part.suffixes and named not in part.suffixes else ""


def open_files(files: Sequence[Path], options: ReadOptions) -> Opened:
    """Open files of one family as one table.

    Raises:
        UserError: they are of several families, or can't be read.
    """
    found: dict[type[Source], Path] = {}
    misnamed: dict[str, list[str]] = {}
    for file in files:
        try:
            part, ending = family_of(file)
        except OSError as error:
            raise UserError(f"'{file}' can't be read: {error.strerror or error}") from error
        found.setdefault(part, file)
        if ending:
            misnamed.setdefault(f"read as {ending}, which its first bytes say, and not its name", []).append(file.name)
    if len(found) > 1:
        raise UserError(f"One table can't mix kinds of files: {', '.join(map(str, found.values()))}. Name one kind.")
    opened = next(iter(found)).open(files, options)
    for words, names_ in misnamed.items():
        opened.remarks.setdefault(words, []).extend(names_)
    return opened


def encoding_of(path: Path, options: ReadOptions, opened: Opened) -> str:
    """Encoding of a text file: the one that was asked for, or the detected one, which is remarked."""
    if options.encoding:
        return options.encoding
    found = detect(path)
    remark = f"read as {found.label}" if found.name not in ("utf-8", "utf-8-sig") else ""
    opened.remark(remark, path.name, encoding=found.name, undecodable_bytes=found.damaged)
    return found.name


def converted(spool: Spool, final: Final | None = None, empty: Sequence[str] = ()) -> Blocks:
    """Blocks of a finished spool; its file is removed when they are no longer used.

    Args:
        final: as ``Spool.finish`` takes it.
        empty: the columns' names where there are no rows.
    """
    if spool.rows and not spool.fields:
        spool.discard()
        return MemoryBlocks(pa.Table.from_batches([rows_without_columns(spool.rows)]), spool.where)
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
    """Common folder of all files, to which paths in their cells are relative."""
    folders = {file.parent.resolve() for file in files}
    shared = folders.pop()
    for folder in folders:
        while not folder.is_relative_to(shared):
            shared = shared.parent
    return shared


def name_of_files(files: Sequence[Path]) -> str:
    """Short name for one file or several."""
    stem = files[0].name.split(".")[0] or files[0].name
    return stem if len(files) == 1 else f"{stem} and {len(files) - 1} more"
