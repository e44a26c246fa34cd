"""Makes the report's page: gathers what each section shows, bounded in number and size, and fills the template."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from sensorium.report import charts, words
from sensorium.report.assets import asset, environment
from sensorium.report.cells import CellGallery, examples, split
from sensorium.report.types import Evaluation, GeneratedSamples, Predictions, RunInfo, Show
from sensorium.report.why import entry

LARGEST = 14_500_000
"""Bytes of the file."""
ROOM = 10_000_000
"""Letters of cells in it."""
QUERIES, FOUND, WORST, SAMPLES, CLASSES, POINTS, PANELS = 12, 5, 10, 16, 20, 400, 24
"""The most queries a direction, cells found for each, worst rows and said texts a column, classes in a confusion
matrix, points in a scatter, and columns in a section."""
LOOKS = {"image": 0, "video": 1, "audio": 2, "series": 3, "text": 4}
"""How much a cell of a kind says at a glance; kinds that aren't named come last."""
OTHERS = ("lr", "gradient", "skipped", "temperature", "scale")
"""What is measured in training that is no loss."""


def render(run: RunInfo, evaluation: Evaluation, show: Show) -> str:
    """The page as HTML; made again with less in it where it would be too large."""
    room = ROOM
    while True:
        text = fill(run, evaluation, show, room)
        if len(text.encode("utf-8", "replace")) < LARGEST or room < 1000:
            return text
        room //= 2


def fill(run: RunInfo, evaluation: Evaluation, show: Show, room: int) -> str:
    """The template with all sections."""
    columns = evaluation.results.get("columns", {})
    metrics = {c: words.deciding(c, entry, evaluation.metrics) for c, entry in columns.items()}
    verdicts = [words.verdict(c, entry, metrics[c]) for c, entry in columns.items()]
    cells = CellGallery(show, {c["name"]: c.get("kind", "") for c in run.columns})
    script = asset("script.js")
    parts: dict[str, Any] = {
        "run": run,
        "results": evaluation.results,
        "style": Markup(asset("style.css")),
        "script": Markup(script),
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "made": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "words": words,
        "verdicts": verdicts,
        "overall": words.overall(verdicts),
        "searched": words.searched(evaluation.results.get("retrieval", {})),
        "measures": measures(columns),
        "losses": losses(run),
        "retrieval": directions(run, evaluation, cells),
        "confusions": [confusion(c, p) for c, p in kind_of(evaluation, "category")],
        "scatters": [scatter(c, p) for c, p in kind_of(evaluation, "number", "date")],
        "captions": [caption(run, c, p, cells) for c, p in kind_of(evaluation, "text")],
        "drawings": [drawing(run, c, d, cells) for c, d in list(evaluation.drawn.items())[:PANELS]],
        "errors": [errors(run, c, p, cells) for c, p in list(evaluation.predictions.items())[:PANELS]],
        "missing": missing(evaluation, metrics),
        "settings": flat(run.settings),
        "surroundings": flat(run.environment),
    }
    taken = sum(
        len(cell)
        for drawn in evaluation.drawn.values()
        for samples in (*drawn.samples, *drawn.steps)
        for cell in samples
    )
    cells.settle(room - taken - sum(why.size for drawn in evaluation.drawn.values() for why in drawn.whys))
    page = environment().get_template("page.html.jinja").render(cells=cells, **parts)
    return page.replace("\0", "\ufffd")


def kind_of(evaluation: Evaluation, *kinds: str) -> list[tuple[str, Predictions]]:
    """Predictions of some kinds, so many as a section holds."""
    return [(c, p) for c, p in evaluation.predictions.items() if p.kind in kinds and len(p.truth)][:PANELS]


def measures(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[str, float]]]:
    """For each column its metrics, by name."""
    return {
        c: [(key, value) for key, value in entry.items() if key not in words.HIDDEN and words.is_number(value)]
        for c, entry in columns.items()
    }


# --- losses -----------------------------------------------------------------------------------------------------------


