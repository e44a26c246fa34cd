"""What two encoders of sounds hear in spoken emoji: ``python docs/voices.py emoji.parquet [SECONDS …]``.

By Whisper's features, with so many seconds of silence heard after each sound (30: all that the model was made for), how
often two voices' spoken names find one another, and how long a clip takes. By Resemblyzer's and by Whisper's, how often
the nearest of other names is said by the same of 70 voices.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from sensorium.backbones import MOMENTS, transformers
from sensorium.datasets.emoji import VARIANTS, VOICES, _pick
from sensorium.modalities.audio import Audio

PAIRS, CLIPS = 100, 1000


def same_length(features: np.ndarray) -> np.ndarray:
    """All of a clip, and its moments as so many for each, [1 + MOMENTS, width]."""
    moments = F.interpolate(torch.from_numpy(features[1:]).T.unsqueeze(0), size=MOMENTS, mode="linear")[0].T
    return np.concatenate([features[:1], moments.numpy()])


def nearness(one: np.ndarray, other: np.ndarray) -> torch.Tensor:
    """Cosines of standardised features, [n, m]."""
    both = np.concatenate([one, other])
    a, b = (F.normalize(torch.from_numpy((x - both.mean(0)) / (both.std(0) + 1e-6)), dim=1) for x in (one, other))
    return a @ b.T


def names(rows: list[dict[str, Any]], modality: Audio, seconds: float) -> None:
    """One line: how often the names of two rows that say them differently find one another."""
    said: dict[str, list[bytes]] = {}
    for row in rows:
        said.setdefault(row["name"], []).append(row["spoken"])
    clips = [
        (modality.read(one[0]), modality.read(one[1])) for one in said.values() if len(one) > 1 and one[0] != one[1]
    ][:PAIRS]
    transformers.MIN_SILENCE = seconds
    begun = time.perf_counter()
    one, other = (
        np.stack([same_length(modality.encoder.encode([wave])[0]) for wave in waves])
        for waves in zip(*clips, strict=True)
    )
    took = (time.perf_counter() - begun) / (2 * len(clips))
    first = [
        float((nearness(a, b).argmax(1) == torch.arange(len(a))).float().mean())
        for a, b in ((one[:, 0], other[:, 0]), (one[:, 1:].reshape(len(one), -1), other[:, 1:].reshape(len(one), -1)))
    ]
    print(
        f"whisper-base, {seconds:g} s: {took:.3f} s a clip; of {len(clips)} names found first by all of it "
        f"{first[0]:.2f}, by moments {first[1]:.2f}",
        flush=True,
    )


def voices(rows: list[dict[str, Any]], backbone: str) -> None:
    """One line: how often the nearest clip of another name is by the same voice."""
    modality, some = Audio(backbone=backbone), rows[:: max(1, len(rows) // CLIPS)][:CLIPS]
    who = np.array(
        [
            _pick("voice", key, VOICES["en"]) + _pick("variant", key, VARIANTS)
            for key in (f"{row['id']}-{row['style']}" for row in some)
        ]
    )
    called = np.array([row["name"] for row in some])
    found = np.stack([modality.encoder.encode([modality.read(row["spoken"])])[0][0] for row in some])
    near = nearness(found, found).numpy()
    near[called[:, None] == called] = -2
    chance = float(np.mean([(who == one).mean() for one in who]))
    print(
        f"{backbone}: the nearest of {len(some)} clips is by the same of {len(set(who))} voices: "
        f"{np.mean(who[near.argmax(1)] == who):.3f} (chance {chance:.3f})",
        flush=True,
    )


def main() -> None:
    """A line for each."""
    rows = [
        row
        for row in pq.read_table(sys.argv[1], columns=["id", "style", "name", "spoken", "spoken_language"]).to_pylist()
        if row["spoken"] and row["spoken_language"] == "en"
    ]
    transformers.MIN_SILENCE = 1.0
    for backbone in ("package:resemblyzer", "package:whisper-base"):
        voices(rows, backbone)
    modality = Audio(backbone="package:whisper-base")
    for seconds in map(float, sys.argv[2:] or ("1", "30")):
        names(rows, modality, seconds)


if __name__ == "__main__":
    main()
