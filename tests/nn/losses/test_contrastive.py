"""The contrastive loss against open_clip's, against its definition in float64, and in what it may cost."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sensorium.nn.losses import contrastive as module
from sensorium.nn.losses.contrastive import contrastive


def gists(n, d=32, seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    common, *own = torch.randn(3, n, d, generator=generator)
    return [F.normalize(common + noise * x, dim=1).requires_grad_() for x in own]


def results(loss, inputs):
    """The loss and its gradients."""
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


def near(found, wanted, tolerance=1e-5, least=5e-8):
    """Equal relative to the norm of what is wanted, or within float32's own error."""
    for f, w in zip(found, wanted, strict=True):
        assert (f.double() - w.double()).norm() <= tolerance * w.double().norm() + least


def defined(a, b, scale, kind, bias=None, same=None, weights=None):
    """The definition, dense and in float64."""
    n = len(a)
    positive = torch.eye(n, dtype=torch.bool)
    if same is not None:
        positive = positive | (same[0][:, None] == same[0]) | (same[1][:, None] == same[1])
    share = torch.ones(n, dtype=torch.float64) if weights is None else weights.double()
    share = share / share.sum()
    logits = scale.double() * a.double() @ b.double().T
    if kind == "siglip":
        logits = logits + (0 if bias is None else bias.double())
        signs = torch.where(positive, 1.0, -1.0).double()
        return (F.softplus(-signs * logits) * (share[:, None] + share) / 2).sum()
    target = positive.double() / positive.sum(1, keepdim=True)
    return sum(-(share * (target * x.log_softmax(1)).sum(1)).sum() for x in (logits, logits.T)) / 2


@pytest.mark.parametrize("start", [14.0, 100.0])
@pytest.mark.parametrize(("n", "block"), [(1, None), (2, None), (7, 3), (64, None), (100, 32), (1100, None)])
def test_infonce_is_open_clips(n, block, start):
    peer = pytest.importorskip("open_clip.loss").ClipLoss()
    a, b = gists(n)
    scale = torch.tensor(start, requires_grad=True)
    inputs = (a, b, scale)
    near(results(contrastive(a, b, scale, block=block), inputs), results(peer(a, b, scale), inputs))


