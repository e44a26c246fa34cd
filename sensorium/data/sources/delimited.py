"""CSV and TSV: cells stay as written until the whole file was seen; then each column gets the type all its cells fit.

An empty cell is missing. So are NA, null, nan and their like in a column whose other cells are numbers or booleans; in
a column of text they stay words. Numbers with leading zeros (postcodes) or more than 18 digits stay text.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.errors import UserError
from sensorium.data.arrow import is_list, is_number, joined, scrub
from sensorium.data.blocks import distinct
from sensorium.data.sources import (
    UNREADABLE,
    Opened,
    Source,
    converted,
    folder_of,
    name_of_files,
    read_stream,
    suffix_of,
)
from sensorium.data.spool import BYTES, ROWS, Spool, spooling

CELL = 256 << 20
"""Characters of the longest cell: beyond it, a quote was never closed."""
MISSING = pa.array(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT"])

_WHOLE = r"^\s*[+-]?(0|[1-9]\d{0,17})\s*$"
_REAL = r"^\s*[+-]?(((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|(?i:inf|infinity))\s*$"
_TRUTH = r"^\s*(?i:true|false)\s*$"
_LIST = r"^\s*\[[\[\]\s\d.,eE+\-NaInfity]*(null[\[\]\s\d.,eE+\-NaInfity]*)*\]\s*$"


class Delimited(Source):
    """One CSV or TSV file or several; the delimiter of a .csv is found among comma, semicolon, tab and bar."""

    suffixes = (".csv", ".tsv", ".tab")
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path]) -> Opened:
        """Converted to Parquet; a row with more or fewer cells than the header is left out and counted."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} CSV files"
        opened = Opened(None, name_of_files(given), folder_of(given))  # type: ignore[arg-type]
        guesses: dict[str, Guess] = {}
        with spooling(where) as spool:
            for path in given:
                try:
                    _spool(path, spool, guesses, opened)
                except UNREADABLE as error:
                    raise UserError(f"'{path}' can't be read: {error}") from error
            final = {name: (guess.type, guess.parse) for name, guess in guesses.items()}
            opened.blocks = converted(spool, final, list(guesses))
        return opened


def _spool(path: Path, spool: Spool, guesses: dict[str, Guess], opened: Opened) -> None:
    with read_stream(path) as raw:
        text = _text(raw)
        first = text.readline(1 << 20)
        delimiter = "\t" if suffix_of(path)[0] in (".tsv", ".tab") else _delimiter(first)
        kept = csv.field_size_limit(CELL)
        try:
            reader = csv.reader(itertools.chain([first], text) if first else text, delimiter=delimiter)
            rows = _rows(reader, path, opened)
            header = next(rows, None)
            if header is None:
                return
            names = [scrub(name).strip() or f"column {i + 1}" for i, name in enumerate(header[0])]
            distinct(names, f"'{path}'")
            for name in names:
                guesses.setdefault(name, Guess())
            for piece in rows:
                arrays = {}
                for name, cells in zip(names, zip(*piece, strict=True), strict=True):
                    array, mended = _column(cells)
                    opened.mended(name, mended)
                    guesses[name].see(array)
                    arrays[name] = array
                spool.add(arrays, len(piece))
        except csv.Error as error:
            raise UserError(
                f"'{path}' can't be read near line {reader.line_num:,}: {error}. A quote may have been opened there or "
                "before and never closed."
            ) from error
        finally:
            csv.field_size_limit(kept)


def _text(raw: io.BufferedIOBase) -> io.TextIOWrapper:
    """Text of a file in UTF-8, with or without a mark, or UTF-16 with one; other bytes come through as surrogates."""
    start = raw.read(2)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raw.seek(0)
        return io.TextIOWrapper(raw, "utf-16", errors="replace", newline="")
    raw.seek(0)
    return io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")


