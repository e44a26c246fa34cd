"""A language model in eight or four bits: what is learned beside it, kept and given away is as of one in full."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers
from conftest import TINY, tiny_table
from tiny_models import SPEAKERS, speaker, twin

from sensorium.backbones._fast_decode import DecoderCache
from sensorium.core.errors import UserError
from sensorium.model import Model
from sensorium.nn.quantized import QuantizedLinear, in_full
from sensorium.trunks.causal_lm import CausalLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speakers")


def heard(trunk: CausalLM, text: str = "What is red?") -> torch.Tensor:
    """The logits after each token of a text."""
    ids = torch.tensor([trunk.language.ids(text)])
    return trunk.logits(trunk.prefill_tokens(trunk.words(ids), torch.ones_like(ids, dtype=torch.bool))[0])


@pytest.mark.parametrize("name", SPEAKERS)
@pytest.mark.parametrize(("bits", "most"), [(8, 0.03), (4, 0.35)])
def test_it_says_about_the_same_in_less_memory(folder: Path, name: str, bits: int, most: float) -> None:
    path = str(twin(name, folder))
    plain, small = (
        CausalLM(8, [], path=path, tune="frozen").eval(),
        CausalLM(8, [], path=path, tune="frozen", bits=bits).eval(),
    )
    with torch.no_grad():
        whole, found = heard(plain), heard(small)
    assert 0 < (found - whole).norm() < most * whole.norm()
    assert small.facts()["bits"] == bits and "bits" not in plain.facts()
    assert (
        small.facts()["all_parameters"] == plain.facts()["all_parameters"]
        and small.facts()["bytes"] < plain.facts()["bytes"]
    )
    linear = [part for part in small.decoder[0].modules() if isinstance(part, torch.nn.Linear)]
    assert (
        linear and all(isinstance(part, QuantizedLinear) for part in linear) and type(small.head[0]) is torch.nn.Linear
    )
    assert all(p.dtype == torch.float32 for p in small.wrapped[0].parameters())


@pytest.mark.parametrize("tune", ["lora", "dora", "rslora", "bias", "prompt:2"])
@pytest.mark.parametrize("bits", [8, 4])
def test_it_is_tuned_as_one_in_full_of_its_weights(folder: Path, bits: int, tune: str) -> None:
    path, known = str(twin("qwen3", folder)), []
    for small in (True, False):
        torch.manual_seed(0)
        trunk = CausalLM(8, [], path=path, tune=tune, rank=2, bits=bits).train()
        if not small:
            in_full(trunk.wrapped[0])
        with torch.no_grad():
            for parameter in trunk.learned.values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        heard(trunk, "Say a long sentence about nothing in particular.").square().mean().backward()
        assert trunk.learned and {name for name, p in trunk.wrapped[0].named_parameters() if p.requires_grad} <= {
            name.replace("/", ".") for name in trunk.learned
        }
        known.append({name: p.grad for name, p in trunk.learned.items()})
    assert known[0].keys() == known[1].keys()
    for name, gradient in known[0].items():
        assert gradient.abs().sum() > 0 and torch.allclose(gradient, known[1][name], atol=1e-6), name


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Mistral"])
@pytest.mark.parametrize(("bits", "tune"), [(8, "frozen"), (8, "lora"), (8, "dora"), (4, "lora")])
def test_one_token_at_a_time_it_says_what_it_says_at_once(
    folder: Path, kind: str, bits: int, tune: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / f"wide-{kind}"
    if not path.exists():
        torch.manual_seed(0)
        speaker(path, kind=kind, hidden_size=64, head_dim=32, intermediate_size=96)
    if not there:
        monkeypatch.setattr("sensorium.nn.quantized.INT8_MATMUL", None)
    torch.manual_seed(0)
    trunk = CausalLM(8, [], path=str(path), rank=2, tune=tune, bits=bits).eval()
    ids = torch.tensor([trunk.language.ids("What is red, and what is round and is not a ball?")])
    ones = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        for name, parameter in trunk.wrapped[0].named_parameters():
            if "layernorm" in name:  # some numbers of a token count much more than others
                parameter *= 1 + 4 * (torch.rand(parameter.shape) > 0.9)
        for parameter in trunk.learned.values():
            parameter += 0.05 * torch.randn_like(parameter)
        whole = trunk.prefill_tokens(trunk.words(ids), ones)[0]
        hidden, state = trunk.prefill_tokens(trunk.words(ids[:, :3]), ones[:, :3])
        for at in range(3, ids.shape[1]):
            hidden, state = trunk.decode_entered(state, trunk.words(ids[:, at : at + 1]))
            assert isinstance(state.cache, DecoderCache) == there
            assert (hidden[0, 0] - whole[0, at]).norm() < (0.05 if there else 1e-4) * whole[0, at].norm()


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_drawn_has_layers_in_full(folder: Path, bits: int) -> None:
    trunk = CausalLM(8, ["photo"], path=str(twin("llama", folder)), tune="frozen", bits=bits, expert=True)
    assert (
        trunk.expert.originals[0].keys()
        == CausalLM(8, ["photo"], path=str(twin("llama", folder)), tune="frozen", expert=True)
        .expert.originals[0]
        .keys()
    )
    assert not any(isinstance(part, QuantizedLinear) for part in trunk.expert.modules()) and all(
        p.requires_grad for p in trunk.expert.parameters()
    )
    tokens, ones = trunk.words(torch.arange(20).unsqueeze(0)), torch.ones(1, 20, dtype=torch.bool)
    with torch.no_grad(), trunk.with_expert(ones):
        drawn = trunk.prefill_tokens(tokens, ones)[0]
    with torch.no_grad():
        assert torch.allclose(drawn, trunk.prefill_tokens(tokens, ones)[0], atol=1e-4), "they begin as what its own are"


@pytest.mark.parametrize("tune", ["full", "last:1"])
def test_what_is_rounded_is_not_learned(folder: Path, tune: str) -> None:
    with pytest.raises(
        UserError,
        match=rf"trunk.bits=4 rounds the language model's weights, so trunk.tune={tune} can't learn them. Choose lora",
    ):
        CausalLM(8, [], path=str(twin("llama", folder)), tune=tune, bits=4)


def test_other_bits_are_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"value of trunk.bits:.*5"):
        Model.fit(
            tiny_table(20),
            out=tmp_path / "run",
            epochs=1,
            settings=["trunk=causal_lm", f"trunk.path={twin('llama', folder)}", "trunk.bits=5"],
        )


@pytest.mark.parametrize("bits", [8, 4])
def test_a_run_on_it_is_kept_goes_on_and_gives_a_language_model_in_full(
    no_report: None, folder: Path, tmp_path: Path, bits: int
) -> None:
    settings = [
        *(s for s in TINY if not s.startswith("trunk.")),
        "trunk=causal_lm",
        f"trunk.path={twin('llama', folder)}",
        "trunk.rank=2",
        "trunk.rate=1",
        f"trunk.bits={bits}",
    ]
    model = Model.fit(tiny_table(40), out=tmp_path / "run", epochs=2, seed=0, settings=settings)
    again = Model.load(model.save(tmp_path / "kept"))
    few = tiny_table(4)
    assert (
        model.predict(few, "colour", seen=["name"]).to_pylist()
        == again.predict(few, "colour", seen=["name"]).to_pylist()
    )
    trunk = again.network.trunk
    assert trunk.bits == bits and any(isinstance(part, QuantizedLinear) for part in trunk.wrapped[0].modules())
    before = copy.deepcopy(trunk.wrapped[0].state_dict())
    again.export_trunk(tmp_path / "lm")
    assert all(torch.equal(value, before[name]) for name, value in trunk.wrapped[0].state_dict().items())
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    ids = torch.tensor([trunk.language.ids("What is this, and why is it so?")])
    with torch.no_grad():
        assert torch.allclose(alone(ids).logits, heard(trunk, "What is this, and why is it so?"), atol=1e-3)
