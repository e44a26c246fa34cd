"""Charts as inline SVG: line charts and scatter plots.

They know numbers and labels; colours come from the page's classes.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from sensorium.report.words import is_number

BINS = 160
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass
class Line:
    """One line [n]; ``low`` and ``high`` shade a band around it; ``style`` is a class of the page."""

    x: np.ndarray
    y: np.ndarray
    style: str = "ours"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dots: bool = False


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Axis ticks: round numbers within a range."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick(value: float) -> str:
    """Label of a tick."""
    if value == 0 or abs(value) < 1e-300:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e−").replace("-", "−")
    return f"{value:.4g}".replace("-", "−") if abs(value) < 10_000 else f"{value:,.0f}".replace(",", "\u202f")


def percent(value: float) -> str:
    """Label of a tick that is a share."""
    return f"{100 * value:.0f} %"


def binned(x: np.ndarray, y: np.ndarray) -> Line:
    """A noisy line as the mean, and the 10 % to 90 % band, of at most ``BINS`` stretches."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= BINS:
        return Line(x, y)
    parts = np.array_split(np.arange(len(x)), BINS)
    mean = np.array([y[p].mean() for p in parts])
    band = np.array([np.quantile(y[p], (0.1, 0.9)) for p in parts])
    return Line(np.array([x[p].mean() for p in parts]), mean, low=band[:, 0], high=band[:, 1])


def lines(
    curves: Sequence[Line],
    title: str,
    across: str = "",
    size: tuple[int, int] = (350, 165),
    span: tuple[float, float] | None = None,
    label: Callable[[float], str] = tick,
    label_x: Callable[[float], str] = tick,
) -> Markup:
    """Line chart; ``title`` is its label for screen readers, ``across`` the label of the x axis."""
    curves = [line for line in curves if len(line.x)]
    if not curves:
        return Markup("")
    width, height = size
    left, right, top, bottom = 46, 12, 10, 32
    xs = np.concatenate([line.x for line in curves])
    ys = np.concatenate([v for line in curves for v in (line.y, line.low, line.high) if v is not None])
    x0, x1 = float(xs.min()), float(xs.max())
    y0, y1 = span or (float(np.quantile(ys, 0.005)), float(np.quantile(ys, 0.995)))
    if not y1 > y0:
        y0, y1 = y0 - (abs(y0) or 1) / 10, y1 + (abs(y1) or 1) / 10
    x1 = x1 if x1 > x0 else x0 + 1

    def px(x: Any) -> np.ndarray:
        return left + (np.asarray(x, np.float64) - x0) / (x1 - x0) * (width - left - right)

    def py(y: Any) -> np.ndarray:
        return top + (1 - (np.clip(np.asarray(y, np.float64), y0, y1) - y0) / (y1 - y0)) * (height - top - bottom)

    body = []
    for value in ticks(y0, y1, 4):
        at = float(py(value))
        body.append(rule("grid", left, at, width - right, at))
        body.append(word("tick", left - 6, at + 3.5, label(value), "end"))
    for value in ticks(x0, x1, 6):
        at = float(px(value))
        body.append(word("tick", at, height - bottom + 14, label_x(value)))
    for line in curves:
        if line.low is not None and line.high is not None:
            points = [
                *zip(px(line.x), py(line.high), strict=True),
                *zip(px(line.x)[::-1], py(line.low)[::-1], strict=True),
            ]
            body.append(f'<polygon class="band {escape(line.style)}" points="{joined(points)}"/>')
        points = list(zip(px(line.x), py(line.y), strict=True))
        body.append(f'<polyline class="line {escape(line.style)}" points="{joined(points)}"/>')
        if line.dots or len(points) == 1:
            for (x, y), value, at in zip(points, line.y, line.x, strict=True):
                words = f"{label_x(float(at))}: {label(float(value))}"
                body.append(circle(f"dot {line.style}", x, y, 3.5, words))
    if across:
        body.append(word("axis", (left + width - right) / 2, height - 3, across))
    return figure(width, height, title, body)


