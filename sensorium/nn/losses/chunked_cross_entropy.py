"""Chunked cross-entropy over many tokens and a large vocabulary: memory doesn't grow with tokens times words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 1 << 24
"""Logits in memory at a time; more are computed in chunks."""


def in_pieces(
    loss: Callable[[Tensor, Tensor], Tensor], hidden: Float[Tensor, "n width"], wanted: Int[Tensor, " n"], size: int
) -> Float[Tensor, " n"]:
    """Loss ``loss(hidden [n, width], wanted [n])`` of each token, [n], computed for ``size`` tokens at a time."""
    if len(wanted) <= size:
        return loss(hidden, wanted)
    again = torch.is_grad_enabled()
    return torch.cat(
        [
            checkpoint(loss, h, w, use_reentrant=False) if again else loss(h, w)
            for h, w in zip(hidden.split(size), wanted.split(size), strict=True)
        ]
    )


def cross_entropy(
    hidden: Float[Tensor, "n width"],
    weight: Float[Tensor, "words width"],
    wanted: Int[Tensor, " n"],
    scale: float = 1.0,
    cap: float = 0.0,
    size: int = 0,
) -> Float[Tensor, " n"]:
    """Loss of each token [n] of ``F.cross_entropy(hidden @ weight.T, wanted)``, ``size`` tokens at a time, with as few
    products as can be.

    Args:
        hidden: [n, width].
        weight: [words, width].
        wanted: [n].
        scale: factor on the logits.
        cap: bound within which they are then bent (Gemma's soft-capping); 0: none.
        size: tokens at a time; 0: as many as ``MAX_LOGITS`` allows.
    """
    dtype = (
        torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else hidden.dtype
    )
    return _CrossEntropy.apply(
        hidden.to(dtype), weight.to(dtype), wanted, scale, cap, size or max(1, MAX_LOGITS // len(weight))
    )


class _CrossEntropy(torch.autograd.Function):
    """Chunked cross-entropy with its own backward pass.

    Where the words' weights aren't trained the gradient is computed in the forward pass, so that no logit is computed
    twice. Else that of the first chunk is, and the other logits are computed again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "n width"],
        weight: Float[Tensor, "words width"],
        wanted: Int[Tensor, " n"],
        scale: float,
        cap: float,
        size: int,
    ) -> Float[Tensor, " n"]:
        losses, totals, gradients = [], [], []
        ctx.scale, ctx.cap, ctx.size = scale, cap, size
        ctx.at_once = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
        first = None
        for h, w in zip(hidden.split(size), wanted.split(size), strict=True):
            z = logits_of(h, weight, scale, cap)
            total = z.logsumexp(1)
            losses.append(total - z.gather(1, w.unsqueeze(1)).squeeze(1))
            totals.append(total)
            if ctx.at_once:
                gradients.append(logit_gradients(z, total, w, scale, cap).to(weight.dtype) @ weight)
            elif first is None and ctx.needs_input_grad[1]:
                first = logit_gradients(z, total, w, scale, cap)
        if ctx.at_once:
            ctx.save_for_backward(torch.cat(gradients))
        elif ctx.needs_input_grad[1]:
            ctx.save_for_backward(hidden, weight, wanted, torch.cat(totals), first)
        return torch.cat(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.at_once:
            (gradient,) = ctx.saved_tensors
            return (gradient * above.unsqueeze(1)).to(gradient.dtype), None, None, None, None, None
        hidden, weight, wanted, totals, first = ctx.saved_tensors
        gradients, into = [], torch.zeros_like(weight, dtype=torch.float32)
        for h, w, total, a in zip(*(x.split(ctx.size) for x in (hidden, wanted, totals, above)), strict=True):
            each = (
                logit_gradients(logits_of(h, weight, ctx.scale, ctx.cap), total, w, ctx.scale, ctx.cap)
                if gradients
                else first
            )
            each = (each * a.unsqueeze(1)).to(weight.dtype)
            gradients.append(each @ weight)
            into = torch.addmm(into, each.T, h) if weight.dtype == torch.float32 else into + each.T @ h
        return torch.cat(gradients), into.to(weight.dtype), None, None, None, None


def logits_of(
    hidden: Float[Tensor, "n width"], weight: Float[Tensor, "words width"], scale: float, cap: float
) -> Float[Tensor, "n words"]:
    """Logits in float, as a tensor of their own."""
    z = (hidden @ weight.T).float()
    if scale != 1:
        z.mul_(scale)
    return z.div_(cap).tanh_().mul_(cap) if cap else z


def logit_gradients(
    z: Float[Tensor, "n words"], total: Float[Tensor, " n"], wanted: Int[Tensor, " n"], scale: float, cap: float
) -> Float[Tensor, "n words"]:
    """Gradient of each token's loss in the product that its logits ``z`` came from, computed in the place of ``z``."""
    bent = 1 - (z / cap).square() if cap else None
    z.sub_(total.unsqueeze(1)).exp_()
    z[torch.arange(len(z), device=z.device), wanted] -= 1
    if bent is not None:
        z.mul_(bent)
    return z.mul_(scale) if scale != 1 else z
