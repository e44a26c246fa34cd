"""How often the likest of all known drawings is of the same thing, by frozen features of an encoder alone: ``python
docs/alike.py emoji.parquet`` (made by ``sensorium table emoji``).
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from sensorium.backbones._packages import from_packages
from sensorium.modalities._stems.encoder import collate_features
from sensorium.modalities.image import Image
from sensorium.nn.feature_projection import FeatureProjection

HELD, FOLDS = 300, 2


def shares(features: torch.Tensor, things: torch.Tensor, known: np.ndarray, asked: np.ndarray) -> tuple[float, float]:
    """By the angle between linear discriminants, and by the likelihood ratio of two being of one thing."""
    stem = FeatureProjection(16, features.shape[2], features.shape[1], n_placed=features.shape[1])
    stem.initialise({"features": features[known]}, things[known])
    (own, kin), (bank, others) = (
        (
            F.normalize(stem.spread({"features": features[rows]}), dim=1),
            stem.similarity_features({"features": features[rows]}),
        )
        for rows in (asked, known)
    )
    best = [known[near.argmax(1).numpy()] for near in (own @ bank.T, stem.compare(kin, others))]
    return tuple(float((things[found] == things[asked]).float().mean()) for found in best)


def main(path: str) -> None:
    """Print the shares for the drawings that the table holds out, and for others that are held out of the rest."""
    table, image = (
        pq.read_table(path, columns=["id", "image", "split"]),
        Image(backbone=str(from_packages()["image"]), trim=True),
    )
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in table["image"].to_pylist()]
    features = collate_features(image.prepare_all([image.read(cell) for cell in cells]))["features"]
    things = torch.from_numpy(np.unique(np.array(table["id"].to_pylist()), return_inverse=True)[1])
    split = np.array(table["split"].to_pylist())
    known = np.flatnonzero(split == "train")
    parts = {"held out": (known, np.flatnonzero(split == "test_new_style"))}
    for seed in range(FOLDS):
        rng, counts = np.random.default_rng(seed), things[known].bincount()
        twice = rng.permutation(np.flatnonzero(counts.numpy() == 2))[:HELD]
        out = np.array([rng.choice(known[(things[known] == thing).numpy()]) for thing in twice])
        parts[f"{len(out)} others, seed {seed}"] = (np.setdiff1d(known, out), out)
    for name, (rows, asked) in parts.items():
        angle, ratio = shares(features, things, rows, asked)
        print(
            f"{name}: {len(asked)} drawings among {len(rows):,}: discriminants {angle:.3f}, likelihood ratio "
            f"{ratio:.3f}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
