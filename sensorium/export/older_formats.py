"""Upgrades of model folders that earlier formats wrote: names of weights and of settings, old to new."""

from __future__ import annotations

import re
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
RENAMED_PATHS = {
    r"\bcoder\.begun\.": "coder.from_latents.",
    r"\bcoder\.found\.": "coder.to_latents.",
    r"\bjudge\.heard\.": "judge.condition_norm.",
    r"\blatents\.norms\.heard\.": "latents.norms.condition.",
    r"\bnet\.told$": "net.given_mark",
    r"^recalls\.([^.]+)\.kin$": r"online_memories.\1.similarity_features",
    r"^recalls\.([^.]+)\.shown$": r"online_memories.\1.seen_gists",
    r"^recalls\.([^.]+)\.told$": r"online_memories.\1.answer_gists",
}
"""The same where one part of a path doesn't tell which module is meant: regular expressions, replaced before."""


def upgrade_weights(weights: Mapping[str, torch.Tensor], format_number: int) -> dict[str, torch.Tensor]:
    """Weights by the paths that the modules have now.

    Args:
        weights: by dotted path, as they were written. format_number: of ``model.json``.
    """
    if format_number >= 8:
        return dict(weights)
    result = {}
    for path, tensor in weights.items():
        for old, new in RENAMED_PATHS.items():
            path = re.sub(old, new, path)
        result[".".join(RENAMED_MODULES.get(part, part) for part in path.split("."))] = tensor
    return result
