"""What is said patch by patch, unfolded to the whole and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import clip, drawing

from sensorium.core.types import Tokens
from sensorium.modalities.image import Image
from sensorium.modalities.video import Video
from sensorium.nn.patch_smoother import PatchSmoother

KINDS = [Tokens(length=6, width=12, grid=(2, 3), patch=(2, 2)), Tokens(length=5, width=8, grid=(5,), patch=(4,)),
         Tokens(length=12, width=24, grid=(3, 2, 2), patch=(2, 2, 2))]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_unfolding_and_folding_are_inverse_and_a_new_one_changes_nothing(kind: Tokens) -> None:
    refine, x = PatchSmoother(kind, beside=1), torch.randn(3, kind.length, kind.width)
    assert torch.equal(refine.folded(refine.unfolded(x), 3), x)
    assert torch.equal(refine(x, torch.randn_like(x)), x)
    torch.nn.init.normal_(refine.second.weight)
    assert torch.allclose(refine(x, x)[1:2], refine(x[1:2], x[1:2]), atol=1e-5) and not torch.allclose(refine(x, x), x)
    assert len(refine(x[:0], x[:0])) == 0


def test_a_picture_and_a_film_are_unfolded_as_they_look() -> None:
    image = Image(size=32, patch=8)
    cells = image.collate([image.read(drawing("red", "square", 2))])
    seen = PatchSmoother(image.tokens()).unfolded(image.target(cells))
    assert np.allclose((seen[0].numpy() + 1) * 127.5, cells["pixels"][0].numpy(), atol=0.01)
    video = Video(size=32, frames=4, patch=16)
    cells = video.collate([video.read(clip("blue", (1, 0)))])
    seen = PatchSmoother(video.tokens()).unfolded(video.target(cells))
    assert seen.shape == (4, 3, 32, 32) and np.allclose(
        (seen.numpy() + 1) * 127.5, cells["pixels"][0].numpy(), atol=0.01
    )


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="has not"):
        Tokens(length=6, width=12, grid=(2, 2), patch=(2, 2))
