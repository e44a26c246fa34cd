"""Documents: files of text and PDFs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sensorium.core.errors import BadCell
from sensorium.data.schema import infer
from sensorium.data.table import Table
from sensorium.media.documents import is_text
from sensorium.modalities.text import Text


def pdf(words: str) -> bytes:
    """A PDF of one page with some words, written by hand."""
    page = f"BT /F1 24 Tf 20 100 Td ({words}) Tj ET".encode()
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]  # fmt: skip
    out, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(parts) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(parts) + 1, table) + end


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a caf\xc3\xa9", "a café"),
        (b"\xef\xbb\xbfmark", "mark"),
        ("wide é".encode("utf-16"), "wide é"),
        (b"<p>x</p>\n", "<p>x</p>\n"),
    ],
)
def test_files_of_text_are_their_text(data: bytes, text: str) -> None:
    assert is_text(data) and Text(files=True).read(data).tobytes() == Text().read(text).tobytes()


def test_a_pdf_is_its_text() -> None:
    pytest.importorskip("pypdfium2")
    assert b"hello world" in Text(files=True).read(pdf("hello world")).tobytes()
    with pytest.raises(BadCell, match="PDF can't be read"):
        Text(files=True).read(b"%PDF-1.4 torn")


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(30), bytes(range(256)), b"\xff" * 100, b"GIF89a" + bytes(9)]
)
def test_other_files_are_bad_cells(data: bytes) -> None:
    with pytest.raises(BadCell, match="no text"):
        Text(files=True).read(data)


def test_half_a_character_at_the_end_of_a_beginning_is_text() -> None:
    assert (
        is_text("é".encode()[:1].rjust(1, b"a") and ("a" * 9 + "é").encode()[:-1])
        and not is_text(b"a\xffbcd")
        and not is_text(b"")
    )


def test_paths_of_texts_are_files_and_not_their_names(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text(f"letter number {number} é " * 100)
        (tmp_path / f"{number}.pdf").write_bytes(pdf(f"page {number}"))
    lines = "".join(f"{number}.txt,{number}.pdf,{number * 7 % 5}\n" for number in range(12))
    (tmp_path / "t.csv").write_text("note,scan,n\n" + lines)
    table = Table.open(tmp_path / "t.csv")
    schema = infer(table, overrides={"scan": "text"})
    assert {name: column.settings.get("files") for name, column in schema.columns.items()} == {
        "note": True,
        "scan": True,
        "n": None,
    }
    assert infer(table).columns["scan"].kind in ("image", "text")


def test_a_model_sees_files_of_text_and_does_not_say_them(quick_fit) -> None:
    words = ["red apple", "green pear", "blue plum"]
    cells = {
        "note": [{"bytes": words[i % 3].encode() * 3, "path": None} for i in range(60)],
        "plain": [words[i % 3].encode() for i in range(60)],
    }
    model = quick_fit(pa.table({**cells, "kind": [words[i % 3][:4] for i in range(60)]}), target=["kind"], epochs=6)
    assert model.schema.columns["note"].settings["files"] and "note" not in model.network.asked_columns
    assert "files" not in model.schema.columns["plain"].settings and "plain" in model.network.asked_columns, (
        "bytes of text are text"
    )
    assert model.predict([{"note": b"red apple"}], "kind").num_rows == 1
