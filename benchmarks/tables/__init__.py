"""``python -m benchmarks tables [NAME ...]``: questions to tables, ours beside plain models and beside other tools.

A table is fitted once for each seed, told which columns it will be asked for; then each question goes to ours, to ours
from each column alone, and to plain models on the same plain features, tuned on the same validation rows. Each table
and seed is a process of its own. Results are appended to ``benchmarks/tables.jsonl``; ``--page`` writes
``docs/accuracy.md`` from them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables._page import RESULTS, read_results, verdict, write_page

ROOT = Path(__file__).resolve().parent.parent.parent


def main(given: Sequence[str]) -> int:
    """Run what the command line names."""
    from benchmarks.tables._questions import SOURCES

    parser = argparse.ArgumentParser(prog="python -m benchmarks tables", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(SOURCES)}); all by default")
    parser.add_argument("--minutes", type=float, default=5, help="of each fit, as of sensorium fit")
    parser.add_argument("--seeds", default="0,1,2", help="joined by commas")
    parser.add_argument("--folder", type=Path, help="folder of Parquet files: tables that no package has")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file that results are appended to")
    parser.add_argument("--page", type=Path, nargs="?", const=ROOT / "docs" / "accuracy.md", help="write the page only")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the fits")
    options = parser.parse_args(list(given))
    for name in options.names:
        if name not in SOURCES:
            parser.error(f"no table '{name}'. Possible: {', '.join(SOURCES)}.")
    if options.page:
        write_page(options.page, read_results(options.out))
        return 0
    failed = []
    for seed in options.seeds.split(","):
        for name in options.names or SOURCES:
            command = [sys.executable, "-m", "benchmarks.tables._one", name, "--seed", seed, "--out", str(options.out)]
            command += ["--minutes", str(options.minutes), *options.set]
            command += ["--folder", str(options.folder)] if options.folder else []
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                failed.append(f"{name}, seed {seed}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
                print(failed[-1], file=sys.stderr, flush=True)
            else:
                show(read_results(options.out)[-1])
    return 1 if failed else 0


def show(result: dict[str, Any]) -> None:
    """Print the answers of one table and seed."""
    rows = result["rows"]
    print(
        f"{result['table']}, seed {result['seed']}: {rows['train']:,} rows to learn from, {result['seconds']:.0f} s of "
        f"{result['minutes']:g} minutes, {result['peak_mib']:,} MiB"
    )
    for name, entry in result["questions"].items():
        best, value = max(entry["peers"].items(), key=lambda one: one[1])
        alone = max(entry["alone"].values(), default=float("nan"))
        print(
            f"  {verdict(entry):6} {name:60} ours {entry['ours']:.3f}, best plain model {value:.3f} ({best}), ours "
            f"from one column {alone:.3f}, 90 % holds {entry['covered']:.3f}, {entry['rows_per_second']:.0f} rows/s",
            flush=True,
        )
