"""Shared by the examples: build a table, fit a model to it, print ours beside plain models on rows not trained on."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from sensorium import Model, Table
from sensorium.core.errors import UserError
from sensorium.core.registry import find
from sensorium.data.split import Splits
from sensorium.datasets import Builder

TREES = 300


def run(main: Callable[[], None]) -> None:
    """Run an example; what the user can mend is one line, as the command has it."""
    try:
        main()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def arguments(
    words: str | None, minutes: float, choices: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> argparse.Namespace:
    """What every example can be told on its command line, and its own ``choices``, the first one by default."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=minutes, help="how long a model is trained")
    parser.add_argument(
        "--epochs", type=float, help="or how many passes over the rows, which no load of the machine changes"
    )
    parser.add_argument("--rows", type=int, help="only the beginning of the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the table and the runs; a temporary one by default")
    for name, possible in choices.items():
        parser.add_argument(f"--{name}", choices=possible, default=possible[0])
    parser.add_argument("settings", nargs="*", help="settings, as train.lr=0.001")
    return parser.parse_args()


def build(name: str, given: argparse.Namespace) -> Table:
    """One of Sensorium's tables, built from a package."""
    given.out = given.out or Path(tempfile.mkdtemp(prefix=f"sensorium-{name}-"))
    path = given.out / f"{name}.parquet"
    for line in find(Builder, name)(rows=given.rows).build(path)["credits"]:
        print(line)
    return Table.open(path)


def fit(table: Table, target: str, given: argparse.Namespace, run: str, settings: Sequence[str] = ()) -> Model:
    """A model of the table, in a folder of its own, where one that was stopped is gone on with; ``target`` may be
    empty.
    """
    length = {"epochs": given.epochs} if given.epochs else {"minutes": given.minutes}
    model = Model.fit(
        table,
        target=target or (),
        out=given.out / run,
        seed=given.seed,
        resume=(given.out / run / "settings.json").is_file(),
        settings=["trackers=none", *settings, *given.settings],
        **length,
    )
    if model.facts["stopped"]:
        print(f"Stopped and saved. The same command with --out {given.out} goes on", file=sys.stderr)
        raise SystemExit(130)
    return model


def known(folder: Path) -> Model | None:
    """The model that a folder holds, if it has learned to its end."""
    model = Model.load(folder) if (folder / "model.json").is_file() else None
    return None if model is None or model.facts["stopped"] else model


def compare(model: Model, table: Table, target: str) -> dict[str, float]:
    """Accuracies on the run's own test rows: ours, ours from each column alone, trees, a random forest, and chance."""
    assert model.folder is not None
    entry = json.loads((model.folder / "results-test.json").read_text(encoding="utf-8"))["columns"][target]
    result = {"ours": entry["accuracy"]}
    result |= {f"ours, {column} alone": value for column, value in entry["alone"].items()}
    plain = entry.get("baseline", {})
    if plain:
        result |= {f"trees, {plain['one_column_name']} alone": plain["one_column"], "trees": plain["trees"]}
    result["random forest"] = forest(model, table, target)
    result["chance"] = entry.get("chance", float("nan"))
    return result


def forest(model: Model, table: Table, target: str) -> float:
    """A random forest on the same plain features that the trees are given, trained on train and validation rows."""
    assert model.folder is not None
    splits, rows = Splits.load(model.folder / "splits.parquet"), model.rows(table)
    parts = [
        np.stack([model.network.modalities[c].features(cell) for cell in rows.read[c]])
        for c in model.columns
        if c != target and c in rows.read
    ]
    x = np.nan_to_num(np.concatenate(parts, 1), nan=-1.0)
    y = np.array(table.take(np.arange(table.rows), [target]).column(target).to_pylist())
    train = np.concatenate([splits.rows(part) for part in ("train", "validation")])
    test = splits.rows("test")
    grown = RandomForestClassifier(TREES, random_state=0).fit(x[train], y[train])
    return float((grown.predict(x[test]) == y[test]).mean())


def show(title: str, model: Model, results: dict[str, Any]) -> None:
    """One line a model."""
    rows = model.facts["rows"]
    print(
        f"\n{title}: {rows['train']:,} rows to learn from, {model.facts['steps']:,} steps in "
        f"{model.facts['seconds']:.0f} s"
    )
    for name, value in results.items():
        print(f"  {name:24} {value:.3f}")
