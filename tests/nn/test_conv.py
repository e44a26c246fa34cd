"""The convolution block: its norms, its residual branch, its matrix-product path."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sensorium.nn.conv import ConvBlock, present, sinusoid

NORMS = ["group", "layer", "weight", "batch", "none"]


@pytest.mark.parametrize("norm", NORMS)
def test_a_residual_branch_starts_as_nothing_and_learns(norm):
    layer = ConvBlock(8, 8, norm=norm, residual=True)
    x = torch.randn(3, 8, 5, 5)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [4, 7, 8])
def test_stride_two_halves_upwards(norm, size):
    assert ConvBlock(3, 6, stride=(2, 2), norm=norm)(torch.randn(2, 3, size, size)).shape == (
        2,
        6,
        -(-size // 2),
        -(-size // 2),
    )


@pytest.mark.parametrize("norm", ["group", "layer", "weight", "none"])
def test_rows_do_not_mix(norm):
    layer, x = ConvBlock(3, 6, norm=norm), torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


def test_batch_norm_mixes_rows_in_training_only():
    layer, x = ConvBlock(3, 6, norm="batch"), torch.randn(4, 3, 6, 6)
    assert not torch.allclose(layer(x)[:1], layer(x[:1]), atol=1e-3)
    layer.eval()
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


@pytest.mark.parametrize("norm", ["group", "layer", "weight", "batch"])
def test_activations_keep_their_size_through_ten_layers(norm):
    torch.manual_seed(0)
    x = torch.randn(8, 32, 16, 16)
    for _ in range(10):
        x = ConvBlock(32, 32, norm=norm)(x)
    assert 0.2 < x.square().mean().sqrt() < 2


@pytest.mark.parametrize("kernel", [(2, 2), (2, 1), (1, 4), (3, 3)])
@pytest.mark.parametrize("norm", ["none", "weight"])
def test_patches_as_a_matrix_product_are_the_convolution(kernel, norm):
    layer = ConvBlock(5, 7, kernel=kernel, stride=kernel, pad=(False, False), norm=norm, act=False)
    x = torch.randn(2, 5, 9, 10)
    torch.testing.assert_close(layer(x), F.conv2d(x, *layer._weights(), stride=kernel), atol=1e-5, rtol=1e-5)


def test_a_residual_cannot_change_size():
    with pytest.raises(ValueError, match="keeps"):
        ConvBlock(3, 6, residual=True)


def test_weight_standardisation_ignores_offset_and_size_of_the_weights():
    layer, x = ConvBlock(4, 4, norm="weight"), torch.randn(2, 4, 6, 6)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(3).add_(0.7)
    torch.testing.assert_close(layer(x), before, atol=1e-4, rtol=1e-4)


def test_present_counts_and_positions_differ():
    assert present(torch.tensor([0, 2, 3]), 3).sum(1).tolist() == [0, 2, 3]
    table = sinusoid(50, 15)
    assert table.shape == (50, 15) and torch.pdist(table).min() > 0.1
