"""The quantile generator: rising quantiles, pinball loss, calibrated coverage, draws from what it says."""

from __future__ import annotations

import pytest
import torch

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators.quantile import Quantile

CPU = torch.device("cpu")


def made(width: int = 1, **options: float) -> Quantile:
    torch.manual_seed(0)
    return Quantile(Tokens(length=1, width=width), 32, **options)


def uneven(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Data whose spread grows with x, skewed: hidden [n, 1, 32] and target [n, 1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, 1, generator=generator) * 2 - 1
    noise = torch.randn(rows, 1, generator=generator)
    y = x + (0.1 + 0.5 * (x + 1)) * (noise + 0.3 * noise**2)
    waves = torch.arange(1, 17) * 0.4
    return torch.cat([(x * waves).sin(), (x * waves).cos()], 1).unsqueeze(1), y.unsqueeze(1)


@pytest.fixture(scope="module")
def trained() -> Quantile:
    said = made()
    hidden, target = uneven(1500, 1)
    optimizer = torch.optim.Adam(said.parameters(), lr=0.04)
    for _ in range(120):
        optimizer.zero_grad()
        said.loss(hidden, target).mean().backward()
        optimizer.step()
    return said


def covered(said: Quantile, seed: int, only: float | None = None) -> float:
    hidden, target = uneven(20_000, seed)
    interval = said.sample(lambda tokens, start: hidden, len(hidden), CPU).interval
    assert interval is not None and interval.shape == (20_000, 2, 1)
    inside = (interval[:, 0] <= target[:, 0]) & (target[:, 0] <= interval[:, 1])
    return inside.float().mean().item()


def test_quantiles_never_cross() -> None:
    said = made(3)
    with torch.no_grad():
        said.head.weight.normal_(0, 10)
    quantiles = said.quantiles(torch.randn(500, 1, 32))
    assert quantiles.shape == (500, 3, 19) and (quantiles.diff() >= 0).all()


def test_a_new_one_says_a_standard_normal() -> None:
    said = made()
    quantiles = said.quantiles(torch.zeros(1, 1, 32))[0, 0]
    assert torch.allclose(quantiles, torch.special.ndtri(said.levels), atol=1e-4)
    truth = torch.randn(100_000, 1, 1, generator=torch.Generator().manual_seed(0))
    interval = said.sample(lambda tokens, start: torch.zeros(1, 1, 32), 1, CPU).interval
    assert interval is not None
    inside = ((interval[0, 0] <= truth) & (truth <= interval[0, 1])).float().mean()
    assert inside == pytest.approx(0.9, abs=0.005)


def test_levels_hold_their_share_of_the_truth(trained: Quantile) -> None:
    hidden, target = uneven(20_000, 5)
    below = (target[:, 0].unsqueeze(-1) <= trained.quantiles(hidden)).float().mean((0, 1))
    assert (below - trained.levels).abs().max() < 0.05


def test_loss_is_twice_the_mean_pinball(trained: Quantile) -> None:
    hidden, target = uneven(50, 6)
    quantiles = trained.quantiles(hidden)[:, 0]
    total = torch.zeros(50)
    for tau, q in zip(trained.levels, quantiles.T, strict=True):
        off = target[:, 0, 0] - q
        total += 2 * torch.where(off > 0, tau * off, (tau - 1) * off) / len(trained.levels)
    assert torch.allclose(trained.loss(hidden, target), total, atol=1e-5)


@pytest.mark.parametrize("spoiled", [0.0, 0.5, -3.0])
def test_calibration_covers_ninety_percent_however_wrong_the_head_is(trained: Quantile, spoiled: float) -> None:
    bias = trained.head.bias.detach().clone()
    with torch.no_grad():
        trained.head.bias[:9] += spoiled  # the lower quantiles too wide or too narrow
    hidden, target = uneven(4000, 2)
    before = covered(trained, 3)
    trained.calibrate(trained.residual(hidden, target))
    after = covered(trained, 3)
    with torch.no_grad():
        trained.head.bias.copy_(bias)
    trained.calibrate(torch.zeros(0, 5, 1))
    assert 0.88 <= after <= 0.92
    assert spoiled == 0.0 or not 0.88 <= before <= 0.92
    assert not trained.widening.any()


def test_any_coverage_may_be_asked_up_to_the_largest(trained: Quantile) -> None:
    trained.calibrate(trained.residual(*uneven(4000, 2)))
    hidden, target = uneven(20_000, 3)
    truth, widths = target[:, 0], []
    for asked, given in ((0.5, 0.5), (0.6, 0.8), (0.9, 0.9), (0.95, 0.95), (0.97, 0.98)):
        low, high = trained.sample(lambda tokens, start: hidden, len(hidden), CPU, coverage=asked).interval.unbind(1)
        assert abs(float(((low <= truth) & (truth <= high)).float().mean()) - given) < 0.02
        widths.append(float((high - low).mean()))
    assert widths == sorted(widths)
    with pytest.raises(UserError, match="0.98"):
        trained.sample(lambda tokens, start: hidden, len(hidden), CPU, coverage=0.99)
    trained.calibrate(torch.zeros(0, 5, 1))


def test_widening_is_kept_with_the_weights(trained: Quantile) -> None:
    trained.calibrate(torch.linspace(-1, 1, 99).view(99, 1, 1).expand(-1, len(trained.covers), -1))
    copy = made()
    copy.load_state_dict(trained.state_dict())
    trained.calibrate(torch.zeros(0, 5, 1))
    assert copy.widening[copy.covers.index(0.9)].item() == pytest.approx(-1 + 2 * 89 / 98)  # the ⌈100 · 0.9⌉th of 99


def test_the_interval_holds_the_median_even_when_narrowed() -> None:
    said = made()
    said.calibrate(torch.full((50, len(said.covers), 1), -100.0))
    found = said.sample(lambda tokens, start: torch.randn(9, 1, 32), 9, CPU)
    assert found.interval is not None
    assert (found.interval[:, 0] <= found.tokens[:, 0]).all() and (found.interval[:, 1] >= found.tokens[:, 0]).all()


def test_draws_follow_the_quantiles_and_the_seed(trained: Quantile) -> None:
    hidden = uneven(1, 4)[0].expand(20_000, 1, 32)

    def drawn(seed: int) -> torch.Tensor:
        return trained.sample(
            lambda tokens, start: hidden, 20_000, CPU, torch.Generator().manual_seed(seed), sample=True
        ).tokens

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    wanted = trained.quantiles(hidden[:1])[0, 0]
    below = (drawn(1)[:, 0] <= wanted).float().mean(0)
    assert (below - trained.levels).abs().max() < 0.015
    assert torch.allclose(trained.sample(lambda tokens, start: hidden[:1], 1, CPU).tokens[0, 0, 0], wanted[9])


def test_score_is_the_log_density() -> None:
    said, hidden = made(), torch.zeros(20_000, 1, 32)
    found = said.sample(lambda tokens, start: hidden, 20_000, CPU, torch.Generator().manual_seed(0), sample=True)
    inner = found.tokens[:, 0, 0].abs() < 1.5
    wanted = torch.distributions.Normal(0, 1).log_prob(found.tokens[:, 0, 0])
    assert (found.score - wanted)[inner].abs().mean() < 0.05 and found.score.isfinite().all()


def test_it_learns_a_batch_by_heart() -> None:
    said = made(2)
    context, target = torch.nn.Parameter(torch.randn(8, 1, 32)), torch.randn(8, 1, 2)
    optimizer = torch.optim.Adam([context, *said.parameters()], lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        said.loss(said.asked_tokens(target) * context, target).mean().backward()
        optimizer.step()
    found = said.sample(lambda tokens, start: tokens * context, 8, CPU)
    assert torch.allclose(found.tokens, target, atol=0.1)


def test_fits_one_vector_only() -> None:
    assert Quantile.fits(Tokens(length=1, width=3))
    assert not Quantile.fits(Tokens(length=4, width=3)) and not Quantile.fits(Tokens(length=1, vocabulary=3))
    with pytest.raises(UserError, match="odd"):
        made(levels=4)
