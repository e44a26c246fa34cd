"""Flow matching: what it is shown it can draw again, and the sampler's invariants."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.core.types import Tokens
from sensorium.generators.flow import Flow

CPU, WIDTH = torch.device("cpu"), 32
KIND = Tokens(length=4, width=6)


class Hears(nn.Module):
    """A trunk that adds to each row's tokens what the row is."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(rows, 1, WIDTH, generator=torch.Generator().manual_seed(1)))

    def forward(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        return tokens + self.rows


def by_heart(flow: Flow, width: int, steps: int) -> tuple[Flow, Hears, torch.Tensor]:
    """A flow that has learned 8 rows by heart."""
    trunk, target = Hears(8), torch.randn(8, 4, width, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    optimizer = torch.optim.Adam([*flow.parameters(), *trunk.parameters()], lr=3e-3)
    for step in range(steps):
        drawn = flow.with_noise(target)
        loss = flow.loss(trunk(flow.asked_tokens(drawn)), drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.step()
    return flow.eval(), trunk, target


@pytest.fixture(scope="module")
def learned() -> tuple[Flow, Hears, torch.Tensor]:
    """One that says vectors as they are."""
    torch.manual_seed(0)
    return by_heart(Flow(KIND, WIDTH, depth=2), 6, 300)


@pytest.fixture(scope="module")
def coded() -> tuple[Flow, Hears, torch.Tensor]:
    """One that says latents, and makes them to vectors."""
    torch.manual_seed(0)
    return by_heart(
        Flow(dataclasses.replace(KIND, width=12, grid=(2, 2), patch=(2, 2)), WIDTH, depth=2, latents=6, coder=16),
        12,
        400,
    )


def test_latents_of_one_batch_are_learned_by_heart(coded: tuple[Flow, Hears, torch.Tensor]) -> None:
    flow, trunk, target = coded
    watched: list[torch.Tensor] = []
    drawn = draw(coded, watch=watched.append)
    assert drawn.shape == target.shape and len(watched) == 20 and watched[-1].shape == target.shape
    assert (drawn - target).square().mean() < 0.02
    assert torch.equal(torch.cdist(drawn.flatten(1), target.flatten(1)).argmin(1), torch.arange(8))
    assert torch.equal(draw(coded, 3, steps=4), draw(coded, 3, steps=4)) and not torch.equal(
        draw(coded, 3, steps=4), draw(coded, 4, steps=4)
    )
    known, other = (
        flow.token_nll(trunk(flow.asked_tokens(given := flow.with_noise(target))), given),
        flow.token_nll(trunk(flow.asked_tokens(given)).flip(0), given),
    )
    assert known.shape == (8, 4) and known.mean() < other.mean() / 2
    assert not flow.can_continue and flow.sample(trunk, 0, CPU).tokens.shape == (0, 4, 12)


def test_the_student_of_a_flow_over_latents_says_what_it_says_at_once(coded: tuple[Flow, Hears, torch.Tensor]) -> None:
    from sensorium.posttraining.distill import student_of

    flow, trunk, _ = coded
    student = student_of(flow).eval()
    once = student.sample(trunk, 8, CPU, torch.Generator().manual_seed(5)).tokens
    assert torch.allclose(once, draw(coded, 5, steps=1), atol=1e-5)


def draw(learned: tuple[Flow, Hears, torch.Tensor], seed: int = 0, **options: Any) -> torch.Tensor:
    flow, trunk, _ = learned
    return flow.sample(trunk, 8, CPU, torch.Generator().manual_seed(seed), **options).tokens


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_one_batch_is_learned_by_heart(learned: tuple[Flow, Hears, torch.Tensor], solver: str) -> None:
    drawn, target = draw(learned, solver=solver), learned[2]
    assert (drawn - target).square().mean() < 0.01
    apart = torch.cdist(drawn.flatten(1), target.flatten(1))
    assert torch.equal(apart.argmin(1), torch.arange(8))


def test_a_seed_is_a_sample(learned: tuple[Flow, Hears, torch.Tensor]) -> None:
    assert torch.equal(draw(learned, 3, steps=4), draw(learned, 3, steps=4))
    assert not torch.equal(draw(learned, 3, steps=4), draw(learned, 4, steps=4))


def test_guidance_of_one_is_none_and_more_goes_further(learned: tuple[Flow, Hears, torch.Tensor]) -> None:
    def blank(tokens: torch.Tensor, start: int) -> torch.Tensor:
        return tokens

    plain = draw(learned, steps=4)
    assert torch.equal(draw(learned, steps=4, guidance=1.0, unconditional=blank), plain)
    assert torch.equal(draw(learned, steps=4, guidance=3.0), plain), (
        "without a blank trunk there is nothing to be guided from"
    )
    assert not torch.allclose(draw(learned, steps=4, guidance=3.0, unconditional=blank), plain, atol=1e-3)


def test_what_was_learned_scores_higher_than_what_was_not(learned: tuple[Flow, Hears, torch.Tensor]) -> None:
    flow, trunk, _ = learned
    known = flow.sample(trunk, 8, CPU, torch.Generator().manual_seed(0), judged=True).score
    other = flow.sample(
        lambda tokens, start: tokens - 2 * trunk.rows, 8, CPU, torch.Generator().manual_seed(0), judged=True
    ).score
    assert (known > other).float().mean() > 0.7


def test_a_row_that_fails_leaves_the_others(learned: tuple[Flow, Hears, torch.Tensor]) -> None:
    flow, trunk, _ = learned

    def broken(tokens: torch.Tensor, start: int) -> torch.Tensor:
        hidden = trunk(tokens)
        return torch.cat([hidden[:2], hidden[2:3] * float("nan"), hidden[3:]])

    said = flow.sample(broken, 8, CPU, torch.Generator().manual_seed(0), steps=4).tokens
    others = [0, 1, 3, 4, 5, 6, 7]
    assert not torch.isfinite(said[2]).any()
    assert torch.allclose(said[others], draw(learned, steps=4)[others], atol=1e-5)


@pytest.mark.parametrize("options", [{"steps": 0}, {"guidance": -1.0}, {"guidance": float("nan")}])
def test_options_out_of_range_are_refused(learned: tuple[Flow, Hears, torch.Tensor], options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="needed are"):
        draw(learned, **options)


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_settings_out_of_range_are_refused(least: float) -> None:
    with pytest.raises(UserError, match="least"):
        Flow(KIND, WIDTH, least=least)


@pytest.fixture(scope="module")
def continuing() -> Flow:
    """A flow that has learned segments whose tokens are all alike, the beginning given now and then."""
    torch.manual_seed(0)
    flow = Flow(Tokens(length=4, width=6, timed=True), WIDTH, depth=2, prefix_share=0.5)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    for _ in range(400):
        drawn = flow.with_noise((torch.rand(32, 1, 1) * 2 - 1).expand(-1, 4, 6))
        loss = flow.loss(flow.asked_tokens(drawn), drawn).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow.eval()


def test_the_rest_goes_with_the_beginning_that_is_given(continuing: Flow) -> None:
    level = torch.linspace(-0.8, 0.8, 8)[:, None, None].expand(-1, 4, 6)
    known = torch.zeros(8, 4, 6, dtype=torch.bool)
    known[:, 0], known[:, 1, :3] = True, True
    said = continuing.sample(
        lambda tokens, start: tokens, 8, CPU, torch.Generator().manual_seed(0), given=(level, known)
    ).tokens
    assert torch.equal(said[known], level[known]) and torch.isfinite(said).all()
    assert (said - level)[:, 2:].abs().mean() < 0.15
    free = continuing.sample(lambda tokens, start: tokens, 8, CPU, torch.Generator().manual_seed(0)).tokens
    assert (free - level)[:, 2:].abs().mean() > 0.3, "without a beginning the level is anyone's guess"


def test_only_what_is_not_given_is_learned_from(continuing: Flow) -> None:
    torch.manual_seed(0)
    drawn = continuing.with_noise(torch.randn(64, 4, 6))
    given = drawn[..., -1] == 1
    assert 0.3 < given.any(1).float().mean() < 0.7 and not given[:, -1].any()
    assert torch.equal(given, given.cumprod(1).bool()), "what is given is a beginning"
    hidden = torch.randn(64, 4, WIDTH)
    other = drawn.clone()
    other[..., 6:12] = torch.where(
        given.unsqueeze(-1), torch.randn(64, 4, 6), drawn[..., 6:12]
    )  # the noise of what is given
    assert torch.allclose(continuing.loss(hidden, drawn), continuing.loss(hidden, other))
