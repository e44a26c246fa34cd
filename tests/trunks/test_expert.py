"""What is drawn has layers of its own in a language model, which stays what it was for all else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from conftest import TINY, tiny_table
from safetensors.torch import load_file
from tiny_models import SPEAKERS, twin

from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.trunks import Seen
from sensorium.trunks.causal_lm import CausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


def given(width: int = 8) -> tuple[Seen, list[torch.Tensor]]:
    """Two rows, of which the second lacks a column, and three asked segments."""
    torch.manual_seed(3)
    masks = {
        "": torch.ones(2, 1, dtype=torch.bool),
        "photo": torch.tensor([[1, 1, 1], [0, 0, 0]]).bool(),
        "note": torch.tensor([[1, 1], [1, 0]]).bool(),
    }
    return {name: (torch.randn(*mask.shape, width), mask) for name, mask in masks.items()}, [
        torch.randn(2, k, width) for k in (1, 4, 3)
    ]


def moved(trunk: CausalLM) -> None:
    """Weights of its own that aren't the language model's any more."""
    with torch.no_grad():
        for parameter in trunk.expert.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SPEAKERS)
@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_only_what_is_drawn_goes_through_it(folder: Path, name: str, tune: str) -> None:
    torch.manual_seed(0)
    trunk = CausalLM(8, ["photo", "note"], path=str(twin(name, folder)), tune=tune, rank=2, expert=True).eval()
    seen, asked = given()
    with torch.no_grad():
        plain = trunk(seen, asked, [False, False, True])
        for mine, wanted in zip(trunk(seen, asked, [False, False, True], [False, True, False]), plain, strict=True):
            assert torch.allclose(mine, wanted, atol=1e-5), "it begins as a copy"
        moved(trunk)
        text, picture, words = trunk(seen, asked, [False, False, True], [False, True, False])
        assert torch.allclose(text, plain[0], atol=1e-6) and torch.allclose(words, plain[2], atol=1e-6)
        assert (picture - plain[1]).abs().max() > 0.01
        state = trunk.prefill(seen)
        assert torch.allclose(trunk.decode(state, asked[1], True)[0], picture, atol=1e-5), "remembered or at once"
        assert torch.allclose(trunk.decode(state, asked[1])[0], plain[1], atol=1e-5)
        one, state = trunk.decode(trunk.prefill(seen), asked[1][:, :1], True)
        alone = trunk.decode(trunk.prefill(seen), asked[1][:, :1])[0]
        assert (one - alone).abs().max() > 0.001, "one token at a time, too"


def test_it_alone_has_gradients_where_the_language_model_is_frozen_and_checkpointing_gives_the_same(
    folder: Path,
) -> None:
    known = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        trunk = CausalLM(
            8,
            ["photo", "note"],
            path=str(twin("llama", folder)),
            tune="frozen",
            expert=True,
            checkpointing=checkpointing,
        ).train()
        moved(trunk)
        seen, asked = given()
        found = trunk(seen, asked, [False, False, True], [False, True, False])
        trunk(seen, asked[:1], [False], [False])  # nothing is drawn here; what was is computed again as it was
        found[1].square().sum().backward()
        assert all(
            p.grad is not None and p.grad.abs().sum() > 0
            for name, p in trunk.expert.named_parameters()
            if "bias" not in name
        )
        assert not any(p.requires_grad for p in trunk.wrapped[0].parameters())
        assert {id(p) for p, _ in trunk.tuned_parameters()} == {id(p) for p in trunk.expert.parameters()} and {
            rate for _, rate in trunk.tuned_parameters()
        } == {trunk.expert_rate}
        assert trunk.facts()["expert_parameters"] == sum(p.numel() for p in trunk.expert.parameters())
        known.append(torch.cat([p.grad.flatten() for p in trunk.expert.parameters()]))
    assert torch.allclose(*known, atol=1e-6)


def test_a_mixture_of_experts_is_refused(folder: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    path = twin("llama", folder)
    transformers.MixtralForCausalLM(config).save_pretrained(folder / "mixture")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "mixture" / name).write_bytes((path / name).read_bytes())
    with pytest.raises(
        UserError, match=r"trunk.expert=true: the layer .* Choose a language model without a mixture of experts"
    ):
        CausalLM(8, [], path=str(folder / "mixture"), tune="frozen", expert=True)


def test_a_run_that_draws_by_it_leaves_the_language_model_to_the_bit(
    no_report: None, folder: Path, tmp_path: Path
) -> None:
    path = twin("llama", folder)
    settings = [
        *(s for s in TINY if not s.startswith("trunk.")),
        "trunk=causal_lm",
        f"trunk.path={path}",
        "trunk.tune=frozen",
        "trunk.expert=true",
        "questions.generate=picture",
        "generator.flow.depth=1",
    ]
    model = Model.fit(tiny_table(40), out=tmp_path / "run", epochs=3, seed=0, settings=settings)
    drawn = model.generate(tiny_table(1), "picture", steps=2, seed=1)
    again = Model.load(model.save(tmp_path / "kept"))
    assert drawn == again.generate(tiny_table(1), "picture", steps=2, seed=1)
    base = transformers.AutoModelForCausalLM.from_pretrained(path).state_dict()
    own = {f"model.{name.replace('/', '.')}": value for name, value in again.network.trunk.expert.state_dict().items()}
    assert own.keys() <= base.keys() and not any(torch.equal(value, base[name]) for name, value in own.items())
    again.export_trunk(tmp_path / "lm")
    told = load_file(tmp_path / "lm" / "model.safetensors")
    assert all(torch.equal(value, base[name]) for name, value in told.items())
