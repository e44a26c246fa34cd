"""Column report: what a table holds and how it was read, as a table or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.cli.files import write_whole
from sensorium.cli.output import console, make_grid, note
from sensorium.core.errors import UserError
from sensorium.core.files import json_text
from sensorium.core.settings import build, parse, plain
from sensorium.data.columns import columns_read_as_written, make_modalities
from sensorium.data.dialects import DELIMITERS
from sensorium.data.prepare import read_rows
from sensorium.data.quarantine import Quarantine, parse_max_bad
from sensorium.data.schema import Schema, columns_report, infer
from sensorium.data.settings import DataSettings
from sensorium.data.table import Table

if TYPE_CHECKING:
    from rich.table import Table as Grid

MAX_FILES = 3
"""Files whose delimiter is printed."""
MAX_LISTED = 1000
"""Bad rows and cells of a column that the JSON names."""


def print_columns(source: str, settings: Sequence[str], check: bool, out: Path | None) -> None:
    """Print what each column is, and what was found of the table.

    Raises:
        UserError: the table can't be read, or more of its rows can't be than ``data.max_bad`` allows.
    """
    given = parse(settings)
    if given:  # what has settings is imported to check them
        from sensorium.training.build import check_settings

        check_settings(given)
    data = build(DataSettings, plain(given, "data"), "data")
    share = parse_max_bad(data.max_bad)
    table = data.open(source, columns_read_as_written(given.get("column", {})))
    overrides = {
        name: dict(value) if isinstance(value, dict) else {"kind": value}
        for name, value in given.get("column", {}).items()
    }
    schema = infer(table, overrides=overrides)
    bad = bad_cells(table, schema) if check else None
    report = columns_report(
        table, schema, None if bad is None else {column: len(cells) for column, cells in bad.items()}
    )
    if out is not None:
        text = json_text(report_json(table, schema, report, bad))
        if str(out) == "-":
            sys.stdout.write(text + "\n")
        else:
            with write_whole(out) as part:
                part.write_text(text, encoding="utf-8")
            note(f"Wrote {out}")
    else:
        console().print(grid(table, report), markup=False)
        if not table.rows:
            note(f"'{table.name}' has no rows")
        for file, about in list(table.found.items())[:MAX_FILES]:
            if (sign := about.get("delimiter", ",")) != ",":
                note(f"'{file}': {f'delimiter {DELIMITERS.get(sign, repr(sign))}' if sign else 'one cell a line'}")
        for words in table.notes:
            note(words)
        for column, cells in (bad or {}).items():
            row, why = cells[0]
            note(f"column '{column}': {len(cells):,} bad cell(s); the first is row {row}: {why}")
    quarantine = Quarantine(None, share)
    for row, why in table.bad_rows.items():
        quarantine.add(row, "(row)", str(why))
    quarantine.check(table.rows)


def bad_cells(table: Table, schema: Schema) -> dict[str, list[tuple[int, str]]]:
    """Rows whose cell can't be read, and why, by column."""
    found: dict[str, list[tuple[int, str]]] = {}
    try:
        modalities = make_modalities(schema, {})
    except UserError as error:  # such as conversations, which need a language model
        note(f"Cells were not read: {error}")
        return found

    def on_bad(row: int, column: str, why: str) -> None:
        found.setdefault(column, []).append((row, why))

    for _ in read_rows(table, modalities, table.good, bad=on_bad):
        pass
    return found


def grid(table: Table, report: Sequence[dict[str, Any]]) -> Grid:
    """Report as a grid, a line a column."""
    good, bad = table.rows - len(table.bad_rows), len(table.bad_rows)
    title = f"{table.name}: {good:,} rows" + (f", and {bad:,} that can't be read" if bad else "")
    result = make_grid(title)
    for name in report[0] if report else ():
        result.add_column(name, overflow="fold")
    for entry in report:
        result.add_row(
            *(
                f"{value:.1%}" if isinstance(value, float) else "" if value is None else str(value)
                for value in entry.values()
            )
        )
    return result


def report_json(
    table: Table, schema: Schema, report: Sequence[dict[str, Any]], bad: dict[str, list[tuple[int, str]]] | None
) -> dict[str, Any]:
    """Report as JSON: all that was found of a table."""
    settings = {name: column.settings for name, column in schema.columns.items() if column.settings}
    return {
        "table": table.name, "rows": table.rows, "split": schema.split, "notes": table.notes, "read": table.found,
        "columns": [{**entry, "settings": settings.get(entry["name"], {})} for entry in report],
        "left_out": schema.left_out, "remarks": table.remarks, "repaired_cells": table.repaired,
        "bad_rows": [
            {"row": row, "where": why.where, "reason": why.reason, "preview": why.preview}
            for row, why in list(table.bad_rows.items())[:MAX_LISTED]
        ],
        "bad_row_count": len(table.bad_rows),
        "bad_cells": None if bad is None else {
            column: [{"row": row, "reason": why} for row, why in cells[:MAX_LISTED]] for column, cells in bad.items()
        },
    }  # fmt: skip
