"""Spreadsheets: Excel (.xlsx, .xlsm, .xlsb, .xls) and OpenDocument (.ods), through the library calamine.

One sheet is the table: the first that has cells, or ``FILE#SHEET``. Its first row with cells is the header; cells keep
the types that the spreadsheet gives them. A spreadsheet is first scanned by ``_sheets``, as a few bytes of one can
ask for a sheet of billions of cells.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import UserError
from sensorium.data.arrow import scrub
from sensorium.data.blocks import check_distinct_names
from sensorium.data.objects import spool_objects
from sensorium.data.options import ReadOptions
from sensorium.data.sources import Opened, Source, converted, folder_of, name_of_files
from sensorium.data.sources._calamine import BrokenWorkbook, pick_sheet, rows_in_subprocess
from sensorium.data.sources._inside import error_summary, optional_import, split_part
from sensorium.data.sources._sheets import scan_workbook
from sensorium.data.spool import spooling

MAX_EXACT_INTEGER = 2**53
"""Limit below which whole numbers are exact as floats, the only numbers that Excel has."""
ERROR_VALUES = frozenset(
    {"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!", "#GETTING_DATA"}
)
"""Values of cells whose formula failed, in OpenDocument."""
MAX_TITLE_ROWS = 10
"""Rows above the header that may hold a title."""

Row = list[Any]


class Excel(Source):
    """One spreadsheet or several; of each one sheet."""

    suffixes = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

    @classmethod
    def accepts(cls, given: Any) -> bool:
        """True for ``FILE#SHEET``."""
        return split_part(given, _fits) is not None

    @classmethod
    def open(cls, given: str | Path | Sequence[Path], options: ReadOptions) -> Opened:
        """Convert to Parquet. Where there are several sheets, a remark names the one taken."""
        found = split_part(given, _fits) if isinstance(given, (str, Path)) else None
        if found:
            files, sheet = [found[0]], found[1]
        else:
            assert not isinstance(given, (str, Path))
            files, sheet = list(given), ""
        where = f"'{files[0]}'" if len(files) == 1 else f"{len(files)} spreadsheets"
        opened = Opened.empty(name_of_files(files), folder_of(files))
        known: dict[str, None] = {}
        with spooling(where) as spool:
            for path in files:
                spool_objects(_objects(path, sheet, opened, options, known), spool, opened, options)
            opened.blocks = converted(spool, empty=list(known))
        return opened


def _fits(path: Path) -> bool:
    return path.suffix.lower() in Excel.suffixes


