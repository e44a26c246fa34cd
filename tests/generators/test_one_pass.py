"""The generators beside flow matching: an autoencoder, one with an adversary, and discrete codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.core.registry import find
from sensorium.core.types import Tokens
from sensorium.generators import Generator
from sensorium.generators.codes import Codes
from sensorium.generators.gan import Gan
from sensorium.generators.vae import Vae

CPU, WIDTH = torch.device("cpu"), 32
KIND = Tokens(length=4, width=6)
NAMES = ["vae", "gan", "codes"]


class Hears(nn.Module):
    """A trunk that adds to each row's tokens what the row is, and for causal generators remembers what was before."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(rows, 1, WIDTH, generator=torch.Generator().manual_seed(1)))

    def forward(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        return tokens + self.rows


def learn(name: str, steps: int = 400, **settings: Any) -> tuple[Generator, Hears, torch.Tensor]:
    """A generator that has learned 8 rows by heart."""
    torch.manual_seed(0)
    part, trunk = find(Generator, name)(KIND, WIDTH, depth=2, **settings), Hears(8)
    target = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    optimizer = torch.optim.Adam([*part.parameters(), *trunk.parameters()], lr=3e-3)
    for step in range(steps):
        drawn = part.with_noise(target)
        loss = part.loss(trunk(part.asked_tokens(drawn)), drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.step()
    return part.eval(), trunk, target


@pytest.fixture(scope="module", params=NAMES)
def learned(request: pytest.FixtureRequest) -> tuple[Generator, Hears, torch.Tensor]:
    return learn(request.param)


def draw(learned: tuple[Generator, Hears, torch.Tensor], seed: int = 0, **options: Any) -> torch.Tensor:
    part, trunk, _ = learned
    return part.sample(trunk, 8, CPU, torch.Generator().manual_seed(seed), **options).tokens


def test_one_batch_is_learned_by_heart(learned: tuple[Generator, Hears, torch.Tensor]) -> None:
    for temperature in (
        (0.0,) if isinstance(learned[0], Codes) else (0.0, 1.0)
    ):  # codes still move while they are learned
        drawn, target = draw(learned, temperature=temperature), learned[2]
        assert (drawn - target).square().mean() < 0.03
        assert torch.equal(torch.cdist(drawn.flatten(1), target.flatten(1)).argmin(1), torch.arange(8))


def test_a_seed_is_a_sample(learned: tuple[Generator, Hears, torch.Tensor]) -> None:
    assert torch.equal(draw(learned, 3), draw(learned, 3))
    assert torch.equal(draw(learned, 3, temperature=0.0), draw(learned, 4, temperature=0.0))


def test_a_row_that_fails_leaves_the_others(learned: tuple[Generator, Hears, torch.Tensor]) -> None:
    part, trunk, _ = learned

    def broken(tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        hidden = trunk(tokens)
        return torch.cat([hidden[:2], hidden[2:3] * float("nan"), hidden[3:]])

    said, others = part.sample(broken, 8, CPU, torch.Generator().manual_seed(0)).tokens, [0, 1, 3, 4, 5, 6, 7]
    assert not torch.isfinite(said[2]).any() and torch.allclose(said[others], draw(learned)[others], atol=1e-5)


def test_options_out_of_range_are_refused(learned: tuple[Generator, Hears, torch.Tensor]) -> None:
    with pytest.raises(UserError, match="temperature"):
        draw(learned, temperature=-1.0)


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_where_nothing_tells_rows_apart_samples_are_of_all(name: str) -> None:
    """Two kinds of rows, and nothing seen that says which: a mean of both is what a plain regression would draw."""
    torch.manual_seed(0)
    part = find(Generator, name)(KIND, WIDTH, depth=2)
    optimizer, sign = torch.optim.Adam(part.parameters(), lr=3e-3), torch.tensor([1.0, -1.0]).repeat(16)[:, None, None]
    for _ in range(400):
        drawn = part.with_noise(sign.expand(-1, 4, 6) * 0.7)
        loss = part.loss(part.asked_tokens(drawn), drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = part.eval().sample(lambda tokens, start: tokens, 64, CPU, torch.Generator().manual_seed(0)).tokens
    sides = said.mean((1, 2)) > 0
    assert 16 <= int(sides.sum()) <= 48, "both are drawn"
    assert ((said > 0) == sides[:, None, None]).float().mean() > 0.95, "a sample is of one kind in all its tokens"
    assert (said.abs() - 0.7).abs().mean() < 0.15


def test_an_adversary_is_taught_by_its_own_loss_alone_and_teaches_the_decoder() -> None:
    torch.manual_seed(0)
    gan, plain, target = (
        Gan(KIND, WIDTH, adversary=1.0, steep=0.0, depth=1),
        Vae(KIND, WIDTH, depth=1),
        torch.randn(8, 4, 6),
    )
    for layer in gan.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.2)
    plain.latents.load_state_dict(gan.latents.state_dict())
    drawn, hidden = gan.with_noise(target), torch.randn(8, 4, WIDTH)
    x, _, each, other, whole = drawn.split([6, 6, 8, 8, 64], -1)
    gan.loss(hidden, drawn).sum().backward()
    plain.loss(hidden, torch.cat([x, each, whole], -1)).sum().backward()
    verdict, leave = gan.judge.verdict.weight.grad.clone(), gan.latents.leave.weight.grad
    assert not torch.allclose(leave, plain.latents.leave.weight.grad), "the judge's word reaches the decoder"
    gan.zero_grad()
    made = gan.judge(gan.latents.sample_prior(hidden, -whole[:, 0], other)[0].detach(), hidden)
    nn.functional.softplus(made - gan.judge(target, hidden)).mean(1).sum().backward()
    assert verdict.any() and torch.allclose(verdict, gan.judge.verdict.weight.grad, atol=1e-5), (
        "the judge isn't taught to be fooled"
    )


def test_codes_are_the_nearest_levels_and_come_back() -> None:
    torch.manual_seed(0)
    part = Codes(KIND, WIDTH, digits=3, levels=5)
    code = part.encode(torch.randn(10, 4, 6))
    assert torch.equal(part.values(part.levels_of(code)), code) and set(part.levels_of(code).unique().tolist()) <= set(
        range(5)
    )
    part.decode(code).square().sum().backward()
    assert part.enter.weight.grad.any(), "rounding lets the gradient through"
