"""Type inference of written cells: the type of a CSV column's texts, found piece by piece from all of them.

An empty cell is missing. So are NA, null, nan and their like in a column whose other cells are numbers or booleans; in
a column of text they stay words. Texts that lose something as numbers (``core.numerals``) stay text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sensorium.core.numerals import Spelling
from sensorium.data.arrow import common_type, is_list, is_number, nesting_depth

MISSING_WORDS = pa.array(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT"])
MAX_LIST_DEPTH = 4
"""Levels of a list of numbers; deeper nesting is text."""

_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
_REAL = r"^\s*[+-]?((\d{1,18}(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|(?i:inf|infinity))\s*$"
_WORD = r"(?i)inf"
_TRUTH = r"^\s*(?i:true|false)\s*$"
_LIST = r"^\s*\[[\[\]\s\d.,eE+\-NaInfity]*(null[\[\]\s\d.,eE+\-NaInfity]*)*\]\s*$"


class TypeGuess:
    """Streaming type inference of one column, and the parser of its cells."""

    def __init__(self, as_written: bool = False) -> None:
        self.candidates: list[Callable[[pa.Array], pa.Array | None]] = (
            [] if as_written else [_truth, _whole, _real, _lists]
        )
        self.seen = False
        self.spelling = Spelling()
        self.lists: pa.DataType = pa.null()

    def update(self, array: pa.Array) -> None:
        """Take in a piece: drop the candidate types that some cell of it doesn't fit."""
        present = _present(array) if self.candidates or not self.seen else array.slice(0, 0)
        if not len(present):
            return
        self.seen = True
        fitting = []
        for kind in self.candidates:
            parsed = kind(present)
            if parsed is None:
                continue
            if kind is _lists:
                self.lists = common_type(self.lists, parsed.type)
                if not _numbers(self.lists):
                    continue
            fitting.append(kind)
        self.candidates = fitting
        if self.candidates and self.candidates[0] in (_whole, _real):
            self.spelling.update(present.filter(pc.invert(pc.match_substring_regex(present, _WORD))))

    @property
    def type(self) -> pa.DataType:
        """Type that all cells fit."""
        if not self.seen:
            return pa.null()
        if not self.candidates or self.lossy_example:
            return pa.string()
        return {_truth: pa.bool_(), _whole: pa.int64(), _real: pa.float64()}.get(self.candidates[0], self.lists)

    @property
    def lossy_example(self) -> str | None:
        """First cell that a number wouldn't reproduce, for which a column stays text; None where there is none."""
        return (
            self.spelling.example(self.candidates[0] is _whole)
            if self.candidates and self.candidates[0] in (_whole, _real)
            else None
        )

    def parse(self, array: pa.Array) -> pa.Array:
        """Parse written cells to ``type``."""
        if pa.types.is_null(self.type):
            return pa.nulls(len(array))
        words = pc.is_in(pc.utf8_trim_whitespace(array), MISSING_WORDS)
        parsed = self.candidates[0](pc.if_else(words, pa.scalar(None, pa.string()), array))
        assert parsed is not None
        return parsed.cast(self.type)


def _present(array: pa.Array) -> pa.Array:
    array = array.drop_null()
    return array.filter(pc.invert(pc.is_in(pc.utf8_trim_whitespace(array), MISSING_WORDS)))


def _fits(array: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(array, pattern)).as_py() is not False


def _truth(array: pa.Array) -> pa.Array | None:
    return pc.equal(pc.ascii_lower(pc.utf8_trim_whitespace(array)), "true") if _fits(array, _TRUTH) else None


def _whole(array: pa.Array) -> pa.Array | None:
    return _signed(array).cast(pa.int64()) if _fits(array, _WHOLE) else None


def _real(array: pa.Array) -> pa.Array | None:
    return _signed(array).cast(pa.float64()) if _fits(array, _REAL) else None


def _signed(array: pa.Array) -> pa.Array:
    """Strip spaces and the plus sign, which Arrow doesn't take."""
    return pc.replace_substring_regex(pc.utf8_trim_whitespace(array), r"^\+", "")


def _lists(array: pa.Array) -> pa.Array | None:
    """Parse lists of numbers written as JSON, as a series stands in a CSV; ``nan`` and ``inf`` are Python's."""
    if not _fits(array, _LIST):
        return None
    try:
        cells = [None if cell is None else json.loads(_json(cell)) for cell in array.to_pylist()]
        if max(map(nesting_depth, cells), default=0) > MAX_LIST_DEPTH:
            return None
        parsed = pa.array(cells)
    except (ValueError, RecursionError, pa.ArrowException, OverflowError):
        return None
    return parsed if pa.types.is_null(parsed.type) or _numbers(parsed.type) else None


def _json(cell: str) -> str:
    return re.sub(r"\binf\b", "Infinity", re.sub(r"\bnan\b", "NaN", cell))


def _numbers(kind: pa.DataType) -> bool:
    if is_list(kind):
        return _numbers(kind.value_type)
    return is_number(kind) or pa.types.is_null(kind)
