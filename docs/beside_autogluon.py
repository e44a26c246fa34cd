"""The group of emoji from drawing and name by AutoGluon's MultiModalPredictor on EfficientNet-Lite0 and MiniLM, in its
own environment (``pip install autogluon.multimodal``):

    python docs/beside_autogluon.py emoji.parquet FOLDER_OF_LITE0 FOLDER_OF_MINILM MINUTES [SEED] [optim.peft=lora …]

The folders are those of ``package:efficientnet-lite0`` and ``package:minilm-l6``; beside each other Sensorium and
AutoGluon see the same rows, columns and weights.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import pandas as pd
import torch
from autogluon.multimodal import MultiModalPredictor
from PIL import Image
from safetensors.torch import load_file

SPLITS = ("test_new_style", "test_new_concept")


def pictures(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Rows with their drawings as files, which it reads."""
    paths = []
    for number, raw in enumerate(table.pop("image")):
        paths.append(str(folder / f"{number}.png"))
        Image.open(io.BytesIO(raw)).convert("RGB").save(paths[-1])
    return table.assign(image=paths)


def encoder(given: Path, folder: Path) -> Path:
    """A timm model's folder as it reads one: pickled weights, and how many features there are."""
    folder.mkdir()
    torch.save(
        {
            key: value
            for key, value in load_file(given / "model.safetensors").items()
            if not key.startswith("classifier")
        },
        folder / "pytorch_model.bin",
    )
    (folder / "config.json").write_text(
        json.dumps(
            {**json.loads((given / "config.json").read_text()), "num_features": 1280, "input_size": [3, 224, 224]}
        )
    )
    return folder


def main() -> None:
    """One line of what it got right after how long."""
    path, image, text, minutes, *rest = sys.argv[1:]
    seed, more = int(rest[0]) if rest else 0, dict(setting.split("=") for setting in rest[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = pd.read_parquet(path, columns=["image", "name", "group", "split"])
        table = pictures(table[table["group"].notna()].reset_index(drop=True), folder)
        train = table[table["split"] == "train"].drop(columns="split")
        begun = time.perf_counter()
        predictor = MultiModalPredictor(
            label="group", problem_type="multiclass", path=str(folder / "model"), verbosity=1
        )
        predictor.fit(
            train,
            time_limit=60 * float(minutes),
            seed=seed,
            column_types={"image": "image_path", "name": "text"},
            hyperparameters={
                "model.names": ["timm_image", "hf_text", "fusion_mlp"],
                "model.timm_image.checkpoint_name": str(encoder(Path(image), folder / "lite0")),
                "model.hf_text.checkpoint_name": text,
                "env.num_gpus": 0,
                "env.precision": "32",
                "env.num_workers": 0,
                "env.num_workers_inference": 0,
                **more,
            },
        )
        took = time.perf_counter() - begun
        right = {
            split: float((predictor.predict(part.drop(columns=["split", "group"])) == part["group"]).mean())
            for split in SPLITS
            if len(part := table[table["split"] == split])
        }
    print(json.dumps({"minutes": float(minutes), "seconds": round(took, 1), "seed": seed, **more, **right}))


if __name__ == "__main__":
    main()
