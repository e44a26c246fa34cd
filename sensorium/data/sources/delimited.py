"""CSV and TSV: encoding and dialect are detected, and each column gets the type that all its cells fit.

A line that doesn't fit the header is a bad row in its place: nothing shifts. A line that lacks only its last cell,
or ends in one comma too many, is mended and counted. The types of cells: ``data.written``.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.errors import UserError
from sensorium.data.arrow import scrub
from sensorium.data.blocks import check_distinct_names
from sensorium.data.contents import READ_ERRORS
from sensorium.data.dialects import (
    ABSENT_DELIMITER,
    DELIMITERS,
    SAMPLE_LENGTH,
    SAMPLE_LINES,
    Dialect,
    find_dialect,
    lines_above,
)
from sensorium.data.encodings import open_text
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, encoding_of, folder_of, name_of_files, suffix_of
from sensorium.data.spool import PIECE_BYTES, PIECE_ROWS, Spool, spooling
from sensorium.data.written import TypeGuess


class Delimited(Source):
    """One CSV or TSV file or several."""

    suffixes = (".csv", ".tsv", ".tab")
    packed = True

    @classmethod
    def open(cls, given: Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet; a line with too many or too few cells is a bad row."""
        where = f"'{given[0]}'" if len(given) == 1 else f"{len(given)} CSV files"
        opened = Opened.empty(name_of_files(given), folder_of(given))
        guesses: dict[str, TypeGuess] = {}
        with spooling(where) as spool:
            for path in given:
                try:
                    _File(path, options, opened).spool(spool, guesses)
                except READ_ERRORS as error:
                    raise UserError(f"'{path}' can't be read: {error}") from error
            final = {name: (guess.type, guess.parse) for name, guess in guesses.items()}
            opened.blocks = converted(spool, final, list(guesses))
        for name, guess in guesses.items():
            if guess.lossy_example:
                opened.blocks.remarks[name] = (
                    f"'{guess.lossy_example}' and others would lose something as numbers, so cells stay as written; "
                    f"column.{name}.kind=number reads numbers"
                )
        return opened


