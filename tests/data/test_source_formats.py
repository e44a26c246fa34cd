"""Spreadsheets, and what all sources of files have in common."""

from __future__ import annotations

import datetime
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fastavro
import pandas as pd
import pyarrow as pa
import pytest
from table_helpers import columns, rows_of, without

from sensorium.core.errors import UserError
from sensorium.data.table import Table


def workbook(path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Empty"
    sheet = book.create_sheet("Dätä #2")
    sheet.append([])
    sheet.append([None, "näme", "number", "when", "ok", "failed", "at", "long"])
    for i in range(4):
        when = datetime.datetime(2020, 1, 1 + i, 3)
        sheet.append(
            [
                None,
                f"00{i}",
                i + i % 2 / 2,
                when,
                i % 2 == 0,
                "#N/A" if i else "#DIV/0!",
                datetime.time(3, 4),
                12345678901,
            ]
        )
    sheet.append([])
    sheet.append([None, "merged", None, datetime.date(2021, 5, 6)])
    sheet.append([])
    sheet.merge_cells("B8:B9")
    sheet["C9"] = 7
    sheet["I3"] = sheet["I4"] = None
    other = book.create_sheet("Hidden")
    other.append(["a"])
    other.append([1])
    other.sheet_state = "hidden"
    book.save(path)


def test_excel_sheet_by_content_or_by_name(tmp_path: Path, nothing_written: Callable[[], None]) -> None:
    workbook(tmp_path / "book.xlsx")
    (tmp_path / "misnamed.csv").write_bytes((tmp_path / "book.xlsx").read_bytes())
    nothing_written()
    table = Table.open(tmp_path / "book.xlsx")
    assert columns(table) == {
        "näme": ["000", "001", "002", "003", None, "merged", "merged"],
        "number": [0, 1.5, 2, 3.5, None, None, 7],
        "when": [*(datetime.datetime(2020, 1, 1 + i, 3) for i in range(4)), None, datetime.datetime(2021, 5, 6), None],
        "ok": [True, False, True, False, None, None, None],
        "failed": [None] * 7,
        "at": [datetime.time(3, 4)] * 4 + [None] * 3,
        "long": [12345678901] * 4 + [None] * 3,
    }
    said = " ".join(table.notes)
    assert "sheet 'Dätä #2' was taken" in said and "'Empty', 'Hidden'" in said
    assert "4 cell(s) hold an error" in said and "1 cell(s) lie in merged cells" in said
    assert columns(Table.open(f"{tmp_path}/book.xlsx#Hidden")) == {"a": [1]}
    assert columns(Table.open(f"{tmp_path}/book.xlsx#Dätä #2")) == columns(table)
    assert columns(Table.open(tmp_path / "misnamed.csv")) == columns(table)
    assert rows_of(f"{tmp_path}/book.xlsx#Empty") == []
    with pytest.raises(UserError, match=r"book\.xlsx' has no sheet 'x'.*'Hidden'"):
        Table.open(f"{tmp_path}/book.xlsx#x")


def test_excel_name_with_a_sign_wins_and_titles_are_passed_over(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in (["Report of 2020"], [], ["a", "b", "c"], [1, "x", 2], [None, "y"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    book.save(tmp_path / "a.xlsx#b.xlsx")
    table = Table.open(f"{tmp_path}/a.xlsx#b.xlsx")
    assert columns(table) == {"a": [1, None], "b": ["x", "y"], "c": [2, None]} and "Report of 2020" in table.notes[0]
    assert Table.open(tmp_path).rows == 4


@pytest.mark.parametrize("ending", ["xls", "ods"])
def test_spreadsheets_equal_what_pandas_reads(ending: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "text": ["01", "ü", None, "x"],
            "whole": [1, 2, 3, 4],
            "real": [0.5, None, 2.0, 1e9],
            "when": pd.to_datetime(["2020-01-01 10:00", None, "1999-12-31 00:00", "2020-01-02 00:00"]),
            "ok": [True, False, True, True],
        }
    )
    path = tmp_path / f"t.{ending}"
    if ending == "ods":
        frame.to_excel(path, index=False, engine="odf")
    else:
        import xlwt

        book = xlwt.Workbook()
        sheet = book.add_sheet("A")
        style = xlwt.easyxf(num_format_str="YYYY-MM-DD HH:MM:SS")
        for place, name in enumerate(frame.columns):
            sheet.write(0, place, name)
            for row, cell in enumerate(frame[name], 1):
                if not pd.isna(cell):
                    cell = cell.to_pydatetime() if name == "when" else cell.item() if hasattr(cell, "item") else cell
                    sheet.write(row, place, cell, *([style] if name == "when" else []))
        book.save(str(path))
    wanted = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert rows_of(path) == wanted


def test_excel_hostile_damaged_and_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openpyxl
    import xlwt

    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "a", 1
    book.save(tmp_path / "far.xlsx")
    old = xlwt.Workbook()
    sheet = old.add_sheet("A")
    sheet.write(0, 0, "a")
    sheet.write(65535, 255, 1)
    old.save(str(tmp_path / "far.xls"))
    with pytest.raises(UserError, match=r"far\.xlsx' reaches to row 1,048,576 and column 16,384"):
        Table.open(tmp_path / "far.xlsx")
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.data.sources._sheets.MAX_CELLS", 10**6)
        with pytest.raises(UserError, match=r"far\.xls' reaches to row 65,536 and column 256"):
            Table.open(tmp_path / "far.xls")
        patch.setattr("sensorium.data.sources._sheets.MAX_UNPACKED_BYTES", 1000)
        with pytest.raises(UserError, match=r"far\.xlsx'.*unpacks to more than 1,000 bytes"):
            Table.open(tmp_path / "far.xlsx")
    whole = (tmp_path / "far.xlsx").read_bytes()
    for name, data in (
        ("cut.xlsx", whole[: len(whole) // 2]),
        ("none.xls", b"<html>"),
        ("empty.ods", b""),
        ("cut.xls", (tmp_path / "far.xls").read_bytes()[:1000]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}' can't be read as a spreadsheet"):
            Table.open(tmp_path / name)
    without("python_calamine", monkeypatch)
    with pytest.raises(UserError, match=r"pip install 'sensorium\[excel\]'"):
        Table.open(tmp_path / "far.xlsx")


def test_extent_of_a_binary_sheet() -> None:
    from sensorium.data.sources import _sheets

    def record(kind: int, data: bytes) -> bytes:
        return bytes([kind, len(data)]) + data

    data = (
        record(0, (7).to_bytes(4, "little") + b"x" * 9)
        + record(2, (3).to_bytes(4, "little") + b"y" * 8)
        + record(3, (9).to_bytes(4, "little") + b"\x2a")
    )
    for size in (1, 7, 100):
        extent = _sheets._Extent()
        _sheets._xlsb([data[at : at + size] for at in range(0, len(data), size)], extent)
        assert (extent.rows, extent.columns, extent.errors) == (8, 10, 1)


def test_old_spreadsheets_are_read_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calamine ends its process at some damage of the old format."""
    import xlwt

    from sensorium.data.sources import _calamine

    book = xlwt.Workbook()
    sheet = book.add_sheet("A")
    for row in range(99):
        sheet.write(row, 0, f"text {row}")
    book.save(str(tmp_path / "a.xls"))
    assert Table.open(tmp_path / "a.xls").rows == 98
    line = '{"sheets": ["A"], "sheet": "A", "merged": [], "left": 0}'
    for said in ("", line, f"{line}\n[1", "none"):
        (tmp_path / "dies.py").write_text(f"import os\nprint({said!r}, flush=True)\nos.abort()\n")
        monkeypatch.setattr(_calamine, "__file__", str(tmp_path / "dies.py"))
        with pytest.raises(UserError, match=r"a\.xls' can't be read as a spreadsheet: it is damaged"):
            Table.open(tmp_path / "a.xls")


@pytest.mark.parametrize(("ending", "codec"), [("zst", "zstd"), ("lz4", "lz4"), ("bz2", "bz2"), ("xz", None)])
def test_compressed_text_by_content(
    ending: str, codec: str | None, tmp_path: Path, nothing_written: Callable[[], None]
) -> None:
    data = "näme,n\né,1\nx,\n".encode()
    if codec is None:
        packed = lzma.compress(data)
    else:
        out = pa.BufferOutputStream()
        with pa.CompressedOutputStream(out, codec) as stream:
            stream.write(data)
        packed = out.getvalue().to_pybytes()
    for name in (f"a.csv.{ending}", "named.csv"):
        (tmp_path / name).write_bytes(packed)
    (tmp_path / f"cut.csv.{ending}").write_bytes(packed[: len(packed) // 2])
    nothing_written()
    for name in (f"a.csv.{ending}", "named.csv"):
        assert columns(Table.open(tmp_path / name)) == {"näme": ["é", "x"], "n": [1, None]}
    with pytest.raises(UserError, match=rf"cut\.csv\.{ending}' can't be read"):
        Table.open(tmp_path / f"cut.csv.{ending}")


@pytest.mark.parametrize("ending", ["xlsx", "orc", "avro"])
def test_folder_of_such_files_and_imports(ending: str, tmp_path: Path) -> None:
    from pyarrow import orc

    for i in range(2):
        (tmp_path / f"day={i}").mkdir()
        path = tmp_path / f"day={i}/t.{ending}"
        if ending == "xlsx":
            pd.DataFrame({"a": [1, 2]}).to_excel(path, index=False)
        elif ending == "orc":
            orc.write_table(pa.table({"a": [1, 2]}), path)
        else:
            with open(path, "wb") as file:
                fastavro.writer(
                    file,
                    {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]},
                    [{"a": 1}, {"a": 2}],
                )
    assert columns(Table.open(tmp_path)) == {"a": [1, 2, 1, 2], "day": [0, 0, 1, 1]}


def test_sources_import_nothing_heavy_before_they_are_used() -> None:
    code = """if True:
        import sys
        from sensorium.core.registry import find, names
        from sensorium.data.sources import Source, open_source
        open_source([{"a": 1}])
        [find(Source, name).accepts("none#none") for name in names(Source)]
        heavy = ("python_calamine", "duckdb", "sqlalchemy", "deltalake", "pyiceberg", "fastavro", "h5py")
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
