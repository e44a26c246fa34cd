"""Evaluation: every column asked of every row, every direction searched, beside chance and the plain baselines."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium.core.deadline import Deadline
from sensorium.core.errors import UserError, unknown
from sensorium.core.registry import name_of
from sensorium.data.order import evenly_spaced
from sensorium.data.table import Table
from sensorium.evaluation.answer_metrics import MIN_SLICE, metrics_of, slice_scores, slices_of
from sensorium.evaluation.baselines import Baselines
from sensorium.evaluation.member_scores import member_scores
from sensorium.evaluation.metrics import METRICS, RankMetrics, WeightedMetrics, bootstrap_weights
from sensorium.evaluation.search_scores import entity_numbers, search_all
from sensorium.inference.answers import Answers
from sensorium.inference.rows import Rows
from sensorium.modalities._capabilities import Generable
from sensorium.network.network import Network
from sensorium.network.types import IgnoredColumns
from sensorium.report.types import Evaluation, Predictions

MISSING_RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
MAX_CURVE_ROWS = 512
SEARCH_SHARE, MIN_ASKED_ROWS = 0.5, 64
"""Time for searching, in that of a column; and rows that a column is asked of, however short the time is."""
MIN_BREACH = 0.04
"""By how much sets and intervals may hold less than they promise, before it is said."""
COVERAGE, N_BINS, TOLERANCE = 0.9, 10, 1e-4
"""Nominal coverage of the sets and intervals that are measured; bins of sureness; and by how much, in spreads, a
rounded end may be off.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes:
        seen: what predictions may see (all other columns by default).
        baselines: plain models to stand beside ours.
        curves: also measure accuracy against the share of columns removed.
        candidates: texts that an answer is chosen from, as of ``Rows.predict``.
        metric: that by which answers are judged in slices and compared; the main one of each kind by default.
        by: column by whose cells the rows are sliced.
    """

    seen: Sequence[str] | None = None
    baselines: Baselines | None = None
    curves: bool = False
    candidates: int = 1
    metric: str | None = None
    by: str | None = None


def evaluate(
    network: Network,
    table: Table,
    options: EvaluationOptions | None = None,
    *,
    entity_key: str | None = None,
    deadline: Deadline | None = None,
    note: Callable[[str], None] = lambda words: None,
) -> Evaluation:
    """Evaluate a network on a table.

    Args:
        entity_key: column; rows that share its value are one thing when searching.
        deadline: of all of it: fewer rows are asked where more wouldn't fit.

    Raises:
        UserError: a column that isn't there, or a table without rows.
    """
    started, options, deadline = time.monotonic(), options or EvaluationOptions(), deadline or Deadline()
    if not table.rows:
        raise UserError(f"'{table.name}' has no rows to evaluate. Check the file, or the name given with --split.")
    for column in options.seen or ():
        if column not in network.columns:
            raise unknown("column for --seen:", column, network.columns)
    if options.metric is not None and options.metric not in METRICS:
        raise unknown("metric:", options.metric, METRICS)
    if options.by is not None and options.by not in table.columns:
        raise unknown("column for --by:", options.by, table.columns)
    note("reading")
    bad: dict[str, int] = {}
    rows = Rows.of(network, table, bad=lambda row, column, why: bad.__setitem__(column, bad.get(column, 0) + 1))
    found = Evaluation(results={"rows": table.rows, "columns": {}, "retrieval": {}})
    found.groups = entity_numbers(table, entity_key) if entity_key is not None else None
    found.slices = slices_of(cells_of(table, options.by, np.arange(table.rows))) if options.by else {}
    # In generative columns many answers are right, so none is wrong.
    asked = [c for c in network.asked_columns if c not in network.generative_columns and rows.has(c).any()]
    rows.encoded_columns(network.columns if options.seen is None else options.seen)
    for number, column in enumerate(asked):
        note(f"asking {column}")
        mine = deadline.part(1 / (len(asked) - number + SEARCH_SHARE))
        evaluate_column(rows, table, column, options, mine, found)
    note("searching")
    found.retrieval = search_all(rows, table, entity_key)
    for direction, ranked in found.retrieval.items():
        ranks = RankMetrics(ranked.hit, ranked.rank, ranked.relevant)
        found.results["retrieval"][direction] = {
            **ranks.point(),
            "median_rank": float(np.median(ranked.rank)),
            "gallery": int(ranked.gallery),
            "n": len(ranked.query_rows),
            "intervals": ranks.intervals(weights_of(found, ranked.query_rows)),
        }
    add_all_right(rows, asked, found)
    if bad:
        found.results["bad_cells"] = bad
    found.results["seconds"] = round(time.monotonic() - started, 2)
    return found


def evaluate_column(
    rows: Rows, table: Table, column: str, options: EvaluationOptions, deadline: Deadline, found: Evaluation
) -> None:
    """Evaluate one column of some rows of a table; its results are added to ``found``."""
    network, seen, modality = rows.network, options.seen, rows.network.asked_modality(column)
    short = modality.is_categorical or modality.is_scalar
    asking: dict[str, Any] = {"coverage": COVERAGE} if short else {"candidates": options.candidates}
    visible = [c for c in (network.columns if seen is None else seen) if c != column and rows.has(c).any()]
    every = np.flatnonzero(rows.has(column))
    passes = 3 + len(visible) + 2 * options.curves if short else 1
    count = deadline.part(1 / passes).rows(
        len(every), lambda n: rows.predict(column, seen, evenly_spaced(every, n), **asking), MIN_ASKED_ROWS
    )
    have = evenly_spaced(every, count)
    if len(have) < len(every):
        found.notes.append(f"'{column}' was asked of {len(have):,} of {len(every):,} rows, to end in time.")
    truth = cells_of(table, column, have)
    answers = rows.predict(column, seen, have, **asking)
    entry: dict[str, Any] = {"kind": name_of(modality), "n": len(have), **modality.score(truth, answers.cells)}
    entry |= calibration_scores(modality, truth, answers)
    if words := broken_coverage(column, entry):
        found.notes.append(words)
        found.results.setdefault("warnings", []).append(words)
    metrics = metrics_of(modality, truth, answers, COVERAGE)
    if metrics is not None:
        name = add_metrics(metrics, modality.metric, options, found, entry, have)
        found.row_metrics[column] = (name, metrics)
    if short:
        metric = modality.metric
        entry |= baseline_scores(column, metric, modality, truth, have, rows, visible, options.baselines)
        single = {c: modality.score(truth, rows.predict(column, [c], have).cells).get(metric) for c in visible}
        entry["alone"] = {c: value for c, value in single.items() if value is not None}
        ignored = network.calibration.ignored.get(column, IgnoredColumns()).columns if seen is None else ()
        if ignored := [c for c in ignored if c in visible]:
            entry["unheeded"] = ignored
        memory = network.calibration.memory
        if memory is not None and memory.shares.get(column) and set(memory.by.get(column, ())) & set(visible):
            entry["remembered"] = memory.shares[column]
        if members := member_scores(rows, column, visible, have, truth):
            entry["members"] = members
        if options.curves:
            found.missing[column] = missing_curve(rows, column, metric, have, truth, visible, seen)
    found.results["columns"][column] = entry
    found.predictions[column] = Predictions(
        kind=entry["kind"],
        rows=have,
        truth=truth,
        predicted=answers.cells,
        confidence=answers.confidence,
        interval=interval_array(answers.interval),
    )


def add_metrics(
    metrics: WeightedMetrics,
    main: str,
    options: EvaluationOptions,
    found: Evaluation,
    entry: dict[str, Any],
    have: np.ndarray,
) -> str:
    """Add all metrics of a column's answers to its entry, with intervals, and slices where they were asked for.

    Args:
        main: the metric by which such columns are judged where no other is asked for.

    Returns:
        that by which this column is.
    """
    weights, known = weights_of(found, have), metrics.point()
    entry |= {name: value for name, value in known.items() if name not in entry}
    entry["intervals"] = metrics.intervals(weights)
    name = options.metric if options.metric in known else main
    if options.by:
        place = {row: number for number, row in enumerate(have.tolist())}
        mine = {title: [place[r] for r in rows.tolist() if r in place] for title, rows in found.slices.items()}
        slices = {title: np.array(rows) for title, rows in mine.items() if len(rows) >= MIN_SLICE}
        entry["by"] = {"column": options.by, "metric": name, "slices": slice_scores(metrics, name, slices, weights)}
    return str(name)


def weights_of(found: Evaluation, rows: np.ndarray) -> np.ndarray:
    """Bootstrap weights of some rows; rows of one entity are drawn together."""
    return bootstrap_weights(len(rows), None if found.groups is None else found.groups[rows])


def add_all_right(rows: Rows, asked: Sequence[str], found: Evaluation) -> None:
    """Add the share of rows of which every target is exactly right: of the columns that the model was told to predict,
    or of all classes."""
    targets = [c for c in rows.network.targets if c in found.predictions] or [
        c for c in asked if rows.network.asked_modality(c).is_categorical
    ]
    if len(targets) < 2:
        return
    right: dict[int, bool] = {}
    for column in targets:
        mine, modality = found.predictions[column], rows.network.asked_modality(column)
        for row, truth, cell in zip(mine.rows.tolist(), mine.truth, mine.predicted, strict=True):
            equal = str(modality.read(truth).tolist()) == str(modality.read(cell).tolist())
            right[row] = right.get(row, True) and equal
    share = float(np.mean(list(right.values())))
    found.results["all_right"] = {"columns": targets, "share": share, "n": len(right)}


def calibration_scores(modality: Generable, truth: Sequence[Any], answers: Answers) -> dict[str, float]:
    """Calibration of answers: empirical coverage, and for categories the expected calibration error.

    Returns:
        ``covered``: the share of the truth that the 90 % intervals or sets hold. For categories ``set_size``: classes
        in a set, on average; ``calibration_error``: the mean gap between how sure and how often right answers are, over
        ten bins (Naeini et al. 2015).
    """
    if answers.interval is not None:
        scores = [target_values(modality, cells) for cells in (truth, *zip(*answers.interval, strict=True))]
        within = (scores[1] <= scores[0] + TOLERANCE) & (scores[0] <= scores[2] + TOLERANCE)
        return {"covered": float(within.all(1).mean())}
    if answers.sets is None:
        return {}
    ids, known = [int(modality.prepare(modality.read(cell))[0]) for cell in truth], {}
    for cell in (cell for some in answers.sets for cell in some):
        known.setdefault((type(cell), cell), int(modality.prepare(modality.read(cell))[0]))
    covered = [id in {known[type(cell), cell] for cell in some} for id, some in zip(ids, answers.sets, strict=True)]
    right = np.array([id == known[type(cell), cell] for id, cell in zip(ids, answers.cells, strict=True)])
    bins = np.minimum((answers.confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = [abs(float((right - answers.confidence)[bins == number].sum())) for number in range(N_BINS)]
    return {
        "covered": float(np.mean(covered)),
        "set_size": float(np.mean([len(some) for some in answers.sets])),
        "calibration_error": sum(gaps) / len(right),
    }


def broken_coverage(column: str, entry: Mapping[str, Any]) -> str:
    """Warning where the sets or intervals hold less of the truth than they promise, and more than by chance; or
    nothing."""
    if "covered" not in entry or entry["n"] < MIN_ASKED_ROWS:
        return ""
    allowed = max(MIN_BREACH, 3 * math.sqrt(COVERAGE * (1 - COVERAGE) / entry["n"]))
    if entry["covered"] >= COVERAGE - allowed:
        return ""
    return (
        f"'{column}': the {COVERAGE:.0%} sets or intervals hold only {entry['covered']:.2f} of the truth in these "
        "rows, which are unlike those that answers were calibrated on. Be less sure than they say, or train on rows "
        "like these."
    )


def target_values(modality: Generable, cells: Sequence[Any]) -> np.ndarray:
    """Cells of numbers or dates as a generator's targets, [n, width]."""
    read = [modality.prepare(modality.read(cell)) for cell in cells]
    return modality.target(modality.collate(read))[:, 0].float().numpy()


