"""Exact search of a million vectors against faiss' flat index: queries a second at several batches, and whether the
same rows are found; and what finders save.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import seconds

ROWS, QUICK_ROWS, SIZE, K = 1_000_000, 100_000, 256, 10
PROPOSED = {"hnsw": "usearch", "lance": "lancedb"}
"""Finders, and the packages that they need."""
BATCHES = {256: 8.0, 32: 7.0, 1: 2.4}
"""Queries that come together, and how many times the peer's speed is wanted."""


def comparisons(quick: bool) -> list[Comparison]:
    """Speed at each batch, and recall."""
    rows = QUICK_ROWS if quick else ROWS
    found = [
        Comparison(
            name=f"search of {rows:,} vectors, {batch} at once",
            metrics=(Metric(key="queries/s", unit="queries/s", less=False, wanted=wanted),),
            ours=Side(run="ours", arguments={"rows": rows, "batch": batch}),
            peers={"faiss IndexFlatIP": Side(run="faiss", arguments={"rows": rows, "batch": batch}, needs=("faiss",))},
            repeats=1 if quick else 3,
        )
        for batch, wanted in BATCHES.items()
    ]
    return [
        *found,
        Comparison(
            name="search, recall@10 of the exact product",
            metrics=(Metric(key="recall", unit="", less=False, limit=0.999),),
            ours=Side(run="recall", arguments={"rows": rows}),
            repeats=1,
        ),
        *finders(QUICK_ROWS // 10 if quick else QUICK_ROWS),
    ]


def finders(rows: int) -> list[Comparison]:
    """Each finder beside a look at all rows."""
    return [
        Comparison(
            name=f"search of {rows:,} vectors, one by one, {finder} proposes",
            metrics=(
                Metric(key="queries/s", unit="queries/s", less=False),
                Metric(key="recall", unit="", less=False),
                Metric(key="made", unit="s"),
            ),
            ours=Side(run="proposed", arguments={"rows": rows, "finder": finder}, needs=(package,)),
            peers={"all rows": Side(run="proposed", arguments={"rows": rows, "finder": None})},
            repeats=1,
        )
        for finder, package in PROPOSED.items()
    ]


def vectors(rows: int, seed: int = 0) -> Any:
    """Unit vectors [rows, 256] in clusters, as gists are."""
    import numpy as np

    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((1000, SIZE), dtype=np.float32)
    x = rng.standard_normal((rows, SIZE), dtype=np.float32)
    x += centres[rng.integers(len(centres), size=rows)]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mapped(folder: str, rows: int) -> tuple[Any, Any]:
    """The vectors and their rough copies in files, mapped as an index maps them."""
    import numpy as np

    from sensorium.search.exact import CoarseVectors, as_rough

    whole = vectors(rows)
    files = {"whole": whole, **as_rough(whole)._asdict()}
    for name, array in files.items():
        np.save(Path(folder) / f"{name}.npy", array)
    whole, *rough = (np.load(Path(folder) / f"{name}.npy", mmap_mode="c") for name in files)
    return whole, CoarseVectors(*rough)


def ours(rows: int, batch: int) -> dict[str, float]:
    """Sensorium's speed, from mapped files."""
    from sensorium.search.exact import nearest

    with tempfile.TemporaryDirectory() as folder:
        whole, rough = mapped(folder, rows)
        asked = vectors(batch, seed=1)
        return {"queries/s": batch / seconds(lambda: nearest(asked, whole, K, None, rough))}


def faiss(rows: int, batch: int) -> dict[str, float]:
    """The peer's speed, from memory."""
    import faiss as peer

    index = peer.IndexFlatIP(SIZE)
    index.add(vectors(rows))
    asked = vectors(batch, seed=1)
    return {"queries/s": batch / seconds(lambda: index.search(asked, K))}


def recall(rows: int) -> dict[str, float]:
    """The share of the rows found by a full product in fp32 that are found."""
    import numpy as np

    from sensorium.search.exact import nearest

    with tempfile.TemporaryDirectory() as folder:
        whole, rough = mapped(folder, rows)
        asked = vectors(64, seed=1)
        score = asked @ np.array(whole).T
        best = np.argpartition(-score, K, axis=1)[:, :K]
        found = nearest(asked, whole, K, None, rough)[1]
        return {
            "recall": float(
                np.mean([len(set(a) & set(b)) / K for a, b in zip(best.tolist(), found.tolist(), strict=True)])
            )
        }


def proposed(rows: int, finder: str | None) -> dict[str, float]:
    """Queries a second one by one, the share of the ten nearest that is found, and the seconds that making the finder
    takes.
    """
    import time

    import numpy as np

    from sensorium.core.registry import find
    from sensorium.search.exact import nearest
    from sensorium.search.finders import Finder
    from sensorium.search.part_search import near
    from sensorium.search.store import WHOLE, StorePart

    with tempfile.TemporaryDirectory() as folder:
        whole, rough = mapped(folder, rows)
        asked, there, made, begun = vectors(200, seed=1), np.ones(rows, bool), {}, time.perf_counter()
        if finder:
            find(Finder, finder).write(Path(folder) / finder, whole, np.arange(rows))
            made = {WHOLE: find(Finder, finder)(Path(folder) / finder, rows, SIZE)}
        took = time.perf_counter() - begun
        part = StorePart(None, {WHOLE: there}, {WHOLE: whole}, {WHOLE: rough}, made, None)
        found = [near(part, WHOLE, one[None], K, there)[1][0].tolist() for one in asked]
        best = nearest(asked, whole, K)[1].tolist()
        speed = len(asked) / seconds(lambda: [near(part, WHOLE, one[None], K, there) for one in asked])
    return {
        "queries/s": speed,
        "recall": float(np.mean([len(set(a) & set(b)) / K for a, b in zip(best, found, strict=True)])),
        "made": took,
    }
