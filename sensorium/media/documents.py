"""Text extraction from documents, plain or PDF."""

from __future__ import annotations

from sensorium.core.errors import BadCell
from sensorium.media.formats import media_type
from sensorium.media.unsupported import unread_format

MAX_PAGES = 100
"""Pages of a PDF that are read at most."""


def document_text(data: bytes, most: int) -> str:
    """Text of a file's bytes, about ``most`` characters: UTF-8, UTF-16 with a mark, or a PDF's.

    Raises:
        BadCell: it is no text, or a PDF that can't be read.
    """
    if data.startswith(b"%PDF-"):
        return pdf_text(data, most)
    if not is_text(data[:4096]):
        kind = media_type(data[:1024]) or next(iter(unread_format(data[:1024]) or ()), None)
        raise BadCell(f"the file is no text{f' but {kind}' if kind else ''}")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data[: 4 * most + 4].decode("utf-16" if wide else "utf-8-sig", "replace")


def is_text(head: bytes) -> bool:
    """True where a file's first bytes are those of a text: UTF-8, or UTF-16 with a mark, without control characters."""
    if not head or media_type(head) is not None:
        return False
    try:
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = head[: len(head) // 2 * 2].decode("utf-16", "ignore")
        else:
            text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return False
        text = head[: error.start].decode()
    return not any(letter < " " and letter not in "\t\n\r\f\x1b" for letter in text)


def pdf_text(data: bytes, most: int) -> str:
    """Text of a PDF's pages, page after page, until there are ``most`` characters.

    Raises:
        BadCell: it can't be read, or pypdfium2 isn't installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise BadCell("a PDF, which takes the package pypdfium2: pip install 'sensorium[pdf]'") from error
    parts: list[str] = []
    try:
        document = pypdfium2.PdfDocument(data)
        try:
            for number in range(min(len(document), MAX_PAGES)):
                page = document[number]
                text = page.get_textpage()
                parts.append(text.get_text_bounded())
                text.close()
                page.close()
                if sum(map(len, parts)) >= most:
                    break
        finally:
            document.close()
    except pypdfium2.PdfiumError as error:
        raise BadCell(f"the PDF can't be read: {str(error).partition('(')[0].strip()}") from error
    return "\n".join(parts)
