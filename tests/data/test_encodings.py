"""Encodings, delimiters and containers are found from content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.core.errors import UserError
from sensorium.data.options import ReadOptions
from sensorium.data.table import Table


def cells(table: Table) -> dict[str, list]:
    return table.take(range(table.rows)).to_pydict()


TEXTS = {
    "cp1252": "Größe in €;“Straße” Nº 5;naïve café", "cp1251": "Москва;Санкт-Петербург;привет, мир",
    "cp1253": "Αθήνα;Θεσσαλονίκη;καλημέρα κόσμε",
    "cp1250": "Łódź;żółć i gęś;Kraków", "gb18030": "北京大学;上海;你好世界",
    "cp932": "東京;大阪;こんにちは世界", "big5": "台北;高雄;你好世界",
    "cp949": "서울;부산;안녕하세요 여러분", "utf-16": "Jörg;北京;x",
    "utf-16-le": "Jörg;Zoë;x", "utf-16-be": "Jörg;Zoë;x",
    "utf-32": "Jörg;Zoë;x",
    "utf-32-be": "Jörg;Zoë;x", "utf-8-sig": "Jörg;Zoë;x", "utf-8": "Jörg;Zoë;x",
}  # fmt: skip


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_encoding_is_found_and_told(encoding: str, tmp_path: Path) -> None:
    words = TEXTS[encoding].split(";")
    rows = [(words[i % 3], i) for i in range(30)]
    (tmp_path / "t.csv").write_bytes((f"{words[0]}\tn\n" + "".join(f"{a}\t{b}\n" for a, b in rows)).encode(encoding))
    table = Table.open(tmp_path / "t.csv")
    assert cells(table) == {words[0]: [a for a, _ in rows], "n": list(range(30))}
    told = [note for note in table.notes if "read as" in note]
    assert bool(told) == (not encoding.startswith("utf-8")) and not table.repaired
    assert table.found["t.csv"]["encoding"]


def test_an_encoding_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\nBär\n".encode("cp850"))
    assert cells(Table.open(tmp_path / "t.csv", options=ReadOptions(encoding="cp850"))) == {"a": ["Bär"]}
    (tmp_path / "t.jsonl").write_bytes('{"a": "Bär"}\n'.encode("latin-1"))
    assert cells(Table.open(tmp_path / "t.jsonl")) == {"a": ["Bär"]}
    with pytest.raises(UserError, match=r"data\.encoding=klingon"):
        ReadOptions(encoding="klingon")


def test_utf_8_with_few_wrong_bytes_stays_utf_8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a\né\nè\n".encode() + b"\xff\n")
    table = Table.open(tmp_path / "t.csv")
    assert cells(table) == {"a": ["é", "è", "\ufffd"]} and table.repaired == {"a": 1}
    assert any("don't decode" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("name;price, net, EUR\na;1,5\nb;2,5\n", ["name", "price, net, EUR"]), ("sep=;\na;b\n1;2\n", ["a", "b"]),
        ('"sep=|"\na|b\n1|2\n', ["a", "b"]),
        ("a,b\n1,x;y;z;w\n2,u;v;w;z\n", ["a", "b"]), ("text\nhello, world\nbye\n", ["text"]),
        ('"a;b",c\n"1;2",3\n', ["a;b", "c"]), ("a,b,\n1,2,\n3,4,\n", ["a", "b"]), ("a,b\n1,2,\n3,4,\n", ["a", "b"]),
        ("x y\nr1 1,2\n", ["x y"]), ("b,c\nr1,1,2\nr2,3,4\n", ["column 1", "b", "c"]),
    ],
)  # fmt: skip
def test_the_delimiter_gives_most_lines_the_headers_cells(text: str, columns: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    table = Table.open(tmp_path / "t.csv")
    body = [line for line in text.splitlines() if line and "sep=" not in line][1:]
    assert table.columns == columns and table.rows == len(body) and not table.bad_rows


def test_a_delimiter_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a b\n1 2\n")
    assert cells(Table.open(tmp_path / "t.csv", options=ReadOptions(delimiter="space"))) == {"a": [1], "b": [2]}
    with pytest.raises(UserError, match=r"data\.delimiter"):
        ReadOptions(delimiter="::")


def packed(kind: str, data: bytes) -> bytes:
    if kind in ("zstd", "lz4"):
        out = io.BytesIO()
        with pa.CompressedOutputStream(pa.PythonFile(out, "w"), kind) as stream:
            stream.write(data)
            stream.flush()
            return out.getvalue() if kind == "none" else _closed(stream, out)
    return {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)


def _closed(stream: pa.NativeFile, out: io.BytesIO) -> bytes:
    kept: list[bytes] = []
    out.close = lambda: kept.append(out.getvalue())  # type: ignore[method-assign]
    stream.close()
    return kept[0] if kept else out.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd", "lz4"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zst"])
def test_a_compressed_file_is_read_whatever_its_name(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(packed(kind, b"a,b\n1,x\n2,y\n"))
    assert cells(Table.open(tmp_path / name)) == {"a": [1, 2], "b": ["x", "y"]}


def test_first_bytes_win_over_the_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "t.csv")
    table = Table.open(tmp_path / "t.csv")
    assert cells(table) == {"a": [1, 2]} and any(".parquet" in note for note in table.notes)
    with pa.ipc.new_file(tmp_path / "u.csv", pa.schema({"a": pa.int64()})) as writer:
        writer.write_table(pa.table({"a": [3]}))
    assert cells(Table.open(tmp_path / "u.csv")) == {"a": [3]}
    (tmp_path / "empty.csv.gz").write_bytes(gzip.compress(b"a\n1\n")[:-6])
    with pytest.raises(UserError, match="can't be read"):
        Table.open(tmp_path / "empty.csv.gz")
