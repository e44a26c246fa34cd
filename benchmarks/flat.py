"""Memory by the size of a table: reading, splitting and training must not hold its rows, nor its files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import memory_growth

FEW, MANY = 10_000, 1_000_000
BATCH = 50_000
SMALL, LARGE = 0.5, 20.0
"""GB of pictures."""
GROUP = 1000
"""Pictures of half a megabyte in one row group."""


def comparisons(quick: bool) -> list[Comparison]:
    """A hundred times as many rows may cost 200 MiB more, and forty times as many bytes of pictures as well."""
    size = LARGE / (10 if quick else 1)
    return [
        Comparison(
            name=f"memory of reading {SMALL:g} to {size:g} GB of pictures",
            metrics=(Metric(key="MiB more", unit="MiB", limit=200.0), Metric(key="MB/s read", unit="MB/s", less=False)),
            ours=Side(run="pictures", arguments={"size": size}),
            repeats=1,
        ),
        Comparison(
            name=f"memory of a fit, {FEW:,} to {MANY // (10 if quick else 1):,} rows",
            metrics=(
                Metric(key="MiB more", unit="MiB", limit=200.0),
                Metric(key="rows/s read", unit="rows/s", less=False),
            ),
            ours=Side(run="more", arguments={"many": MANY // (10 if quick else 1)}),
            repeats=1,
        ),
    ]


def table(path: Path, rows: int) -> None:
    """Words, a class, two numbers and a short series, written by the batch."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = np.array(
        [
            "amber",
            "brook",
            "cedar",
            "dune",
            "ember",
            "fjord",
            "grove",
            "heath",
            "isle",
            "jade",
            "knoll",
            "lake",
            "moss",
            "north",
            "ocean",
            "pine",
        ]
    )
    writer = None
    for start in range(0, rows, BATCH):
        rng, n = np.random.default_rng(start), min(BATCH, rows - start)
        said = words[rng.integers(0, len(words), (n, 4))]
        batch = pa.table(
            {
                "text": [" ".join(line) for line in said],
                "kind": said[:, 0],
                "size": rng.lognormal(size=n),
                "heat": rng.normal(size=n),
                "curve": pa.FixedSizeListArray.from_arrays(rng.normal(size=n * 16).astype(np.float32), 16),
            }
        )
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_table(batch, row_group_size=10_000)
    writer.close()


def growth(path: Path, folder: Path) -> tuple[float, float]:
    """MiB by which a fit of thirty steps grows the process, and its seconds."""
    import time

    import pyarrow.parquet as pq

    import sensorium.fit.stages
    from sensorium import Model

    sensorium.fit.stages.report = lambda *_, **__: None
    rows = pq.read_metadata(path).num_rows

    def fit() -> None:
        model = Model.fit(
            path,
            out=folder,
            epochs=30 * 128 / rows,
            quiet=True,
            settings=["baselines.share=0", "trackers=none", "train.batch=128"],
        )
        assert model.facts["steps"] >= 20

    start = time.perf_counter()
    return memory_growth(fit), time.perf_counter() - start


def more(many: int) -> dict[str, Any]:
    """What the larger table takes beyond the smaller, after one fit that isn't counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, rows in (("warm", 2_000), ("few", FEW), ("many", many)):
            table(folder / f"{file}.parquet", rows)
        growth(folder / "warm.parquet", folder / "run0")
        few, _ = growth(folder / "few.parquet", folder / "run1")
        grown, seconds = growth(folder / "many.parquet", folder / "run2")
    return {"MiB more": grown - few, "rows/s read": many / seconds}


def album(path: Path, size: float) -> None:
    """Pictures of half a megabyte, each another one by its last bytes: ``size`` GB of them."""
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (720, 720, 3), np.uint8)).save(out, "JPEG", quality=88)
    picture, rows = out.getvalue(), round(size * 1e9 / len(out.getvalue()))
    writer = None
    for start in range(0, rows, GROUP):
        cells = [picture + number.to_bytes(8, "little") for number in range(start, min(start + GROUP, rows))]
        batch = pa.table({"photo": pa.array(cells, pa.large_binary())})
        writer = writer or pq.ParquetWriter(path, batch.schema, compression="none", use_dictionary=False)
        writer.write_table(batch, row_group_size=GROUP)
    writer.close()


def looked_at(path: Path) -> float:
    """MiB by which looking at a table's columns and reading all of its pictures grows the process."""
    import numpy as np

    from sensorium import Table
    from sensorium.data.columns import make_modalities
    from sensorium.data.prepare import read_rows
    from sensorium.data.schema import infer

    def read() -> None:
        table = Table.open(path)
        modalities = make_modalities(infer(table), {})
        assert (
            sum(cells["photo"] is not None for _, cells in read_rows(table, modalities, np.ones(table.rows, bool)))
            == table.rows
        )

    return memory_growth(read)


def pictures(size: float) -> dict[str, Any]:
    """What the larger table takes beyond the smaller, after one reading that isn't counted."""
    import time

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, gigabytes in (("warm", 0.1), ("few", SMALL), ("many", size)):
            album(folder / f"{file}.parquet", gigabytes)
        looked_at(folder / "warm.parquet")
        few = looked_at(folder / "few.parquet")
        start = time.perf_counter()
        grown = looked_at(folder / "many.parquet")
        seconds = time.perf_counter() - start
    return {"MiB more": grown - few, "MB/s read": size * 1000 / seconds}
