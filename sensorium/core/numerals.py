"""Number parsing: lossless conversion of texts to numbers, and signs, units and separators around them.

A column of texts is numeric only where no text loses anything as a number. Codes such as ``049.96``, ``3.10`` beside
``3.9``, ``10E4`` or ``+4917012345`` would: they stay as they are written.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MISSING_WORDS = {"", "na", "n/a", "nan", "none", "null", "-", "?", "#n/a", "<na>", "nat"}
MAX_LENGTH = 400
"""Characters of a text that may be a number; the largest float takes 309 digits."""

_PADDED = r"^[+-]?0\d"
_LONG = r"^[+-]?\d{16,}$"
_PLUS, _MINUS = r"^\+\d{5,}$", r"^-"
_CODE, _SIGNED = r"^[+-]?(\d+E\d+|\d{2,}e\d+)$", r"[eE][+-]\d+$"
_POINT = r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$"
_DOT_ZERO = r"\.0$"
_SUPERFLUOUS = r"^[+-]?\d*\.(\d+0|0\d*[1-9]\d*0)([eE][+-]?\d+)?$"
MAX_VERSIONS, MAX_REMEMBERED = 50, 20_000
"""Distinct texts up to which numbers of different precision count as versions, and how many are remembered."""


class Spelling:
    """Streaming test of a column of texts: would any of them lose something as a number?

    They do where zeros lead, where a capital E stands without signs (``10E4``), where only plus signs stand before
    long whole numbers (telephone numbers), where whole numbers have more digits than a float keeps, where one number
    is written in two ways (``3.1``, ``3.10``), and where a few numbers of different precision end in zeros (``3.9``,
    ``3.10``, ``3.11``: versions). A fixed number of decimals (``2.50``) or of significant digits is fine.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self.decimals: set[int] = set()
        self.digits: set[int] = set()
        self.pointed: set[str] = set()
        self.plus = self.minus = self.zeros = self.long = self.code = self.signed = self.whole = ""

    def update(self, array: pa.Array) -> None:
        """Take in texts, none of them null, that ``float`` takes."""
        if self.lost is not None or not len(array):
            return
        array = pc.utf8_trim_whitespace(array)
        self.lost = _first(array, _PADDED)
        for name, pattern in (
            ("plus", _PLUS),
            ("minus", _MINUS),
            ("long", _LONG),
            ("code", _CODE),
            ("signed", _SIGNED),
        ):
            setattr(self, name, getattr(self, name) or _first(array, pattern) or "")
        point = pc.match_substring_regex(array, _POINT)
        self.whole = self.whole or _first(array.filter(pc.invert(point)), r"^[+-]?\d+$") or ""
        pointed = array.filter(pc.and_(point, pc.invert(pc.match_substring_regex(array, _DOT_ZERO))))
        if not len(pointed):
            return
        self.zeros = self.zeros or _first(pointed, _SUPERFLUOUS) or ""
        mantissa = pc.replace_substring_regex(pointed, r"[eE].*$", "")
        self._few(self.decimals, pc.utf8_length(pc.replace_substring_regex(mantissa, r"^.*\.", "")))
        digits = pc.replace_substring_regex(pc.replace_substring(mantissa, ".", ""), r"^[+-]?0*", "")
        self._few(self.digits, pc.utf8_length(digits))
        if len(self.pointed) < MAX_REMEMBERED:
            self.pointed.update(pc.unique(pointed).to_pylist()[:MAX_REMEMBERED])

    @staticmethod
    def _few(known: set[int], lengths: pa.Array) -> None:
        if len(known) < 2:
            known.update(pc.unique(lengths).to_pylist()[:2])

    def example(self, whole: bool = False) -> str | None:
        """Text that would lose something as a number (``whole``: as a 64-bit integer); None where none would."""
        if self.lost is not None:
            return self.lost
        if self.code and not self.signed:
            return self.code
        if self.long and not whole:
            return self.long
        if self.zeros and len(self.decimals) > 1 and len(self.digits) > 1:
            plain = {text.rstrip("0") for text in self.pointed}
            if len(plain) < len(self.pointed) or (not self.whole and len(self.pointed) <= MAX_VERSIONS):
                return self.zeros
        return self.plus or None if not self.minus and not self.decimals else None


def _first(array: pa.Array, pattern: str) -> str | None:
    at = pc.index(pc.match_substring_regex(array, pattern), True).as_py()
    return array[at].as_py() if at >= 0 else None


