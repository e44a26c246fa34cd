"""A decoder step by step says what it says all at once, whoever it is, however it is tuned, and whatever others do
beside it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import SPEAKERS, twin

from sensorium.backbones._fast_decode import DecoderCache, as_stands, steps_of
from sensorium.backbones._prefix_cache import PrefixCache
from sensorium.training.optimizer import Optimizer
from sensorium.trunks.causal_lm import CausalLM

USUAL = {"llama": True, "qwen3": True, "mistral": True, "gemma2": False}
"""Which twins are of the build that is known."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


def trunk_of(folder: Path, name: str = "llama", **how: object) -> CausalLM:
    return CausalLM(8, [], path=str(twin(name, folder)), **{"tune": "frozen"} | how).eval()


def rows(trunk: CausalLM, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of words, the second shorter and the third with a gap."""
    ids = torch.randint(0, trunk.vocabulary, (3, length), generator=torch.Generator().manual_seed(1))
    there = torch.ones(3, length, dtype=torch.bool)
    there[1, 5:], there[2, 3] = False, False
    return trunk.words(ids), there


def gone_on(
    trunk: CausalLM, state: PrefixCache, more: torch.Tensor, by_steps: bool
) -> tuple[torch.Tensor, torch.Tensor, PrefixCache]:
    """Hidden and logits of tokens said one after the other."""
    hidden, logits = [], []
    for at in range(more.shape[1]):
        if by_steps:
            h, state = trunk.decode_entered(state, more[:, at : at + 1])
            assert isinstance(state.cache, DecoderCache)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trunk, "steps", lambda tokens: None)
                h, state = trunk.decode_entered(state, more[:, at : at + 1])
        hidden.append(h[:, 0])
        logits.append(trunk.logits(h[:, 0], state))
    return torch.stack(hidden, 1), torch.stack(logits, 1), state


def same(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(mine, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SPEAKERS)
def test_steps_say_what_the_decoder_says(folder: Path, name: str) -> None:
    trunk = trunk_of(folder, name)
    with torch.no_grad():
        steps = steps_of(trunk.decoder[0], trunk.head[0], torch.float32)
        assert (steps is not None) == USUAL[name]
        if steps is None:
            return
        for count in (3, 1):
            tokens, there = (part[:count] for part in rows(trunk))
            more = trunk.words(
                torch.randint(0, trunk.vocabulary, (count, 80), generator=torch.Generator().manual_seed(2))
            )  # more than a memory has room for at first
            mine, theirs = (
                gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], more, by_steps) for by_steps in (True, False)
            )
            assert same(mine[0], theirs[0]) and same(mine[1], theirs[1])


def changed(trunk: CausalLM) -> None:
    """As after some steps of training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trunk.learned.values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("tune", ["lora", "dora", "rslora", "full", "last:1"])
def test_what_was_tuned_is_heard_and_what_changes_afterwards_too(folder: Path, tune: str) -> None:
    trunk = trunk_of(folder, "qwen3", tune=tune, rank=2)
    tokens, there = rows(trunk)
    said = []
    for _ in range(2):
        with torch.no_grad():
            mine, theirs = (
                gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :3], by_steps)
                for by_steps in (True, False)
            )
            assert same(mine[0], theirs[0]) and same(mine[1], theirs[1])
        said.append(mine[1])
        changed(trunk)
    assert (said[0] - said[1]).abs().max() > 1e-2 and len(trunk.fast_decoders) == 2
    if tune == "lora":
        with torch.no_grad(), trunk.as_it_was():
            assert same(
                gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :3], True)[1], said[0]
            )  # updates begin as nothing


def test_several_go_on_from_one_place(folder: Path) -> None:
    trunk = trunk_of(folder)
    tokens, there = rows(trunk)
    with torch.no_grad():
        _, _, begun = gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :2], True)
        first, second = gone_on(trunk, begun, tokens[:, 2:6], True)[0], gone_on(trunk, begun, tokens[:, 6:10], True)[0]
        assert same(first, gone_on(trunk, begun, tokens[:, 2:6], True)[0]) and not same(first, second)
        order = torch.tensor([2, 0, 0])
        moved = gone_on(trunk, trunk.reorder(begun, order), tokens[order, 2:6], True)[0]
        assert same(moved, first[order])


def test_several_tokens_at_once_go_on_from_steps_and_steps_from_these(folder: Path) -> None:
    trunk = trunk_of(folder)
    tokens, there = rows(trunk)
    with torch.no_grad():
        ways = []
        for by_steps in (True, False):
            _, _, state = gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :2], by_steps)
            several, state = trunk.decode_entered(state, tokens[:, 2:5])
            ways.append((several, gone_on(trunk, state, tokens[:, 5:7], by_steps)[0]))
        assert all(map(same, *ways))


def test_a_window_that_is_full_is_left_to_the_decoder(folder: Path) -> None:
    trunk = trunk_of(folder)
    tokens, there = (part[:1] for part in rows(trunk))
    with torch.no_grad():
        trunk.steps(tokens).most = 14
        state = trunk.prefill_tokens(tokens, there)[1]
        kinds = []
        for at in range(4):
            _, state = trunk.decode_entered(state, tokens[:, at : at + 1])
            kinds.append(isinstance(state.cache, DecoderCache))
    assert kinds == [True, True, False, False]


def test_in_bf16_they_are_as_near_as_bf16_is(folder: Path) -> None:
    trunk = trunk_of(folder)
    tokens, there = rows(trunk)
    with torch.no_grad():
        exact = gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :4], False)[1]
        with torch.autocast("cpu", torch.bfloat16):
            rough = gone_on(trunk, trunk.prefill_tokens(tokens, there)[1], tokens[:, :4], True)[1]
    assert 0 < (rough - exact).norm() / exact.norm() < 0.03


def test_who_learns_goes_through_its_modules(folder: Path) -> None:
    trunk = trunk_of(folder, tune="full")
    tokens, there = rows(trunk)
    assert trunk.steps(tokens) is None
    with torch.no_grad():
        assert trunk.train().steps(tokens) is None and trunk.eval().steps(tokens) is not None
    for name in ("adamw", "muon", "sgd", "adafactor"):
        before, optimizer = as_stands(trunk.decoder[0]), Optimizer([trunk], name=name)
        trunk.logits(trunk.prefill_tokens(tokens.detach(), there)[0]).sum().backward()
        optimizer.step(1.0)
        optimizer.zero()
        assert as_stands(trunk.decoder[0]) != before


def test_a_decoder_that_says_something_else_is_noticed(folder: Path) -> None:
    trunk = trunk_of(folder)
    trunk.decoder[0].layers[1].self_attn.register_forward_hook(lambda module, given, found: (2 * found[0], *found[1:]))
    with torch.no_grad():
        assert steps_of(trunk.decoder[0], trunk.head[0], torch.float32) is None
