"""``python -m benchmarks [NAME ...] [--quick]``: run benchmarks, print them, and append each to results.jsonl."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import pkgutil
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks import Comparison, Metric
from benchmarks._measure import ROOT, cores, run_comparison, spread

RESULTS = Path(__file__).parent / "results.jsonl"
VERSIONS = (
    "torch", "numpy", "pillow", "simplejpeg", "open_clip_torch", "timm", "datasets", "webdataset", "librosa", "keras",
    "tensorflow_cpu",
)  # fmt: skip


def main() -> int:
    """Run what the command line names."""
    if sys.argv[1:2] == ["tables"]:
        return importlib.import_module("benchmarks.tables").main(sys.argv[2:])
    names = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_") and not m.ispkg
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(names)}); all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller sizes; nothing is recorded")
    given = parser.parse_args()
    for name in given.names:  # tables has options of its own
        if name not in names:
            parser.error(f"no benchmark '{name}'. Possible: {', '.join(names)}.")
    console, where = Console(), machine()
    table = Table("", "ours", "peer", "times better", "wanted", title=f"{where['cpu']}, {where['cores']} cores")
    failed = []
    for name in given.names or names:
        try:
            comparisons = importlib.import_module(f"benchmarks.{name}").comparisons(given.quick)
        except RuntimeError as error:
            failed.append(f"{name}: {error}")
            continue
        for comparison in comparisons:
            try:
                with console.status(comparison.name) as status:
                    values, skipped = run_comparison(name, comparison, status.update)
            except RuntimeError as error:
                failed.append(f"{comparison.name}: {error}")
                continue
            for row in rows(comparison, values):
                show(table, row)
                console.print(line(row), highlight=False, markup=False)
                if not given.quick:
                    record(where, {"benchmark": name, **row})
            for side, why in skipped.items():
                table.add_row(comparison.name, "", side, "", f"left out: {why}", style="dim")
    console.print(table)
    for words in failed:
        console.print(words, style="red", markup=False)
    return 1 if failed else 0


def rows(comparison: Comparison, values: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """One result for each metric and peer: medians, spreads over repeats and how many times better ours is."""
    found = []
    for metric in comparison.metrics:
        sides = {name: spread(value, metric.key) for name, value in values.items() if metric.key in value[0]}
        ours = sides.pop("ours", None)
        for peer, theirs in sides.items() or [("", None)]:
            ratio = None
            if ours and theirs and all(map(math.isfinite, (ours[0], theirs[0]))):
                ratio = theirs[0] / ours[0] if metric.less else ours[0] / theirs[0]
            if ours or theirs:
                found.append({
                    "name": comparison.name, "metric": metric.key, "unit": metric.unit, "ours": ours, "peer_name": peer,
                    "peer": theirs, "ratio": ratio, "wanted": wanted(metric, bool(peer)),
                    "met": met(metric, ours, ratio),
                    "repeats": comparison.repeats,
                })  # fmt: skip
    return found


def wanted(metric: Metric, peer: bool) -> str:
    """What is promised, in words."""
    if metric.limit is not None:
        return f"{'≤' if metric.less else '≥'} {metric.limit:g} {metric.unit}".strip()
    return f"≥ {metric.wanted:g}" if metric.wanted is not None and peer else ""


def met(metric: Metric, ours: tuple[float, float, float] | None, ratio: float | None) -> bool | None:
    """Whether the promise is kept; None where nothing is promised or nothing was measured."""
    if metric.limit is not None and ours:
        return ours[0] <= metric.limit if metric.less else ours[0] >= metric.limit
    return None if metric.wanted is None or ratio is None else ratio >= metric.wanted


def show(table: Table, row: dict[str, Any]) -> None:
    """One line of the table."""
    mark = {None: "", True: " [green]✓[/]", False: " [red]✗[/]"}[row["met"]]
    table.add_row(
        row["name"],
        said(row["ours"], row["unit"]),
        f"{row['peer_name']} {said(row['peer'], row['unit'])}".strip(),
        "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        row["wanted"] + mark,
    )


def line(row: dict[str, Any]) -> str:
    """The same in one line, shown as soon as it is known."""
    better = "" if row["ratio"] is None else f": {row['ratio']:.2f} times better"
    peer = f", {row['peer_name']} {said(row['peer'], row['unit'])}" if row["peer"] else ""
    return f"{row['name']}, {row['metric']}: {said(row['ours'], row['unit']) or 'not measured'}{peer}{better}"


def said(value: tuple[float, float, float] | None, unit: str) -> str:
    """A median with its spread."""
    if value is None:
        return ""
    if not math.isfinite(value[0]):
        return "never"
    middle, low, high = (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}" for x in value)
    return f"{middle} {unit}".strip() + (f" ({low}–{high})" if low != high else "")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu
        )
    versions = {"python": platform.python_version()}
    for package in VERSIONS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "cpu": cpu, "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.system(), "commit": git.stdout.strip(), "versions": versions,
    }  # fmt: skip


def record(where: dict[str, Any], row: dict[str, Any]) -> None:
    """Append a result; what was never reached is null."""
    for side in ("ours", "peer"):
        row = {**row, side: row[side] and [x if math.isfinite(x) else None for x in row[side]]}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "machine": where}, ensure_ascii=False, allow_nan=False) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
