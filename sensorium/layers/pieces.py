"""A loss over many tokens and many words, in pieces: memory doesn't grow with tokens times words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 24
"""Logits held at a time; more are computed in pieces and again in the backward pass."""


def in_pieces(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], hidden: torch.Tensor, wanted: torch.Tensor, size: int) -> torch.Tensor:
    """``loss(hidden [n, width], wanted [n])`` of each token, [n], of ``size`` tokens at a time."""
    if len(wanted) <= size:
        return loss(hidden, wanted)
    again = torch.is_grad_enabled()
    return torch.cat([checkpoint(loss, h, w, use_reentrant=False) if again else loss(h, w) for h, w in zip(hidden.split(size), wanted.split(size), strict=True)])