def interval_array(interval: list[tuple[Any, Any]] | None) -> np.ndarray | None:
    """Lower and upper cells as an array [n, 2]; dates stay objects."""
    if interval is None:
        return None
    array = np.empty((len(interval), 2), dtype=object)
    for i, ends in enumerate(interval):
        array[i] = ends
    return array


def cells_of(table: Table, column: str, rows: np.ndarray) -> list[Any]:
    """The table's own cells of a column."""
    return table.take(rows, [column]).column(column).to_pylist()


def baseline_scores(
    column: str,
    metric: str,
    modality: Any,
    truth: list[Any],
    have: np.ndarray,
    rows: Rows,
    visible: list[str],
    baselines: Baselines | None,
) -> dict[str, Any]:
    """Chance and the plain baselines on the same rows, in the same metric."""
    if baselines is None or column not in baselines.targets:
        return {}
    features = {
        c: np.stack([rows.network.modalities[c].features(rows.read[c][i]) for i in have])
        for c in visible
        if c in rows.read
    }
    plain = baselines.predict(column, features, visible)
    name, single = plain["one_column"]
    return {
        "chance": modality.score(truth, list(plain["chance"])).get(metric),
        "baseline": {
            "one_column": modality.score(truth, list(single)).get(metric),
            "one_column_name": name,
            "trees": modality.score(truth, list(plain["trees"])).get(metric),
        },
    }


def missing_curve(
    rows: Rows,
    column: str,
    metric: str,
    have: np.ndarray,
    truth: list[Any],
    visible: list[str],
    seen: Sequence[str] | None,
) -> list[tuple[float, float]]:
    """The metric as columns are removed at random, each with the same chance, on at most ``MAX_CURVE_ROWS`` rows."""
    some = evenly_spaced(np.arange(len(have)), MAX_CURVE_ROWS)
    part, points, nothing = have[some], [], np.zeros(rows.count, dtype=bool)
    for rate in MISSING_RATES:
        rng = np.random.default_rng(0)
        gone = {c: rng.random(rows.count) < rate for c in visible}
        answers = rows.predict(column, seen, part, hide=lambda c, gone=gone: gone.get(c, nothing))
        value = rows.network.modalities[column].score([truth[i] for i in some], answers.cells).get(metric)
        if value is not None:
            points.append((rate, value))
    return points
