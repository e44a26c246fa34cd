"""Number formats of the report, and verdicts: who is ahead, ours or a plain model, in one plain sentence."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping
from typing import Any

METRIC = {"category": "accuracy", "number": "r2", "date": "r2", "text": "exact"}
LABELS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "r2": "R²", "mae": "mean error",
    "median_error": "median error", "exact": "exact", "chrf": "chrF", "recall@1": "first is right",
    "recall@10": "among the first ten", "median_rank": "median place", "gallery": "searched", "n": "rows",
}  # fmt: skip
SHARES = {"accuracy", "balanced_accuracy", "exact", "recall@1", "recall@10"}
HIDDEN = {"kind", "n", "chance", "baseline", "alone", "unheeded", "remembered", "members", "metric"}


@dataclasses.dataclass
class Verdict:
    """Comparison on one column. ``winner`` is "ours", "plain", "even", or "" where nothing stands beside ours."""

    column: str
    winner: str
    sentence: str
    bars: list[tuple[str, str, float]]
    metric: str


def is_number(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """A whole number with thin spaces: 12 345."""
    return f"{round(value):,}".replace(",", "\u202f") if is_number(value) else "–"


def short(value: Any) -> str:
    """A large number in few letters: 4.2 M."""
    if not is_number(value):
        return "–"
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}\u202f{name}"
    return f"{value:.3g}"


def span(seconds: Any) -> str:
    """Seconds as 5 min 02 s."""
    if not is_number(seconds):
        return "–"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}\u202fs"
    if seconds < 3600:
        return f"{seconds // 60}\u202fmin {seconds % 60:02d}\u202fs"
    return f"{seconds // 3600}\u202fh {seconds % 3600 // 60:02d}\u202fmin"


def measured(metric: str, value: Any) -> str:
    """Formatted value of a metric: accuracy in percent, others with three digits."""
    if not is_number(value):
        return "–"
    if metric in SHARES:
        return f"{100 * value:.1f}\u202f%"
    if metric in ("gallery", "n", "median_rank"):
        return count(value)
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("-", "−")


def label(metric: str) -> str:
    """Label of a metric."""
    return LABELS.get(metric, metric.replace("_", " "))


def cell(value: Any, longest: int = 200) -> str:
    """A cell as text of bounded length; moments without what all of them lack."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime.datetime):
        value = value.replace(tzinfo=None).isoformat(" ", "seconds").removesuffix(" 00:00:00")
    text = "".join(letter if letter.isprintable() else " " for letter in str(value)[: longest + 1])
    return text[:longest] + "…" if len(text) > longest else text


def deciding(column: str, entry: Mapping[str, Any], metrics: Mapping[str, str]) -> str:
    """Deciding metric of a column: as given, by its kind, or the first that was measured."""
    given = metrics.get(column) or METRIC.get(entry.get("kind", ""), "")
    if is_number(entry.get(given)):
        return given
    return next((key for key, value in entry.items() if key not in HIDDEN and is_number(value)), given)


def verdict(column: str, entry: Mapping[str, Any], metric: str) -> Verdict:
    """Comparison on a column by its deciding metric: who is ahead, and by how much."""
    ours, beside = entry.get(metric), entry.get("baseline") or {}
    name = beside.get("one_column_name")
    named = f"the best single column (‘{cell(name, 60)}’)" if name else "the best single column"
    rivals = {
        "trees": ("gradient-boosted trees on all other columns", beside.get("trees")),
        "one": (named, beside.get("one_column")),
        "chance": ("chance", entry.get("chance")),
    }
    rivals = {
        key: (words, float(value)) for key, (words, value) in rivals.items() if value is not None and is_number(value)
    }
    if ours is None or not is_number(ours):
        return Verdict(column, "", "nothing could be measured here.", [], metric)
    titles = {"trees": "Trees", "one": f"Best: {cell(name, 40)}" if name else "Best column", "chance": "Chance"}
    bars = [("ours", "Ours", float(ours)), *((key, titles[key], float(value)) for key, (_, value) in rivals.items())]
    own = measured(metric, ours)
    if not rivals:
        return Verdict(column, "", f"{label(metric)} {own}.", bars, metric)
    words, best = max(rivals.values(), key=lambda rival: rival[1])
    doubt = unclear(metric, ours, best, entry.get("n"))
    if measured(metric, ours) == measured(metric, best):
        return Verdict(column, "even", f"ours and {words} are level at {own}.", bars, metric)
    if ours > best:
        rest = [f"{w} {measured(metric, v)}" for w, v in rivals.values()]
        sentence = f"ours wins with {label(metric)} {own}, against {', '.join(rest)}{doubt}."
        return Verdict(column, "even" if doubt else "ours", sentence, bars, metric)
    verb, rate = "win" if "trees" in words else "wins", label(metric)
    sentence = f"{words} {verb} with {rate} {measured(metric, best)}, against our {own}{doubt}."
    return Verdict(column, "even" if doubt else "plain", sentence, bars, metric)


def searched(retrieval: Mapping[str, Mapping[str, Any]]) -> str:
    """Sentence on the directions in which search works best and worst."""
    known = {d: value["recall@10"] for d, value in retrieval.items() if is_number(value.get("recall@10"))}
    if not known:
        return ""
    ends = [max(known, key=lambda d: known[d]), min(known, key=lambda d: known[d])]
    phrases = [f"{cell(d, 90).replace('>', ' → ')} ({measured('recall@10', known[d])})" for d in ends]
    where = f"in the direction {phrases[0]}" if len(known) == 1 else f"best in {phrases[0]}, worst in {phrases[1]}"
    return f"Search puts the right row among the first ten {where}."


def unclear(metric: str, a: float, b: float, n: Any) -> str:
    """Caveat for a difference of two shares of ``n`` rows that chance alone could make (two standard errors)."""
    if metric not in SHARES or not is_number(n) or n < 1:
        return ""
    error = math.sqrt(max(a * (1 - a) + b * (1 - b), 0) / n)
    return f"; with {count(n)} rows the difference may be chance" if abs(a - b) < 2 * error else ""


def overall(verdicts: list[Verdict]) -> str:
    """Sentence that sums up all verdicts."""
    names = {who: [f"‘{cell(v.column, 60)}’" for v in verdicts if v.winner == who] for who in ("ours", "plain", "even")}
    total = sum(map(len, names.values()))
    if not total:
        return "No column was measured beside plain models."
    parts = []
    if names["ours"]:
        parts.append(f"ours is ahead on {listed(names['ours'])}")
    if names["plain"]:
        parts.append(f"a plain model is ahead on {listed(names['plain'])}")
    if names["even"]:
        parts.append(f"no clear difference on {listed(names['even'])}")
    words = "; ".join(parts)
    return f"{words[0].upper()}{words[1:]}."


def listed(names: list[str]) -> str:
    """A list in words: a, b and c; a long one is cut."""
    if len(names) > 6:
        return f"{', '.join(names[:5])} and {len(names) - 5} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
