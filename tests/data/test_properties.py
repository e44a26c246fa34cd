"""What is written in any dialect comes back row for row, and damage costs the row that it struck."""

from __future__ import annotations

import bz2
import dataclasses
import datetime
import gzip
import io
import json
import lzma
import math
import sqlite3
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import h5py
import numpy as np
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from conftest import TINY, tiny_cells, tiny_table
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pyarrow import orc
from table_helpers import columns

from sensorium.core.datetexts import date_form, read_date, write_date
from sensorium.core.errors import SensoriumWarning, UserError
from sensorium.core.numerals import NumberForm, lossy_example, number_form
from sensorium.data import table as tables
from sensorium.data.arrow import check_layout, row_bytes, split_by_bytes
from sensorium.data.options import ReadOptions
from sensorium.data.sources.parquet import check_codes
from sensorium.data.table import Table


def often(examples: int) -> Callable[[Any], Any]:
    """The settings of a property that is tried on so many examples, the same ones in every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow],
    )


# A letter in front keeps a text from looking like a number, a date or a missing cell.
PLAIN = "abc xyzQ7.-+/\\é"
LETTERS = {
    "utf": PLAIN + "ß中花\u2028\x85\ufeff😀",
    "cp1252": PLAIN + "ß€“",
    "gb18030": PLAIN + "中花国",
    "cp932": "abc xyzQ7.-+/ア赤花表",
}
SIGNS = ",;\t|\"\r\n'"
REAL = st.floats(-1e9, 1e9, width=32)
WHOLE = st.integers(-(10**15), 10**15)


def texts(letters: str) -> st.SearchStrategy[str]:
    """Texts that are no number, date or missing cell."""
    return st.text(letters, max_size=8).map(lambda text: "t" + text)


NAMES = ["text", "whole", "real", "truth"]


def table_rows(
    text: st.SearchStrategy[str], least: int = 1, gaps: bool = True
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a text, a whole number, a fraction and a truth value."""
    none = st.none() if gaps else st.nothing()
    cells = {"text": none | text, "whole": none | WHOLE, "real": none | REAL.map(float), "truth": none | st.booleans()}
    return st.lists(st.fixed_dictionaries(cells), min_size=least, max_size=9)


def same_cells(table: Table, rows: list[dict[str, Any]], names: list[str] = NAMES) -> None:
    """The table has these rows, each cell of them, or says of a row that it can't be read."""
    assert table.rows == len(rows)
    found = columns(table)
    for row, cells in enumerate(rows):
        if row in table.bad_rows:
            assert table.bad_rows[row].reason and all(found[name][row] is None for name in table.columns)
            continue
        for name in names:
            assert (found[name][row] if name in found else None) == cells[name], (row, name)


# --- every source -----------------------------------------------------------------------------------------------------

ENCODINGS = [  # how it is written, the letters it has, and whether it is told or found
    ("utf-8", "utf", False),
    ("utf-8-sig", "utf", False),
    ("utf-16", "utf", False),
    ("utf-32", "utf", False),
    ("utf-16-le", "utf", True),
    ("utf-32-be", "utf", True),
    ("cp1252", "cp1252", True),
    ("gb18030", "gb18030", True),
    ("cp932", "cp932", True),
]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def cell_text(cell: Any) -> str:
    return "" if cell is None else json.dumps(cell) if isinstance(cell, bool) else str(cell)


def csv_text(rows: list[dict[str, Any]], sign: str, end: str, quoted: str) -> str:
    """Rows as CSV, cells in quotes where they need it, always, or where they are texts."""

    def written(cell: Any) -> str:
        text = cell_text(cell)
        needs = any(letter in text for letter in (sign, '"', "\r", "\n"))
        return (
            '"' + text.replace('"', '""') + '"'
            if needs or quoted == "all" or (quoted == "texts" and isinstance(cell, str))
            else text
        )

    return "".join(
        sign.join(map(written, line)) + end for line in [NAMES, *([row[name] for name in NAMES] for row in rows)]
    )