@pytest.mark.parametrize(("n", "block"), [(1, None), (7, 3), (64, None), (100, 32), (1100, None)])
def test_siglip_is_open_clips(n, block):
    peer = pytest.importorskip("open_clip.loss").SigLipLoss()
    a, b = gists(n)
    scale, bias = torch.tensor([10.0], requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    inputs = (a, b, scale, bias)
    loss = contrastive(a, b, scale, kind="siglip", bias=bias, block=block)
    assert loss.shape == ()
    near(results(loss, inputs), results(peer(a, b, scale, bias), inputs))


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("keys", ["none", "distinct", "a", "b", "both", "equal", "one"])
@pytest.mark.parametrize("block", [None, 16])
def test_definition(kind, weighed, keys, block):
    n = 50
    a, b = gists(n, seed=1)
    generator = torch.Generator().manual_seed(2)
    some, other = (torch.randint(0, 30, (n,), generator=generator) + 2**62 for _ in range(2))
    alone = torch.randperm(n, generator=generator)
    same = {
        "none": None,
        "distinct": (alone, alone),
        "a": (some, alone),
        "b": (alone, other),
        "both": (some, other),
        "equal": (some, some),
        "one": (torch.zeros_like(alone), alone),
    }[keys]
    weights = torch.rand(n, generator=generator) * 3 if weighed else None
    if weighed:
        weights[:5] = 0
    scale, bias = torch.tensor(12.0, requires_grad=True), torch.tensor(-3.0, requires_grad=True)
    rest = {"kind": kind, "bias": bias if kind == "siglip" else None, "same": same, "weights": weights}
    inputs = (a, b, scale, bias) if kind == "siglip" else (a, b, scale)
    near(results(contrastive(a, b, scale, block=block, **rest), inputs), results(defined(a, b, scale, **rest), inputs))


@pytest.mark.parametrize("n", [30, 1100])
@pytest.mark.parametrize(("start", "stretch"), [(100.0, -1.0), (90.0, 3.0), (1000.0, 1.0)])
def test_logits_of_any_size(n, start, stretch):
    """Rows opposite to their partners, rows that aren't unit vectors, temperatures beyond what exp can bear."""
    a, b = (x.detach() for x in gists(n, d=4, noise=0.01))
    a, b = (a * stretch).requires_grad_(), b.requires_grad_()
    scale = torch.tensor(start, requires_grad=True)
    rounding = 1e-5 * max(1, start / 100)  # a logit of 1000 has an error of 6e-5 in float32
    wanted = results(defined(a, b, scale, "infonce"), (a, b, scale))
    near(results(contrastive(a, b, scale), (a, b, scale)), wanted, 10 * rounding)


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_a_nearly_perfect_row_still_learns(kind):
    """The last 1e-6 of a loss isn't lost to rounding, as it is where the own logit is one of the sum."""
    a, b = gists(20, d=64, noise=0.1)
    scale, bias = torch.tensor(30.0, requires_grad=True), torch.tensor(-1.0) if kind == "siglip" else None
    found = results(contrastive(a, b, scale, kind=kind, bias=bias), (a, b))
    near(found, results(defined(a, b, scale, kind, bias), (a, b)), 1e-5, least=0)
    assert kind == "siglip" or 0 < found[0] < 1e-5


def test_one_far_row_is_not_lost():
    """A row far from all others underflows where one shift serves all, so rows and columns get their own."""
    a, b = (x.detach() for x in gists(40, d=8, noise=0.05))
    a[0], b[:] = F.normalize(-b.mean(0), dim=0), F.normalize(b + 30 * b.mean(0), dim=1)
    a.requires_grad_(), b.requires_grad_()
    scale = torch.tensor(100.0, requires_grad=True)
    found = results(contrastive(a, b, scale), (a, b, scale))
    near(found, results(defined(a, b, scale, "infonce"), (a, b, scale)))
    assert all(x.isfinite().all() for x in found)


def test_kept_blocks_change_nothing(monkeypatch):
    a, b = gists(300, d=8)
    scale = torch.tensor(14.0, requires_grad=True)
    whole = results(contrastive(a, b, scale), (a, b, scale))
    for kept in (0.0, 5.0, 1e9):
        monkeypatch.setattr(module, "CACHED_SHARE", kept)
        near(results(contrastive(a, b, scale, block=64), (a, b, scale)), whole)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is made while it is on, and of all that a call allocates."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return made


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
@pytest.mark.parametrize("keys", [False, True])
def test_no_tensor_of_all_pairs(kind, keys):
    n, d = 2048, 16
    a, b = gists(n, d)
    scale = torch.tensor(10.0, requires_grad=True)
    key = torch.arange(n) // 2
    with Largest() as largest:
        contrastive(a, b, scale, kind=kind, same=(key, key // 2) if keys else None, block=128).backward()
    assert 128 * 128 <= largest.elements <= 4 * n * d < n * n / 16


def test_gradients_scale_add_up_and_come_twice():
    a, b = gists(20)
    scale = torch.tensor(14.0, requires_grad=True)
    once = torch.autograd.grad(contrastive(a, b, scale), (a, b, scale))
    loss = contrastive(a, b, scale)
    first = torch.autograd.grad(3 * loss, (a, b, scale), retain_graph=True)
    second = torch.autograd.grad(3 * loss, (a, b, scale))
    near(first, [3 * x for x in once])
    near(second, first)
    contrastive(a, b, scale).backward()
    contrastive(a, b, scale).backward()
    near([a.grad, b.grad, scale.grad], [2 * x for x in once])


def test_only_what_is_asked_has_a_gradient():
    a, b = (x.detach() for x in gists(20))
    scale = torch.tensor(14.0)
    plain = contrastive(a, b, scale)
    assert not plain.requires_grad
    with torch.no_grad():
        near([contrastive(a.requires_grad_(), b, scale)], [plain])
    loss = contrastive(a, b, scale)
    loss.backward()
    assert a.grad.shape == a.shape and b.grad is None and scale.grad is None


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_bfloat16_products(kind):
    a, b = gists(200, d=64)
    scale = torch.tensor(14.0, requires_grad=True)
    exact = results(contrastive(a, b, scale, kind=kind), (a, b, scale))
    rounded = results(contrastive(a, b, scale, kind=kind, precision="bfloat16"), (a, b, scale))
    near(rounded, exact, 0.03)
    assert any((x - y).norm() > 1e-4 * y.norm() for x, y in zip(rounded, exact, strict=True))


def test_under_autocast_and_with_half_gists():
    a, b = gists(200, d=64)
    scale = torch.tensor(14.0, requires_grad=True)
    exact = results(contrastive(a, b, scale), (a, b, scale))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive(a, b, scale)
        assert loss.dtype == torch.float32
        near(results(loss, (a, b, scale)), exact)
        half = [x.detach().bfloat16().requires_grad_() for x in (a, b)]
        found = results(contrastive(*half, scale), (*half, scale))
    assert found[1].dtype == torch.bfloat16
    near(found, exact, 0.03)


def test_a_broken_row_shows():
    a, b = gists(20)
    broken = a.detach().clone()
    broken[3, 0] = math.nan
    for kind in ("infonce", "siglip"):
        assert contrastive(broken, b, torch.tensor(14.0), kind=kind).isnan()


def test_wrong_arguments():
    a, b = gists(4)
    scale = torch.tensor(14.0)
    plain = inspect.unwrap(contrastive)  # without the check of types that tests add
    for arguments, rest in (
        ((a, b[:3]), {}),
        ((a[:0], b[:0]), {}),
        ((a, b), {"bias": scale}),
        ((a, b), {"kind": "clip"}),
        ((a, b), {"weights": torch.ones(3)}),
        ((a, b), {"precision": "float16"}),
        ((a, b), {"same": (torch.arange(4), torch.arange(3))}),
    ):
        with pytest.raises(ValueError):
            plain(*arguments, scale, **rest)