def lossy_example(texts: Iterable[str]) -> str | None:
    """First of the texts that a number wouldn't reproduce; None where all survive."""
    spelling = Spelling()
    spelling.update(pa.array(list(texts), pa.string()))
    return spelling.example()


@dataclasses.dataclass(frozen=True)
class NumberForm:
    """Number format of a column: ``€1,234.50``, ``12 %``, ``1.234,5``.

    Attributes:
        decimal: the decimal sign.
        thousands: the sign between groups of three digits; empty: none.
        prefix, suffix: what stands before and behind, spaces included: a currency, a percent sign, a unit.
        places: digits behind the decimal sign that each text has; -1: as many as needed.
        parentheses: minus is written as accountants do, ``(5.25)``.
    """

    decimal: str = "."
    thousands: str = ""
    prefix: str = ""
    suffix: str = ""
    places: int = -1
    parentheses: bool = False

    @property
    def plain(self) -> bool:
        """True for numbers as programs write them."""
        return (self.decimal, self.thousands, self.prefix, self.suffix) == (".", "", "", "") and not self.parentheses

    def parse(self, text: str) -> str | None:
        """Number in a text as ``float`` takes it; None where it isn't written in this format.

        A sign may stand before the prefix or behind it; parentheses mean minus, as accountants write it; a text without
        prefix and suffix is taken as well.
        """
        text = _spaces(text)
        negative = text.startswith("(") and text.endswith(")")
        text = text[1:-1].strip() if negative else text
        sign, text = (text[0], text[1:].lstrip()) if text[:1] in ("+", "-", "−") else ("", text)
        prefix, suffix = self.prefix.strip(), self.suffix.strip()
        text = text.removeprefix(prefix).lstrip() if prefix else text
        text = text.removesuffix(suffix).rstrip() if suffix else text
        if not sign and text[:1] in ("+", "-", "−"):
            sign, text = text[0], text[1:].lstrip()
        whole, point, rest = text.partition(self.decimal)
        if self.thousands and self.thousands in whole:  # only where it parts groups of three: 1,2 isn't 12
            groups = whole.split(self.thousands)
            if not (1 <= len(groups[0]) <= 3 and all(len(group) == 3 and group.isdigit() for group in groups[1:])):
                return None
            whole = "".join(groups)
        plain = f"{whole}.{rest}" if point else whole
        if (
            not PLAIN_NUMBER.fullmatch(plain)
            or plain[0] in "+-"
            or (not point and self.decimal != "." and "." in whole)
        ):
            return None
        return f"-{plain}" if negative or sign in ("-", "−") else plain

    def write(self, value: float, places: int) -> str:
        """Text of a number in this format, with ``places`` decimals where the form has no fixed number of them."""
        text = f"{abs(value):{',' if self.thousands else ''}.{self.places if self.places >= 0 else max(places, 0)}f}"
        if self.places < 0 and "." in text:
            text = text.rstrip("0").rstrip(".")
        text = text.translate({ord(","): self.thousands, ord("."): self.decimal})
        negative = value < 0 and any(letter in "123456789" for letter in text)
        text = f"{self.prefix}{text}{self.suffix}"
        return text if not negative else f"({text})" if self.parentheses else f"-{text}"


_WRITTEN = re.compile(
    r"(?P<minus>[(+\-−]?)\s*(?P<prefix>[^\d\s.,'()+\-−]{0,4}\s?)(?P<sign>[+\-−]?)"
    r"(?P<number>\d(?:[\d.,' ]*[\d.,])?|[.,]\d+)(?P<suffix>\s?[^\d\s.,'()]{0,12}(?:/[^\d\s()]{1,6})?)\)?",
)
_GROUPED = re.compile(r"\d{1,3}(?:(?P<sign>[.,' ])\d{3})+")


def number_form(texts: Sequence[str], share: float = 0.98) -> tuple[NumberForm | None, str]:
    """Number format that nearly all texts have, found from all of them, and one of them; None where there is none.

    A currency sign or unit must stand in every text, and be the same. ``1,234`` alone is a thousand and more: where it
    were one and a bit, answers in the same writing would be the same.
    """
    parts = [_WRITTEN.fullmatch(_spaces(text)) if len(text) <= 60 else None for text in texts]
    found = [part for part in parts if part is not None]
    if not found or len(found) < share * len(texts):
        return None, ""
    form = _form([part.string for part in found], found)
    return form, found[0].string


