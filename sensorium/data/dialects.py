"""CSV dialect detection: the delimiter, quotes and lines above the header, found from many lines of a file."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from sensorium.core.numerals import PLAIN_NUMBER

DELIMITERS = {
    ",": "comma",
    ";": "semicolon",
    "\t": "tab",
    "|": "vertical bar",
    "^": "caret",
    "~": "tilde",
    "\x01": "U+0001",
}
"""Delimiters that are tried; the first of equals wins."""
SAMPLE_LENGTH, SAMPLE_LINES = 256 << 10, 1000
"""Characters and lines from which the delimiter is found."""
ABSENT_DELIMITER = "\x1f"
"""Delimiter that no text contains: each line is one cell."""


@dataclasses.dataclass(frozen=True)
class Dialect:
    """CSV dialect: the delimiter, quotes, spaces behind delimiters that don't count, a sign that
    escapes quotes."""

    sign: str = ","
    quote: str = '"'
    skip: bool = False
    escape: str | None = None

    def occurs(self, sample: Sequence[str]) -> bool:
        """True where lines show this quoting style; the common one needs no sign of it."""
        sign = re.escape(self.sign)
        if self.skip:
            return any(re.search(rf'{sign} +"', line) for line in sample)
        if self.escape:
            return any('\\"' in line for line in sample)
        if self.quote == '"':
            return True
        quoted = sum(re.search(rf"(?:^|{sign})'[^']*'(?:{sign}|\s*$)", line) is not None for line in sample)
        return 2 * quoted > len(sample) and not any('"' in line for line in sample)

    def reader(self, lines: Iterable[str], strict: bool = False) -> Iterator[list[str]]:
        """CSV reader of rows of cells."""
        return csv.reader(
            lines,
            delimiter=self.sign,
            quotechar=self.quote,
            skipinitialspace=self.skip,
            escapechar=self.escape,
            strict=strict,
        )


QUOTES = ('"', False, None), ('"', True, None), ('"', False, "\\"), ("'", False, None)
"""Quoting styles that are tried where the first leaves lines that don't fit."""


def find_dialect(sample: Sequence[str], signs: Iterable[str]) -> Dialect:
    """Dialect by which most lines have as many cells as the header; of equals the one with most cells, of these
    the first.

    A file in which no sign splits the header, but one splits other lines, has one cell a line.
    """
    given = list(signs)
    best, found, lone = (0.0, 0), Dialect(given[0]), False
    for quote, skip, escape in QUOTES:
        for sign in given:
            dialect = Dialect(sign, quote, skip, escape)
            if not dialect.occurs(sample):
                continue
            try:
                rows = [row for row in dialect.reader([line[:SAMPLE_LENGTH] for line in sample]) if row]
            except csv.Error:
                continue
            width, rest = (len(rows[0]), rows[1:]) if rows else (0, [])
            if width < 2:
                lone = lone or (len(given) > 1 and any(len(row) > 1 for row in rest))
                continue
            share = sum(len(row) == width for row in rest) / len(rest) if rest else 1.0
            near = sum(abs(len(row) - width) <= 1 and len(row) > 1 for row in rest) / len(rest) if rest else 1.0
            here = round(share + near / 100, 6), width
            if here > best if quote == '"' and not skip and not escape else here[0] > best[0] + MIN_QUOTING_GAIN:
                best, found = here, dialect
        if best[0] >= 1:
            break
    return Dialect(ABSENT_DELIMITER) if best[1] == 0 and lone else found


MIN_QUOTING_GAIN = 0.1
"""Share of lines by which another quoting style must fit better."""
MAX_TITLE_LINES = 10
"""Most lines above a header."""


def lines_above(sample: Sequence[str]) -> int:
    """Number of lines above the header: comments with #, or titles, of one cell each, above a table of several
    columns."""
    lead = next((number for number, line in enumerate(sample) if not line.startswith("#")), len(sample))
    best: tuple[int, int] = (0, 0)
    for sign in DELIMITERS:
        widths = [
            len(next(csv.reader([line[:SAMPLE_LENGTH]], delimiter=sign), []))
            for line in sample[: MAX_TITLE_LINES + 100]
        ]
        body = [width for width in widths[min(lead, MAX_TITLE_LINES) :] if width]
        common = max(set(body), key=body.count) if body else 0
        if common < 2 or body.count(common) < max(3, 0.9 * (len(body) - 3)):
            continue
        first = next(number for number, width in enumerate(widths) if width == common)
        if 0 < first <= MAX_TITLE_LINES and all(width <= 1 for width in widths[:first]) and (common, first) > best:
            cells = next(csv.reader([sample[first]], delimiter=sign))
            below = next(csv.reader([sample[first + 1]], delimiter=sign)) if first + 1 < len(sample) else []
            header = not any(_is_number(cell) for cell in cells) and len(set(cells)) == len(cells)
            if header and any(map(_is_number, below)):
                best = common, first
    if best[1]:
        return best[1]
    if 0 < lead <= MAX_TITLE_LINES and lead < len(sample):  # a header may begin with # itself, as #chrom does
        parts = [max(line.count(sign) for sign in DELIMITERS) for line in sample[lead - 1 : lead + 1]]
        return lead - 1 if parts[0] == parts[1] and parts[0] else lead
    return 0


def _is_number(cell: str) -> bool:
    return PLAIN_NUMBER.fullmatch(cell.strip()) is not None
