"""Upgrades of model folders that earlier formats wrote: names of weights and of settings, old to new."""

from __future__ import annotations

from collections.abc import Mapping

import torch

OLDEST = 7
"""The oldest format that is read."""
RENAMED_MODULES = {
    "along": "text_to_condition",
    "felt": "token_to_condition",
    "finishers": "refiners",
    "from_gist": "gist_token",
    "heard": "gist_to_condition",
    "recalls": "online_memories",
}
"""Attributes that hold modules, parameters or buffers: their names in format 7, and now. Each is one part of a dotted path."""


def upgrade_weights(weights: Mapping[str, torch.Tensor], format_number: int) -> dict[str, torch.Tensor]:
    """Weights by the paths that the modules have now.

    Args:
        weights: by dotted path, as they were written. format_number: of ``model.json``.
    """
    if format_number >= 8:
        return dict(weights)
    return {
        ".".join(RENAMED_MODULES.get(part, part) for part in path.split(".")): tensor
        for path, tensor in weights.items()
    }
