"""Report page: the data of each section, bounded in number and size, rendered with the template."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from sensorium.core.types import LAST_RANK
from sensorium.report import charts, words
from sensorium.report.assets import asset, environment
from sensorium.report.cells import CellGallery, examples, split
from sensorium.report.types import Evaluation, GeneratedSamples, Predictions, RunInfo, Show
from sensorium.report.why import entry

MAX_BYTES = 14_500_000
"""Bytes of the file."""
CELL_BUDGET = 10_000_000
"""Characters of cells in it."""
QUERIES, FOUND, WORST, SAMPLES, CLASSES, POINTS, PANELS = 12, 5, 10, 16, 20, 400, 24
"""The most queries a direction, cells found for each, worst rows and predicted texts a column, classes in a confusion
matrix, points in a scatter, and columns in a section."""
MAX_MEDIA_RANK, MAX_WORDS_RANK = 4, 6
"""``display_rank`` of pictures, sounds and curves is below the first; that of texts and classes below the second."""
OTHERS = ("lr", "gradient", "skipped", "temperature", "scale")
"""Training metrics that are no losses."""


def render(run: RunInfo, evaluation: Evaluation, show: Show) -> str:
    """Render the page as HTML; again with less in it where it would be too large."""
    room = CELL_BUDGET
    while True:
        text = fill(run, evaluation, show, room)
        if len(text.encode("utf-8", "replace")) < MAX_BYTES or room < 1000:
            return text
        room //= 2


def fill(run: RunInfo, evaluation: Evaluation, show: Show, room: int) -> str:
    """Render the template with all sections."""
    columns = evaluation.results.get("columns", {})
    metrics = {c: words.deciding(c, entry, evaluation.metrics) for c, entry in columns.items()}
    verdicts = [words.verdict(c, entry, metrics[c]) for c, entry in columns.items()]
    cells = CellGallery(show, {c["name"]: c.get("display_cost", 0) for c in run.columns})
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
        "generated": [generated_samples(run, c, d, cells) for c, d in list(evaluation.generated.items())[:PANELS]],
        "errors": [errors(run, c, p, cells) for c, p in list(evaluation.predictions.items())[:PANELS]],
        "missing": missing(evaluation, metrics),
        "settings": flat(run.settings),
        "surroundings": flat(run.environment),
    }
    taken = sum(
        len(cell)
        for generated in evaluation.generated.values()
        for samples in (*generated.samples, *generated.steps)
        for cell in samples
    )
    explained = sum(why.size for generated in evaluation.generated.values() for why in generated.whys)
    cells.settle(room - taken - explained)
    page = environment().get_template("page.html.jinja").render(cells=cells, **parts)
    return page.replace("\0", "\ufffd")


def kind_of(evaluation: Evaluation, *kinds: str) -> list[tuple[str, Predictions]]:
    """Predictions of some kinds, at most as many as a section holds."""
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
    """Example queries of each direction."""
    return {direction: examples(found, QUERIES) for direction, found in evaluation.retrieval.items()}


def caption_column(run: RunInfo) -> str | None:
    """Column whose words describe a row: the first text."""
    return next((c["name"] for c in run.columns if c.get("kind") == "text"), None)


def display_rank(column: Mapping[str, Any]) -> int:
    """Place of a column of a run among those of a row where people see them."""
    return int(column.get("display_rank", LAST_RANK))


def directions(run: RunInfo, evaluation: Evaluation, cells: CellGallery) -> dict[str, Any]:
    """Grid of all directions, and examples of each."""
    names, selected, label = [c["name"] for c in run.columns], chosen(evaluation), caption_column(run)
    ranks = {c["name"]: display_rank(c) for c in run.columns}
    measured = evaluation.results.get("retrieval", {})
    pairs = {direction: split(direction, names) for direction in {**measured, **evaluation.retrieval}}
    order = {name: i for i, name in enumerate(names)}
    ends = sorted({c for pair in pairs.values() for c in pair}, key=lambda c: (order.get(c, len(order)), c))
    ids = {direction: f"direction-{i}" for i, direction in enumerate(pairs)}
    grid = {pairs[d]: {"id": ids[d], "share": value.get("recall@10"), "direction": d} for d, value in measured.items()}
    sections = []
    for direction, picked in selected.items():
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
    sections.sort(key=lambda part: min(ranks.get(part[end], LAST_RANK) for end in ("from", "to")))
    return {"ends": ends, "grid": grid, "sections": sections}


def rank_shares(rank: np.ndarray) -> list[tuple[str, float]]:
    """Shares of queries by the rank of the first right row."""
    edges = (("first", 0, 1), ("2nd to 5th", 1, 5), ("6th to 10th", 5, 10), ("later", 10, np.inf))
    return [(name, float(((rank > low) & (rank <= high)).mean()) if len(rank) else 0.0) for name, low, high in edges]


# --- predictions ------------------------------------------------------------------------------------------------------


def confusion(column: str, predictions: Predictions) -> dict[str, Any]:
    """Confusion matrix: counts of true (down) against predicted classes (across).

    The rarest classes are put together.
    """
    truth = [words.cell(v, 60) for v in predictions.truth]
    answers = [words.cell(v, 60) for v in predictions.predicted]
    counts: dict[str, int] = {}
    for value in truth:
        counts[value] = counts.get(value, 0) + 1
    given = [words.cell(v, 60) for v in predictions.classes] if predictions.classes is not None else []
    extra = sorted(set(answers) - set(counts))
    names = sorted(counts, key=lambda name: (-counts[name], name)) + extra
    displayed, rest = names[:CLASSES], len(names) - CLASSES
    if set(given) >= set(displayed):
        displayed = [name for name in given if name in set(displayed)]
    index = {name: i for i, name in enumerate(displayed)}
    size = len(displayed) + (rest > 0)
    matrix = np.zeros((size, size), np.int64)
    for t, s in zip(truth, answers, strict=True):
        matrix[index.get(t, size - 1), index.get(s, size - 1)] += 1
    labels = displayed + ([f"{rest} other classes"] if rest > 0 else [])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return {
        "column": column,
        "labels": labels,
        "counts": matrix.tolist(),
        "share": share.tolist(),
        "rest": rest,
        "n": len(truth),
    }


def scatter(column: str, predictions: Predictions) -> dict[str, Any]:
    """Scatter plot of true against predicted values of some rows, evenly spread, and the coverage of the interval."""
    dates = predictions.kind == "date"
    some = np.linspace(0, len(predictions.truth) - 1, min(len(predictions.truth), POINTS)).astype(int)
    truth = np.array([charts.numeric(v, dates) for v in predictions.truth])
    answers = np.array([charts.numeric(v, dates) for v in predictions.predicted])
    ends, inside = None, None
    if predictions.interval is not None and len(predictions.interval):
        ends = np.array([[charts.numeric(v, dates) for v in pair] for pair in predictions.interval])
        known = np.isfinite(ends).all(1) & np.isfinite(truth)
        inside = float(((truth >= ends[:, 0]) & (truth <= ends[:, 1]))[known].mean()) if known.any() else None
        ends = ends[some]
    hints = [
        f"row {predictions.rows[i]}: {words.cell(predictions.truth[i], 40)}, "
        f"predicted {words.cell(predictions.predicted[i], 40)}"
        for i in some
    ]
    chart = charts.scatter(truth[some], answers[some], ends, hints, f"{column}: predicted against true values", dates)
    return {"column": column, "chart": chart, "shown": len(some), "n": len(truth), "inside": inside}


def same_words(truth: Any, predicted: Any) -> bool:
    """Equality but for case and spaces."""
    return " ".join(str(truth).split()).casefold() == " ".join(str(predicted).split()).casefold()


def caption(run: RunInfo, column: str, predictions: Predictions, cells: CellGallery) -> dict[str, Any]:
    """Predicted texts beside the true ones, evenly spread, with a picture or sound of the row."""
    some = np.linspace(0, len(predictions.truth) - 1, min(len(predictions.truth), SAMPLES)).astype(int)
    from_ = [c["name"] for c in run.columns if c["name"] != column and display_rank(c) < MAX_MEDIA_RANK][:2]
    rows = [
        {
            "row": int(predictions.rows[i]), "truth": words.cell(predictions.truth[i], 300),
            "predicted": words.cell(predictions.predicted[i], 300),
            "right": same_words(predictions.truth[i], predictions.predicted[i]),
            "cells": [cells.place(predictions.rows[i], c, turn) for c in from_],
        }
        for turn, i in enumerate(some)
    ]  # fmt: skip
    return {"column": column, "rows": rows, "beside": from_, "n": len(predictions.truth)}


def generated_samples(run: RunInfo, column: str, generated: GeneratedSamples, cells: CellGallery) -> dict[str, Any]:
    """Generated samples of some rows beside the true cell, and the words of the row."""
    beside = [
        c["name"] for c in run.columns if c["name"] != column and MAX_MEDIA_RANK <= display_rank(c) < MAX_WORDS_RANK
    ][:2]
    rows = [
        {
            "row": int(row),
            "truth": cells.place(row, column, turn),
            "cells": [cells.place(row, c, turn) for c in beside],
            "samples": [Markup(cell) for cell in samples],
            "steps": [Markup(cell) for cell in generated.steps[turn]] if turn < len(generated.steps) else [],
        }
        for turn, (row, samples) in enumerate(zip(generated.rows, generated.samples, strict=True))
    ]
    spatial = next((bool(c.get("is_spatial")) for c in run.columns if c["name"] == column), False)
    return {
        "column": column,
        "beside": beside,
        "rows": rows,
        "each": max(map(len, generated.samples), default=0),
        "whys": [entry(e, spatial) for e in generated.whys],
    }


def errors(run: RunInfo, column: str, predictions: Predictions, cells: CellGallery) -> dict[str, Any]:
    """Worst rows: numbers furthest off, other cells wrong with the most confidence."""
    n = len(predictions.truth)
    sure = np.full(n, np.nan) if predictions.confidence is None else np.asarray(predictions.confidence, np.float64)
    if predictions.kind in ("number", "date"):
        pairs = [
            (charts.numeric(t, predictions.kind == "date"), charts.numeric(s, predictions.kind == "date"))
            for t, s in zip(predictions.truth, predictions.predicted, strict=True)
        ]
        off = np.array([abs(t - s) for t, s in pairs], np.float64)
        wrong = np.flatnonzero(off > 0)
        order = wrong[np.argsort(-off[wrong], kind="stable")]
    else:
        equal = same_words if predictions.kind == "text" else lambda t, s: str(t) == str(s)
        wrong = np.array([i for i in range(n) if not equal(predictions.truth[i], predictions.predicted[i])], np.int64)
        order = wrong[np.argsort(-np.nan_to_num(sure[wrong], nan=-1.0), kind="stable")]
    beside = sorted((c for c in run.columns if c["name"] != column), key=display_rank)
    names = [c["name"] for c in beside[:4]]
    rows = [
        {
            "row": int(predictions.rows[i]), "truth": words.cell(predictions.truth[i]),
            "predicted": words.cell(predictions.predicted[i]),
            "sure": float(sure[i]) if math.isfinite(sure[i]) else None,
            "cells": [cells.place(predictions.rows[i], c, turn) for c in names],
        }
        for turn, i in enumerate(order[:WORST])
    ]  # fmt: skip
    return {"column": column, "kind": predictions.kind, "rows": rows, "wrong": len(wrong), "n": n, "beside": names}


def missing(evaluation: Evaluation, metrics: Mapping[str, str]) -> list[tuple[str, str, Markup]]:
    """Robustness to missing columns: (column, metric, chart of the metric against the share of columns removed)."""
    made = []
    for column, points in list(evaluation.missing.items())[:PANELS]:
        points = [(rate, value) for rate, value in points if words.is_number(value)]
        if not points:
            continue
        rate, value = (np.array(v, np.float64) for v in zip(*sorted(points), strict=True))
        curves = [charts.Line(rate, value, dots=True)]
        chance = evaluation.results.get("columns", {}).get(column, {}).get("chance")
        if words.is_number(chance):
            curves.insert(0, charts.Line(rate[[0, -1]], np.array([chance, chance]), style="chance"))
        metric = metrics.get(column, "")
        share = metric in words.SHARES
        low = min(0.0, float(value.min()), chance if words.is_number(chance) else 0.0)
        span = (0.0, 1.0) if share else (low, max(1.0, float(value.max())))
        title = f"{column}: {words.label(metric)} as columns are removed"
        chart = charts.lines(
            curves,
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
    """Nested mapping as (path, value) pairs."""
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