class _File:
    """File that is being read into the spool."""

    def __init__(self, path: Path, options: ReadOptions, opened: Opened) -> None:
        self.path, self.options, self.opened = path, options, opened
        self.mended: dict[str, list[int]] = {}

    def spool(self, spool: Spool, guesses: dict[str, TypeGuess]) -> None:
        """Write the file's rows and infer the types of their cells."""
        encoding = encoding_of(self.path, self.options, self.opened)
        limit = csv.field_size_limit(self.options.max_cell_size)
        try:
            with open_text(self.path, encoding) as text:
                lines = _Lines(text, self.path, self.options)
                self.rows(lines, self.dialect(lines), spool, guesses)
        finally:
            csv.field_size_limit(limit)
        for words, (count, first) in self.mended.items():
            remark = f"{count:,} line(s) {words}; the first is line {first:,}"
            self.opened.remark(
                remark, self.path.name, **{f"lines_that_{words.partition(',')[0].replace(' ', '_')}": count}
            )

    def dialect(self, lines: _Lines) -> Dialect:
        """Dialect: the one that was asked for, of a line ``sep=;``, of a .tsv file, or detected from
        many lines."""
        first = next(lines, "")
        declared = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
        sample = [] if declared or not first else [first]
        while len(sample) < SAMPLE_LINES and sum(map(len, sample)) < SAMPLE_LENGTH:
            lines.begin()
            if not (line := next(lines, "")):
                break
            sample.append(line)
        lines.give_back(sample)
        if sample:
            self.options.check_columns(
                min(sample[0].count(sign) for sign in self.options.separator or max(DELIMITERS, key=sample[0].count))
                + 1,
                f"'{self.path}'",
            )
        if sample and not declared and (above := lines_above(sample)):
            lines.begin()
            for _ in range(above):
                next(lines)
            sample = sample[above:]
            self.opened.remark(f"{above:,} line(s) above the header are left out", self.path.name)
        tabbed = suffix_of(self.path) in (".tsv", ".tab") and any("\t" in line for line in sample)
        signs = [self.options.separator or (declared[1] if declared else "\t" if tabbed else "")]
        found = find_dialect(sample, signs if signs[0] else DELIMITERS)
        words = ["spaces behind delimiters are left out"] if found.skip else []
        words += [f"quotes {found.quote}"] if found.quote != '"' else []
        words += ["backslashes before quotes"] if found.escape else []
        self.opened.remark(
            ", ".join(words), self.path.name, delimiter=None if found.sign == ABSENT_DELIMITER else found.sign
        )
        return found

    def rows(self, lines: _Lines, dialect: Dialect, spool: Spool, guesses: dict[str, TypeGuess]) -> None:
        """Parse all rows; the first is the header."""
        rows = _Rows(lines, dialect)
        header, line, reason = next(rows, ([], 0, ""))
        if reason:
            raise UserError(f"'{self.path}': the header can't be read, line {line:,}: {reason}.")
        if not header:
            return
        names = self.names(header, rows)
        for name in names:
            guesses.setdefault(name, TypeGuess(name in self.options.as_written))
        beyond = {len(row) - len(names) for row in rows.peek(SAMPLE_LINES)}
        extra = max(1, len(header) - len(names), *(beyond if len(beyond) == 1 else ()))
        piece: list[list[str]] = []
        size = 0

        def write() -> None:
            arrays = {}
            for name, cells in zip(names, zip(*piece, strict=True), strict=True):
                array, mended = _column(cells)
                self.opened.mended(name, mended)
                guesses[name].update(array)
                arrays[name] = array
            spool.add(arrays, len(piece))

        for row, line, reason in rows:
            fitted = (
                None if reason else self.fitted(row, len(names), extra, line, extra > 1 or len(header) > len(names))
            )
            if fitted is None:
                reason = reason or f"{len(row)} cells where the header has {len(names)}"
                where = f"{self.path.name}, line {line:,}"
                self.opened.bad_row(spool.rows + len(piece), where, reason, scrub(dialect.sign.join(row)[:200]))
                fitted = [""] * len(names)
            piece.append(fitted)
            size += sum(map(len, fitted))
            if len(piece) == PIECE_ROWS or size > PIECE_BYTES:
                write()
                piece, size = [], 0
        if piece:
            write()

    def names(self, header: list[str], rows: _Rows) -> list[str]:
        """The columns' names: without those of empty columns at the end, with one in front for row names as R writes
        them."""
        self.options.check_columns(len(header), f"'{self.path}'")
        names = [scrub(name).strip() for name in header]
        some = rows.peek(SAMPLE_LINES)
        while len(names) > 1 and not names[-1] and all(not any(row[len(names) - 1 :]) for row in some):
            names.pop()
        longer = len(names) == len(header) and len(some) > 1 and all(len(row) == len(names) + 1 for row in some)
        if longer and any(row[-1] for row in some) and len({row[0] for row in some}) == len(some):
            names.insert(0, "")
            self.opened.remark(
                "each line has a cell more than the header: the first column has no name", self.path.name
            )
        names = [name or f"column {i + 1}" for i, name in enumerate(names)]
        check_distinct_names(names, f"'{self.path}'")
        return names

    def fitted(self, row: list[str], width: int, extra: int, line: int, silent: bool) -> list[str] | None:
        """Row as wide as the header; None where one empty cell at its end doesn't explain the difference."""
        if len(row) == width:
            return row
        if row and len(row) == width - 1:
            self.count_mended("lack their last cell, which counts as missing", line)
            return [*row, ""]
        if width < len(row) <= width + extra and not any(row[width:]):
            if not silent:
                self.count_mended("end in a delimiter too many, which is left out", line)
            return row[:width]
        return None

    def count_mended(self, words: str, line: int) -> None:
        """Count a mended line."""
        self.mended.setdefault(words, [0, line])[0] += 1


