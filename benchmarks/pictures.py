"""The way of a picture, read + decode + resize to 224 px + collate, from JPEGs in tar shards, with two workers."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side

SIZE, BATCH, WORKERS = 224, 64, 2
SHARDS, PICTURES = 4, 256
"""Shards, and pictures in each."""


def comparisons(quick: bool) -> list[Comparison]:
    """Against both peers on the same shards."""
    arguments = {"epochs": 1 if quick else 4}
    return [
        Comparison(
            name=f"pictures at {SIZE} px, {WORKERS} workers",
            metrics=(Metric(key="pictures/s", unit="pictures/s", less=False, wanted=2.0),),
            ours=Side(run="ours", arguments=arguments),
            peers={
                "datasets + DataLoader": Side(run="datasets", arguments=arguments, needs=("datasets",)),
                "webdataset": Side(run="webdataset", arguments=arguments, needs=("webdataset",)),
            },
            repeats=2 if quick else 5,
        )
    ]


def shards() -> list[str]:
    """JPEGs like photographs in size and detail, 500 × 375 at quality 90, the same on every machine; made once."""
    from PIL import Image

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sensorium" / "benchmarks"
    folder = cache / f"jpeg-{SHARDS}x{PICTURES}-v2"
    paths = [folder / f"{shard:03d}.tar" for shard in range(SHARDS)]
    folder.mkdir(parents=True, exist_ok=True)
    for shard, path in enumerate(paths):
        if path.exists():
            continue
        partial = path.with_suffix(f".{os.getpid()}")
        with tarfile.open(partial, "w") as tar:
            for number in range(shard * PICTURES, (shard + 1) * PICTURES):
                out = io.BytesIO()
                Image.fromarray(picture(number)).save(out, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{number:06d}.jpg")
                member.size = out.tell()
                out.seek(0)
                tar.addfile(member, out)
        partial.rename(path)
    return [str(path) for path in paths]


def picture(number: int) -> Any:
    """Light that falls off, soft shapes with edges, texture in octaves and a little grain: uint8 [375, 500, 3]."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(number)
    canvas = Image.new("RGB", (500, 375), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(6, 16)):
        x, y, w, h = rng.integers(-80, 500), rng.integers(-80, 375), *rng.integers(20, 250, 2)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape([int(x), int(y), int(x + w), int(y + h)], fill=tuple(rng.integers(0, 256, 3).tolist()))
    pixels = np.asarray(canvas, np.float32)
    for octave, strength in ((8, 40.0), (32, 20.0), (128, 10.0)):
        small = rng.standard_normal((octave * 3 // 4, octave)).astype(np.float32)
        pixels = (
            pixels
            + strength * np.asarray(Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC))[..., None]
        )
    pixels += np.linspace(-40, 40, 500, dtype=np.float32)[:, None] * rng.uniform(-1, 1)
    return (pixels + 9 * rng.standard_normal(pixels.shape)).clip(0, 255).astype(np.uint8)


def rate(epoch: Callable[[], Iterable[Any]], epochs: int) -> dict[str, float]:
    """Pictures a second of whole epochs, beginning to end, after one that isn't counted (it starts the workers)."""
    count, start = 0, 0.0
    for number in range(epochs + 1):
        if number == 1:
            count, start = 0, time.perf_counter()
        for batch in epoch():
            assert batch.shape[1:] == (3, SIZE, SIZE) and batch.dtype.itemsize == 1, batch.shape
            count += len(batch)
    return {"pictures/s": count / (time.perf_counter() - start)}


def ours(epochs: int) -> dict[str, float]:
    """Table and image modality, as ``fit`` reads them."""
    import numpy as np

    from sensorium.data.prepare import read_rows
    from sensorium.data.table import Table
    from sensorium.modalities.image import Image

    table, image = Table.open(shards()), Image(size=SIZE)
    wanted = np.ones(table.rows, bool)

    def epoch() -> Iterable[Any]:
        held = []
        for _, cells in read_rows(table, {"image": image}, wanted, workers=WORKERS):
            held.append(cells["image"])
            if len(held) == BATCH:
                yield image.collate(held)["pixels"]
                held = []

    return rate(epoch, epochs)


def prepared(image: Any) -> Any:
    """A decoded PIL image as the peers' workers hand it over: uint8 [3, size, size]."""
    import numpy as np
    import torch
    from PIL import Image

    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def datasets(epochs: int) -> dict[str, float]:
    """A map-style dataset read from the shards, decoded by the loader's workers."""
    import torch
    from datasets import disable_progress_bars, load_dataset
    from torch.utils.data import DataLoader

    disable_progress_bars()
    data = load_dataset("webdataset", data_files={"train": shards()}, split="train").select_columns(["jpg"])
    data.set_transform(lambda rows: {"pixels": [prepared(image) for image in rows["jpg"]]})
    loader = DataLoader(
        data, BATCH, num_workers=WORKERS, drop_last=True, persistent_workers=True,
        collate_fn=lambda rows: torch.stack([row["pixels"] for row in rows]),
    )  # fmt: skip
    return rate(lambda: loader, epochs)


def webdataset(epochs: int) -> dict[str, float]:
    """A stream over the shards, each worker its own."""
    import torch
    import webdataset as wds

    data = wds.WebDataset(shards(), shardshuffle=False).decode("pil").to_tuple("jpg").map_tuple(prepared)
    data = data.batched(BATCH, collation_fn=lambda rows: torch.stack([row[0] for row in rows]), partial=False)
    loader = wds.WebLoader(data, batch_size=None, num_workers=WORKERS, persistent_workers=True)
    return rate(lambda: loader, epochs)
