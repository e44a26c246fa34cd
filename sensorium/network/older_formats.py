"""Upgrades of model folders that earlier formats wrote: names of weights and of settings, old to new."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

OLDEST = 7
"""The oldest format that is read."""
RENAMED_PATHS = {
    r"^along\.": "conditioning.text_to_condition.",
    r"^felt\.": "conditioning.token_to_condition.",
    r"^finishers\.": "refiners.",
    r"^from_gist\.": "conditioning.gist_token.",
    r"^heard\.": "conditioning.gist_to_condition.",
    r"^projectors\.": "dialogue.projectors.",
    r"^recalls\.([^.]+)\.kin$": r"dialogue.online_memories.\1.similarity_features",
    r"^recalls\.([^.]+)\.shown$": r"dialogue.online_memories.\1.seen_gists",
    r"^recalls\.([^.]+)\.told$": r"dialogue.online_memories.\1.answer_gists",
    r"^recalls\.": "dialogue.online_memories.",
    r"^to_gist\.": "conditioning.to_gist.",
    r"\bcoder\.begun\.": "coder.from_latents.",
    r"\bcoder\.found\.": "coder.to_latents.",
    r"\bjudge\.heard\.": "judge.condition_norm.",
    r"\blatents\.norms\.heard\.": "latents.norms.condition.",
    r"\bnet\.told$": "net.given_mark",
}
"""Paths of weights in format 7, as regular expressions, and now; replaced in this order."""

FORMAT_7_PATHS = {
    r"^conditioning\.text_to_condition\.": "along.",
    r"^conditioning\.token_to_condition\.": "felt.",
    r"^conditioning\.gist_token\.": "from_gist.",
    r"^conditioning\.gist_to_condition\.": "heard.",
    r"^conditioning\.to_gist\.": "to_gist.",
    r"^refiners\.": "finishers.",
    r"^dialogue\.projectors\.": "projectors.",
    r"^dialogue\.online_memories\.([^.]+)\.similarity_features$": r"recalls.\1.kin",
    r"^dialogue\.online_memories\.([^.]+)\.seen_gists$": r"recalls.\1.shown",
    r"^dialogue\.online_memories\.([^.]+)\.answer_gists$": r"recalls.\1.told",
    r"^dialogue\.online_memories\.": "recalls.",
    r"\bcoder\.from_latents\.": "coder.begun.",
    r"\bcoder\.to_latents\.": "coder.found.",
    r"\bjudge\.condition_norm\.": "judge.heard.",
    r"\blatents\.norms\.condition\.": "latents.norms.heard.",
    r"\bnet\.given_mark$": "net.told",
}
"""The same the other way round."""


def format_7_path(path: str) -> str:
    """The path that a weight had in format 7, by which hashes of networks are taken."""
    for new, old in FORMAT_7_PATHS.items():
        path = re.sub(new, old, path)
    return path


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
        result[path] = tensor
    return result
