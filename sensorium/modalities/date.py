"""Dates and times, as the moment in the column's history and as cyclic features of year, week and day."""

from __future__ import annotations

import contextlib
import datetime
import html
import math
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sensorium.core.datetexts import date_form, read_date, write_date
from sensorium.core.errors import BadCell, UserError
from sensorium.core.quantiles import Quantiles
from sensorium.core.types import Claim, Profile, Tokens
from sensorium.modalities._capabilities import Scalar

if TYPE_CHECKING:
    import torch

    from sensorium.nn.stem import Cells, Stem

Resolution = Literal["year", "month", "day", "minute", "second", "microsecond"]
EMPTY = np.zeros(0, np.float64)
MISSING = {"", "na", "n/a", "nan", "nat", "none", "null", "-", "?"}
MAYBE_NAN = (float, Decimal, np.datetime64, datetime.datetime)  # pandas' NaT is a datetime
MIN_SHARE = 0.98
"""Share of a column's texts that must be dates."""
DAY = 86400.0
FIRST, LAST = -62135596800.0, 253402300799.9999  # years 1 and 9999, the range of Python's dates
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
PARTIAL = re.compile(r"(\d{4})(?:[-/.](\d{1,2}))?", re.ASCII)
SLASHED = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(.*)", re.ASCII | re.DOTALL)