class _Lines:
    """Line reader with a count, to which lines can be given back where a quote took too many."""

    def __init__(self, text: io.TextIOBase, path: Path, options: ReadOptions) -> None:
        self.text, self.path, self.options = text, path, options
        self.back: deque[str] = deque()
        self.number, self.size = 0, 0
        self.taken: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.back.popleft() if self.back else self.text.readline(self.options.max_cell_size + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.size += len(line)
        if len(line) > self.options.max_cell_size:
            raise self.options.too_long(f"Line {self.number + 1:,} of '{self.path}'")
        self.number += 1
        self.taken.append(line)
        if self.size > self.options.max_cell_size and len(self.taken) > 1:
            raise csv.Error("a row over the limit of a cell")
        return line

    def begin(self) -> int:
        """Begin a row: forget the lines taken, and give the number of the next one."""
        self.taken.clear()
        self.size = 0
        return self.number + 1

    def give_back(self, lines: Sequence[str]) -> None:
        """Give lines back, to be read again in their order."""
        self.back.extendleft(reversed(lines))
        self.number -= len(lines)
        self.ended = False


class _Rows:
    """Row reader: cells, number of the first line, and the reason why they can't be read (empty: they can).

    A quote that is opened and not closed before another row's cells costs the line it stands in, no other.
    """

    def __init__(self, lines: _Lines, dialect: Dialect) -> None:
        self.lines, self.dialect = lines, dialect
        self.reader = dialect.reader(lines, strict=True)
        self.width = 0
        self.read: deque[tuple[list[str], int, str]] = deque()

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> tuple[list[str], int, str]:
        if self.read:
            return self.read.popleft()
        while True:
            found = self.next_row()
            if found[0] or found[2]:
                self.width = self.width or len(found[0])
                return found

    def peek(self, count: int) -> list[list[str]]:
        """Cells of the next rows without consuming them; unreadable ones are left out."""
        while len(self.read) < count:
            try:
                found = self.next_row()
            except StopIteration:
                break
            if found[0] or found[2]:
                self.read.append(found)
        return [row for row, _, reason in self.read if not reason]

    def next_row(self) -> tuple[list[str], int, str]:
        """Read the next row; no cells and no reason for an empty line."""
        line, reason = self.lines.begin(), ""
        try:
            row = next(self.reader)
        except csv.Error as error:
            row, reason = [], str(error)
        taken = self.lines.taken
        if len(taken) <= 1:
            if reason:  # quotes within a cell: read as most programs do
                self.restart()
                row, reason = next(self.dialect.reader(taken), []), ""
                if row and self.lines.ended:
                    reason = "a quote is opened that isn't closed"
            return ([] if len(row) == 1 < self.width and not row[0].strip() else row), line, reason
        if not reason and (not self.width or abs(len(row) - self.width) <= 1 or not self.rows_within(taken[1:])):
            return row, line, ""
        more = len(taken) - 1
        first = taken[0]
        self.lines.give_back(taken[1:])
        self.restart()
        reason = (
            f"a quote is opened that isn't closed in this line; the {more:,} that it would take are read on their own"
        )
        return [first.rstrip("\r\n")], line, reason

    def rows_within(self, lines: Sequence[str]) -> bool:
        """True where most of the lines that a quoted cell spans are rows themselves."""
        some = lines[:SAMPLE_LINES]
        return 2 * sum(len(next(self.dialect.reader([line]), [])) == self.width for line in some) >= len(some)

    def restart(self) -> None:
        """Restart the reader at the next line."""
        self.reader = self.dialect.reader(self.lines, strict=True)


def _column(cells: Sequence[str]) -> tuple[pa.Array, int]:
    """Array of the cells as written, empty ones null, and the number of mended ones."""
    mended = 0
    try:
        array = pa.array(cells, pa.string())
    except UnicodeEncodeError:
        clean = [scrub(cell) for cell in cells]
        mended = sum(a != b for a, b in zip(cells, clean, strict=True))
        array = pa.array(clean, pa.string())
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array), mended
