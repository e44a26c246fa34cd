"""Runs both sides of a comparison in turns, and what a side needs to measure itself."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Side

ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """A side can't run here; the message says what to install."""


def run_side(benchmark: str, side: Side, timeout: float = 3600) -> dict[str, float | None]:
    """The numbers of one side, measured in a process of its own.

    Raises:
        Missing: something it needs isn't installed.
        RuntimeError: it failed.
    """
    if side.python is None:
        lacking = [module for module in side.needs if importlib.util.find_spec(module) is None]
        if lacking:
            raise Missing(f"needs {', '.join(lacking)}: pip install 'sensorium[benchmarks]'")
    elif not Path(side.python).exists():
        raise Missing(f"no Python at {side.python}")
    command = [
        side.python or sys.executable,
        "-m",
        "benchmarks._side",
        benchmark,
        side.run,
        json.dumps(dict(side.arguments)),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        lacking = re.search(r"ModuleNotFoundError: No module named '(\w+)", done.stderr)
        if lacking and lacking[1] in side.needs:
            raise Missing(f"needs {lacking[1]} in {command[0]}: pip install 'sensorium[benchmarks]'")
        raise RuntimeError(f"{benchmark}.{side.run} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_comparison(
    benchmark: str, comparison: Comparison, say: Callable[[str], None] = lambda words: None
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Every side's numbers of each repeat, and why a side was left out."""
    sides = {**({"ours": comparison.ours} if comparison.ours else {}), **comparison.peers}
    values: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    skipped: dict[str, str] = {}
    for turn in range(comparison.repeats):
        for name, side in sides.items():
            if name in skipped:
                continue
            say(f"{comparison.name}: {name}, {turn + 1} of {comparison.repeats}")
            try:
                values[name].append(run_side(benchmark, side))
            except Missing as missing:
                skipped[name] = str(missing)
    return {name: found for name, found in values.items() if found}, skipped


def spread(values: list[dict[str, float]], key: str) -> tuple[float, float, float]:
    """Median, least and most of one metric over the repeats; None, what was never reached, is infinity."""
    numbers = [math.inf if value[key] is None else value[key] for value in values]
    return statistics.median(numbers), min(numbers), max(numbers)


# What a side measures itself with


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(function: Callable[[], Any], least: int = 3, within: float = 2.0, warm: bool = False) -> float:
    """The median time of a call: at least ``least`` calls and about ``within`` seconds, after one that isn't counted.

    Args:
        function: what is timed.
        least: calls at least.
        within: seconds at least.
        warm: it was called already.
    """
    if not warm:
        function()
    times: list[float] = []
    while len(times) < least or sum(times) < within:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def memory_growth(function: Callable[[], Any]) -> float:
    """MiB by which the process's resident memory grows at its highest point while ``function`` runs.

    From Linux's high-water mark, which is set back first; elsewhere from the process's own, which can only rise.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        function()
        return (_status("VmHWM") - before) / 1024
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        function()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before) / 2**20


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])
