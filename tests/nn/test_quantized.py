"""Linear layers in fewer bits: what rounding costs, and that all else is a linear layer's."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import nn

from sensorium.core.errors import UserError
from sensorium.nn import quantized
from sensorium.nn.quantized import QuantizedLinear, in_full, normal_float, round_linears

NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]
"""As printed in appendix E of QLoRA."""


def layer(inside: int, out: int, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inside + out)
    return nn.Linear(inside, out, bias)


def test_its_sixteen_values_are_those_of_the_paper() -> None:
    assert torch.allclose(normal_float(), torch.tensor(NF4), atol=1e-6)


@pytest.mark.parametrize("spread", [1e-4, 0.02, 3.0])
@pytest.mark.parametrize("shape", [(512, 384), (7, 33), (1, 5), (300, 64)])
def test_rounding_errs_as_little_as_its_bits_allow(shape: tuple[int, int], spread: float) -> None:
    plain = layer(*shape[::-1])
    with torch.no_grad():
        plain.weight.copy_(spread * torch.randn(shape))
    for bits, most in ((8, 0.013), (4, 0.13)):
        made = QuantizedLinear(plain, bits)
        assert made.weight.shape == plain.weight.shape and torch.equal(made.bias, plain.bias)
        assert (made.weight - plain.weight).norm() < most * plain.weight.norm(), bits
    steps = plain.weight.abs().amax(1, keepdim=True) / 127
    assert ((QuantizedLinear(plain, 8).weight - plain.weight).abs() <= steps * 0.5001).all()


@pytest.mark.parametrize(("bits", "wanted"), [(8, 8 + 32 / 1024), (4, 4 + 8 / 64 + 32 / (64 * 256))])
def test_it_takes_the_memory_that_it_says(bits: int, wanted: float) -> None:
    made = QuantizedLinear(layer(1024, 512, False), bits)
    kept = sum(part.nbytes for part in (*made.parameters(), *made.buffers()))
    assert 8 * kept == pytest.approx(wanted * 1024 * 512, rel=0.003)


@pytest.mark.parametrize("weight", ["zero", "one", "alike"])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_any_kind_come_back(weight: str, bits: int) -> None:
    plain = layer(64, 8)
    with torch.no_grad():
        plain.weight.zero_()
        if weight == "one":
            plain.weight[3, 5] = -2.0
        elif weight == "alike":
            plain.weight.fill_(0.3)
    found = QuantizedLinear(plain, bits).weight
    assert torch.isfinite(found).all() and torch.allclose(found, plain.weight, atol=0.02)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("inside", "bias"), [(64, True), (40, False)])
def test_it_multiplies_as_a_layer_of_its_weights_does(
    bits: int, inside: int, bias: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, of_torch = [], quantized.INT8_MATMUL
    assert of_torch is not None
    counting = (lambda *given: asked.append(1) or of_torch(*given)) if there else None
    monkeypatch.setattr(quantized, "INT8_MATMUL", counting)
    made = QuantizedLinear(layer(inside, 24, bias), bits)
    plain = made.as_linear()
    for shape, few in (((2, 9, inside), False), ((2, 3, inside), True), ((inside,), True), ((0, inside), True)):
        x = torch.randn(shape)
        with torch.no_grad():
            found, wanted, asked[:] = made(x), plain(x), []
            assert torch.allclose(
                made(x), wanted, atol=2e-2 if few and there and bits == 8 and inside == 64 else 1e-5
            ), shape
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        assert bool(asked) == (there and few and bits == 8 and inside == 64)
        x.requires_grad_()
        mine, theirs = (torch.autograd.grad(one(x).square().sum(), x)[0] for one in (made, plain))
        assert torch.allclose(mine, theirs, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.randn(3, 9, inside, requires_grad=True)
        found = made(x)
        assert found.dtype == torch.bfloat16 and (found - plain(x)).abs().max() < 0.05
        assert torch.autograd.grad(found.sum(), x)[0].dtype == torch.float32


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_low_rank_updates_are_learned_beside_it(bits: int, dora: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 8))
    model = copy.deepcopy(plain)
    round_linears(model, bits, model[2])
    assert type(model[2]) is nn.Linear and type(model[0]) is QuantizedLinear
    model = peft.inject_adapter_in_model(
        peft.LoraConfig(r=4, target_modules=["0"], use_dora=dora), model.requires_grad_(False)
    )
    x, wanted = torch.randn(50, 64), torch.randn(50, 8)
    before = model[0].base_layer.weight
    adapters = [p for p in model.parameters() if p.requires_grad]
    learner, losses = torch.optim.Adam(adapters, 0.02), []
    for _ in range(30):
        losses.append((model(x) - wanted).square().mean())
        learner.zero_grad()
        losses[-1].backward()
        learner.step()
    assert losses[-1] < 0.9 * losses[0] and torch.equal(model[0].base_layer.weight, before)
    said, whole = model(x), in_full(copy.deepcopy(model))
    whole[0].merge()
    assert not any(isinstance(part, QuantizedLinear) for part in whole.modules())
    assert torch.allclose(whole(x), said, atol=1e-4)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"trunk.bits=4: the language model has no linear layers"):
        round_linears(nn.Sequential(nn.LayerNorm(3)), 4)
