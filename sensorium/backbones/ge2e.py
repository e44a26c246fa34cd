"""Speaker encoder of three LSTMs over mel bands, in the layout of Resemblyzer.

It was trained so that segments of one voice are near (GE2E, Wan et al. 2018, arXiv 1710.10467).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from sensorium.backbones import Backbone, Kind, converted, device, side_by_side, whole_and_moments
from sensorium.core.errors import UserError
from sensorium.core.files import atomic_write
from sensorium.nn.mel import log_mel

RATE, WINDOW, HOP, MELS = 16_000, 400, 160, 40
"""Sample rate in Hz; samples in a window and from one to the next; mel bands."""
STRETCH, STEP, COVERED = 160, 77, 0.75
"""Frames of a segment (1.6 s), and from one segment to the next; smallest share of the last one that is sound."""
QUIET = 10 ** (-30 / 20)
"""Root mean square to which quieter sounds are amplified."""


class SpeakerEncoder(nn.Module):
    """LSTM from segments of mel bands to unit vectors."""

    def __init__(self, mels: int = MELS, hidden: int = 256, width: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(mels, hidden, layers, batch_first=True), nn.Linear(hidden, width)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Unit vectors [n, width] of power in mel bands [n, frames, mels]."""
        _, (hidden, _) = self.lstm(mels)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


class Voices(Backbone):
    """Speaker encoder in a folder, whose ``config.json`` has its sizes."""

    def __init__(self, folder: Path, kind: Kind, patches: bool = False) -> None:
        super().__init__(folder, kind, patches)
        if kind != "audio":
            raise UserError(f"'{folder}' is an encoder of voices; the column holds {kind}. Give another backbone.")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.rate, self.width = RATE, int(config["width"])
        self.model = SpeakerEncoder(MELS, int(config["hidden"]), self.width, int(config["layers"]))
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.model.eval().requires_grad_(False).to(device())

    def batch(self, cells: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """``mels`` [n, segments, frames, bands], padded with silence, and the number of segments of each,
        ``stretches``."""
        parts = [stretches(torch.from_numpy(np.array(wave, np.float32))) for wave in cells]
        return {
            "mels": nn.utils.rnn.pad_sequence(parts, batch_first=True),
            "stretches": torch.tensor([len(one) for one in parts]),
        }

    def tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = model(batch["mels"].flatten(0, 1)).unflatten(0, batch["mels"].shape[:2])
        result = []
        for part, count in zip(found, batch["stretches"].tolist(), strict=True):
            result.append(whole_and_moments(F.normalize(part[:count].mean(0, keepdim=True), dim=1), part[:count]))
        return side_by_side(result)


def stretches(wave: torch.Tensor) -> torch.Tensor:
    """Segments [n, STRETCH, MELS] of a sound at ``RATE``; silence isn't cut."""
    loud = wave.square().mean().sqrt()
    wave = wave * (QUIET / loud) if 0 < loud < QUIET else wave
    frames = -(-(len(wave) + 1) // HOP)
    starts = list(range(0, max(1, frames - STRETCH + STEP + 1), STEP))
    if len(starts) > 1 and (len(wave) - starts[-1] * HOP) / (STRETCH * HOP) < COVERED:
        starts.pop()
    wave = F.pad(wave, (0, max(0, (starts[-1] + STRETCH) * HOP - len(wave))))
    mels = torch.pow(10.0, log_mel(wave, rate=RATE, mels=MELS, hop=HOP, window=WINDOW))  # its bands are no logarithms
    return torch.stack([mels[start : start + STRETCH] for start in starts])


def from_resemblyzer(given: Path, out: Path) -> Path:
    """Folder of Resemblyzer's weights (Apache 2.0), read as plain tensors and converted once.

    Raises:
        UserError: they are others.
    """
    if converted(out):
        return out
    wanted = SpeakerEncoder().state_dict()
    try:
        known = torch.load(given, map_location="cpu", weights_only=True)["model_state"]
        tensors = {name: known[name].float().contiguous() for name in wanted}
        right = all(tensors[name].shape == value.shape for name, value in wanted.items())
    except Exception:  # that function raises whatever a file makes it stumble over
        right = False
    if not right:
        raise UserError(f"'{given}' holds other weights than those of Resemblyzer's encoder of voices.")
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(out / "model.safetensors") as part:
        save_file(tensors, part, metadata={"format": "pt"})
    with atomic_write(out / "config.json") as part:
        part.write_text(
            json.dumps(
                {"model_type": "voices", "architectures": ["Encoder"], "hidden": 256, "width": 256, "layers": 3}
            ),
            encoding="utf-8",
        )
    return out