def _form(texts: Sequence[str], found: Sequence[re.Match[str]]) -> NumberForm | None:
    prefixes = {part["prefix"] for part in found}
    suffixes = {part["suffix"] for part in found}
    if len({p.strip() for p in prefixes}) > 1 or len({s.strip() for s in suffixes}) > 1:
        return None
    prefix, suffix = (Counter(part[side] for part in found).most_common(1)[0][0] for side in ("prefix", "suffix"))
    if prefix.strip() == "#":
        return None
    if (prefix.strip() and prefix.strip().isalnum() and len(prefix.strip()) < 2) or suffix.strip() in ("e", "E"):
        return None  # A1, B2: serial numbers, not numbers
    if prefix.strip().isalpha() and not prefix.endswith(" ") and not prefix.isupper():
        return None
    if prefix.strip().isalpha() and prefix.strip() not in CURRENCIES:
        return None
    if suffix.strip().isalpha() and not suffix.startswith(" ") and len(suffix) == 1 and suffix not in "gmsKkLlhWVAN":
        return None
    numbers = [part["number"].strip() for part in found]
    signs = _separators(numbers)
    if signs is None:
        return None
    decimal, thousands = signs
    form = NumberForm(decimal, thousands, prefix, suffix)
    plain = [form.parse(text) for text in texts]
    if any(text is None for text in plain) or lossy_example(text for text in plain if text is not None):
        return None
    lengths = {sum(letter.isdigit() for letter in number) for number in numbers}
    if (
        thousands
        and not prefix
        and not suffix
        and len(numbers) > 1
        and len(lengths) == 1
        and lengths.pop() >= MIN_CODE_DIGITS
    ):
        return None
    places = {len(number.partition(decimal)[2]) for number in numbers}
    parentheses = any(text.lstrip().startswith("(") for text in texts)
    return dataclasses.replace(form, places=places.pop() if len(places) == 1 else -1, parentheses=parentheses)


MIN_CODE_DIGITS = 7
"""Digits from which on grouped whole numbers that all have as many are codes, such as telephone numbers."""
CURRENCIES = {
    "USD", "EUR", "GBP", "JPY", "CNY", "INR", "CHF", "AUD", "CAD", "HKD", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF",
    "RUB", "BRL", "MXN", "ZAR", "KRW", "TRY", "SGD", "NZD", "Rs", "Fr", "kr", "RM",
}  # fmt: skip


def _separators(numbers: Sequence[str]) -> tuple[str, str] | None:
    """Decimal and thousands separators of written numbers; None where they are ambiguous."""
    seen = {sign for number in numbers for sign in number if not sign.isdigit()}
    if len(seen) > 2 or not seen <= set(".,' "):
        return None
    able = []
    for decimal in ".,":
        for thousands in ("", ",", ".", "'", " "):
            if thousands == decimal or not seen <= {decimal, thousands}:
                continue
            if thousands and thousands not in seen:
                continue
            pattern = rf"(\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|\d+)?" if thousands else r"(\d+)?"
            whole = re.compile(rf"{pattern}(?:{re.escape(decimal)}\d*)?")
            if all(whole.fullmatch(number) and any(c.isdigit() for c in number) for number in numbers):
                able.append((decimal, thousands))
    if seen <= {"."} and (".", "") in able and not all(_GROUPED.fullmatch(n) for n in numbers):
        return ".", ""
    if not seen:
        return ".", ""
    decisive = [pair for pair in able if pair[0] in seen or pair[1] in seen]
    certain = [pair for pair in decisive if pair[1] not in ("", None) and all(sign in seen for sign in pair)]
    if certain:
        return certain[0]
    # One sign alone: it groups where it stands twice in a text, or where all texts that have it are grouped; else it
    # is decimal.
    grouped = next((pair for pair in decisive if pair[1] in seen and pair[1]), None)
    twice = any(len(re.findall(r"[.,' ]\d{3}", number)) > 1 for number in numbers)
    if grouped and (twice or all((_GROUPED.fullmatch(n) and n[0] != "0") or n.isdigit() for n in numbers)):
        return grouped
    return next((pair for pair in decisive if pair[0] in seen and not pair[1]), None)


def _spaces(text: str) -> str:
    """A text with plain spaces, none at its ends."""
    return re.sub(r"[\u00a0\u2009\u202f]", " ", text).strip()