def _objects(
    path: Path, wanted: str, opened: Opened, options: ReadOptions, known: dict[str, None]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Rows of one file's sheet as objects; its columns are added to ``known``."""
    optional_import("python_calamine", "excel", "Spreadsheets")
    looked = scan_workbook(path)
    about, rows = _read(path, wanted, looked.old)
    if wanted and wanted not in about["sheets"]:
        named = ", ".join(f"'{name}'" for name in about["sheets"])
        raise UserError(f"'{path}' has no sheet '{wanted}'. Possible: {named or 'none'}.")
    if about["sheet"] is None:
        return
    if (others := [f"'{other}'" for other in about["sheets"] if other != about["sheet"]]) and not wanted:
        words = f"sheet '{about['sheet']}' was taken; '{path.name}#SHEET' takes another: {', '.join(others)}"
        opened.remark(words, path.name)
    found = _Sheet(path, opened, looked.ods)
    rows = _filled(rows, about["merged"], about["left"], found)
    header, rows = _header(rows, found)
    options.check_columns(len(header), f"'{path}'")
    names = _names(header, path)
    known.update(dict.fromkeys(names))
    blank = 0
    for row in rows:
        cells = dict(zip(names, map(found.cell, row), strict=False))
        if all(cell is None for cell in cells.values()):
            blank += 1  # blank rows at the end are none of the table's
            continue
        yield from (({}, 0) for _ in range(blank))
        blank = 0
        yield cells, sum(len(cell) if isinstance(cell, str) else 8 for cell in cells.values())
    errors = looked.errors.get(about["sheet"], 0) + found.errors
    if errors:
        opened.remark(f"{errors:,} cell(s) hold an error such as #N/A or #DIV/0!, and count as missing", path.name)
    if found.merged:
        opened.remark(f"{found.merged:,} cell(s) lie in merged cells, and have the value of the uppermost", path.name)


def _read(path: Path, wanted: str, old: bool) -> tuple[dict[str, Any], Iterator[Row]]:
    """Names of the sheets, the one that was taken (None: none has cells), and its rows.

    Raises:
        UserError: the file can't be read.
    """
    calamine = optional_import("python_calamine", "excel", "Spreadsheets")
    try:
        if old:
            about, rows = rows_in_subprocess(str(path), wanted)
            return about, _whole(rows, path)
        with open(path, "rb") as file:
            sheets, sheet = pick_sheet(calamine.CalamineWorkbook.from_filelike(file), wanted)
        if sheet is None:
            return {"sheets": sheets, "sheet": None}, iter(())
        about = {
            "sheets": sheets,
            "sheet": sheet.name,
            "merged": sheet.merged_cell_ranges or [],
            "left": sheet.start[1],
        }
        return about, sheet.iter_rows()
    except calamine.PasswordError as error:
        raise UserError(f"'{path}' is protected by a password. Save it without one, or as CSV.") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        raise UserError(f"'{path}' can't be read as a spreadsheet: {error_summary(error)}") from error


def _whole(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    try:
        yield from rows
    except BrokenWorkbook as error:
        raise UserError(f"'{path}' can't be read as a spreadsheet: {error_summary(error)}") from error


class _Sheet:
    """Converter of one sheet's cells, with counts of errors and merged cells."""

    def __init__(self, path: Path, opened: Opened, ods: bool) -> None:
        self.path, self.opened, self.ods = path, opened, ods
        self.errors = self.merged = 0

    def cell(self, value: Any) -> Any:
        """Convert a cell: whole numbers are integers, empty cells and errors None, dates have a time."""
        if isinstance(value, str):
            if self.ods and value in ERROR_VALUES:
                self.errors += 1
                return None
            return value or None
        if isinstance(value, float) and value.is_integer() and abs(value) < MAX_EXACT_INTEGER:
            return int(value)
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            # Arrow cuts a time of day off where a column holds both.
            return datetime.datetime(value.year, value.month, value.day)
        return value


def _filled(rows: Iterator[Row], merged: Sequence[Any], left: int, found: _Sheet) -> Iterator[Row]:
    """Rows with the value of a merged cell in each row that it covers."""
    starts = iter(sorted(merged))
    following = next(starts, None)
    active: dict[int, tuple[int, Any]] = {}
    for number, row in enumerate(rows):
        while following is not None and following[0][0] <= number:
            (top, first), (bottom, _) = following
            if bottom > top == number and 0 <= first - left < len(row):
                active[first - left] = bottom, row[first - left]
            following = next(starts, None)
        for place, (bottom, value) in list(active.items()):
            if bottom < number:
                del active[place]
            elif row[place] == "" and value != "":
                row[place] = value
                found.merged += 1
        yield row


def _header(rows: Iterator[Row], found: _Sheet) -> tuple[Row, Iterator[Row]]:
    """Header, the first row with cells, and the rows below; titles, lone cells above a row of names, are skipped."""
    seen: list[Row] = []
    for row in rows:
        cells = [cell for cell in row if cell != ""]
        if cells:
            seen.append(row)
            if len(cells) > 1 or not isinstance(cells[0], str) or len(seen) > MAX_TITLE_ROWS:
                break
        elif seen:
            seen.append(row)
    if not seen:
        return [], rows
    names = [cell for cell in seen[-1] if cell != ""]
    if (
        len(seen) > 1
        and len(names) > 1
        and len(names) * 2 > len(seen[-1]) > 2
        and all(isinstance(name, str) for name in names)
    ):
        title = next(cell for cell in seen[0] if cell != "")
        found.opened.remark(f"the header was taken from the row below the title '{scrub(title)[:80]}'", found.path.name)
        return seen[-1], rows
    return seen[0], itertools.chain(seen[1:], rows)


def _names(header: Row, path: Path) -> list[str]:
    names = []
    for i, cell in enumerate(header):
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        names.append(scrub(str(cell)).strip() or f"column {i + 1}")
    check_distinct_names(names, f"'{path}'")
    return names
