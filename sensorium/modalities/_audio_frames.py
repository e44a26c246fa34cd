"""Constants of spectrograms, shared by cells and their stem."""

from __future__ import annotations

SILENCE = -1.5
"""Value of a band without power, with which cells are padded. A stored value is log10(power) / 4 + 1, 0.25 for each 10
dB."""


STRIDE, FRAMES = 16, 4
"""Frames of a token that is read, and of one that is generated."""


def whole(frames: int) -> int:
    """``frames`` rounded up to whole tokens."""
    return -(-max(frames, 1) // STRIDE) * STRIDE
