"""Contract of a backbone: a pretrained encoder, whose features stand for a column's cells.

It knows folders, arrays and its own library, nothing of columns. Weights are safetensors and code is the library's own:
a folder that brings code is refused.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.backbones._feature_cache import FeatureCache
from sensorium.core.files import digest

Kind = Literal["image", "text", "audio"]
ORIGIN = "ORIGIN"
"""File in a copied backbone that holds its original name."""
GRID, MOMENTS, WORDS = 3, 16, 64
"""Tokens beside the one for the whole cell: lines and columns of those of a picture; those of a sound; and those kept
of a text, at most."""

LAYOUT = "3"
"""Version of the features: it changes where they are computed otherwise than before."""
AT_ONCE = 32
"""Batch size of encoding."""
HALF = 65_000.0
"""Largest number stored in half precision."""


class Backbone(abc.ABC):
    """Abstract encoder of pictures, texts or sounds: frozen, or with a fine-tuned copy of its model.

    Args:
        folder: with ``config.json`` and safetensors. kind: of the cells.
        patches: after a picture's other tokens come those of all its patches, as LLaVA takes them.

    Attributes:
        name: its name at its origin. model: the frozen model. width: size of a feature vector.
        size: side of a picture in pixels. rate: sample rate of a sound, in Hz.
        patches: number of a picture's patches that come after its other tokens; 0 where they don't.
        sha256: hash of all that features depend on: weights, configuration, preprocessing.
    """

    model: nn.Module
    width: int
    size: int = 0
    rate: int = 0
    patches: int = 0

    def __init__(self, folder: Path, kind: Kind, patches: bool = False) -> None:
        self.folder, self.kind = folder.resolve(), kind
        self.name = called(self.folder)
        parts = [
            f"{path.name} {digest(path)}"
            for path in sorted(folder.iterdir())
            if path.suffix in (".json", ".safetensors", ".txt", ".model")
        ]
        self.sha256 = hashlib.sha256(
            " ".join(
                [kind, str(GRID), str(MOMENTS), str(WORDS), LAYOUT, *(["patches"] if patches else []), *parts]
            ).encode()
        ).hexdigest()

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Picture uint8 [h, w, 3] cropped and scaled as the encoder takes it, uint8 [size, size, 3]."""
        raise NotImplementedError(type(self).__name__)

    @abc.abstractmethod
    def batch(self, cells: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Batch of cells: tensors whose first dimension is the cells.

        Args:
            cells: results of ``picture``, which become ``pixels`` uint8 [n, 3, size, size]; texts; or samples float32
                [n] at ``rate``.
        """

    @abc.abstractmethod
    def tokens(self, batch: Mapping[str, torch.Tensor], model: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features [n, tokens, width] of each cell, the first one of the whole cell, and their mask [n, tokens] (None:
        all are there).

        They are computed by ``model``, which has the encoder's own layers. Gradients pass.
        """

    @torch.inference_mode()
    def encode(self, cells: Sequence[Any]) -> list[np.ndarray]:
        """Features float32 [tokens, width] of each cell, by the frozen encoder; see ``batch``."""
        where = next(self.model.parameters()).device
        found, there = self.tokens({key: value.to(where) for key, value in self.batch(cells).items()}, self.model)
        whole = found.float().cpu().numpy()
        return (
            list(whole)
            if there is None
            else [tokens[mask] for tokens, mask in zip(whole, there.cpu().numpy(), strict=True)]
        )


def features(backbone: Backbone, cells: Sequence[Any], keep: bool = True) -> list[np.ndarray]:
    """Features float16 [tokens, width] of each cell (see ``Backbone.encode``), cached for all runs on this machine.

    Args:
        keep: store new features in the cache.
    """
    keys = [
        hashlib.blake2b(
            cell.encode() if isinstance(cell, str) else np.ascontiguousarray(cell).tobytes(),
            digest_size=16,
            key=backbone.sha256[:64].encode(),
        ).digest()
        for cell in cells
    ]
    known = feature_cache().get(list(dict.fromkeys(keys)))
    new = {key: cell for key, cell in zip(keys, cells, strict=True) if key not in known}
    order = sorted(new, key=lambda key: len(new[key]))  # texts of one length go together
    for start in range(0, len(order), AT_ONCE):
        some = order[start : start + AT_ONCE]
        made = {
            key: np.nan_to_num(value).clip(-HALF, HALF).astype(np.float16)
            for key, value in zip(some, backbone.encode([new[key] for key in some]), strict=True)
        }
        if keep:
            feature_cache().put(made)
        known |= made
    return [known[key] for key in keys]


@functools.lru_cache(maxsize=1)
def feature_cache() -> FeatureCache:
    """Feature cache that all runs on this machine share."""
    return FeatureCache()


def device() -> torch.device:
    """Device of encoders. They work in single precision, so that features are the same within rounding on any
    machine."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def whole_and_grid(whole: torch.Tensor, maps: torch.Tensor, most: int = GRID) -> torch.Tensor:
    """Tokens [n, 1 + side², width] of pooled features [n, width] and maps [n, width, h, w] of pictures.

    A side is ``most`` or, where maps are smaller, theirs.
    """
    side = min(most, *maps.shape[2:])
    grid = F.adaptive_avg_pool2d(maps.float(), side).flatten(2).transpose(1, 2)
    return torch.cat([whole.float().unsqueeze(1), grid], 1)


def whole_and_moments(whole: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Tokens, at most 1 + ``MOMENTS``, of a sound's pooled features [1, width] and hidden states in time [n, width]."""
    return torch.cat([whole, F.adaptive_avg_pool1d(hidden.T.unsqueeze(0), min(MOMENTS, len(hidden)))[0].T])


def side_by_side(tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded batch of several cells' tokens, [tokens, width] each, and its mask."""
    padded = nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
    lengths = torch.tensor([len(one) for one in tokens], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)


def as_maps(tokens: torch.Tensor, prefix: int) -> torch.Tensor:
    """Feature maps [n, width, h, h] of tokens [n, prefix + h · h, width]."""
    places = tokens[:, prefix:]
    side = math.isqrt(places.shape[1])
    return places[:, : side * side].transpose(1, 2).unflatten(2, (side, side))


def converted(folder: Path) -> bool:
    """True where a model that was converted from another layout is complete: the configuration is written last."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def called(folder: Path) -> str:
    """Name of a backbone at its origin: OWNER/NAME@REVISION of one from the hub, else its folder's name."""
    if (folder / ORIGIN).is_file():
        return (folder / ORIGIN).read_text(encoding="utf-8", errors="replace")[:200]
    parts = folder.parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return f"{parts[-3].removeprefix('models--').replace('--', '/')}@{parts[-1]}"
    return folder.name
