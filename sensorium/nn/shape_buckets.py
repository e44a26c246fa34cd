"""Shape bucketing: sizes rounded up to ones that recur. On a CPU, oneDNN compiles a kernel for each shape it hasn't
met, which takes longer than to run it.

Ragged sizes (words of a batch, tokens of a row) would make each training step a new shape. Rounded up to one of eight
sizes an octave they waste an eighth at most, and after some dozen steps no kernel is compiled any more.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def recurring(size: int, least: int = 4) -> int:
    """Smallest size from ``size`` on that recurs: a multiple of ``least``, and of an eighth of its octave."""
    step = max(least, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


def places(mask: torch.Tensor, least: int = 64) -> tuple[torch.Tensor, int]:
    """Flat indices of a mask's True places, padded to a recurring number, and how many of them are real.

    Those behind the real ones are 0: a caller that gathers by them cuts the result to the real number.
    """
    index = mask.flatten().nonzero().squeeze(1)
    return F.pad(index, (0, recurring(len(index), least) - len(index))), len(index)
