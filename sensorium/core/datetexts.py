"""Date parsing: the format in which a column's texts write dates, found from all of them.

The order of day and month is told by days over 12; where none is, it isn't guessed. Names of months are English.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Sequence

MAX_FEW_DATES, MIN_LATE_DAY = 20, 28
"""Dates of two-digit years up to which any day over 12 is enough, and how late a day is seen among more."""
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
MONTH_MAY = "%?"
"""The month of which the short name and the long one are the same."""
_NAME = rf"(?:{'|'.join(MONTHS)})[a-z]*\.?"
_TIME = re.compile(r"[T ,]+(\d{1,2}):(\d{2})(:\d{2}(\.\d{1,6})?)?\s*([AaPp]\.?[Mm]\.?)?$")
_NUMBERS = re.compile(r"(\d{1,4})([./\-])(\d{1,2})\2(\d{1,4})\.?")
_NAMED = re.compile(
    rf"(?:[A-Z][a-z]{{2,8}},? )?(\d{{1,2}})(?:st|nd|rd|th)?([ \-/.]*)({_NAME})([ \-/.,]*)(\d{{2}}|\d{{4}})",
    re.IGNORECASE,
)
_LED = re.compile(
    rf"(?:[A-Z][a-z]{{2,8}},? )?({_NAME})([ \-/.]*)(\d{{1,2}})(?:st|nd|rd|th)?(,? |-)(\d{{4}})", re.IGNORECASE
)


def date_form(texts: Sequence[str], share: float = 0.98) -> tuple[str | None, str]:
    """Date format of texts in the directives of ``strptime``, and how it is known.

    None and the reason where they look like dates of no known order.

    None and an empty reason where they don't look like dates.
    """
    bodies, times = zip(*(split_time(text.strip()) for text in texts), strict=True)
    time = Counter(times).most_common(1)[0][0]
    time = (
        time.replace("%I", "%-I").replace("%H", "%-H")
        if any("%-" in other for other in times) and "%-" not in time
        else time
    )
    numbers = [found for body in bodies if (found := _NUMBERS.fullmatch(body))]
    if len(numbers) >= share * len(texts):
        return _numeric(numbers, time)
    forms = [form for body in bodies if (form := _with_name(body))]
    month = "%B" if any("%B" in form for form in forms) else "%b"
    pad = "%-d" if any("%-d" in form for form in forms) else "%d"
    named = Counter(re.sub("%-?d", pad, form.replace(MONTH_MAY, month)) for form in forms)
    if named and (best := named.most_common(1)[0])[1] >= share * len(texts):
        return best[0] + time, "months by their names"
    return None, ""


def _numeric(found: Sequence[re.Match[str]], time: str) -> tuple[str | None, str]:
    """Date format of three numbers, by their order."""
    sign = Counter(match[2] for match in found).most_common(1)[0][0]
    found = [match for match in found if match[2] == sign]
    first, middle, last = ([int(match[place]) for match in found] for place in (1, 3, 4))
    if all(len(match[1]) == 4 for match in found):
        pad = "-" if any(len(match[place]) == 1 for match in found for place in (3, 4)) else ""
        return (
            (f"%Y{sign}%{pad}m{sign}%{pad}d{time}", "year, month, day")
            if max(middle) <= 12 and max(last) <= 31
            else (None, "")
        )
    year = (
        "%Y"
        if all(len(match[4]) == 4 for match in found)
        else "%y"
        if all(len(match[4]) == 2 for match in found)
        else ""
    )
    if not year or max(first) > 31 or max(middle) > 31 or min(*first, *middle) < 1:
        return None, ""
    pad = "-" if any(len(match[place]) == 1 for match in found for place in (1, 3)) else ""
    if year == "%y" and 12 < max(*first, *middle) < (
        13 if len(found) < MAX_FEW_DATES and (sign == "/" or not pad) else MIN_LATE_DAY
    ):
        return None, ""  # versions and ratios, as 1.2.10 and 3/4/25: dates of two-digit years have late days among them
    day, month = f"%{pad}d{sign}%{pad}m{sign}{year}{time}", f"%{pad}m{sign}%{pad}d{sign}{year}{time}"
    if max(first) > 12 >= max(middle):
        return day, f"day, month, year, as {max(first)} is no month"
    if max(middle) > 12 >= max(first):
        return month, f"month, day, year, as {max(middle)} is no month"
    if max(first) > 12:
        return None, ""
    if sign == ".":
        return day, "day, month, year, as points are written"
    return (
        None,
        f"no day is over 12, so it isn't known which is the month; the setting format={day} or format={month} says it",
    )


def _with_name(body: str) -> str:
    """Date format of a text with a month's name; empty where it is none."""
    if match := _NAMED.fullmatch(body):
        pad = "-" if len(match[1]) == 1 else ""
        year = "%Y" if len(match[5]) == 4 else "%y"
        return f"{_weekday(body)}%{pad}d{_suffix(body)}{match[2]}{_month(match[3])}{match[4]}{year}"
    if match := _LED.fullmatch(body):
        pad = "-" if len(match[3]) == 1 else ""
        return f"{_weekday(body)}{_month(match[1])}{match[2]}%{pad}d{_suffix(body)}{match[4]}%Y"
    return ""


def _month(name: str) -> str:
    return MONTH_MAY if name.lower() == "may" else "%b." if name.endswith(".") else "%b" if len(name) == 3 else "%B"


def _weekday(body: str) -> str:
    found = re.match(r"([A-Z][a-z]{2,8})(,? )(?=\d|[A-Z])", body)
    if not found or found[1][:3].lower() in MONTHS:
        return ""
    return ("%a" if len(found[1]) == 3 else "%A") + found[2]


def _suffix(body: str) -> str:
    return "" if not re.search(r"\d(st|nd|rd|th)\b", body) else "th"


def split_time(text: str) -> tuple[str, str]:
    """The text without the time of day at its end, and that time's format; empty where there is none."""
    zulu = "Z" if text.endswith("Z") and len(text) > 1 and text[-2].isdigit() else ""
    found = _TIME.search(text.removesuffix("Z") if zulu else text)
    if not found:
        return text, ""
    lead = re.match(r"[T ,]+", found[0])
    assert lead is not None  # every time begins so
    half = found[5]
    pad = "-" if len(found[1]) == 1 else ""
    form = f"{lead[0]}%{pad}{'I' if half else 'H'}:%M{':%S' if found[3] else ''}{'.%f' if found[4] else ''}"
    if half:
        form += f"{' ' if found[0][: found.start(5) - found.start()].endswith(' ') else ''}%p"
    return text[: found.start()], form + zulu


def read_date(text: str, form: str) -> datetime.datetime:
    """Datetime of a text in a format.

    Raises:
        ValueError: it isn't written so.
    """
    text = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1th", text) if "th" in form else text
    return datetime.datetime.strptime(text, form.replace("%-", "%"))


def write_date(moment: datetime.datetime, form: str) -> str:
    """Text of a datetime in a format.

    Years have four digits on every system; ``%-d`` is a day without a zero before it.
    """
    whole = {"%-d": moment.day, "%-m": moment.month, "%-H": moment.hour, "%-I": moment.hour % 12 or 12}
    for sign, number in whole.items():
        form = form.replace(sign, str(number))
    text = moment.strftime(form.replace("%Y", f"{moment.year:04}"))
    return re.sub(r"(\d+)th", lambda found: found[1] + _ordinal(int(found[1])), text) if "th" in form else text


def _ordinal(day: int) -> str:
    return "th" if 10 < day % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
