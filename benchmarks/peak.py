"""The machine's matrix peak: what no training step can exceed, in float32 and bfloat16, by number of threads."""

from __future__ import annotations

import time

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import cores

SIZE = 2048


def comparisons(quick: bool) -> list[Comparison]:
    """One thread and all of them, in both precisions."""
    return [
        Comparison(
            name=f"matrix peak, {precision}, {threads} thread{'s' * (threads > 1)}",
            metrics=(Metric(key="GFLOP/s", unit="GFLOP/s", less=False),),
            ours=Side(run="peak", arguments={"threads": threads, "precision": precision}),
            repeats=1 if quick else 3,
        )
        for threads in sorted({1, cores()})
        for precision in ("float32", "bfloat16")
    ]


def peak(threads: int, precision: str) -> dict[str, float]:
    """The best of many products of square matrices."""
    return {"GFLOP/s": matrix_peak(precision, threads) / 1e9}


def matrix_peak(precision: str, threads: int | None = None, within: float = 2.0) -> float:
    """Floating-point operations a second of the fastest product seen within so many seconds.

    A step's share of it is (its operations / its seconds) / matrix_peak(its precision, its threads).
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        left, right = (torch.randn(SIZE, SIZE).to(getattr(torch, precision)) for _ in range(2))
        best, end = float("inf"), time.perf_counter() + within
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - start)
        return 2 * SIZE**3 / best
    finally:
        torch.set_num_threads(before)
