"""Image encoders of timm, in the hub's layout: ``config.json`` with ``architecture``, and ``model.safetensors``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config

from sensorium.backbones import GRID, Backbone, Kind, as_maps, device, whole_and_grid
from sensorium.core.errors import UserError

SETTINGS = (
    "num_classes",
    "img_size",
    "in_chans",
    "global_pool",
    "dynamic_img_size",
    "reg_tokens",
    "class_token",
    "init_values",
    "qkv_bias",
    "embed_dim",
    "depth",
    "num_heads",
    "patch_size",
)
"""Settings of a model that a configuration may have; never the paths of other files."""


class Timm(Backbone):
    """Model of timm without its classifier."""

    def __init__(self, folder: Path, kind: Kind, patches: bool = False) -> None:
        super().__init__(folder, kind, patches)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["architecture"] not in timm.list_models():  # else timm would look for it on the hub
            raise UserError(
                f"'{folder}' is of the architecture '{config['architecture']}', which this timm doesn't have."
            )
        known = {
            key: value
            for key, value in {"num_classes": config.get("num_classes"), **config.get("model_args", {})}.items()
            if key in SETTINGS and value is not None
        }
        self.model = timm.create_model(config["architecture"], pretrained=False, **known).eval()
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.model.reset_classifier(0)
        self.model.requires_grad_(False).to(device())
        data = resolve_model_data_config(
            self.model, pretrained_cfg={**self.model.pretrained_cfg, **config.get("pretrained_cfg", {})}
        )
        self.cut = list(
            itertools.takewhile(
                lambda step: "ToTensor" not in type(step).__name__,
                create_transform(**data, is_training=False).transforms,
            )
        )
        self.mean, self.std = (torch.tensor(data[key]).view(3, 1, 1) for key in ("mean", "std"))
        known = (
            [level["reduction"] for level in getattr(self.model, "feature_info", None) or ()]
            if hasattr(self.model, "forward_intermediates")
            else []
        )
        alike = len(set(known)) == 1  # a transformer: one layer in its midst; else the last two before the end
        self.levels = (
            [len(known) // 2 - 1] if alike and len(known) > 2 else list(range(len(known)))[-2:] if not alike else []
        )
        self.size = data["input_size"][-1]
        self.width = self.model.num_features + sum(self.model.feature_info[level]["num_chs"] for level in self.levels)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        image = Pillow.fromarray(pixels)
        for step in self.cut:
            image = step(image)
        return np.array(image)

    def batch(self, cells: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        return {"pixels": torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)}

    def tokens(self, batch: Mapping[str, torch.Tensor], model: Any) -> tuple[torch.Tensor, None]:
        """Features of the last layer and of earlier ones: lines and corners, which tell drawings that are none of its
        classes.

        Each level is as loud as the others, whatever its width: of a mean square of 1 in all, over each cell's own
        numbers.
        """
        pixels = batch["pixels"]
        x = (pixels.float() / 255 - self.mean.to(pixels.device)) / self.std.to(pixels.device)
        if self.levels:
            found, before = model.forward_intermediates(x, indices=self.levels, output_fmt="NCHW", norm=True)
        else:
            found, before = model.forward_features(x), []
        if found.ndim == 4 and found.shape[1] != self.model.num_features:  # channels last
            found = found.permute(0, 3, 1, 2)
        prefix = 0 if found.ndim == 4 else getattr(self.model, "num_prefix_tokens", 0)
        maps = found if found.ndim == 4 else as_maps(found, prefix)
        whole = found[:, 0] if prefix else maps.mean((2, 3))
        levels = [whole_and_grid(level.mean((2, 3)), level, min(GRID, *maps.shape[2:])) for level in before]
        return torch.cat(
            [
                scaled(level, self.width / (1 + len(levels)) / level.shape[2])
                for level in (whole_and_grid(whole, maps), *levels)
            ],
            2,
        ), None


def scaled(tokens: torch.Tensor, square: float) -> torch.Tensor:
    """Tokens [n, tokens, width], scaled to this mean square in each cell."""
    return tokens * torch.sqrt(square / (tokens.square().mean((1, 2), keepdim=True) + 1e-6))
