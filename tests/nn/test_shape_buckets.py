"""Sizes that recur: few, never too small, never much too large."""

from __future__ import annotations

import torch

from sensorium.nn.shape_buckets import places, recurring


def test_sizes_are_few_and_waste_little():
    sizes = [recurring(n, 1) for n in range(1, 4097)]
    assert all(n <= size < n * 1.25 + 1 for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) <= 8 * 12 + 8 and sizes == sorted(sizes)
    assert all(recurring(size, 1) == size for size in set(sizes))


def test_places_are_those_of_the_mask_and_then_the_first():
    mask = torch.zeros(3, 50, dtype=torch.bool)
    mask[0, 4] = mask[2, 7] = mask[2, 49] = True
    at, real = places(mask, 8)
    assert at.tolist() == [4, 107, 149, 0, 0, 0, 0, 0] and real == 3
    assert places(torch.zeros(2, 2, dtype=torch.bool))[1] == 0
