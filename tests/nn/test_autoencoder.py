"""Segments through an autoencoder and back: how near they come, whatever their dimensions."""

from __future__ import annotations

import math

import pytest
import torch

from sensorium.core.types import Tokens
from sensorium.nn.autoencoder import Autoencoder, halvings

PICTURES = Tokens(length=16, width=4 * 4 * 3, grid=(4, 4), patch=(4, 4))
KINDS = [PICTURES, Tokens(length=6, width=5 * 7, grid=(6,), patch=(5,), timed=True),
         Tokens(length=12, width=2 * 4 * 4 * 3, grid=(3, 2, 2), patch=(2, 4, 4)),
         Tokens(length=4, width=6 * 3, grid=(2, 2), patch=(2, 3)),
         Tokens(length=9, width=2, grid=(3, 3), patch=(1, 1))]  # fmt: skip


def drawings(count: int, seed: int = 0) -> torch.Tensor:
    """Soft discs of any colour as vectors of 16 × 16 pictures, -1 to 1."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    middle, size, colour = (
        4 + 8 * torch.rand(count, 2, 1, 1, generator=generator),
        3 + 3 * torch.rand(count, 1, 1, generator=generator),
        torch.rand(count, 3, 1, 1, generator=generator),
    )
    inside = torch.sigmoid(size - ((x - middle[:, 0]).square() + (y - middle[:, 1]).square()).sqrt())
    pictures = 1 - 2 * inside.unsqueeze(1) * colour
    return pictures.reshape(count, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(count, 16, 48)


def learned(kind: Tokens, x: torch.Tensor, latents: int, steps: int) -> Autoencoder:
    torch.manual_seed(0)
    coder = Autoencoder(kind, latents, hidden=16)
    optimizer = torch.optim.Adam(coder.parameters(), lr=3e-3)
    for step in range(steps):
        some = x[torch.randperm(len(x))[:32]]
        _, cost = coder.learn(some)
        optimizer.zero_grad()
        cost.mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.step()
    return coder.eval()


def test_pictures_that_were_not_seen_come_back() -> None:
    coder = learned(PICTURES, drawings(256), 8, 200)
    x = drawings(64, seed=1)
    with torch.no_grad():
        z, cost = coder.learn(x)
        error = (coder.decode_normalised(z) - x).square().mean()
    assert 10 * math.log10(4 / float(error)) > 30, "the peak signal-to-noise ratio of six times fewer numbers"
    assert z.shape == (64, 16, 8) and cost.shape == (64,) and not z.requires_grad
    assert float(z.mean((0, 1)).abs().max()) < 0.5 and 0.6 < float(z.std()) < 1.6, "latents are drawn at unit size"
    assert (coder.reconstruction_error(x.roll(1, 0), x) > 4 * cost.mean()).float().mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_segments_of_any_dimensions_are_learned_by_heart(kind: Tokens) -> None:
    x = torch.randn(2, kind.length, kind.width, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    torch.manual_seed(0)
    coder = Autoencoder(kind, 24, hidden=32, beta=0)
    middle, spread = coder.encode(x)
    assert middle.shape == spread.shape == (2, kind.length, 24) and coder.decode(middle).shape == x.shape
    before = float(coder.learn(x)[1].detach().mean())
    optimizer = torch.optim.Adam(coder.parameters(), lr=3e-3)
    for _ in range(60):
        cost = coder.learn(x)[1].mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
    with torch.no_grad():
        after = float(coder.eval().learn(x)[1].mean())
        assert after < before / 2
        moved = x.clone()
        moved[0, -1] = 0
        z, other = coder.learn(x)[0], coder.learn(moved)[0]
    assert torch.equal(z[1], other[1]) and not torch.equal(z[0, -1], other[0, -1]), (
        "each segment and each patch has its own latents"
    )


def test_patches_are_halved_while_they_can_be() -> None:
    assert (
        halvings((8, 8)) == [(2, 2)] * 3
        and halvings((5,)) == [(5,)]
        and halvings((6, 4)) == [(2, 2), (1, 2), (3, 1)]
        and halvings((1, 1)) == [(1, 1)]
    )
    assert not Autoencoder.fits(Tokens(length=4, width=6))