def losses(run: RunInfo) -> list[tuple[str, str, Markup]]:
    """(name, last value, chart) for each number that ``metrics.jsonl`` follows; the sum first, what is no loss last."""
    if run.metrics is None or not run.metrics.is_file():
        return []
    seconds: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    with run.metrics.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
                at = float(line["seconds"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut in two
            for key, value in line.items():
                if key not in ("step", "seconds", "rows") and words.is_number(value):
                    seconds.setdefault(key, []).append(at)
                    values.setdefault(key, []).append(float(value))
    order = sorted(values, key=lambda key: (key != "loss", key in OTHERS, list(values).index(key)))
    made = []
    for key in order[: 2 * PANELS]:
        line = charts.binned(np.array(seconds[key]) / 60, np.array(values[key]))
        line.style = "other" if key in OTHERS else "ours"
        size = (960, 240) if key == "loss" else (350, 150)
        made.append((key, f"{line.y[-1]:.4g}", charts.lines([line], f"{key} over minutes", "minutes", size)))
    return made


# --- retrieval --------------------------------------------------------------------------------------------------------


def chosen(evaluation: Evaluation) -> dict[str, list[int]]:
    """For each direction the queries that are shown."""
    return {direction: examples(found, QUERIES) for direction, found in evaluation.retrieval.items()}


def caption_column(run: RunInfo) -> str | None:
    """A column whose words say what a row is: the first text."""
    return next((c["name"] for c in run.columns if c.get("kind") == "text"), None)


def directions(run: RunInfo, evaluation: Evaluation, cells: CellGallery) -> dict[str, Any]:
    """The grid of all directions, and for each its examples."""
    names, shown, label = [c["name"] for c in run.columns], chosen(evaluation), caption_column(run)
    kinds = {c["name"]: c.get("kind", "") for c in run.columns}
    measured = evaluation.results.get("retrieval", {})
    pairs = {direction: split(direction, names) for direction in {**measured, **evaluation.retrieval}}
    order = {name: i for i, name in enumerate(names)}
    ends = sorted({c for pair in pairs.values() for c in pair}, key=lambda c: (order.get(c, len(order)), c))
    ids = {direction: f"direction-{i}" for i, direction in enumerate(pairs)}
    grid = {pairs[d]: {"id": ids[d], "share": value.get("recall@10"), "direction": d} for d, value in measured.items()}
    sections = []
    for direction, picked in shown.items():
        found, (a, b) = evaluation.retrieval[direction], pairs[direction]
        queries = []
        for turn, i in enumerate(picked):
            row, rank = int(found.query_rows[i]), int(found.rank[i])
            hit = bool(np.any(found.hit[i][:FOUND]))
            queries.append({
                "row": row,
                "rank": rank,
                "cell": cells.place(row, a, turn),
                "caption": cells.place(row, label, turn) if label not in (None, a, b) else None,
                "right": None if hit else cells.place(row, b, turn),
                "found": [
                    {"row": int(r), "hit": bool(h), "cell": cells.place(r, b, turn),
                     "caption": cells.place(r, label, turn) if label not in (None, b) else None}
                    for r, h in zip(found.found_rows[i][:FOUND], found.hit[i][:FOUND], strict=True)
                ],
            })  # fmt: skip
        sections.append({
            "id": ids[direction], "from": a, "to": b, "queries": queries, "results": measured.get(direction, {}),
            "gallery": found.gallery, "n": len(found.query_rows), "ranks": rank_shares(found.rank),
        })  # fmt: skip
    # What can be looked at comes first.
    sections.sort(key=lambda part: min(LOOKS.get(kinds.get(part[end], ""), 9) for end in ("from", "to")))
    return {"ends": ends, "grid": grid, "sections": sections}


def rank_shares(rank: np.ndarray) -> list[tuple[str, float]]:
    """How many queries found the right one first, soon, late."""
    edges = (("first", 0, 1), ("2nd to 5th", 1, 5), ("6th to 10th", 5, 10), ("later", 10, np.inf))
    return [(name, float(((rank > low) & (rank <= high)).mean()) if len(rank) else 0.0) for name, low, high in edges]


# --- predictions ------------------------------------------------------------------------------------------------------


def confusion(column: str, said: Predictions) -> dict[str, Any]:
    """Counts of true (down) against said classes (across); the rarest classes are put together."""
    truth, answers = [words.cell(v, 60) for v in said.truth], [words.cell(v, 60) for v in said.said]
    counts: dict[str, int] = {}
    for value in truth:
        counts[value] = counts.get(value, 0) + 1
    given = [words.cell(v, 60) for v in said.classes] if said.classes is not None else []
    extra = sorted(set(answers) - set(counts))
    names = sorted(counts, key=lambda name: (-counts[name], name)) + extra
    kept, rest = names[:CLASSES], len(names) - CLASSES
    if set(given) >= set(kept):
        kept = [name for name in given if name in set(kept)]
    index = {name: i for i, name in enumerate(kept)}
    size = len(kept) + (rest > 0)
    matrix = np.zeros((size, size), np.int64)
    for t, s in zip(truth, answers, strict=True):
        matrix[index.get(t, size - 1), index.get(s, size - 1)] += 1
    labels = kept + ([f"{rest} other classes"] if rest > 0 else [])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return {
        "column": column,
        "labels": labels,
        "counts": matrix.tolist(),
        "share": share.tolist(),
        "rest": rest,
        "n": len(truth),
    }


def scatter(column: str, said: Predictions) -> dict[str, Any]:
    """True against said values of some rows, evenly spread, and how often the interval held the truth."""
    dates = said.kind == "date"
    some = np.linspace(0, len(said.truth) - 1, min(len(said.truth), POINTS)).astype(int)
    truth = np.array([charts.numeric(v, dates) for v in said.truth])
    answers = np.array([charts.numeric(v, dates) for v in said.said])
    ends, inside = None, None
    if said.interval is not None and len(said.interval):
        ends = np.array([[charts.numeric(v, dates) for v in pair] for pair in said.interval])
        known = np.isfinite(ends).all(1) & np.isfinite(truth)
        inside = float(((truth >= ends[:, 0]) & (truth <= ends[:, 1]))[known].mean()) if known.any() else None
        ends = ends[some]
    hints = [f"row {said.rows[i]}: {words.cell(said.truth[i], 40)}, said {words.cell(said.said[i], 40)}" for i in some]
    chart = charts.scatter(truth[some], answers[some], ends, hints, f"{column}: truth against what was said", dates)
    return {"column": column, "chart": chart, "shown": len(some), "n": len(truth), "inside": inside}


def same_words(truth: Any, said: Any) -> bool:
    """Equal but for case and spaces."""
    return " ".join(str(truth).split()).casefold() == " ".join(str(said).split()).casefold()


def caption(run: RunInfo, column: str, said: Predictions, cells: CellGallery) -> dict[str, Any]:
    """Some texts said beside what is true, evenly spread, with a picture or sound of the row."""
    some = np.linspace(0, len(said.truth) - 1, min(len(said.truth), SAMPLES)).astype(int)
    from_ = [
        c["name"] for c in run.columns if c["name"] != column and c.get("kind") in ("image", "audio", "series", "video")
    ][:2]
    rows = [
        {
            "row": int(said.rows[i]), "truth": words.cell(said.truth[i], 300), "said": words.cell(said.said[i], 300),
            "right": same_words(said.truth[i], said.said[i]),
            "cells": [cells.place(said.rows[i], c, turn) for c in from_],
        }
        for turn, i in enumerate(some)
    ]  # fmt: skip
    return {"column": column, "rows": rows, "beside": from_, "n": len(said.truth)}


def drawing(run: RunInfo, column: str, drawn: GeneratedSamples, cells: CellGallery) -> dict[str, Any]:
    """Samples of some rows beside what is true, and the words of the row."""
    beside = [c["name"] for c in run.columns if c["name"] != column and c.get("kind") in ("text", "category")][:2]
    rows = [
        {"row": int(row), "truth": cells.place(row, column, turn), "cells": [cells.place(row, c, turn) for c in beside],
         "samples": [Markup(cell) for cell in samples], "steps": [Markup(cell) for cell in steps]}
        for turn, (row, samples, steps) in enumerate(itertools.zip_longest(drawn.rows, drawn.samples, drawn.steps, fillvalue=()))
    ]  # fmt: skip
    kind = next((c.get("kind", "") for c in run.columns if c["name"] == column), "")
    return {
        "column": column,
        "beside": beside,
        "rows": rows,
        "each": max(map(len, drawn.samples), default=0),
        "whys": [entry(kind, e) for e in drawn.whys],
    }


def errors(run: RunInfo, column: str, said: Predictions, cells: CellGallery) -> dict[str, Any]:
    """The worst rows: numbers furthest off, other cells wrong with the most confidence."""
    n = len(said.truth)
    sure = np.full(n, np.nan) if said.confidence is None else np.asarray(said.confidence, np.float64)
    if said.kind in ("number", "date"):
        pairs = [
            (charts.numeric(t, said.kind == "date"), charts.numeric(s, said.kind == "date"))
            for t, s in zip(said.truth, said.said, strict=True)
        ]
        off = np.array([abs(t - s) for t, s in pairs], np.float64)
        wrong = np.flatnonzero(off > 0)
        order = wrong[np.argsort(-off[wrong], kind="stable")]
    else:
        equal = same_words if said.kind == "text" else lambda t, s: str(t) == str(s)
        wrong = np.array([i for i in range(n) if not equal(said.truth[i], said.said[i])], np.int64)
        order = wrong[np.argsort(-np.nan_to_num(sure[wrong], nan=-1.0), kind="stable")]
    beside = sorted((c for c in run.columns if c["name"] != column), key=lambda c: LOOKS.get(c.get("kind", ""), 9))
    names = [c["name"] for c in beside[:4]]
    rows = [
        {
            "row": int(said.rows[i]), "truth": words.cell(said.truth[i]), "said": words.cell(said.said[i]),
            "sure": float(sure[i]) if math.isfinite(sure[i]) else None,
            "cells": [cells.place(said.rows[i], c, turn) for c in names],
        }
        for turn, i in enumerate(order[:WORST])
    ]  # fmt: skip
    return {"column": column, "kind": said.kind, "rows": rows, "wrong": len(wrong), "n": n, "beside": names}


def missing(evaluation: Evaluation, metrics: Mapping[str, str]) -> list[tuple[str, str, Markup]]:
    """(column, metric, chart of the metric against the share of columns removed), beside chance."""
    made = []
    for column, points in list(evaluation.missing.items())[:PANELS]:
        points = [(rate, value) for rate, value in points if words.is_number(value)]
        if not points:
            continue
        rate, value = (np.array(v, np.float64) for v in zip(*sorted(points), strict=True))
        drawn = [charts.Line(rate, value, dots=True)]
        chance = evaluation.results.get("columns", {}).get(column, {}).get("chance")
        if words.is_number(chance):
            drawn.insert(0, charts.Line(rate[[0, -1]], np.array([chance, chance]), style="chance"))
        metric = metrics.get(column, "")
        share = metric in words.SHARES
        low = min(0.0, float(value.min()), chance if words.is_number(chance) else 0.0)
        span = (0.0, 1.0) if share else (low, max(1.0, float(value.max())))
        title = f"{column}: {words.label(metric)} as columns are removed"
        chart = charts.lines(
            drawn,
            title,
            "share of the other columns removed",
            (350, 180),
            span,
            charts.percent if share else charts.tick,
            charts.percent,
        )
        made.append((column, words.label(metric), chart))
    return made


def flat(tree: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (path, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        path = f"{before}.{key}" if before and str(key) else before or str(key)
        if isinstance(value, Mapping):
            pairs += flat(value, path)
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            pairs.append((path, words.cell(", ".join(map(str, value)), 400)))
        else:
            pairs.append((path, words.cell(value, 400)))
    return pairs