@often(120)
@given(
    st.data(),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["needed", "all", "texts"]),
    st.sampled_from(ENCODINGS),
    st.sampled_from(sorted(PACKED)),
    st.booleans(),
    st.booleans(),
)
def test_csv_in_any_dialect(
    data: st.DataObject,
    sign: str,
    end: str,
    quoted: str,
    encoding: tuple[str, str, bool],
    packed: str,
    led: bool,
    torn: bool,
) -> None:
    name, letters, told = encoding
    rows = data.draw(table_rows(texts(LETTERS[letters] + SIGNS)))
    text = csv_text(rows, sign, end, quoted)
    text = text.removesuffix(end) if torn and rows[-1]["truth"] is not None else text
    text = f"sep={sign}{end}{text}" if led else text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(PACKED[packed](text.encode(name)))
        table = Table.open(
            path, options=ReadOptions(encoding=name if told else "", delimiter=sign if data.draw(st.booleans()) else "")
        )
        assert not table.bad_rows and table.columns == NAMES
        same_cells(table, rows)


@often(60)
@given(
    table_rows(texts(LETTERS["utf"] + SIGNS)),
    st.sampled_from(["lines", "array", "pretty", "one after another", "under a key"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(sorted(PACKED)),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_json_in_any_layout(
    rows: list[dict[str, Any]], layout: str, encoding: str, packed: str, ascii_: bool, end: str
) -> None:
    how = {"ensure_ascii": ascii_}
    text = {
        "lines": lambda: "".join(json.dumps(row, **how) + end for row in rows),
        "array": lambda: json.dumps(rows, **how),
        "pretty": lambda: json.dumps(rows, indent=2, **how),
        "one after another": lambda: end.join(json.dumps(row, indent=1, **how) for row in rows),
        "under a key": lambda: json.dumps({"version": 3, "rows": rows}, **how),
    }[layout]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("t.jsonl" if layout == "lines" else "t.json")
        path.write_bytes(PACKED[packed](text.encode(encoding)))
        table = Table.open(path)
        assert not table.bad_rows
        same_cells(table, rows)


SCHEMA = pa.schema([("text", pa.string()), ("whole", pa.int64()), ("real", pa.float64()), ("truth", pa.bool_())])


def written_in_every_source(rows: list[dict[str, Any]], folder: Path) -> Iterator[tuple[str, Any]]:
    """The rows by each source that holds all of their cells."""
    arrow = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(arrow, folder / "t.parquet", row_group_size=2, compression="zstd", data_page_version="2.0")
    pa.feather.write_feather(arrow, str(folder / "t.feather"), chunksize=3)
    with pa.ipc.new_stream(folder / "s.arrows", arrow.schema) as writer:
        writer.write_table(arrow, max_chunksize=2)
    orc.write_table(arrow, folder / "t.orc")
    fields = [
        {"name": name, "type": ["null", kind]}
        for name, kind in zip(NAMES, ("string", "long", "double", "boolean"), strict=True)
    ]
    with open(folder / "t.avro", "wb") as file:
        fastavro.writer(
            file, {"type": "record", "name": "r", "fields": fields}, rows, codec="deflate", sync_interval=60
        )
    with zipfile.ZipFile(folder / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", csv_text(rows, ",", "\n", "needed"))
    with tarfile.open(folder / "t.tar", "w") as shard:
        for number, row in enumerate(rows):
            info = tarfile.TarInfo(f"{number}.json")
            info.size = len(data := json.dumps(row).encode())
            shard.addfile(info, io.BytesIO(data))
    yield from ((path.name, path) for path in sorted(folder.iterdir()))
    yield from {
        "arrow": arrow,
        "reader": arrow.to_reader(3),
        "list": rows,
        "dict": {name: [row[name] for row in rows] for name in rows[0]},
        "pandas": pd.DataFrame(rows),
        "pandas of Arrow": arrow.to_pandas(types_mapper=pd.ArrowDtype),
        "polars": pl.from_arrow(arrow),
        "lazy": pl.from_arrow(arrow).lazy(),
    }.items()


@often(15)
@given(table_rows(texts(LETTERS["utf"] + SIGNS)))
def test_every_source_gives_the_cells_that_were_written(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, source in written_in_every_source(rows, Path(folder)):
            table = Table.open(source)
            assert not table.bad_rows, name
            same_cells(table, rows)


@often(15)
@given(table_rows(texts(PLAIN + "ß中😀\n"), gaps=False))
def test_spreadsheets_databases_and_arrays(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, book = Path(name), openpyxl.Workbook()
        for line in [NAMES, *([row[name] for name in NAMES] for row in rows)]:
            book.active.append(line)
        book.save(folder / "t.xlsx")  # which writes 16 digits of a number, and Excel keeps 15
        same_cells(
            Table.open(folder / "t.xlsx"), [{**row, "real": pytest.approx(row["real"], rel=1e-14)} for row in rows]
        )
        base = sqlite3.connect(folder / "t.sqlite")
        base.execute("create table t (text, whole, real, truth)")
        base.executemany("insert into t values (?, ?, ?, ?)", [tuple(row[name] for name in NAMES) for row in rows])
        base.commit()
        base.close()
        same_cells(Table.open(folder / "t.sqlite"), rows)
        numbers = {key: np.array([row[key] for row in rows]) for key in ("whole", "real", "truth")}
        with h5py.File(folder / "t.h5", "w") as file:
            for key, array in numbers.items():
                file[key] = array
        np.savez(folder / "t.npz", **numbers)
        np.save(folder / "t.npy", np.rec.fromarrays(list(numbers.values()), names=list(numbers)))
        for path in (folder / "t.h5", folder / "t.npz", folder / "t.npy"):
            same_cells(Table.open(path), rows, list(numbers))


# --- damage -----------------------------------------------------------------------------------------------------------


def others_stay(path: Path, whole: dict[str, list[Any]], struck: int, rows: int) -> Table:
    """The table has all its rows, and those that weren't struck are as they were."""
    table = Table.open(path)
    assert table.rows == rows
    found = columns(table)
    for name, cells in whole.items():
        kept = found.get(name, [None] * rows)
        assert kept[:struck] + kept[struck + 1 :] == cells[:struck] + cells[struck + 1 :], name
    return table


@often(120)
@given(
    st.data(),
    st.integers(4, 9),
    st.sampled_from(
        ["too many", "too few", "torn", "last lacks", "one more comma", "unclosed", "unclosed in the middle", "blanks"]
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([",", ";", "\t"]),
)
def test_a_damaged_line_of_csv_costs_that_line(data: st.DataObject, rows: int, way: str, end: str, sign: str) -> None:
    cells = texts(PLAIN.replace("+", ""))
    lines = [[str(row), *(data.draw(cells) for _ in range(3)), f"{row}.5"] for row in range(rows)]
    at = data.draw(st.integers(0, rows - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"

        def write(line: str) -> None:
            body = [sign.join(cells) for cells in lines]
            body[at] = line
            path.write_bytes("".join(text + end for text in [sign.join("abcde"), *body]).encode())

        write(sign.join(lines[at]))
        whole = columns(Table.open(path))
        line = list(lines[at])
        write(
            {
                "too many": sign.join([*line, "more", "x"]),
                "too few": sign.join(line[:3]),
                "torn": sign.join(line)[: len(line[0]) + 2],
                "last lacks": sign.join(line[:4]),
                "one more comma": sign.join([*line, ""]),
                "unclosed": sign.join([line[0], '"' + line[1], *line[2:]]),
                "unclosed in the middle": sign.join([*line[:3], '"' + line[3], line[4]]),
                "blanks": sign * 2,
            }[way]
        )
        table = others_stay(path, whole, at, rows)
        if way in ("last lacks", "one more comma"):
            assert not table.bad_rows and any("1 line(s)" in note for note in table.notes)
            assert columns(table)["a"] == list(range(rows)) and columns(table)["e"][at] == (
                None if way == "last lacks" else at + 0.5
            )
        else:
            assert (
                list(table.bad_rows) == [at]
                and f"line {at + 2}" in table.bad_rows[at].where
                and table.bad_rows[at].reason
            )
            assert any("row(s) can't be read" in note for note in table.notes)


@often(80)
@given(
    st.data(),
    table_rows(texts(LETTERS["utf"] + SIGNS), least=4),
    st.sampled_from(["torn", "no object", "no JSON", "twice", "unclosed", "deep"]),
)
def test_a_damaged_line_of_json_costs_that_line(data: st.DataObject, rows: list[dict[str, Any]], way: str) -> None:
    lines = [json.dumps(row) for row in rows]
    at = data.draw(st.integers(0, len(rows) - 1))
    whole = {name: [row[name] for row in rows] for name in rows[0]}
    lines[at] = {
        "torn": lines[at][: data.draw(st.integers(1, len(lines[at]) - 1))],
        "no object": data.draw(st.sampled_from(["[1]", "7", '"x"', "null"])),
        "no JSON": "so it goes",
        "twice": '{"text": "a", "text": "b"}',
        "unclosed": lines[at][:-1] + ', "more": "',
        "deep": "[" * 5000,
    }[way]
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "t.jsonl").write_text("".join(line + "\n" for line in lines))
        table = others_stay(path, whole, at, len(rows))
        assert list(table.bad_rows) == [at] and f"line {at + 1}" in table.bad_rows[at].where


@often(40)
@given(st.lists(st.tuples(texts(PLAIN), st.integers(0, 99)), min_size=3, max_size=9), st.data())
def test_a_shard_or_text_that_ends_early_keeps_what_came_before(
    rows: list[tuple[str, int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.tar"
        with tarfile.open(path, "w") as shard:
            for number, (text, _) in enumerate(rows):
                info = tarfile.TarInfo(f"{number}.txt")
                info.size = len(text.encode())
                shard.addfile(info, io.BytesIO(text.encode()))
        whole = path.read_bytes()[: 1024 * len(rows)]
        kept = data.draw(st.integers(2, len(whole) // 512 - 1))
        path.write_bytes(whole[: 512 * kept])
        table = Table.open(path)
        good = [text for text, bad in zip(columns(table)["text"], ~table.good, strict=True) if not bad]
        assert good == [text for text, _ in rows[: kept // 2]] and len(table.bad_rows) == kept % 2
        text = "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)
        (Path(folder) / "t.csv.gz").write_bytes(gzip.compress(text.encode())[:-9])
        with pytest.raises(Exception, match="can't be read"):
            Table.open(Path(folder) / "t.csv.gz")


# --- numbers and dates in writing -------------------------------------------------------------------------------------

FORMS = st.builds(
    lambda signs, around, places: NumberForm(*signs, *around, places),
    st.sampled_from([(".", ""), (".", ","), (",", "."), (",", ""), (".", "'"), (",", " "), (".", " ")]),
    st.sampled_from(
        [
            ("", ""),
            ("€", ""),
            ("$", ""),
            ("", " %"),
            ("", "%"),
            ("USD ", ""),
            ("", " kg"),
            ("", " €"),
            ("£", " / day"[:0]),
        ]
    ),
    st.integers(-1, 4),
)
VALUES = st.integers(-(10**9), 10**9).map(lambda number: number / 100)


@often(300)
@given(FORMS, VALUES, st.integers(0, 4))
def test_a_number_in_writing_is_read_as_what_it_was(form: NumberForm, value: float, places: int) -> None:
    text = form.write(value, places)
    read = form.parse(text)
    assert read is not None and float(read) == pytest.approx(
        round(value, form.places if form.places >= 0 else places), abs=1e-9, rel=0
    )
    assert form.write(float(read), places) == text
    assert form.parse(f"  {text} ") == read and (value < 0 or form.parse(f"({text})") == f"-{read}")


@often(200)
@given(FORMS, st.lists(VALUES, min_size=2, max_size=12))
def test_the_form_of_a_column_of_numbers_is_found(form: NumberForm, values: list[float]) -> None:
    values = [*values, 1234567.25, -2345.5]  # so that all its signs are seen
    places = form.places if form.places >= 0 else 2
    written = [form.write(value, places) for value in values]
    found, example = number_form(written)
    assume(form.places < 0 or not lossy_example(filter(None, map(form.parse, written))))
    assert found is not None and example in written
    for text in written:
        assert float(found.parse(text) or "nan") == float(form.parse(text) or "nan"), (text, found)
        assert found.write(float(found.parse(text) or "nan"), places) == text
    if form.thousands:
        assert found.thousands == form.thousands and (places == 0 or found.decimal == form.decimal)


DIGITS = (
    st.from_regex(r"-?[0-9]{1,6}(\.[0-9]{1,4})?", fullmatch=True)
    | st.from_regex(r"-?[1-9][0-9]{0,20}", fullmatch=True)
    | st.from_regex(r"-?[1-9][0-9]{0,8}\.[0-9]{1,6}", fullmatch=True)
)


@often(250)
@given(st.lists(DIGITS, min_size=1, max_size=8))
def test_texts_that_are_read_as_numbers_lose_nothing(cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "t.csv").write_text("n,other\n" + "".join(f"{cell},x\n" for cell in cells))
        table = Table.open(path)
        found = columns(table)["n"]
        kind = table.schema.field("n").type
        assert (pa.types.is_string(kind)) == (lossy_example(cells) is not None) or pa.types.is_string(kind)
        if pa.types.is_string(kind):
            assert found == cells
            return
        assert any(same_writing(cells, found, write) for write in ways(cells))


def ways(cells: list[str]) -> Iterator[Callable[[Any], str]]:
    """How a column of numbers may be written: as Python does, or with so many decimals, or digits that count."""
    yield str
    for places in {len(cell.partition(".")[2]) for cell in cells}:
        yield lambda value, places=places: f"{value:.{places}f}"
    following = iter(cells)
    yield lambda value: significant(value, next(following))


def significant(value: Any, cell: str) -> str:
    digits = len(cell.replace(".", "").lstrip("-0"))
    return (
        f"{value:#.{max(digits, 1)}g}" if "." in cell else str(int(value)) if float(value).is_integer() else str(value)
    )


def same_writing(cells: list[str], values: list[Any], write: Callable[[Any], str]) -> bool:
    """Whether the numbers, written so, are the texts; 2.0 may stand as 2, and zero with a minus."""

    def bare(text: str) -> str:
        text = text.removesuffix(".").removesuffix(".0")
        return text.removeprefix("-") if not text.strip("-0.") else text

    return all(bare(write(value)) == bare(cell) for value, cell in zip(values, cells, strict=True))


DATES = st.lists(
    st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2060, 12, 31)).map(
        lambda day: day.replace(microsecond=0)
    ),
    min_size=1,
    max_size=10,
)
DATE_FORMS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %B %Y",
]


@often(250)
@given(DATES, st.sampled_from(DATE_FORMS), st.sampled_from(["", " %H:%M", " %H:%M:%S", " %I:%M %p"]))
def test_the_form_of_a_column_of_dates_is_found_or_refused(days: list[datetime.datetime], body: str, time: str) -> None:
    form = body + time
    days = [read_date(write_date(day, form), form) for day in days]
    written = [write_date(day, form) for day in days]
    found, why = date_form(written)
    numbers = body[:2] in ("%d", "%m") and body[3:5] in ("%d", "%m")
    if numbers and "." not in body and not any(day.day > 12 for day in days):
        assert found is None
        assert (
            f"format={form}" in why if body.endswith("%Y") else why == "" or "no day is over 12" in why
        )  # 3/4/25 may be other things
        return
    assert found is not None and why
    assert [read_date(text, found) for text in written] == days
    assert [write_date(day, found) for day in days] == written


# --- pieces, types, rows in other orders ------------------------------------------------------------------------------

ARRAYS = st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=30).map(
    lambda cells: pa.array(cells, pa.binary())
)


@often(60)
@given(ARRAYS, st.integers(1, 60), st.booleans(), st.booleans())
def test_slices_of_a_batch_are_within_bounds_and_have_all_its_rows(
    array: pa.Array, limit: int, nested: bool, coded: bool
) -> None:
    column = array.dictionary_encode() if coded else array
    sizes = [len(cell or b"") for cell in array.to_pylist()]
    assert row_bytes(column).tolist() == sizes
    column = pa.StructArray.from_arrays([column], ["in"]) if nested else column
    batch = pa.RecordBatch.from_arrays([column], names=["c"])
    parts = list(split_by_bytes(batch, limit))
    assert [cell for part in parts for cell in part["c"].to_pylist()] == batch["c"].to_pylist()
    at = 0
    for part in parts:
        assert part.num_rows == 1 or sum(sizes[at : at + part.num_rows]) <= limit
        at += part.num_rows
        assert at == len(sizes) or sum(sizes[at - part.num_rows : at + 1]) > limit


@often(40)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(1, 20), st.integers(50, 500), st.data())
def test_batches_by_bytes_and_rows_in_any_order(lengths: list[int], size: int, limit: int, data: st.DataObject) -> None:
    cells = [bytes([row]) * length for row, length in enumerate(lengths)]
    wanted = data.draw(st.lists(st.integers(0, len(cells) - 1), max_size=60))
    source = pa.table({"c": cells, "s": [{"a": row, "b": [row]} for row in range(len(cells))]})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (tables, "sensorium.data.blocks", "sensorium.data.sources.parquet", "sensorium.data.sources.ipc"):
            patch.setattr(
                module if not isinstance(module, str) else __import__(module, fromlist=["BATCH_BYTES"]),
                "BATCH_BYTES",
                limit,
            )
        patch.setattr(tables, "MAX_REORDERED_BYTES", data.draw(st.sampled_from([0, 1000, 1 << 30])))
        pq.write_table(source, Path(folder) / "t.parquet", row_group_size=7)
        pa.feather.write_feather(source, str(Path(folder) / "t.arrow"), chunksize=5, compression="uncompressed")
        for given_ in (source, Path(folder) / "t.parquet", Path(folder) / "t.arrow"):
            table = Table.open(given_)
            first = 0
            for row, batch in table.batches(size, ["c", "s.a"]):
                held = sum(lengths[first : first + batch.num_rows])
                assert row == first and 0 < batch.num_rows <= size and (batch.num_rows == 1 or held <= limit)
                assert batch["c"].to_pylist() == cells[first : first + batch.num_rows]
                assert batch["s.a"].to_pylist() == list(range(first, first + batch.num_rows))
                first += batch.num_rows
            assert first == table.rows == len(cells)
            taken = table.take(wanted)
            assert taken["c"].to_pylist() == [cells[row] for row in wanted] and taken["s.b"].to_pylist() == [
                [row] for row in wanted
            ]
            view = table.select(wanted)
            assert [cell for _, batch in view.batches(size) for cell in batch["c"].to_pylist()] == [
                cells[row] for row in wanted
            ]


CELLS = st.recursive(
    st.integers(-9, 9) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=8,
)


def leaves(cell: Any, path: str) -> dict[str, Any]:
    """The cells that a mapping opens into, by their columns; beyond four levels it stays whole."""
    if not isinstance(cell, dict):
        return {path: cell}
    return {name: value for key, inside in cell.items() for name, value in leaves(inside, f"{path}.{key}").items()}


@often(60)
@given(st.lists(CELLS.filter(lambda cell: isinstance(cell, dict)), min_size=1, max_size=6))
def test_mappings_open_into_columns(cells: list[dict[str, Any]]) -> None:
    try:
        array = pa.array(cells)
    except pa.ArrowInvalid:
        assume(False)
    table = Table.open(pa.table({"s": array}))
    found = columns(table)
    for row, cell in enumerate(array.to_pylist()):
        for name, value in leaves(cell, "s").items():
            if name in found:
                assert found[name][row] == value
            else:  # below a mapping that isn't there, or a level too deep
                assert value is None or name.count(".") >= 4
    assert all(name == "s" or name.startswith("s.") for name in table.columns)


@often(40)
@given(
    DATES,
    st.sampled_from(
        ["M", "2M", "Q", "Q-JAN", "Q-NOV", "Y", "Y-JUN", "W", "W-MON", "W-SAT", "D", "h", "3h", "min", "s", "ms"]
    ),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]),
    st.integers(0, 3),
)
def test_periods_durations_and_time_zones(days: list[datetime.datetime], frequency: str, zone: str, gap: int) -> None:
    stamps = pd.Series(pd.to_datetime(days))
    frame = pd.DataFrame(
        {
            "period": stamps.dt.to_period(frequency),
            "zone": stamps.dt.tz_localize("UTC").dt.tz_convert(zone),
            "lasts": stamps - stamps.iloc[0],
        }
    )
    frame.loc[frame.index == gap, ["period", "zone", "lasts"]] = None
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.Table.from_pandas(frame), Path(folder) / "t.parquet")
        for source in (frame, Path(folder) / "t.parquet"):
            found = columns(Table.open(source))
            for row in range(len(frame)):
                if row == gap:
                    assert found["period"][row] is None and found["zone"][row] is None and found["lasts"][row] is None
                    continue
                assert found["period"][row] == frame["period"].iloc[row].start_time.to_pydatetime()
                assert (
                    found["zone"][row] == frame["zone"].iloc[row].to_pydatetime()
                    and found["zone"][row].tzinfo is not None
                )
                assert math.isclose(found["lasts"][row], frame["lasts"].iloc[row].total_seconds(), abs_tol=1e-9)


# --- a model is asked about a table with bad rows ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of the tiny table for which enough rows were held out to say what is usual."""
    from sensorium.model import Model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensorium.fit.stages.report", lambda *given, **named: None)
        return Model.fit(
            tiny_table(260), out=tmp_path_factory.mktemp("learned"), epochs=1, settings=[*TINY, "data.validation=0.2"]
        )


ASKED = ["name", "colour", "width", "day", "curve"]


def asked_tables(folder: Path, seed: int, rows: int = 14, bad: int = 4) -> tuple[Path, Path, list[int]]:
    """A CSV with bad lines at random places, the same without them, and where its good rows are."""
    rng = np.random.default_rng(seed)
    cells = tiny_cells(rows, seed)
    good = [
        ";".join("" if (cell := cells[name][row]) is None or cell != cell else str(cell) for name in ASKED)
        for row in range(rows)
    ]
    places = sorted(rng.choice(rows + bad, bad, replace=False).tolist())
    lines = list(good)
    for place in places:
        lines.insert(place, rng.choice(["torn", "too;many;of;them;by;far", ";;"]))
    paths = folder / f"damaged{seed}.csv", folder / f"whole{seed}.csv"
    for path, some in zip(paths, (lines, good), strict=True):
        path.write_text("\n".join([";".join(ASKED), *some]) + "\n", encoding="utf-8")
    return *paths, [row for row in range(rows + bad) if row not in places]


def asked(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call gives, and what it warns of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", SensoriumWarning)
        result = call()
    return result, [str(one.message) for one in heard if issubclass(one.category, SensoriumWarning)]


def quiet(call: Callable[[], Any]) -> Any:
    """What a call gives, whatever it warns of."""
    return asked(call)[0]


def alike(a: Any, b: Any) -> bool:
    """Whether two answers are the same, numbers up to 1e-5."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(a, np.ndarray):
        return bool(np.allclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if dataclasses.is_dataclass(a):
        return alike(vars(a), vars(b))
    return len(a) == len(b) and all(map(alike, a, b)) if isinstance(a, list | tuple) else a == b


def told_once(warned: list[str], lacking: bool = True) -> None:
    """Each thing is said once: columns that lack, and rows that can't be read."""
    assert len(warned) == len(set(warned)), warned
    assert sum("row(s) can't be read" in words for words in warned) == 1, warned
    assert sum("has no column" in words for words in warned) == lacking, warned


@pytest.mark.parametrize("seed", [0, 1])
def test_every_verb_answers_row_for_row_and_bad_rows_by_why(learned: Any, tmp_path: Path, seed: int) -> None:
    damaged, whole, good = asked_tables(tmp_path, seed)
    why = Table.open(damaged).bad_rows
    rows = len(good) + len(why)
    assert len(why) == 4

    def same(found: pa.Table, expected: pa.Table) -> None:
        assert found.num_rows == rows and "bad_row" not in expected.column_names
        for row, line in enumerate(found.to_pylist()):
            reason = line.pop("bad_row")
            assert reason == (str(why[row]) if row in why else None)
            assert row not in why or all(cell is None for cell in line.values()), line
        kept = found.select(expected.column_names).take(good)
        assert alike(kept.to_pylist(), expected.to_pylist())

    for column in ("name", "colour", "width", "day"):
        found, warned = asked(lambda column=column: learned.predict(damaged, column))
        told_once(warned)
        same(found, quiet(lambda column=column: learned.predict(whole, column)))
        seen = ["curve", "name" if column != "name" else "colour"]
        cells, warned = asked(lambda column=column, seen=seen: learned.generate(damaged, column, seen=seen))
        told_once(warned, lacking=False)
        assert len(cells) == rows and all(cells[row] is None for row in why)
        assert alike(
            [cells[row] for row in good],
            quiet(lambda column=column, seen=seen: learned.generate(whole, column, seen=seen)),
        )
    found, warned = asked(lambda: learned.surprise(damaged))
    told_once(warned)
    same(found, quiet(lambda: learned.surprise(whole)))
    gists, warned = asked(lambda: learned.embed(damaged))
    told_once(warned)
    assert (
        gists.shape[0] == rows
        and np.isnan(gists[list(why)]).all()
        and alike(gists[good], quiet(lambda: learned.embed(whole)))
    )
    found, warned = asked(lambda: learned.fill(damaged))
    told_once(warned)
    expected = quiet(lambda: learned.fill(whole))
    assert found.num_rows == rows and [reason is not None for reason in found["bad_row"].to_pylist()] == [
        row in why for row in range(rows)
    ]
    assert alike(found.select(expected.column_names).take(good).to_pylist(), expected.to_pylist())
    reasons, warned = asked(lambda: learned.explain(damaged, "colour"))
    told_once(warned)
    assert [reason is None for reason in reasons] == [row in why for row in range(rows)]
    assert alike([reasons[row] for row in good], quiet(lambda: learned.explain(whole, "colour")))
    first, warned = asked(lambda: learned.evaluate(damaged))
    told_once(warned)
    second = quiet(lambda: learned.evaluate(whole))
    for found in (first, second):
        for key in ("trained_on", "seconds", "rows"):
            found.pop(key, None)
    assert first["columns"] and alike(first, second)


def test_searching_finds_good_rows_only_by_their_numbers(learned: Any, tmp_path: Path) -> None:
    damaged, whole, good = asked_tables(tmp_path, 3)
    query = {"colour": "red", "name": "big red bar 7"}
    found, warned = asked(lambda: learned.search(query, among=damaged, k=30))
    told_once(warned)
    expected = quiet(lambda: learned.search(query, among=whole, k=30))
    assert [good[row] for row in expected["row"].to_pylist()] == found["row"].to_pylist() and alike(
        expected["score"].to_pylist(), found["score"].to_pylist()
    )
    index, warned = asked(lambda: learned.index(damaged, tmp_path / "index"))  # of the columns that are there
    told_once(warned, lacking=False)
    other = quiet(lambda: learned.index(whole, tmp_path / "other"))
    assert len(index) == len(good) + 4 and len(other) == len(good)
    a, b = (quiet(lambda one=one: one.search(query, k=30)) for one in (index, other))
    assert a["row"].to_pylist() == [good[row] for row in b["row"].to_pylist()] and alike(
        a["score"].to_pylist(), b["score"].to_pylist()
    )


def test_bad_cells_are_told_of_once_and_a_strange_table_is_refused(learned: Any, tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_text(
        "colour;width;day\n" + "red;1.5;2020-01-01\nblue;much;some day\n" * 3 + "torn\n"
    )
    found, warned = asked(lambda: learned.predict(path, "name"))
    told_once(warned)
    assert found.num_rows == 7 and found["bad_row"].to_pylist()[:6] == [None] * 6
    assert sum("'width'" in words and "3 cell(s) can't be read" in words for words in warned) == 1, warned
    for source in ({"strange": [1, 2]}, [{"strange": 1, "other": "x"}]):
        for call in (
            learned.embed,
            learned.surprise,
            learned.fill,
            learned.evaluate,
            lambda table: learned.predict(table, "colour"),
            lambda table: learned.generate(table, "name"),
            lambda table: learned.explain(table, "colour"),
            lambda table: learned.search({"colour": "red"}, among=table),
            lambda table: learned.index(table, tmp_path / "none"),
        ):
            with pytest.raises(UserError, match="none of this model's columns|of the model's columns none"):
                call(source)


def test_the_encoding_of_a_text_without_spaces_is_found_at_once(tmp_path: Path) -> None:
    (path := tmp_path / "t.csv").write_bytes(b"a,b\n" + b"x" * 900_000 + b"\xe9,caf\xe9 f\xfcr\n")
    found = columns(Table.open(path))
    assert found["a"][0][-1] == "é" and found["b"] == ["café für"]


def test_arrays_that_lead_out_of_their_buffers_are_refused_and_bad_bytes_mended(tmp_path: Path) -> None:
    def unsound(
        kind: pa.DataType, buffers: list[Any], children: list[pa.Array] | None = None, count: int = 2
    ) -> pa.Array:
        return pa.Array.from_buffers(
            kind, count, [None, *(pa.py_buffer(np.array(b, np.int32)) for b in buffers)], children=children
        )

    codes = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a", "b"]), safe=False)
    away = unsound(pa.list_(pa.int32()), [[0, 900, 2]], [pa.array([1, 2], pa.int32())])
    view = unsound(pa.string_view(), [[20, 0, 7, 0, 20, 0, 0, 9000]])
    bad = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    for array in (
        codes,
        away,
        view,
        pa.StructArray.from_arrays([codes], ["in"]),
        pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), codes),
    ):
        with pytest.raises(pa.ArrowException):
            check_layout(array)
        with (
            pa.ipc.new_stream(tmp_path / "t.arrow", pa.schema([("c", array.type)])) as writer,
            pytest.raises((UserError, pa.ArrowException)),
        ):
            writer.write_batch(pa.RecordBatch.from_arrays([array], names=["c"]))
            writer.close()
            Table.open(tmp_path / "t.arrow")
    with pytest.raises(pa.ArrowException):
        check_codes(codes)
    mended = (
        bad,
        bad.dictionary_encode(),
        pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), bad),
        pa.StructArray.from_arrays([bad], ["in"]),
    )
    for array in mended:
        for new in (pa.ipc.new_file, pa.ipc.new_stream):
            with new(tmp_path / "t.arrow", pa.schema([("c", array.type)])) as writer:
                writer.write_batch(pa.RecordBatch.from_arrays([array], names=["c"]))
            table = Table.open(tmp_path / "t.arrow")
            assert "caf\ufffd" in str(columns(table)) and list(table.repaired.values()) == [1], array.type
