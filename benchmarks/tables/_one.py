"""``python -m benchmarks.tables._one``: one table and seed: fit, then every question to ours and to plain models.

A process of its own for each. The result is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables._peers import PEERS, Part
from benchmarks.tables._questions import SOURCES, Question, Source
from sensorium import Model, Table
from sensorium.data.split import Splits
from sensorium.evaluation.evaluate import calibration_scores
from sensorium.inference.rows import Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="file that the result is appended to")
    parser.add_argument("--run", type=Path, help="folder of the run, used again where it is there")
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    source = SOURCES[given.name]
    table = source.table(given.name, given.folder)
    if table is None:
        raise SystemExit(f"{given.name}.parquet isn't in {given.folder}")
    with tempfile.TemporaryDirectory() as scratch:
        path, run = Path(scratch) / f"{given.name}.parquet", given.run or Path(scratch) / "run"
        pq.write_table(table, path)
        started = time.monotonic()
        if (run / "model.json").is_file():
            model = Model.load(run)
        else:
            settings = [f"{key}={value}" for key, value in source.settings.items()]
            settings += ["trackers=none", *given.settings]
            model = Model.fit(
                path, target=source.targets, minutes=given.minutes, seed=given.seed, out=run, settings=settings
            )
        seconds = time.monotonic() - started
        questions = answer_all(model, Table.open(path), table, source, given.seed)
    result = {
        "table": given.name,
        "seed": given.seed,
        "minutes": given.minutes,
        "settings": given.settings,
        "rows": model.facts["rows"],
        "steps": model.facts["steps"],
        "seconds": round(seconds, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "questions": questions,
    }
    with given.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def answer_all(model: Model, opened: Table, table: pa.Table, source: Source, seed: int) -> dict[str, dict[str, Any]]:
    """Scores of all questions, by their names."""
    assert model.folder is not None
    rows = Rows.of(model.network, opened)
    splits = Splits.load(model.folder / "splits.parquet")
    found = {}
    for question in source.questions:
        if question.target in model.network.modalities:
            found[question.name] = answer(rows, splits, table, question, seed)
    return found


def answer(rows: Rows, splits: Splits, table: pa.Table, question: Question, seed: int) -> dict[str, Any]:
    """Scores of one question: ours, ours from each column alone, and those of plain models."""
    column, modality = question.target, rows.network.asked_modality(question.target)
    seen = [c for c in (question.seen or rows.network.columns) if c != column and c in rows.network.modalities]
    seen = [c for c in seen if rows.has(c).any()]
    cells, have = table.column(column).to_pylist(), rows.has(column)
    parts = {name: [i for i in splits.rows(name) if have[i]] for name in ("train", "validation", question.part)}
    asked = np.array(parts[question.part])
    truth = [cells[i] for i in asked]
    started = time.monotonic()
    answers = rows.predict(column, seen if question.seen else None, asked, coverage=0.9)
    seconds = time.monotonic() - started
    scores: dict[str, Any] = {"kind": "class" if modality.is_categorical else "value", "n": len(asked)}
    scores["rows_per_second"] = round(len(asked) / max(seconds, 1e-9), 1)
    scores |= {k: round(v, 4) for k, v in calibration_scores(modality, truth, answers).items()}
    codes: dict[Any, int] = {}
    if modality.is_categorical:
        for cell in (cells[i] for i in parts["train"]):
            codes.setdefault(str(cell), len(codes))
        scores["ours"] = accuracy(truth, answers.cells)
        values = np.array([codes.get(str(cell), -1) if cell is not None else -1 for cell in cells], float)
    else:
        values = np.array([np.nan if cell is None else as_float(cell) for cell in cells], float)
        scores["ours"] = r2(values[asked], np.array([as_float(cell) for cell in answers.cells]))
    network = without_ensemble(rows, column, seen, asked)
    scores["network"] = accuracy(truth, network) if codes else r2(values[asked], np.array(list(map(as_float, network))))
    alone = {}
    for one in seen if len(seen) > 1 else []:
        cells_alone = rows.predict(column, [one], asked).cells
        alone[one] = (
            accuracy(truth, cells_alone) if codes else r2(values[asked], np.array([*map(as_float, cells_alone)]))
        )
    scores["alone"] = alone
    features = {c: rows.features(c) for c in seen}
    scores["peers"] = peer_scores(features, seen, values, parts, asked, len(codes), seed)
    if len(seen) > 1:
        singles = {}
        for one in seen:
            found = peer_scores(features, [one], values, parts, asked, len(codes), seed, ("trees",))
            singles[one] = found["trees"]
        best = max(singles, key=lambda c: singles[c])
        scores["peers"][f"trees on {best}"] = singles[best]
    return scores


def without_ensemble(rows: Rows, column: str, seen: Sequence[str], asked: np.ndarray) -> list[Any]:
    """Answers of the network alone."""
    ensembles = rows.network.calibration.ensembles
    mine = ensembles.pop(column, None)
    try:
        return rows.predict(column, seen, asked).cells
    finally:
        if mine is not None:
            ensembles[column] = mine


def peer_scores(
    features: dict[str, np.ndarray],
    columns: Sequence[str],
    values: np.ndarray,
    parts: dict[str, list[int]],
    asked: np.ndarray,
    classes: int,
    seed: int,
    names: Sequence[str] = tuple(PEERS),
) -> dict[str, float]:
    """Scores of plain models on some columns."""
    x = np.concatenate([features[c] for c in columns], 1).astype(np.float64)
    x = np.clip(x, -1e30, 1e30)
    known = values >= 0 if classes else np.isfinite(values)
    train, valid = (np.array([i for i in parts[part] if known[i]]) for part in ("train", "validation"))
    fit: Part = x[train], values[train]
    check: Part = x[valid], values[valid]
    result = {}
    for name in names:
        predicted = PEERS[name](fit, check, classes, seed)(x[asked])
        right = predicted.argmax(1) if classes else predicted
        result[name] = float((right == values[asked]).mean()) if classes else r2(values[asked], right)
    return result


def as_float(cell: Any) -> float:
    """A number or date as a float."""
    return cell.timestamp() if hasattr(cell, "timestamp") else float(cell)


def accuracy(truth: Sequence[Any], found: Sequence[Any]) -> float:
    """Share that is right."""
    return float(np.mean([str(a) == str(b) for a, b in zip(truth, found, strict=True)]))


def r2(truth: np.ndarray, found: np.ndarray) -> float:
    """Coefficient of determination."""
    return float(1 - ((truth - found) ** 2).sum() / max(((truth - truth.mean()) ** 2).sum(), 1e-12))


if __name__ == "__main__":
    main()
