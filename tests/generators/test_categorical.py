"""The categorical generator learns, never says id 0, and its draws follow its probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators.categorical import Categorical

CPU = torch.device("cpu")


def made(vocabulary: int = 5, length: int = 1, **options: float) -> Categorical:
    torch.manual_seed(0)
    return Categorical(Tokens(length=length, vocabulary=vocabulary), 16, **options)


@pytest.mark.parametrize("length", [1, 3])
def test_it_learns_a_batch_by_heart(length: int) -> None:
    said, rows = made(9, length), 8
    context = torch.nn.Parameter(torch.randn(rows, 1, 16))
    target = torch.randint(1, 9, (rows, length))
    optimizer = torch.optim.Adam([context, *said.parameters()], lr=0.2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = said.loss(torch.tanh(said.asked_tokens(target) * context), target)
        assert loss.shape == (rows,)
        loss.mean().backward()
        optimizer.step()
    found = said.sample(lambda tokens, start: torch.tanh(tokens * context), rows, CPU)
    assert torch.equal(found.tokens, target) and (found.score > -0.5).all()


def test_unseen_is_never_said_nor_learned_from() -> None:
    said = made()
    hidden = torch.randn(4, 1, 16, requires_grad=True)
    loss = said.loss(hidden, torch.tensor([[0], [1], [0], [4]]))
    loss.sum().backward()
    assert loss[0] == loss[2] == 0 and loss[1] > 0
    assert hidden.grad is not None and not hidden.grad[[0, 2]].any() and hidden.grad[[1, 3]].any()
    found = said.sample(lambda tokens, start: torch.randn(500, 1, 16), 500, CPU, sample=True, temperature=5.0)
    assert found.tokens.min() == 1 and found.tokens.max() == 4
    assert found.probabilities is not None and found.probabilities.shape == (500, 5)
    assert not found.probabilities[:, 0].any() and torch.allclose(found.probabilities.sum(1), torch.ones(500))


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    said = made()
    hidden = torch.randn(1, 1, 16).expand(4000, 1, 16)

    def drawn(seed: int) -> torch.Tensor:
        return said.sample(
            lambda tokens, start: hidden, 4000, CPU, torch.Generator().manual_seed(seed), sample=True
        ).tokens

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    probabilities = said.sample(lambda tokens, start: hidden, 4000, CPU).probabilities
    assert probabilities is not None
    share = torch.bincount(drawn(3).flatten(), minlength=5) / 4000
    assert (share - probabilities[0]).abs().max() < 0.03


def test_smoothing_keeps_the_best_loss_above_zero() -> None:
    sure = torch.zeros(1, 1, 16)
    said = made(smoothing=0.2)
    with torch.no_grad():
        said.head.bias.copy_(torch.tensor([9.0, 0, 0, 0]))
        smooth = said.loss(sure, torch.ones(1, 1, dtype=torch.long)).item()
        said.smoothing = 0.0
        assert said.loss(sure, torch.ones(1, 1, dtype=torch.long)).item() < 0.01 < smooth
    assert smooth == pytest.approx(math.log(math.e**9 + 3) - 0.85 * 9, abs=1e-3)


def test_one_class_and_none_are_harmless() -> None:
    for vocabulary in (1, 2):
        said = made(vocabulary)
        found = said.sample(lambda tokens, start: tokens, 3, CPU)
        assert found.tokens.tolist() == [[1]] * 3 and found.score.tolist() == [0] * 3
        assert not said.loss(torch.randn(2, 1, 16), torch.full((2, 1), vocabulary - 1)).any()


def test_fits_ids_side_by_side_only() -> None:
    assert Categorical.fits(Tokens(length=1, vocabulary=3))
    assert not Categorical.fits(Tokens(length=1, width=1)) and not Categorical.fits(
        Tokens(length=9, vocabulary=3, ordered=True, end=1)
    )


def doubtful(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden rows and ids drawn by half as sure probabilities as the head below says."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 1, 16, generator=generator)
    logits = hidden[:, 0, :4] * 2
    return hidden, 1 + torch.multinomial((logits / 2).softmax(1), 1, generator=generator)


def too_sure() -> Categorical:
    said = made()
    with torch.no_grad():
        said.head.weight.zero_()
        said.head.weight[range(4), range(4)] = 2.0
    return said


def test_calibrated_probabilities_are_as_sure_as_they_are_right() -> None:
    said, (hidden, target) = too_sure(), doubtful(4000, 1)
    before = said.loss(hidden, target).mean()
    said.calibrate(said.residual(hidden, target))
    assert said.trust[0] == pytest.approx(2.0, rel=0.1) and said.loss(hidden, target).mean() < before
    hidden, target = doubtful(20_000, 2)
    found = said.sample(lambda tokens, start: hidden, len(hidden), CPU)
    likely, chosen = found.probabilities.max(1)
    for low in (0.3, 0.5, 0.7):
        some = (likely >= low) & (likely < low + 0.2)
        assert abs(float(likely[some].mean()) - float((chosen == target[:, 0])[some].float().mean())) < 0.03


def test_sets_hold_the_truth_as_often_as_asked_and_are_never_empty() -> None:
    said, (hidden, target), sizes = too_sure(), doubtful(4000, 1), []
    assert said.sample(lambda tokens, start: hidden, len(hidden), CPU, coverage=0.5).sets.sum(1).min() == 4, (
        "before calibration nothing is left out"
    )
    said.calibrate(said.residual(hidden, target))
    hidden, target = doubtful(20_000, 2)
    for coverage in (0.5, 0.8, 0.95):
        sets = said.sample(lambda tokens, start: hidden, len(hidden), CPU, coverage=coverage).sets
        assert not sets[:, 0].any() and sets.any(1).all()
        assert float(sets.gather(1, target).float().mean()) >= coverage - 0.015
        sizes.append(float(sets.sum(1).float().mean()))
    assert sizes == sorted(sizes) and sizes[0] < 1.7
    assert said.sample(lambda tokens, start: hidden, len(hidden), CPU).sets is None
    for coverage in (-0.1, 1.0):
        with pytest.raises(UserError, match="0.9"):
            said.sample(lambda tokens, start: hidden, len(hidden), CPU, coverage=coverage)


def test_few_rows_leave_a_set_of_high_coverage_whole() -> None:
    said, (hidden, target) = too_sure(), doubtful(10, 1)
    said.calibrate(said.residual(hidden, target))
    assert said.trust[1 + 95] == 1 and said.trust[1 + 50] < 1
    said.calibrate(torch.zeros(0, 5))
    assert (said.trust == 1).all()
    said.calibrate(torch.cat([torch.randn(5, 4), torch.zeros(5, 1)], 1))
    assert (said.trust == 1).all(), "rows of unseen classes tell nothing"
