"""Wall time of commands from the shell's view: help, what each column of a small table is, and the prediction of one
row.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import Comparison, Metric, Side

TINY = (
    "train.batch=16", "network.width=24", "network.gist=24", "trunk.depth=1", "trackers=none", "baselines.share=0",
    "memory.rows=0",
)  # fmt: skip
ROWS = 60


def comparisons(quick: bool) -> list[Comparison]:
    """Seconds of each command; a bare interpreter and an import of torch stand beside, as what they can't be below."""
    seconds, peers = Metric(key="seconds", unit="s"), {"python": Side(run="bare")}
    torch = {"import torch": Side(run="import_torch", needs=("torch",))}
    repeats = 2 if quick else 5
    return [
        Comparison(
            name="sensorium --help",
            metrics=(Metric(key="seconds", unit="s", limit=0.3),),
            ours=Side(run="show_help"),
            peers=peers,
            repeats=repeats,
        ),
        Comparison(
            name="sensorium columns small.csv",
            metrics=(Metric(key="seconds", unit="s", limit=1.0),),
            ours=Side(run="columns"),
            peers={**peers, **torch},
            repeats=repeats,
        ),
        Comparison(
            name="sensorium predict, one row",
            metrics=(seconds,),
            ours=Side(run="predict"),
            peers=torch,
            repeats=repeats,
        ),
    ]


def wall_time(*arguments: str, calls: int = 3) -> dict[str, float]:
    """The median time of a process, after one that isn't counted and warms the file cache."""
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times[1:])}


def small_table(folder: Path, rows: int = ROWS) -> str:
    """A CSV file of a text, a category and a number."""
    lines = [f"thing {i % 7},{('red', 'blue', 'green')[i % 3]},{1.5 * i}" for i in range(rows)]
    path = folder / f"small-{rows}.csv"
    path.write_text("\n".join(["name,colour,width", *lines]) + "\n", encoding="utf-8")
    return str(path)


def show_help() -> dict[str, float]:
    """``sensorium --help``."""
    return wall_time("-m", "sensorium", "--help")


def columns() -> dict[str, float]:
    """``sensorium columns``."""
    with tempfile.TemporaryDirectory() as folder:
        return wall_time("-m", "sensorium", "columns", small_table(Path(folder)))


def predict() -> dict[str, float]:
    """``sensorium predict`` of one row, by a model of no size: what is measured is all around it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fit = ["-m", "sensorium", "fit", small_table(folder), *TINY, "--out", f"{name}/run", "--epochs", "1"]
        subprocess.run([sys.executable, *fit], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        out = f"{name}/out.csv"
        row = small_table(folder, 1)
        return wall_time("-m", "sensorium", "predict", f"{name}/run", row, "--column", "colour", "--out", out)


def bare() -> dict[str, float]:
    """An interpreter that does nothing."""
    return wall_time("-c", "pass")


def import_torch() -> dict[str, float]:
    """An interpreter that imports torch."""
    return wall_time("-c", "import torch")