def _delimiter(header: str) -> str:
    """The sign that splits the header into most names, quoted parts left aside; a comma where none does."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)


def _rows(reader: Iterator[list[str]], path: Path, opened: Opened) -> Iterator[list[list[str]]]:
    """First the header alone, then the rows in pieces, all as long as the header."""
    width, piece, size = 0, [], 0
    for row in reader:
        if not row:
            continue
        if not width:
            width = len(row)
            yield [row]
            continue
        if len(row) != width:
            reason = f"{len(row)} cells where the header has {width}"
            opened.bad(f"{path.name}, line {reader.line_num:,}", reason, scrub(",".join(row)[:200]))
            continue
        piece.append(row)
        size += sum(map(len, row))
        if len(piece) == ROWS or size > BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _column(cells: Sequence[str]) -> tuple[pa.Array, int]:
    """Cells as written to an array, empty ones null, and how many had to be mended."""
    mended = 0
    try:
        array = pa.array(cells, pa.string())
    except UnicodeEncodeError:
        clean = [scrub(cell) for cell in cells]
        mended = sum(a != b for a, b in zip(cells, clean, strict=True))
        array = pa.array(clean, pa.string())
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array), mended


class Guess:
    """What the cells of one column may still be, and the parser of what they are."""

    def __init__(self) -> None:
        self.left: list[Callable[[pa.Array], pa.Array | None]] = [_truth, _whole, _real, _lists]
        self.seen = False
        self.lists: pa.DataType = pa.null()

    def see(self, array: pa.Array) -> None:
        """Drop the kinds that some cell of this piece doesn't fit."""
        if not self.left:
            return
        present = _present(array)
        if not len(present):
            return
        self.seen = True
        fitting = []
        for kind in self.left:
            parsed = kind(present)
            if parsed is None:
                continue
            if kind is _lists:
                self.lists = joined(self.lists, parsed.type)
                if not _numbers(self.lists):
                    continue
            fitting.append(kind)
        self.left = fitting

    @property
    def type(self) -> pa.DataType:
        """The type all cells fit."""
        if not self.left:
            return pa.string()
        if not self.seen:
            return pa.null()
        return {_truth: pa.bool_(), _whole: pa.int64(), _real: pa.float64()}.get(self.left[0], self.lists)

    def parse(self, array: pa.Array) -> pa.Array:
        """Written cells to cells of ``type``."""
        if pa.types.is_null(self.type):
            return pa.nulls(len(array))
        words_ = pc.is_in(pc.utf8_trim_whitespace(array), MISSING)
        kept = pc.if_else(words_, pa.scalar(None, pa.string()), array)
        parsed = self.left[0](kept)
        assert parsed is not None
        return parsed.cast(self.type)


def _present(array: pa.Array) -> pa.Array:
    array = array.drop_null()
    return array.filter(pc.invert(pc.is_in(pc.utf8_trim_whitespace(array), MISSING)))


def _fits(array: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(array, pattern)).as_py() is not False


def _truth(array: pa.Array) -> pa.Array | None:
    return pc.equal(pc.ascii_lower(pc.utf8_trim_whitespace(array)), "true") if _fits(array, _TRUTH) else None


def _whole(array: pa.Array) -> pa.Array | None:
    return _signed(array).cast(pa.int64()) if _fits(array, _WHOLE) else None


def _real(array: pa.Array) -> pa.Array | None:
    return _signed(array).cast(pa.float64()) if _fits(array, _REAL) else None


def _signed(array: pa.Array) -> pa.Array:
    """Without spaces and the plus sign, which Arrow doesn't take."""
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(array), r"^\+", "")


def _lists(array: pa.Array) -> pa.Array | None:
    """Lists of numbers written as JSON, the way to have a series in a CSV; ``nan`` and ``inf`` as Python has them."""
    if not _fits(array, _LIST):
        return None
    try:
        parsed = pa.array([None if cell is None else json.loads(_json(cell)) for cell in array.to_pylist()])
    except (ValueError, RecursionError, pa.ArrowException, OverflowError):
        return None
    return parsed if pa.types.is_null(parsed.type) or _numbers(parsed.type) else None


def _json(cell: str) -> str:
    return re.sub(r"\binf\b", "Infinity", re.sub(r"\bnan\b", "NaN", cell))


def _numbers(kind: pa.DataType) -> bool:
    if is_list(kind):
        return _numbers(kind.value_type)
    return is_number(kind) or pa.types.is_null(kind)
