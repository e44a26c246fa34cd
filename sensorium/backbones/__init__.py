"""The contract of a backbone: a pretrained encoder, whose features are what a column's cells say.

It knows folders, arrays and its own library, nothing of columns. Weights are safetensors and code is the library's own: a folder that brings code is refused.
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
"""The file in a copied backbone that says what it was called."""
GRID, MOMENTS, WORDS = 3, 16, 64
"""Beside one token for all of a cell: lines and columns of tokens that a picture becomes; tokens that a sound becomes, and those that are kept of a text, at most."""

LAYOUT = "3"
"""Changes where the features of a cell are made otherwise than before."""
AT_ONCE = 32
"""Cells that are encoded at once."""
HALF = 65_000.0
"""The largest number that is kept in half precision."""


class Backbone(abc.ABC):
    """An encoder of pictures, texts or sounds: as it is, or with a model that was begun with its own and is learned further.

    Args:
        folder: with ``config.json`` and safetensors. kind: of the cells. patches: after a picture's other tokens are to come those of all its patches, as LLaVA takes them.

    Attributes:
        name: what it is called where it comes from. model: as it is, without gradients. width: size of a feature vector. size: side of a picture in pixels; rate: samples a second of a sound.
        patches: of a picture, which come after its other tokens; 0 where they don't.
        sha256: of all that features depend on: weights, configuration, preprocessing.
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
        """A picture uint8 [h, w, 3] cut and scaled as the encoder wants it, uint8 [size, size, 3]."""
        raise NotImplementedError(type(self).__name__)

    @abc.abstractmethod
    def batch(self, cells: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Cells as tensors whose first dimension are the cells.

        Args:
            cells: what ``picture`` made, which becomes ``pixels`` uint8 [n, 3, size, size]; texts; or samples float32 [n] at ``rate``.
        """

    @abc.abstractmethod
    def tokens(self, batch: Mapping[str, torch.Tensor], model: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features [n, tokens, width] of each cell, the first one of all of it, by a model with the encoder's own layers, and which are there [n, tokens]
        (None: all are). Gradients pass."""

    @torch.inference_mode()
    def encode(self, cells: Sequence[Any]) -> list[np.ndarray]:
        """Features float32 [tokens, width] of each cell, by the encoder as it is; see ``batch``."""
        where = next(self.model.parameters()).device
        found, there = self.tokens({key: value.to(where) for key, value in self.batch(cells).items()}, self.model)
        whole = found.float().cpu().numpy()
        return (
            list(whole)
            if there is None
            else [tokens[mask] for tokens, mask in zip(whole, there.cpu().numpy(), strict=True)]
        )


def features(backbone: Backbone, cells: Sequence[Any], keep: bool = True) -> list[np.ndarray]:
    """Features float16 [tokens, width] of each cell (see ``Backbone.encode``); what was ever encoded on this machine isn't encoded again, unless it wasn't to ``keep``."""
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
    """What all runs on this machine keep."""
    return FeatureCache()


def device() -> torch.device:
    """Where encoders work: in single precision, so that features are the same within rounding wherever they were made."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def whole_and_grid(whole: torch.Tensor, maps: torch.Tensor, most: int = GRID) -> torch.Tensor:
    """Features of all of each picture [n, width] and its maps [n, width, h, w] as tokens [n, 1 + side², width]; a side is ``most`` or, where maps are smaller, theirs."""
    side = min(most, *maps.shape[2:])
    grid = F.adaptive_avg_pool2d(maps.float(), side).flatten(2).transpose(1, 2)
    return torch.cat([whole.float().unsqueeze(1), grid], 1)


def whole_and_moments(whole: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Features of all of a sound [1, width] and what was heard one after the other [n, width] as tokens, at most 1 + ``MOMENTS``."""
    return torch.cat([whole, F.adaptive_avg_pool1d(hidden.T.unsqueeze(0), min(MOMENTS, len(hidden)))[0].T])


def side_by_side(tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of several cells, [tokens, width] each, padded with zeros, and which are there."""
    padded = nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
    lengths = torch.tensor([len(one) for one in tokens], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths.unsqueeze(1)


def as_maps(tokens: torch.Tensor, prefix: int) -> torch.Tensor:
    """Tokens [n, prefix + h · h, width] as maps [n, width, h, h]."""
    places = tokens[:, prefix:]
    side = math.isqrt(places.shape[1])
    return places[:, : side * side].transpose(1, 2).unflatten(2, (side, side))


def converted(folder: Path) -> bool:
    """Whether a model that was written from another layout lies there whole: the configuration is written last."""
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def called(folder: Path) -> str:
    """What a backbone is called where it comes from: OWNER/NAME@REVISION of one from the hub, else its folder's name."""
    if (folder / ORIGIN).is_file():
        return (folder / ORIGIN).read_text(encoding="utf-8", errors="replace")[:200]
    parts = folder.parts
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return f"{parts[-3].removeprefix('models--').replace('--', '/')}@{parts[-1]}"
    return folder.name
