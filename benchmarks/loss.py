"""The contrastive loss alone, forward and backward in float32, against open_clip's ClipLoss: time and memory."""

from __future__ import annotations

from typing import Any

from benchmarks import Comparison, Metric, Side
from benchmarks._measure import memory_growth, seconds

WIDTH = 512
WANTED = {4096: (2.0, 4.0), 16384: (1.6, 16.0)}
"""Rows: how many times faster, and in which part of the memory."""


def comparisons(quick: bool) -> list[Comparison]:
    """Both batch sizes, and whether the gradients are the same."""
    found = []
    for n, (faster, smaller) in WANTED.items():
        if quick and n > 4096:
            continue
        metrics = Metric(key="ms", unit="ms", wanted=faster), Metric(key="MiB", unit="MiB", wanted=smaller)
        found.append(
            Comparison(
                name=f"loss of {n:,} rows",
                metrics=metrics,
                ours=Side(run="ours", arguments={"n": n}),
                peers={"open_clip": Side(run="open_clip", arguments={"n": n}, needs=("open_clip",))},
                repeats=2 if quick else 5,
            )
        )
        found.append(
            Comparison(
                name=f"its gradients, {n:,} rows",
                metrics=(Metric(key="relative difference", unit="", limit=1e-5),),
                ours=Side(run="difference", arguments={"n": n}, needs=("open_clip",)),
                repeats=1,
            )
        )
    return found


def gists(n: int) -> list[Any]:
    """Two sets of unit rows whose pairs are alike, and a learned scale."""
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(0)
    common = torch.randn(n, WIDTH, generator=generator)
    rows = [F.normalize(common + 2 * torch.randn(n, WIDTH, generator=generator), dim=1) for _ in range(2)]
    return [x.requires_grad_() for x in (*rows, torch.tensor(1 / 0.07))]


def measured(loss: Any, n: int) -> dict[str, float]:
    """Time and memory of the loss and its gradients."""
    loss(*gists(1500)).backward()  # threads and code are there before memory is watched
    inputs = gists(n)

    def step() -> None:
        for x in inputs:
            x.grad = None
        loss(*inputs).backward()

    memory = memory_growth(step)
    return {"ms": 1000 * seconds(step, warm=True), "MiB": memory}


def ours(n: int) -> dict[str, float]:
    """Sensorium's."""
    from sensorium.nn.losses.contrastive import contrastive

    return measured(contrastive, n)


def open_clip(n: int) -> dict[str, float]:
    """The peer's."""
    from open_clip.loss import ClipLoss

    return measured(ClipLoss(), n)


def difference(n: int) -> dict[str, float]:
    """The largest distance between a gradient (or the loss) of ours and of open_clip's, relative to its norm."""
    import torch
    from open_clip.loss import ClipLoss

    from sensorium.nn.losses.contrastive import contrastive

    inputs = gists(n)
    found = []
    for loss in (contrastive, ClipLoss()):
        value = loss(*inputs)
        found.append([value.detach(), *torch.autograd.grad(value, inputs)])
    return {"relative difference": max(float((x - y).norm() / y.norm()) for x, y in zip(*found, strict=True))}
