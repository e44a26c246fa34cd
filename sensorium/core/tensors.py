"""Tensors in a file of their own: whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sensorium.core.files import whole


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], told: Mapping[str, str] | None = None) -> None:
    """As safetensors, each a copy on the CPU, for none may share its memory with another; ``told``: what is noted beside them."""
    with whole(path) as part:
        save_file(
            {key: value.detach().contiguous().cpu().clone() for key, value in tensors.items()},
            part,
            metadata=None if told is None else dict(told),
        )
