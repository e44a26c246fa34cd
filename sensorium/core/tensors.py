"""Atomic safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from sensorium.core.files import atomic_write


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically.

    Each is copied to the CPU, for none may share its memory with another.

    Args:
        path: the file.
        tensors: by name.
        metadata: texts that are stored beside them.
    """
    with atomic_write(path) as part:
        save_file(
            {key: value.detach().contiguous().cpu().clone() for key, value in tensors.items()},
            part,
            metadata=None if metadata is None else dict(metadata),
        )
