"""Cells of one thing recognise each other: against the formula in plain words."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from sensorium.core.errors import UserError
from sensorium.objectives import match as module
from sensorium.objectives.match import Match


def plain(gist: torch.Tensor, things: list[int], keys: list[int], scale: float, bias: float | None) -> float:
    """SupCon, equation 2, or SigLIP over the same pairs, a cell at a time."""
    total = 0.0
    for i in range(len(gist)):
        others = [j for j in range(len(gist)) if keys[j] != keys[i]]
        right = [j for j in others if things[j] == things[i]]
        if not right:
            continue
        logit = {j: scale * float(gist[i] @ gist[j]) + (bias or 0.0) for j in others}
        if bias is None:
            among = math.log(sum(math.exp(x) for x in logit.values()))
            total += sum(among - logit[j] for j in right) / len(right)
        else:
            total += sum(math.log1p(math.exp(-x if j in right else x)) for j, x in logit.items())
    return total / len(gist)


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_it_is_the_formula(kind: str) -> None:
    torch.manual_seed(1)
    gist = F.normalize(torch.randn(9, 6), dim=1).requires_grad_()
    things, keys = [1, 1, 2, 3, 3, 3, 4, 5, 5], [10, 11, 12, 13, 14, 14, 15, 16, 16]
    match = Match(kind=kind)
    scale = match.scale()
    loss = match.same_thing_loss(gist, torch.tensor(things), torch.tensor(keys), scale)
    bias = None if match.bias is None else match.bias.item()
    assert loss.item() == pytest.approx(plain(gist.detach(), things, keys, scale.item(), bias), rel=1e-5)
    loss.backward()
    assert gist.grad.isfinite().all() and gist.grad[6].abs().sum() > 0, (
        "a cell that is alone is what others must not find"
    )


@pytest.mark.parametrize("things", [[1], [1, 2, 3], [4, 4]])
def test_nothing_to_recognise_is_no_loss(things: list[int]) -> None:
    gist = F.normalize(torch.randn(len(things), 6), dim=1).requires_grad_()
    match = Match()
    loss = match.same_thing_loss(gist, torch.tensor(things), torch.full((len(things),), 7), match.scale())
    loss.backward()
    assert loss.item() == 0 and not gist.grad.any()


@pytest.mark.parametrize("key", ["weight", "fused", "same_modality", "same_thing"])
def test_a_weight_below_nothing_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"match\.{key}"):
        Match(**{key: -0.5})


def test_many_cells_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    gist, things, keys = F.normalize(torch.randn(8, 6), dim=1), torch.arange(8) // 2, torch.arange(8)
    match = Match()
    halves = [
        match.same_thing_loss(gist[part], things[part], keys[part], match.scale())
        for part in (slice(0, 4), slice(4, 8))
    ]
    monkeypatch.setattr(module, "MAX_CELLS", 4)
    assert match.same_thing_loss(gist, things, keys, match.scale()).item() == pytest.approx(
        sum(x.item() for x in halves) / 2
    )