class Date(Scalar):
    """Moment in seconds since 1970, UTC; moments without a zone are taken as UTC. It is predicted as text, in ISO 8601
    or in ``format``.

    Args:
        format: form of texts, in the directives of Python's ``strptime``; empty: ISO 8601.
        zone: time zone of predicted moments: a name as Europe/Berlin, an offset as +02:00, or UTC; empty: none.
        numbers: meaning of a number: years, or seconds (milliseconds …) since 1970; none: a number is no date.
        noise: standard deviation of the noise that training adds to the normal score that is seen.
        waves: frequencies of the sines and cosines of the normal score in the stem's input.
    """

    generator = "quantile"
    error_unit = DAY
    is_scalar = True
    metric = "r2"

    def __init__(
        self, *, format: str = "", zone: str = "", numbers: Literal["none", "year", "s", "ms", "us", "ns"] = "none",
        noise: float = 0.02, waves: int = 6,
    ) -> None:  # fmt: skip
        self.format, self.zone, self.numbers, self.noise, self.waves = format, zone, numbers, noise, waves
        self.tz = time_zone(zone)
        try:
            if format:
                read_date(write_date(EPOCH.replace(tzinfo=None), format), format)
        except ValueError as error:
            raise UserError(
                f"format={format} is no form of dates: {error}. Give the signs of Python's strptime, as %d/%m/%Y."
            ) from error
        self.quantiles, self.resolution = Quantiles(), "second"

    @classmethod
    def reads_as_written(cls, settings: Mapping[str, Any]) -> bool:
        return settings.get("numbers", "none") == "none"

    @property
    def as_written(self) -> bool:
        return self.numbers == "none"

    @classmethod
    def claim(cls, profile: Profile) -> Claim | None:
        if profile.type.startswith(("date", "timestamp")):
            zone = profile.type.partition("tz=")[2].rstrip("]")
            return Claim(sure=0.99, why=f"{profile.type} in the table", form={"zone": zone} if zone else {})
        cells = [cell for cell in profile.sample if cell is not None]
        if cells and all(isinstance(cell, (datetime.date, np.datetime64)) for cell in cells):
            return Claim(sure=0.99, why="dates in the table")
        if not cells or not all(isinstance(cell, str) for cell in cells):
            return None
        texts = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
        if not texts:
            return None
        reader = cls()
        dates = sum(len(text) >= 7 and not text.isdigit() and reader._is_date(text) for text in texts)
        if dates >= MIN_SHARE * len(texts) and (form := date_form(texts, MIN_SHARE)[0]) and form != "%Y-%m-%d":
            zone = {"zone": "UTC"} if form.endswith("Z") else {}
            again = cls(format=form)
            if all(again._is_date(text) and write_date(read_date(text, form), form) == text for text in texts):
                return Claim(
                    sure=0.95, why=f"texts that are dates, such as '{texts[0][:30]}'", form={"format": form, **zone}
                )
        if dates >= MIN_SHARE * len(texts):
            zone = common_zone(texts)
            return Claim(
                sure=0.95, why=f"texts that are dates, such as '{texts[0][:30]}'", form={"zone": zone} if zone else {}
            )
        form, known = date_form(texts, MIN_SHARE)
        if form is None:
            return None
        reader = cls(format=form)
        if sum(map(reader._is_date, texts)) < MIN_SHARE * len(texts):
            return None
        return Claim(sure=0.95, why=f"dates written as '{texts[0][:30]}': {known}", form={"format": form})

    def _is_date(self, text: str) -> bool:
        try:
            return len(self.read(text)) > 0
        except BadCell:
            return False

    def read(self, cell: Any) -> np.ndarray:
        """Seconds since 1970 of a date, datetime, datetime64 or ISO 8601 text, float64 [1]; missing ones [0].

        Raises:
            BadCell: no date, or one before year 1 or after 9999.
        """
        if isinstance(cell, (bytes, bytearray)):
            cell = bytes(cell[:100]).decode("utf-8", "replace")
        if isinstance(cell, np.generic) and not isinstance(cell, np.datetime64):
            cell = cell.item()
        if cell is None or (isinstance(cell, MAYBE_NAN) and str(cell) in ("nan", "NaN", "NaT")):
            return EMPTY
        if isinstance(cell, str):
            seconds = self._parse(cell)
        elif isinstance(cell, np.datetime64):
            seconds = _of_datetime64(cell)
        elif isinstance(cell, datetime.datetime):
            seconds = _seconds(cell)
        elif isinstance(cell, datetime.date):
            seconds = (cell - EPOCH.date()).days * DAY
        else:
            seconds = self._of_number(cell)
        if math.isnan(seconds):
            return EMPTY
        if not FIRST <= seconds <= LAST + 1:
            raise BadCell("date before year 1 or after year 9999")
        return np.array([min(seconds, LAST)])

    def _of_number(self, cell: Any) -> float:
        if not isinstance(cell, (int, float, Decimal)) or isinstance(cell, bool):
            raise BadCell(f"{type(cell).__name__} is no date")
        if self.numbers == "none":
            raise BadCell("a number is no date; the setting numbers=year, s, ms, us or ns says what it means")
        try:
            value = float(cell)
        except OverflowError as error:
            raise BadCell("number beyond the range of floats") from error
        if math.isinf(value):
            raise BadCell("infinite number")
        if self.numbers != "year":
            return value * UNITS[self.numbers]
        if not (1 <= value <= 9999 and value.is_integer()):
            raise BadCell(f"{value:g} is no year")
        return _seconds(datetime.datetime(int(value), 1, 1))

    def _parse(self, text: str) -> float:
        text = text[:100].strip()
        if text.lower() in MISSING:
            return math.nan
        try:
            if self.format:
                with contextlib.suppress(
                    ValueError
                ):  # as every date may be written, so that a column's own form and ISO meet
                    return _seconds(read_date(text, self.format))
            if partial := PARTIAL.fullmatch(text):
                return _seconds(datetime.datetime(int(partial[1]), int(partial[2] or 1), 1))
            if slashed := SLASHED.fullmatch(text):
                text = f"{slashed[1]}-{int(slashed[2]):02}-{int(slashed[3]):02}{slashed[4]}"
            return _seconds(datetime.datetime.fromisoformat(text))
        except (ValueError, OverflowError) as error:
            wanted = (
                f"in the form '{self.format}'" if self.format else "in ISO 8601 (the setting format may name another)"
            )
            raise BadCell(f"'{text[:40]}' is no date {wanted}") from error

    def learn(self, cells: Sequence[np.ndarray]) -> None:
        values = np.concatenate([EMPTY, *cells])
        self.quantiles, self.resolution = Quantiles.fit(values), resolution(values)
        if self.tz is not None and self.resolution in ("year", "month", "day"):
            self.resolution = "minute"  # midnight in one zone is another hour elsewhere

    def collate(self, cells: Sequence[np.ndarray]) -> Cells:
        import torch

        seconds = np.concatenate([EMPTY, *cells])
        score = self.quantiles.encode(seconds)[:, None]
        return {"score": torch.from_numpy(score).float(), "cycles": torch.from_numpy(cycles(seconds)).float()}

    def augment(self, cells: Cells, generator: torch.Generator) -> Cells:
        import torch

        if not self.noise:
            return cells
        score = cells["score"]
        noise = torch.randn(score.shape, generator=generator).to(score.device) * self.noise
        return {**cells, "score": score + noise, "whole": score}

    def stem(self, width: int) -> Stem:
        from sensorium.modalities._stems.date import DateStem

        return DateStem(width, CYCLES, self.waves)

    def tokens(self) -> Tokens:
        return Tokens(length=1, width=1)

    def target(self, cells: Cells) -> torch.Tensor:
        return cells.get("whole", cells["score"]).unsqueeze(-1)

    def decode(self, tokens: np.ndarray) -> str:
        """Text of a normal score [1, 1], as fine as the column: "2024", "2024-05", "2024-05-13", with time.

        It is in the column's own form and zone.
        """
        score = np.asarray(tokens, np.float64).reshape(-1)[:1]
        seconds = float(np.clip(self.quantiles.decode(score)[0], FIRST, LAST))
        if not self.format:
            return _text(seconds, self.resolution, self.tz)
        moment = datetime.datetime.fromisoformat(_whole_text(seconds, self.resolution))
        return write_date(
            moment if self.tz is None else moment.replace(tzinfo=datetime.UTC).astimezone(self.tz), self.format
        )

    def show(self, cell: Any) -> str:
        return html.escape(str(cell)[:40])

    def features(self, read: np.ndarray | None) -> np.ndarray:
        """Seconds since 1970 and the eleven cyclic features."""
        if read is None or not len(read):
            return np.full(1 + CYCLES, np.nan)
        return np.concatenate([read, cycles(read)[0]])

    def score(self, truth: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        """``r2`` (0 where the truth is constant) and ``mae`` in days."""
        pairs = [(self.read(t), self.read(s)) for t, s in zip(truth, predicted, strict=True)]
        t, s = (np.array([(t[0], s[0]) for t, s in pairs if len(t) and len(s)]).reshape(-1, 2) / DAY).T
        if not len(t):
            return {}
        variance = float(((t - t.mean()) ** 2).sum())
        return {
            "r2": 1 - float(((t - s) ** 2).sum()) / variance if variance else 0.0,
            "mae": float(np.abs(t - s).mean()),
        }

    def state(self) -> dict[str, Any]:
        return {"quantiles": self.quantiles.state(), "resolution": self.resolution}

    def load_state(self, state: dict[str, Any]) -> None:
        self.quantiles, self.resolution = Quantiles.from_state(state["quantiles"]), state["resolution"]


def _seconds(moment: datetime.datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    passed = moment - EPOCH
    return passed.days * DAY + passed.seconds + passed.microseconds * 1e-6


def _of_datetime64(moment: np.datetime64) -> float:
    """Seconds of a datetime64, by days and the rest, so that no unit overflows."""
    days = moment.astype("datetime64[D]")
    if not -(10**7) < days.astype(np.int64) < 10**7:
        raise BadCell("date before year 1 or after year 9999")
    unit = np.datetime_data(moment.dtype)[0]
    if unit in ("Y", "M", "W", "D"):
        return float(days.astype(np.int64)) * DAY
    return float(days.astype(np.int64)) * DAY + float((moment - days) / np.timedelta64(1, "s"))


def resolution(seconds: np.ndarray) -> Resolution:
    """Finest part of a date that differs between rows; a single date is as fine as a day."""
    if not len(seconds):
        return "day"
    if np.all(seconds % DAY == 0):
        days = (seconds / DAY).astype(np.int64).astype("datetime64[D]")
        if len(np.unique(days)) == 1 or np.any(days != days.astype("datetime64[M]")):
            return "day"
        return "month" if np.any(days != days.astype("datetime64[Y]")) else "year"
    if np.all(seconds % 60 == 0):
        return "minute"
    return "second" if np.all(seconds == np.round(seconds)) else "microsecond"


def time_zone(name: str) -> datetime.tzinfo | None:
    """Time zone of a name or offset; None for an empty name.

    Raises:
        UserError: there is none of this name.
    """
    if not name:
        return None
    if name in ("Z", "UTC"):
        return datetime.UTC
    try:
        if name[0] in "+-":
            return datetime.datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise UserError(
            f"zone={name} is no time zone. Give a name such as Europe/Berlin, an offset such as +02:00, or UTC."
        ) from error


OFFSET = re.compile(r"\d:\d{2}(?::\d{2}(?:\.\d+)?)?\s?(Z|[+-]\d{2}:?\d{2})$")


def common_zone(texts: Sequence[str]) -> str:
    """Offset from UTC that all texts end in; "UTC" where they differ; empty where some have none."""
    found = [match[1] if (match := OFFSET.search(text)) else "" for text in texts]
    if not all(found):
        return "UTC" if any(found) else ""
    return found[0] if len(set(found)) == 1 and found[0] != "Z" else "UTC"


def _whole_text(seconds: float, fineness: str) -> str:
    """Whole date in ISO 8601, rounded as ``_text`` rounds: "2024" is "2024-01-01"."""
    text = _text(seconds, fineness)
    return text + "-01" * (2 - text.count("-")) if len(text) < 10 else text


def _text(seconds: float, fineness: str, zone: datetime.tzinfo | None = None) -> str:
    """ISO 8601 text of seconds since 1970, rounded to the nearest year, month, day, minute …, with the offset of a
    zone."""
    step = {"day": DAY, "minute": 60.0, "second": 1.0}.get(fineness)
    if step:
        seconds = round(seconds / step) * step
    days, rest = divmod(min(seconds, LAST), DAY)
    moment = EPOCH + datetime.timedelta(days=int(days), microseconds=min(round(rest * 1e6), 86_400_000_000 - 1))
    if fineness == "year":
        year = moment.year + (moment.timetuple().tm_yday > 183)
        return f"{min(year, 9999):04}"
    if fineness == "month":
        year, month = divmod(moment.year * 12 + moment.month - 1 + (moment.day > 15), 12)
        return f"{year:04}-{month + 1:02}" if year <= 9999 else "9999-12"
    if fineness == "day":
        return moment.date().isoformat()
    timespec = {"minute": "minutes", "second": "seconds"}.get(fineness, "auto")
    if zone is None:
        return moment.replace(tzinfo=None).isoformat(timespec=timespec)
    try:
        return moment.astimezone(zone).isoformat(timespec=timespec)
    except (OverflowError, ValueError):  # the first and the last day of all
        return moment.isoformat(timespec=timespec)


CYCLES = 11
"""Number of cyclic features."""


def cycles(seconds: np.ndarray) -> np.ndarray:
    """Cyclic features [n, 11]: sine and cosine of the place in the year (twice), month, week and day, and 1 for
    weekends."""
    whole = np.floor(seconds / DAY)
    days = whole.astype(np.int64).astype("datetime64[D]")
    year, month = days.astype("datetime64[Y]"), days.astype("datetime64[M]")
    time = seconds / DAY - whole
    of_year = ((days - year.astype("datetime64[D]")).astype(np.float64) + time) / 365.25
    of_month = ((days - month.astype("datetime64[D]")).astype(np.float64) + time) / 31
    weekday = (whole + 3) % 7  # 1 January 1970 was a Thursday
    turns = 2 * math.pi * np.stack([of_year, 2 * of_year, of_month, (weekday + time) / 7, time], 1)
    return np.concatenate([np.sin(turns), np.cos(turns), (weekday >= 5)[:, None]], 1)
