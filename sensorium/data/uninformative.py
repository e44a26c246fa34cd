"""Uninformative columns: ids, constants, columns with no cell.

An id distinguishes rows and means nothing. It is recognised by its values (UUIDs, hashes, code points, serial numbers,
paths) together with how many are distinct, and by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sensorium.core.datetexts import date_form
from sensorium.core.registry import find
from sensorium.core.types import Profile
from sensorium.data.media import unread_format
from sensorium.data.profile import ColumnProfile
from sensorium.modalities import Modality

MIN_DISTINCT_SHARE = 0.95
"""Share of distinct cells from which a column counts as (nearly) all distinct."""
MIN_DISTINCT_CELLS = 20
"""Number of distinct cells below which a column may be a category, whatever its name."""

_NAME = re.compile(
    r"(?:.*[_\-. ])?(?:id|ids|uuid|guid|key|__key__|index|idx|hash|md5|sha\d*|serial|rowid|row|path|url|file_?name|"
    r"code_?points?|nr|no|number)|unnamed.*|column \d+|.*[a-z](?:Id|ID|Uuid|Key)",
    re.IGNORECASE,
)
_STRONG = re.compile(
    r"(?:.*[_\-. ])?(?:[Ii][Dd]|uuid|UUID|guid|__key__|hash|md5|sha\d*|rowid|code_?points?)|.*[a-z](?:Id|ID|Uuid)"
)
_PAIR = re.compile(r"\d{1,4}[/\-]\d{1,4}")
_POST = re.compile(r"(?i)zip|postal|post_?code|\bplz\b")
"""Names of columns of postal codes: places, however many differ."""
_VALUES = {
    "UUIDs": re.compile(r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?", re.IGNORECASE),
    "hashes": re.compile(r"(?=.*\d)(?:0x)?[0-9a-f]{16,}", re.IGNORECASE),
    "code points": re.compile(r"(?:U\+)?(?=[0-9a-f]*\d)[0-9a-f]{4,6}(?:[-_ +](?:U\+)?[0-9a-f]{2,6})*", re.IGNORECASE),
    "serial numbers": re.compile(r"[A-Za-z]{0,16}[A-Za-z_\-./:#]*\d{2,}(?:[-_./]\d+)*[A-Za-z]?"),
    "keys": re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[A-Za-z0-9_\-]{12,}={0,2}"),
    "paths": re.compile(
        r"(?=.*[A-Za-z])(?:(?:[A-Za-z]:)?(?:[^\s/\\]+[/\\])+[^\s/\\]+|https?://\S+|[^\s/\\]+\.(?=.*[a-z])[a-z0-9]{2,4})"
    ),
}


def unreadable_reason(profile: Profile) -> str | None:
    """Reason not to read a column of files: most are of an unsupported format; None where they aren't."""
    if profile.heads:
        found = [unread_format(head, None) for head in profile.heads]
    else:
        paths = [cell for cell in profile.sample if isinstance(cell, str)]
        if not paths or not all(len(cell) <= 1000 and _FILE.fullmatch(cell.strip()) for cell in paths):
            return None
        found = [unread_format(b"", cell) for cell in paths]
    known = Counter(kind for kind in found if kind is not None)
    if not known or 2 * known.total() < len(found):
        return None
    kind, mend = known.most_common(1)[0][0]
    return f"files of a kind that can't be read ({kind}): {mend}"


_FILE = re.compile(r"[^\n\r\0]*[^\s/\\]\.(?:[A-Za-z0-9]{1,8})(?:\.gz)?")


def exclusion_reason(look: ColumnProfile, kind: str | None) -> str | None:
    """Reason to leave a column out, in words; None if it should stay.

    Args:
        look: its profile.
        kind: the modality that claimed it; None: none did.
    """
    profile = look.profile
    if not profile.present:
        return "no cell is present" if profile.rows else "the table has no rows"
    if profile.distinct == 1 and profile.present > 1:
        return f"always {_brief(profile.sample[0])}" if profile.sample else "always the same"
    if profile.heads or profile.type not in ("string", *_WHOLE):
        return None
    share = profile.distinct / profile.present
    if profile.type in _WHOLE:
        return _whole(look, share)
    if kind is not None and not ((part := find(Modality, kind)).is_text or part.is_categorical):
        return None
    alike = _alike(profile.sample)
    texts = [cell.strip() for cell in profile.sample if isinstance(cell, str)]
    if alike and texts and len(texts) == len(profile.sample):
        dates = date_form(texts)[1]
        if "no day is over 12" in dates:
            return f"texts that look like dates, but {dates.replace('format=', f'column.{profile.name}.format=')}"
        if all(_PAIR.fullmatch(text) for text in texts[:512]):  # 121/81, 55-60, 12/2011: measured, and no serial number
            return None
    if alike and _POST.search(profile.name):
        return None
    if (
        alike
        and profile.present > 1
        and share >= MIN_DISTINCT_SHARE
        and (profile.present >= MIN_DISTINCT_CELLS or _NAME.fullmatch(profile.name))
    ):
        return f"an id: {alike}, {_distinct(look)}"
    single = sum(not re.search(r"\s", str(cell)) and len(str(cell)) <= 128 for cell in profile.sample)
    if single < MIN_DISTINCT_SHARE * len(profile.sample) or profile.distinct < min(MIN_DISTINCT_CELLS, profile.present):
        return None
    if alike and _STRONG.fullmatch(profile.name) and share >= 0.05:
        return f"an id by its name and its values ({alike}), {_distinct(look)}"
    if _STRONG.fullmatch(profile.name) and share >= 0.2:
        return f"an id by its name, each one word, {_distinct(look)}"
    return None


_WHOLE = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def _whole(look: ColumnProfile, share: float) -> str | None:
    profile = look.profile
    named = _NAME.fullmatch(profile.name) is not None
    if (
        share < MIN_DISTINCT_SHARE
        or profile.present < (2 if named else MIN_DISTINCT_CELLS)
        or look.low is None
        or look.high is None
    ):
        return None
    if look.exact and look.low in (0, 1) and look.high - look.low + 1 == profile.distinct == profile.present:
        return f"an id: every number from {look.low} to {look.high:,} once"
    if look.rising and look.low in (0, 1) and profile.present == profile.rows and not look.exact:
        return f"an id: numbers that rise from row to row, up to {look.high:,}"
    if named and (look.rising or _STRONG.fullmatch(profile.name)):
        return f"an id by its name: whole numbers, {_distinct(look)}"
    return None


def _alike(sample: Sequence[Any]) -> str | None:
    """Kind of id that nearly all values of a sample look like; None if there is none."""
    cells = [str(cell) for cell in sample[:512]]
    for words, pattern in _VALUES.items():
        if sum(pattern.fullmatch(cell.strip()) is not None for cell in cells) >= MIN_DISTINCT_SHARE * len(cells):
            return words
    return None


def _distinct(look: ColumnProfile) -> str:
    profile = look.profile
    if profile.distinct == profile.present:
        return "all distinct"
    return f"{'' if look.exact else 'about '}{profile.distinct:,} distinct among {profile.present:,}"


def _brief(cell: Any) -> str:
    if isinstance(cell, (bytes, dict)):
        return "the same file"
    text = repr(cell) if isinstance(cell, str) else str(cell)
    return text if len(text) <= 40 else text[:39] + "…"