def scatter(
    truth: np.ndarray,
    predicted: np.ndarray,
    ends: np.ndarray | None,
    hints: Sequence[str],
    title: str,
    dates: bool = False,
    side: int = 380,
) -> Markup:
    """Scatter plot of predicted (up) against true values (across).

    The interval [n, 2] is a thin line, exact predictions are on the diagonal.
    """
    good = np.isfinite(truth) & np.isfinite(predicted)
    if not good.any():
        return Markup("")
    truth, predicted = truth[good], predicted[good]
    hints = [hint for hint, keep in zip(hints, good, strict=True) if keep]
    ends = None if ends is None else ends[good]
    both = np.concatenate([truth, predicted])
    to, places, name = scale(both)
    places = years(both.min(), both.max()) if dates and not name else places
    x, y = to(truth), to(predicted)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    pad = (high - low or 1.0) * 0.04
    low, high = low - pad, high + pad
    left, bottom, room = 62, 40, side - 62 - 12

    def px(v: Any) -> Any:
        return left + (np.clip(v, low, high) - low) / (high - low) * room

    def py(v: Any) -> Any:
        return side - bottom - (np.clip(v, low, high) - low) / (high - low) * (side - bottom - 10)

    written = moments(places) if dates else [tick(value) for value in places]
    body = []
    for value, text in zip(to(np.array(places)), written, strict=True):
        if low <= value <= high:
            a, b = float(px(value)), float(py(value))
            body.append(rule("grid", left, b, left + room, b))
            body.append(word("tick", left - 6, b + 3.5, text, "end"))
            body.append(word("tick", a, side - bottom + 14, text))
    body.append(rule("diagonal", px(low), py(low), px(high), py(high)))
    if ends is not None:
        bars = to(ends)
        for at, (a, b) in zip(px(x), bars, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                body.append(rule("interval", at, py(a), at, py(b)))
    for a, b, hint in zip(px(x), py(y), hints, strict=True):
        body.append(circle("point", a, b, 3, hint))
    body.append(word("axis", left + room / 2, side - 6, f"truth{name}"))
    turn = f"translate(11 {(side - bottom) / 2}) rotate(-90)"
    body.append(f'<text class="axis" transform="{turn}" text-anchor="middle">predicted</text>')
    return figure(side, side, title, body)


def scale(values: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], list[float], str]:
    """Axis scale that heavy tails don't crush: the map to it, its ticks, and a note for the axis label."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 1000:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return np.log10, [10.0**p for p in powers][:: max(1, len(powers) // 6)], " (logarithmic)"
    quarter, middle, most = np.quantile(values, (0.1, 0.5, 0.9))
    unit = float(most - quarter) / 2
    if unit > 0 and (high - low) > 40 * unit:
        places = sorted({float(v) for v in np.quantile(values, (0.0, 0.1, 0.5, 0.9, 1.0))})
        return lambda v: np.arcsinh((v - middle) / unit), places, " (outliers drawn nearer)"
    return lambda v: np.asarray(v, np.float64), ticks(low, high, 5), ""


def years(low: float, high: float) -> list[float]:
    """Ticks between two moments: the first days of years where there are several, else round numbers of seconds."""
    try:
        first, last = ((EPOCH + datetime.timedelta(seconds=float(v))).year for v in (low, high))
    except OverflowError:
        return ticks(low, high)
    if last - first < 3:
        return ticks(low, high)
    wanted = [int(year) for year in ticks(first, last) if year == int(year) and 1 <= year <= 9999]
    return [(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) - EPOCH).total_seconds() for year in wanted]


def moments(seconds: Sequence[float]) -> list[str]:
    """Seconds since 1970 as labels, as exact as their distance needs."""
    gap = min((b - a for a, b in itertools.pairwise(seconds)), default=1e9)
    form = "%Y" if gap > 300 * 86400 else "%Y-%m" if gap > 27 * 86400 else "%m-%d" if gap > 86400 else "%d. %H:%M"
    made = []
    for value in seconds:
        try:
            made.append((EPOCH + datetime.timedelta(seconds=value)).strftime(form))
        except OverflowError:
            made.append("")
    return made


def numeric(value: Any, dates: bool) -> float:
    """Axis value of a cell: dates as seconds since 1970; NaN where it is none."""
    try:
        if dates and isinstance(value, str):
            value = datetime.datetime.fromisoformat(value.strip())
        if isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]").item()
        if isinstance(value, datetime.date):
            if not isinstance(value, datetime.datetime):
                value = datetime.datetime(value.year, value.month, value.day)
            return ((value if value.tzinfo else value.replace(tzinfo=datetime.UTC)) - EPOCH).total_seconds()
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if is_number(number) and abs(number) < 1e150 else math.nan


def word(style: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    """SVG text at a place."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def rule(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """SVG line."""
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def circle(style: str, x: float, y: float, size: float, hint: str) -> str:
    """SVG dot with a tooltip."""
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="{size}"'
    return f'<circle class="{escape(style)}" {place}><title>{escape(hint)}</title></circle>'


def figure(width: float, height: float, title: str, body: Sequence[str]) -> Markup:
    """SVG that scales with its container, with a label for screen readers."""
    label = f'role="img" aria-label="{escape(title)}"'
    # Every piece of the body was escaped where it was made.
    return Markup(f'<svg class="chart" viewBox="0 0 {width} {height}" {label}>{"".join(body)}</svg>')


def joined(points: Sequence[tuple[float, float]]) -> str:
    """Points attribute of an SVG polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
