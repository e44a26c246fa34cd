"""Terminal output of commands: tables on stdout, notes on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sensorium.data.cells import qualified_names, row_dicts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

    from sensorium.data.table import Table

PRINTED_METRICS = ("accuracy", "auroc", "f1_macro", "r2", "mae", "exact", "chrf", "rouge_l", "wer")
"""Metrics that are printed, of those that the results hold."""
N_MEMBERS, MAX_PRINTED_SLICES = 3, 8
"""Members of an answer that are named, those of the largest weights; and slices, the worst."""


def note(words: str) -> None:
    """Print a line on stderr."""
    print(words, file=sys.stderr)


def console() -> Console:
    """Console on stdout, as wide as it needs where it is no terminal."""
    from rich.console import Console

    out = Console()
    return out if out.is_terminal else Console(width=160)


@contextlib.contextmanager
def progress(words: str, total: int) -> Generator[Callable[[int], None]]:
    """Progress bar on stderr, as a function to call with how many more are done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=total)
        yield lambda done: bar.advance(task, done)


def make_grid(title: str | None = None) -> Grid:
    """Empty table for the terminal."""
    from rich.table import Table as Grid

    return Grid(title=title, title_justify="left")


def print_results(results: dict[str, Any]) -> None:
    """Print the results of an evaluation as two tables."""
    grid = make_grid(f"{results['rows']:,} rows")
    for name in ("column", "kind", "measure", "Sensorium", "chance", "one column", "trees"):
        grid.add_column(name)
    for column, entry in results["columns"].items():
        base = entry.get("baseline", {})
        for measure in PRINTED_METRICS:
            if measure in entry:
                plain = measure in ("accuracy", "r2")
                beside = (entry.get("chance"), base.get("one_column"), base.get("trees")) if plain else (None,) * 3
                own = with_interval(entry, measure)
                grid.add_row(column, entry["kind"], measure, own, *(number(value) for value in beside))
    out = console()
    out.print(grid, markup=False)
    if together := results.get("all_right"):
        names = ", ".join(together["columns"])
        out.print(f"All of {names} right: {together['share']:.3f}", markup=False, highlight=False)
    for words in results.get("warnings", ()):
        out.print(words, markup=False, highlight=False, style="yellow")
    print_slices(out, results)
    print_comparison(out, results.get("compared", {}))
    for column, entry in results["columns"].items():
        if members := entry.get("members"):
            best = sorted(members.items(), key=lambda member: -member[1]["weight"])[:N_MEMBERS]
            parts = ", ".join(f"{name} ({member['weight']:.2f})" for name, member in best)
            more = f" and {len(members) - len(best)} more" * (len(members) > len(best))
            out.print(f"{column}: combined of {parts}{more}", markup=False, highlight=False)
    if results["retrieval"]:
        grid = make_grid("Search: share of queries whose row is found")
        for name in ("query > found", "recall@1", "recall@10", "gallery"):
            grid.add_column(name)
        for direction, entry in results["retrieval"].items():
            grid.add_row(direction, number(entry["recall@1"]), number(entry["recall@10"]), f"{entry['gallery']:,}")
        out.print(grid, markup=False)
    if results.get("trained_on"):
        out.print(f"Note: {results['trained_on']:,} of these rows were trained on.", markup=False)


def with_interval(entry: dict[str, Any], measure: str) -> str:
    """Metric with its 95 % interval."""
    ends = entry.get("intervals", {}).get(measure)
    return number(entry[measure]) + (f" ({number(ends[0])} – {number(ends[1])})" if ends else "")


def print_slices(out: Console, results: dict[str, Any]) -> None:
    """Print the worst and the best slices of each column."""
    for column, entry in results["columns"].items():
        if slices := entry.get("by", {}).get("slices"):
            by, metric = entry["by"]["column"], entry["by"]["metric"]
            grid = make_grid(f"{column}: {metric} by {by}, worst first")
            for name in (by, "rows", metric, "95 %"):
                grid.add_column(name)
            for title, part in list(slices.items())[:MAX_PRINTED_SLICES]:
                low, high = part["interval"]
                grid.add_row(title, f"{part['n']:,}", number(part[metric]), f"{number(low)} – {number(high)}")
            out.print(grid, markup=False)


def print_comparison(out: Console, compared: dict[str, Any]) -> None:
    """Print how two models differ."""
    if not compared:
        return
    grid = make_grid("Beside the other run, on the same rows")
    for name in ("column", "measure", "this run", "other", "better by", "95 %", "p", ""):
        grid.add_column(name)
    for column, entry in compared.items():
        low, high = entry["interval"]
        values = [number(entry[key]) for key in ("ours", "other", "better")]
        grid.add_row(
            column, entry["metric"], *values, f"{number(low)} – {number(high)}", number(entry["p"]), entry["verdict"]
        )
    out.print(grid, markup=False)


def print_found(table: Table, found: pa.Table) -> None:
    """Print rows found by a search, with their cells."""
    own = {name: found.column(name) for name in ("row", "score")}
    print_rows(pa.table({**own, **qualified_names(own, table.take(found.column("row").to_pylist()))}))


def print_rows(rows: pa.Table) -> None:
    """Print rows with their own cells."""
    from sensorium.data.schema import example

    grid = make_grid()
    for name in rows.column_names:
        grid.add_column(name, overflow="fold")
    for row in row_dicts(rows):
        grid.add_row(
            *(
                ""
                if cell is None
                else f"{cell:.3f}"
                if name in ("score", "surprise") and isinstance(cell, float)
                else example([cell], 40)
                for name, cell in row.items()
            )
        )
    console().print(grid, markup=False)


def number(value: Any) -> str:
    """Metric in three digits."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
