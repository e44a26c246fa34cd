"""Seeds: one number from several, so that each use of randomness has a stream of its own."""

from __future__ import annotations


def mix(*numbers: int) -> int:
    """Several numbers to one 63-bit seed (splitmix64, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & (2**64 - 1))) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        state ^= state >> 27
        state = state * 0x94D049BB133111EB & (2**64 - 1)
        state ^= state >> 31
    return state & MASK


MASK = 2**63 - 1
