"""Text encoding detection, checked on all bytes of a file, and the file as text.

UTF-8 wins wherever it fits. Else a sample goes to charset-normalizer; of what it proposes, and of Windows-1252,
which most such files in Western languages are in, the first that decodes the whole file without an error is taken.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sensorium.core.errors import UserError
from sensorium.data.contents import read_stream

CHUNK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
"""Bytes around letters beyond ASCII from which the encoding is detected."""
MIN_COHERENCE = 0.3
"""Coherence (charset-normalizer) from which a language counts as recognised."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
"""Byte order marks; those of UTF-32 begin as those of UTF-16 do, so they come first."""

CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "iso8859_2", "iso8859_5",
    "iso8859_7", "gb18030", "big5", "cp932", "euc_jp", "cp949", "cp874", "mac_roman", "cp437", "cp850", "cp866",
]  # fmt: skip
LATIN_ENCODINGS = {"cp1250", "cp1254", "cp1257", "iso8859_2"}
"""Encodings of other languages in Latin letters, whose texts may read as Western ones."""
ENCODING_NAMES = {"cp1252": "Windows-1252", "cp932": "Shift-JIS", "cp949": "EUC-KR", "utf-8-sig": "UTF-8"}

_BAD = re.compile("[\udc80-\udcff]")
_BEYOND = re.compile("[^\x00-\x7f\udc80-\udcff]")
_PART = re.compile('[^\\s,;"]{0,64}')


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Encoding of one file.

    Attributes:
        name: as Python names it.
        marked: a byte order mark says so.
        damaged: bytes that don't decode, which become U+FFFD; only where UTF-8 fits the rest.
    """

    name: str
    marked: bool = False
    damaged: int = 0

    @property
    def label(self) -> str:
        """Common name of the encoding."""
        return ENCODING_NAMES.get(self.name, self.name.upper().replace("_", "-").replace("CP125", "Windows-125"))


def detect(path: Path, where: str = "") -> Encoding:
    """Detect the encoding of a text file, compressed or not."""
    with read_stream(path) as file:
        head = file.read(CHUNK_BYTES)
        for mark, name in BYTE_ORDER_MARKS:
            if head.startswith(mark):
                return Encoding(name, True)
        if wide := _wide(head[:4096]):
            return Encoding(wide)
        if head[:4096].count(b"\0") > len(head[:4096]) // 4 or head[:64].lstrip().lower().startswith(
            (b"<!doctype", b"<html", b"<?xml")
        ):
            what = "HTML or XML" if b"<" in head[:64] else "binary data"
            raise UserError(f"'{path}' holds {what}, which is no table of text. Save it as CSV, Parquet or JSON lines.")
        if b"\x1b$B" in head or b"\x1b$@" in head:  # characters of seven bits, switched by escapes
            return Encoding("iso2022_jp")
        sample, good, bad = _utf8(itertools.chain([head], iter(lambda: file.read(CHUNK_BYTES), b"")))
    if not bad:
        return Encoding("utf-8")
    if good >= bad:
        return Encoding("utf-8", damaged=bad)
    return Encoding(next(name for name in [*_proposed(sample), "cp1252", "latin-1"] if _decodes(path, name)))


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file as text, with its line ends.

    Bytes that don't decode become surrogates, of UTF-16 and UTF-32 U+FFFD.
    """
    if encoding in ("utf-16", "utf-32"):
        with read_stream(path) as file:
            start = file.read(4)
        if not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            encoding += "-le"  # without a mark, as Windows writes it
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    name = "utf-8-sig" if encoding in ("utf-8", "utf8") else encoding
    return io.TextIOWrapper(read_stream(path), name, errors=errors, newline="")


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark, by the positions of the zeros of ASCII characters."""
    if b"\0" not in head:
        return None
    zeros = [head[place::4].count(0) / max(1, len(head[place::4])) for place in range(4)]
    for name, pattern in (("utf-32-le", (0, 1, 1, 1)), ("utf-32-be", (1, 1, 1, 0))):
        if all(share > 0.9 if wanted else share < 0.1 for share, wanted in zip(zeros, pattern, strict=True)):
            return name
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    name = "utf-16-le" if odd > 0.2 and even < 0.05 else "utf-16-be" if even > 0.2 and odd < 0.05 else None
    try:
        return name if name and head[: len(head) // 4 * 4 - 4 or 4].decode(name) else None
    except UnicodeDecodeError:
        return None


def _utf8(chunks: Iterator[bytes]) -> tuple[bytes, int, int]:
    """Distinct words that are no UTF-8, characters beyond ASCII that are, and bytes that aren't."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    words: dict[str, None] = {}
    good = bad = size = 0
    for chunk in itertools.chain(chunks, [b""]):
        text = decoder.decode(chunk, final=not chunk)
        if text.isascii():
            continue
        wrong = len(_BAD.findall(text))
        good, bad = good + len(_BEYOND.findall(text)), bad + wrong
        end = 0
        for found in _BAD.finditer(text) if wrong and size < SAMPLE_BYTES else ():
            start = found.start()
            if start < end:
                continue
            before, after = _PART.match(text[max(end, start - 64) : start][::-1]), _PART.match(text, start)
            assert before and after  # the pattern fits nothing, too
            end = after.end()
            word = text[start - before.end() : end]
            if word not in words:
                words[word] = None
                size += len(word)
            if size >= SAMPLE_BYTES:
                break
    return " ".join(words).encode("utf-8", "surrogateescape"), good, bad


def _proposed(sample: bytes) -> Iterator[str]:
    """Encodings that a sample may be in, the likeliest first."""
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=CANDIDATES) or from_bytes(sample, cp_isolation=CANDIDATES, threshold=0.6)
    best = found.best() if found else None
    clear = best is not None and best.coherence >= MIN_COHERENCE and best.encoding in LATIN_ENCODINGS
    if best is None or "cp1252" in best.could_be_from_charset or (_western(sample) and not clear):
        yield "cp1252"
    for match in found or ():
        yield match.encoding


def _western(sample: bytes) -> bool:
    """True for a sample that reads as Western text in Windows-1252: single accented letters within words, signs between
    them."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    beyond = [place for place, letter in enumerate(text) if letter > "\x7f"]
    runs = sum(len(run.group()) for run in re.finditer(r"[^\W\d_a-zA-Z]{3,}", text))
    odd = sum(
        not text[place].isalpha() and text[place + 1 : place + 2].isalpha() and text[place] not in "“‘„‚«‹¿¡°–—…·’'"
        for place in beyond
    )
    return bool(beyond) and runs < 0.2 * len(beyond) and odd < 0.1 * len(beyond)


def _decodes(path: Path, name: str) -> bool:
    """True where every byte of a file decodes, and to no C1 control characters, which no text contains."""
    decoder = codecs.getincrementaldecoder(name)("strict")
    try:
        with read_stream(path) as file:
            for chunk in itertools.chain(iter(lambda: file.read(CHUNK_BYTES), b""), [b""]):
                decoder.decode(chunk, final=not chunk)
    except (UnicodeDecodeError, ValueError):
        return False
    return True


def read_up_to(file: BinaryIO, size: int) -> bytes:
    """Up to ``size`` bytes of a stream, which may give fewer at once."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
