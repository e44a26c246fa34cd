"""Projected features of a pretrained encoder: which cells are of one thing is fitted from the cells alone, and holds
for unseen things."""

from __future__ import annotations

import pytest
import torch

from sensorium.modalities._stems.encoder import collate_features
from sensorium.nn.feature_projection import BASIS_SIZE, MIN_CELLS, FeatureProjection, pairs_of

LAID, WIDTH = 4, 24


def drawn(things: int, hands: int, seed: int, every: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features [cells, placed, width] of things that each of some hands drew, and which thing and hand each is of. A
    hand changes them much more than a thing, and distorts the things' differences."""
    g, world = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    basis = torch.linalg.qr(torch.randn(LAID * WIDTH, LAID * WIDTH, generator=world))[0]
    manner = torch.randn(hands, 6, generator=world) * 4
    bend = torch.randn(hands, 12, 12, generator=world) * 0.3
    code = torch.randn(things, 12, generator=g)
    thing, hand = torch.arange(things).repeat_interleave(hands), torch.arange(hands).repeat(things)
    own = torch.cat(
        [
            code[thing] + torch.einsum("nij,nj->ni", bend[hand], code[thing]),
            manner[hand] + torch.randn(len(thing), 6, generator=g),
            torch.randn(len(thing), 20, generator=g) * 1.5,
        ],
        1,
    )
    flat = own @ basis[:38] + 0.05 * torch.randn(len(thing), LAID * WIDTH, generator=g)
    return flat.view(-1, LAID, WIDTH), thing, hand


def found(
    stem: FeatureProjection, features: torch.Tensor, thing: torch.Tensor, hand: torch.Tensor, plain: bool = False
) -> float:
    """The share of drawings by the first hand for which the likest of all others is of the same thing."""
    mine, cells = hand == 0, {"features": features}
    if plain:
        unit = torch.nn.functional.normalize(stem.spread(cells), dim=1)
        near = unit[mine] @ unit.T
    else:
        kin = stem.similarity_features(cells)
        near = stem.compare(kin[mine], kin)
    near[torch.arange(int(mine.sum())), mine.nonzero().squeeze(1)] = float("-inf")
    return float((thing[near.argmax(1)] == thing[mine]).float().mean())


@pytest.mark.parametrize("hands", [2, 3])
def test_two_drawings_of_one_thing_are_found_though_hands_are_more_alike(hands: int) -> None:
    stem = FeatureProjection(16, WIDTH, LAID, n_placed=LAID)
    features, thing, _ = drawn(400, hands, 1)
    stem.initialise({"features": features}, thing)
    other = drawn(100, hands, 2)
    assert found(stem, *other) > found(stem, *other, plain=True) + 0.12 > 0.15
    untold = FeatureProjection(16, WIDTH, LAID, n_placed=LAID)
    untold.initialise({"features": features})
    assert found(untold, *other) < found(stem, *other, plain=True)  # chance is 1 of 199
    kin = stem.similarity_features({"features": other[0]})
    assert kin.shape == (len(other[0]), stem.similarity_size) and torch.allclose(
        kin.square().mean(1), torch.ones(len(kin)), atol=1e-4
    )


def test_it_is_kept_and_few_cells_change_nothing() -> None:
    features, thing, _ = drawn(100, 2, 1)
    stem, other = FeatureProjection(16, WIDTH, LAID, n_placed=LAID), FeatureProjection(16, WIDTH, LAID, n_placed=LAID)
    stem.initialise({"features": features[: MIN_CELLS - 1]}, thing[: MIN_CELLS - 1])
    assert (
        not stem.basis.any()
        and torch.isfinite(stem({"features": features, "there": torch.ones(200, LAID, dtype=torch.bool)})[0]).all()
    )
    stem.initialise({"features": features}, thing)
    other.load_state_dict(stem.state_dict())
    assert (
        torch.equal(other.similarity_features({"features": features}), stem.similarity_features({"features": features}))
        and stem.basis.shape[1] == BASIS_SIZE
    )
    some = collate_features([features[0, :2].numpy(), features[1].numpy()])["features"]
    assert torch.isfinite(
        stem.compare(stem.similarity_features({"features": some}), stem.similarity_features({"features": features}))
    ).all()  # a cell may have fewer tokens


def test_each_thing_counts_by_its_cells() -> None:
    pairs, weights = pairs_of(torch.tensor([5, 3, 5, 9, 3, 3]))
    by = {}
    for (a, b), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        by.setdefault(frozenset((a, b)), 0.0)
        by[frozenset((a, b))] += weight
    assert by == {frozenset((0, 2)): 2.0, frozenset((1, 4)): 1.0, frozenset((4, 5)): 1.0, frozenset((1, 5)): 1.0}
    assert not len(pairs_of(torch.arange(4))[0])
