"""Calamine worker: run as a program, it writes the rows of a sheet as JSON lines.

On damaged files of the old binary format calamine may end its process, so these are read in one of their own. This file
imports nothing of Sensorium.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

MAX_MEMORY_BYTES = 8 << 30
"""Memory limit of the process in bytes, where the system can set one."""


class BrokenWorkbook(Exception):
    """Unreadable workbook, with the reason."""


def pick_sheet(book: Any, wanted: str) -> tuple[list[str], Any]:
    """Names of the worksheets, and the wanted one, or the first visible one with cells (else None)."""
    kinds = {about.name: about for about in book.sheets_metadata}
    sheets = [name for name in book.sheet_names if str(kinds[name].typ).endswith("WorkSheet")]
    if wanted:
        sheet = book.get_sheet_by_name(wanted) if wanted in sheets else None
        return sheets, sheet if sheet is not None and sheet.start is not None else None
    for name in sheets:
        if str(kinds[name].visible).endswith(".Visible"):
            sheet = book.get_sheet_by_name(name)
            if sheet.start is not None:
                return sheets, sheet
    return sheets, None


def rows_in_subprocess(path: str, wanted: str) -> tuple[dict[str, Any], Iterator[list[Any]]]:
    """Read a sheet in another process: what ``main`` writes about it, and its rows.

    Raises:
        BrokenWorkbook: it can't be read, or the process ended.
    """
    command = [sys.executable, "-P", __file__, path, wanted]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = _lines(process)
    about = next(lines, None)
    if not isinstance(about, dict):
        raise BrokenWorkbook("it is damaged")
    if "error" in about:
        raise BrokenWorkbook(about["error"])
    return about, ([_value(cell) for cell in row] for row in lines)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[Any]:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield json.loads(line)
        if process.wait():
            raise BrokenWorkbook("it is damaged")
    except ValueError as error:
        raise BrokenWorkbook("it is damaged") from error
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def _value(cell: Any) -> Any:
    if not isinstance(cell, list):
        return cell
    kind, value = cell
    if kind == "timedelta":
        return datetime.timedelta(seconds=value)
    return getattr(datetime, kind).fromisoformat(value)


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime.timedelta):
        return ["timedelta", cell.total_seconds()]
    return [type(cell).__name__, cell.isoformat()] if isinstance(cell, (datetime.date, datetime.time)) else cell


def main(path: str, wanted: str) -> None:
    """Write a line about the sheet, then its rows."""
    import python_calamine as calamine

    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    try:
        with open(path, "rb") as file:
            sheets, sheet = pick_sheet(calamine.CalamineWorkbook.from_filelike(file), wanted)
    except calamine.PasswordError:
        print(json.dumps({"error": "it is protected by a password; save it without one, or as CSV"}))
        return
    except Exception as error:  # whatever the library raises is the user's to read
        print(json.dumps({"error": str(error) or type(error).__name__}))
        return
    about = {"sheets": sheets, "sheet": None}
    if sheet is not None:
        about |= {"sheet": sheet.name, "merged": sheet.merged_cell_ranges or [], "left": sheet.start[1]}
    print(json.dumps(about))
    for row in sheet.iter_rows() if sheet is not None else ():
        print(json.dumps([_plain(cell) for cell in row]))


if __name__ == "__main__":
    main(*sys.argv[1:])
