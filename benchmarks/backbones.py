"""An epoch on pretrained features beside one that encodes every picture again: the plain loop that a notebook would
have.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import Comparison, Metric, Side

PICTURES, QUICK_PICTURES, BATCH, CLASSES = 512, 64, 64, 10


def comparisons(quick: bool) -> list[Comparison]:
    """Seconds of the second epoch, and of the first with all that comes before."""
    count = QUICK_PICTURES if quick else PICTURES
    return [
        Comparison(
            name=f"epoch of {count} pictures on EfficientNet-Lite0, frozen",
            metrics=(Metric(key="second epoch", unit="s", wanted=20.0), Metric(key="first epoch", unit="s")),
            ours=Side(run="ours", arguments={"count": count}, needs=("timm",)),
            peers={"encoding again": Side(run="again", arguments={"count": count}, needs=("timm",))},
            repeats=1 if quick else 3,
        )
    ]


def column(folder: str, count: int) -> tuple[Any, list[Any], Any]:
    """A column on a backbone with weights as they are drawn, its read cells, and labels."""
    import numpy as np
    import timm
    import torch
    from safetensors.torch import save_file

    from sensorium.modalities.image import Image

    torch.manual_seed(0)
    name, path = "tf_efficientnet_lite0", Path(folder) / "lite0"
    path.mkdir()
    save_file(
        {key: value.contiguous() for key, value in timm.create_model(name, pretrained=False).state_dict().items()},
        path / "model.safetensors",
    )
    (path / "config.json").write_text(json.dumps({"architecture": name}))
    modality, rng = Image(backbone=str(path)), np.random.default_rng(0)
    return (
        modality,
        [rng.integers(0, 255, (224, 224, 3), dtype=np.uint8) for _ in range(count)],
        torch.from_numpy(rng.integers(CLASSES, size=count)),
    )


def epochs(modality: Any, prepared: Any, labels: Any) -> dict[str, float]:
    """Two epochs of the stem and a head; ``prepared(rows)`` gives the prepared cells of some rows."""
    import time

    import torch
    from torch.nn import functional as F

    stem, head = modality.stem(192), torch.nn.Linear(192, CLASSES)
    optimizer, took = torch.optim.AdamW([*stem.parameters(), *head.parameters()]), []
    for _ in range(2):
        begun = time.perf_counter()
        for start in range(0, len(labels), BATCH):
            tokens, _ = stem(modality.collate(prepared(range(start, min(start + BATCH, len(labels))))))
            F.cross_entropy(head(tokens.mean(1)), labels[start : start + BATCH]).backward()
            optimizer.step()
            optimizer.zero_grad()
        took.append(time.perf_counter() - begun)
    return {"first epoch": took[0], "second epoch": took[1]}


def ours(count: int) -> dict[str, float]:
    """Features computed once, kept and found again."""
    import os

    with tempfile.TemporaryDirectory() as folder:
        os.environ["SENSORIUM_CACHE"] = folder
        modality, cells, labels = column(folder, count)
        known: list[Any] = []

        def prepared(rows: range) -> list[Any]:
            if len(known) <= rows[0]:  # as a run's store has them from then on
                known.extend(modality.prepare_all([cells[row] for row in rows]))
            return [known[row] for row in rows]

        return epochs(modality, prepared, labels)


def again(count: int) -> dict[str, float]:
    """Every picture through the encoder in every epoch."""
    with tempfile.TemporaryDirectory() as folder:
        modality, cells, labels = column(folder, count)
        return epochs(modality, lambda rows: modality.encoder.encode([cells[row] for row in rows]), labels)
