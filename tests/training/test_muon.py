"""Muon: torch's own numbers, with matrices of one shape updated together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sensorium.training.muon import Muon, orthogonal


def test_as_torch_has_it() -> None:
    shapes = [(8, 8), (6, 20), (20, 6), (6, 20), (3, 5)]
    generator = torch.Generator().manual_seed(0)
    first = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    second = [nn.Parameter(p.detach().clone()) for p in first]
    ours = Muon(first, lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon(second, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for a, b in zip(first, second, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        if step == 2:
            first[0].grad = second[0].grad = None
        ours.step()
        theirs.step()
    for a, b in zip(first, second, strict=True):
        assert (a - b).abs().max() < 0.02 * (0.02 * 4 * 20**0.5)  # products in bf16 are added up in another order


@pytest.mark.parametrize("shape", [(5, 5), (4, 30)])
def test_singular_values_go_to_about_one(shape: tuple[int, int]) -> None:
    x = (
        torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    )
    values = torch.linalg.svdvals(orthogonal(x).float())
    assert values.min() > 0.3 and values.max() < 1.4
