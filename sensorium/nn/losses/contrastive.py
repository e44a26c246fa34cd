"""Contrastive loss of two sets of gists (InfoNCE or SigLIP) in blocks, so that memory doesn't grow with n².

Logits are computed block by block and freed; gradients are computed in the forward pass, while the logits are at hand.
This file knows rows and content hashes, nothing of columns or modalities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Precision = Literal["float32", "bfloat16"]

CACHED_SHARE = 2.75
"""Blocks of the first pass are cached for the second up to this many times the size of both inputs; others are computed
again. So memory grows with n, and a small n computes no product twice."""
MAX_SINGLE_BLOCK = 1024
"""Rows up to which there is one block."""
MAX_EXPONENT = 87.0
"""Exponent above which exp overflows float32."""
MIN_SUM = 1e-30
"""Sum of shifted exponentials below which terms may have been lost to underflow."""


def contrastive(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    *,
    kind: Literal["infonce", "siglip"] = "infonce",
    bias: Tensor | None = None,
    same: tuple[Tensor, Tensor] | None = None,
    block: int | None = None,
    weights: Tensor | None = None,
    precision: Precision = "float32",
) -> Tensor:
    """Contrastive loss between two gists of each of n rows: a float32 scalar, with gradients to a, b, scale and bias.

    With logits l_ij = scale a_i·b_j, and P_i the positives of row i: i itself, and each j whose key in either set
    equals that of i (symmetric, not transitive):

    - infonce: the cross-entropy of softmax_j l_ij against the uniform distribution over P_i, and of softmax_j l_ji
      against the same, averaged over rows and halved (both directions as in CLIP, arXiv 2103.00020, fig. 3; several
      positives as in SupCon, arXiv 2004.11362, eq. 2).
    - siglip: the sum over all pairs of softplus(-z_ij (l_ij + bias)), divided by n, with z_ij = 1 where j is in P_i
      and -1 elsewhere (arXiv 2303.15343, alg. 1).

    Args:
        a, b: gists [n, d], unit rows (others are allowed).
        scale: the inverse temperature, a positive scalar.
        bias: a scalar added to SigLIP's logits.
        same: content hashes of what a's and b's rows were made of, int64 [n] each. None: a row is its only positive.
        block: rows and columns of a block; None chooses.
        weights: weight of each row [n], not negative and not all 0; in SigLIP a pair has the mean of its two rows'.
            Only ratios matter. None: all alike. It gets no gradient.
        precision: of matrix products; they add up in float32 in either, as do exponentials and logarithms.

    Raises:
        ValueError: shapes don't fit, or a bias is given to InfoNCE, which doesn't depend on it.
    """
    n = len(a)
    if a.ndim != 2 or a.shape != b.shape or not n:
        raise ValueError(f"a and b must have one shape [n, d] with n > 0, not {list(a.shape)} and {list(b.shape)}")
    if kind not in ("infonce", "siglip") or precision not in ("float32", "bfloat16"):
        raise ValueError(f"kind={kind!r} must be infonce or siglip, precision={precision!r} float32 or bfloat16")
    if bias is not None and kind == "infonce":
        raise ValueError("InfoNCE doesn't change with a bias: give none, or kind='siglip'")
    for value in (*(same or ()), *(() if weights is None else (weights,))):
        if value.shape != (n,):
            raise ValueError(f"same and weights must have shape [{n}], one value a row, not {list(value.shape)}")
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (a, b, scale, bias))
    return _Contrastive.apply(a, b, scale, bias, (kind, same, block, weights, precision), wanted)


class _Contrastive(torch.autograd.Function):
    """Loss and gradients at once: the logits that the gradients need are freed when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "n d"],
        scale: Float[Tensor, " ..."],
        bias: Float[Tensor, " ..."] | None,
        how: tuple,
        wanted: bool,
    ) -> Float[Tensor, ""]:
        loss, grads = _compute(a, b, scale, bias, *how, wanted)
        ctx.save_for_backward(a, b, scale, bias)
        ctx.how, ctx.grads = how, grads
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple:
        inputs = ctx.saved_tensors
        # Handed over, not copied, as they are large: whoever goes back a second time waits for them again.
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            _, grads = _compute(*inputs, *ctx.how, True)
        assert grads is not None
        return (
            *(None if x is None else g.mul_(given).to(x.dtype) for x, g in zip(inputs, grads, strict=True)),
            None,
            None,
        )


def _compute(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    kind: str,
    same: tuple[Tensor, Tensor] | None,
    block: int | None,
    weights: Tensor | None,
    precision: Precision,
    wanted: bool,
) -> tuple[Tensor, list[Tensor] | None]:
    """The loss and, if wanted, its gradients to a, b, scale and bias, in float32."""
    with torch.autocast(a.device.type, enabled=False):
        shapes = scale.shape, () if bias is None else bias.shape
        a, b, scale = a.detach().float(), b.detach().float(), scale.detach().float().reshape(())
        bias = torch.zeros_like(scale) if bias is None else bias.detach().float().reshape(())
        share = (
            a.new_full((len(a),), 1 / len(a)) if weights is None else weights.detach().float() / weights.float().sum()
        )
        blocks, positives = LossBlocks(a, b, block, precision), Positives(same, len(a))
        # First as if a row had no positive but itself. Its own logit stays separate from the others: what distinguishes
        # a nearly perfect row from a perfect one would drown in the sum.
        own = torch.linalg.vecdot(a, b) * scale
        if kind == "infonce":
            others, grad_a, grad_b = _softmax(blocks, own, scale, share, wanted)
            rows, columns = others
            loss = ((share * F.softplus(rows - own)).sum() + (share * F.softplus(columns - own)).sum()) / 2
            pull = (share * torch.sigmoid(rows - own) + share * torch.sigmoid(columns - own)) / 2
            push, each = torch.zeros_like(scale), share / positives.count(share)
        else:
            loss, push, grad_a, grad_b = _sigmoid(blocks, bias, scale, share, weights is None, wanted)
            loss += (share * F.softplus(-own - bias)).sum()
            pull, each = share * torch.sigmoid(-own - bias), share
        if grad_a is not None and grad_b is not None:
            grad_a.addcmul_(b, pull[:, None], value=-1)
            grad_b.addcmul_(a, pull[:, None], value=-1)
        loss -= scale * positives.correct(a, b, share, each, grad_a, grad_b)
        if kind == "siglip":
            more = ((positives.count(share) - 1) * share).sum()
            loss -= bias * more
            push = push - pull.sum() - more
        if grad_a is None or grad_b is None:
            return loss, None
        grad_scale = torch.linalg.vecdot(a, grad_a).sum().reshape(shapes[0])
        return loss, [grad_a.mul_(scale), grad_b.mul_(scale), grad_scale, (scale * 0 + push).reshape(shapes[1])]


def _softmax(
    blocks: LossBlocks, own: Tensor, scale: Tensor, share: Tensor, wanted: bool
) -> tuple[tuple[Tensor, Tensor], Tensor | None, Tensor | None]:
    """Logsumexp of each row's and each column's logits but its own, and their gradients to a and b (over scale).

    One exponential serves rows and columns: all logits are shifted alike, which is safe unless all of a row or column
    lies far below the largest logit there could be.
    """
    a, b, log2 = blocks.a, blocks.b, math.log(2)
    bound = scale * torch.linalg.vector_norm(a, dim=1).max() * torch.linalg.vector_norm(b, dim=1).max()
    shift = max(0.0, float(bound) + math.log(len(a)) - MAX_EXPONENT)

    def exponentials(keep: int = 0, again: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
        for i, j, x, cached in blocks.logits(scale / log2, keep, again):
            if not cached:
                x = x.sub_(shift / log2) if shift else x
                x.exp2_()  # on CPU several times faster than exp_
            yield i, j, x

    rows, columns = torch.zeros_like(share), torch.zeros_like(share)
    for i, j, e in exponentials(keep=int(CACHED_SHARE * (a.numel() + b.numel())) if wanted else 0):
        rows[i] += e.sum(1)
        columns[j] += e.sum(0)
    self = (own - shift).exp()
    if not torch.minimum(rows + self, columns + self).min() > MIN_SUM:
        return _softmax_separate(blocks, own, scale, share, wanted)
    others = rows.log() + shift, columns.log() + shift
    if not wanted:
        return others, None, None
    rows, columns = (share / 2 / (rows + self))[:, None], share / 2 / (columns + self)
    grad_a, grad_b = torch.empty_like(a), torch.empty_like(b)
    for i, j, e in exponentials(again=True):
        blocks.add(grad_a, grad_b, i, j, e.mul_(rows[i] + columns[j]))
    return others, grad_a, grad_b


def _softmax_separate(
    blocks: LossBlocks, own: Tensor, scale: Tensor, share: Tensor, wanted: bool
) -> tuple[tuple[Tensor, Tensor], Tensor | None, Tensor | None]:
    """Result of ``_softmax`` for logits of any size: rows and columns have exponentials of their own."""
    rows, columns = torch.full_like(share, -math.inf), torch.full_like(share, -math.inf)
    for i, j, x, _ in blocks.logits(scale):
        rows[i] = torch.logaddexp(rows[i], x.logsumexp(1))
        columns[j] = torch.logaddexp(columns[j], x.logsumexp(0))
    others = rows, columns
    if not wanted:
        return others, None, None
    rows, columns = torch.logaddexp(rows, own)[:, None], torch.logaddexp(columns, own)
    grad_a, grad_b, half = torch.empty_like(blocks.a), torch.empty_like(blocks.b), share / 2
    for i, j, x, _ in blocks.logits(scale):
        e = (x - rows[i]).exp_().mul_(half[i, None])
        e += x.sub_(columns[j]).exp_().mul_(half[j])
        blocks.add(grad_a, grad_b, i, j, e)
    return others, grad_a, grad_b


def _sigmoid(
    blocks: LossBlocks, bias: Tensor, scale: Tensor, share: Tensor, alike: bool, wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Weighted sum of softplus(logit + bias) over pairs of different rows, and its gradients to bias, a and b."""
    loss, push = torch.zeros_like(scale), torch.zeros_like(scale)
    grad_a, grad_b = (torch.empty_like(blocks.a), torch.empty_like(blocks.b)) if wanted else (None, None)
    for i, j, x, _ in blocks.logits(scale):
        weight = share[0] if alike else (share[i, None] + share[j]) / 2
        x += bias
        loss += (F.softplus(x) * weight).sum()
        if grad_a is not None and grad_b is not None:
            x.sigmoid_().mul_(weight)
            push += x.sum()
            blocks.add(grad_a, grad_b, i, j, x)
    return loss, push, grad_a, grad_b


class LossBlocks:
    """Logits of all pairs of rows, one block at a time, and the backward pass from their gradients.

    Those of a row with itself are -inf: they play no part here.
    """

    def __init__(self, a: Tensor, b: Tensor, block: int | None, precision: Precision) -> None:
        n, cpu = len(a), a.device.type == "cpu"
        # On CPU a block and what is done with it stay in the cache.
        tall, wide = (
            (block, block) if block else (n, n) if n <= MAX_SINGLE_BLOCK else (512, 1024) if cpu else (4096, 4096)
        )
        self.a, self.b, self.half = a, b, precision == "bfloat16"
        self.rows = [slice(i, min(i + tall, n)) for i in range(0, n, tall)]
        self.columns = [slice(j, min(j + wide, n)) for j in range(0, n, wide)]
        self.cached_blocks: list[Tensor] = []
        self.scratch: Tensor | None = None

    def logits(self, scale: Tensor, keep: int = 0, again: bool = False) -> Iterator[tuple[slice, slice, Tensor, bool]]:
        """Blocks of logits: rows, columns, scale a·bᵀ (overwritten by the next) and whether it is a cached one.

        Args:
            scale: factor on the cosines.
            keep: leave the first blocks in memory, up to so many elements, in the state the caller gives them.
            again: give cached blocks back, forgetting them.
        """
        cached = self.cached_blocks if again else []
        self.cached_blocks = []
        for i in self.rows:
            left = None
            for j in self.columns:
                if cached:
                    yield i, j, cached.pop(0), True
                    continue
                left = self.a[i] * scale if left is None else left
                shape = i.stop - i.start, j.stop - j.start
                if keep >= math.prod(shape):
                    keep -= math.prod(shape)
                    out = self.a.new_empty(shape)
                    self.cached_blocks.append(out)
                else:
                    keep = 0
                    if self.scratch is None:
                        self.scratch = self.a.new_empty(self.rows[0].stop * self.columns[0].stop)
                    out = self.scratch[: math.prod(shape)].view(shape)
                self.product(left, self.b[j].t(), out)
                low, high = max(i.start, j.start), min(i.stop, j.stop)
                if low < high:
                    out[low - i.start : high - i.start, low - j.start : high - j.start].fill_diagonal_(-math.inf)
                yield i, j, out, False

    def add(self, grad_a: Tensor, grad_b: Tensor, i: slice, j: slice, gradient: Tensor) -> None:
        """Carry a block's gradient back to a and b; every block must come once, in the order of ``logits``."""
        self.product(gradient, self.b[j], grad_a[i], more=j.start > 0)
        self.product(gradient.t(), self.a[i], grad_b[j], more=i.start > 0)

    def product(self, left: Tensor, right: Tensor, out: Tensor, more: bool = False) -> Tensor:
        """out = left @ right, or out += left @ right."""
        if not self.half:
            return torch.addmm(out, left, right, out=out) if more else torch.mm(left, right, out=out)
        # PyTorch's bfloat16 product on CPU also rounds its result.
        left, right = left.bfloat16(), right.bfloat16()
        part = torch.mm(left, right) if out.device.type == "cpu" else torch.mm(left, right, out_dtype=torch.float32)
        return out.add_(part) if more else out.copy_(part)


class Positives:
    """Positive pairs of rows: each row with itself, and rows of equal keys, stored as groups."""

    def __init__(self, same: tuple[Tensor, Tensor] | None, n: int) -> None:
        self.rows: Tensor | None = None
        """The rows with a positive other than themselves, [k]; None where there are none."""
        self.groups: list[tuple[int, Tensor, int]] = []
        """Signed groups [k] of these rows and how many there are: equal in a, plus in b, less in both."""
        if same is None:
            return
        found = [torch.unique(key, return_inverse=True, return_counts=True) for key in same]
        several = [counts.index_select(0, inverse) > 1 for _, inverse, counts in found]
        rows = torch.nonzero(several[0] | several[1]).squeeze(1)
        if not len(rows):
            return
        self.rows, both = rows, torch.zeros_like(rows)
        for _, inverse, counts in found:
            if len(counts) < n:
                group = inverse.index_select(0, rows)
                self.add(1, group)
                both = both * n + group
        if len(self.groups) == 2:  # else rows equal in both are equal in one, or only themselves
            self.add(-1, both)

    def add(self, sign: int, keys: Tensor) -> None:
        """Groups of equal keys [k]."""
        distinct, group = torch.unique(keys, return_inverse=True)
        self.groups.append((sign, group, len(distinct)))

    def count(self, like: Tensor) -> Tensor:
        """Number of positives of each row, [n]."""
        count = torch.ones_like(like)
        if self.rows is not None:
            ones = like.new_ones(len(self.rows))
            count[self.rows] = sum(
                sign * like.new_zeros(size).index_add_(0, group, ones).index_select(0, group)
                for sign, group, size in self.groups
            )
        return count

    def correct(
        self, a: Tensor, b: Tensor, own: Tensor, each: Tensor, grad_a: Tensor | None, grad_b: Tensor | None
    ) -> Tensor:
        """Sum of the cosines of positive pairs beyond those of rows with themselves; a scalar.

        A pair counts (each_i + each_j) / 2, a row with itself own_i. Gradients are subtracted from the given ones.
        """
        total, width = a.new_zeros(()), a.shape[1]
        if self.rows is None:
            return total
        own, each, a, b = (x.index_select(0, self.rows) for x in (own[:, None], each[:, None], a, b))
        total -= (own * a * b).sum()
        if grad_a is not None and grad_b is not None:
            grad_a.index_add_(0, self.rows, own * b)
            grad_b.index_add_(0, self.rows, own * a)
        pairs = torch.cat([a, a * each], 1), torch.cat([b, b * each], 1)
        for sign, group, size in self.groups:
            sum_a, sum_b = (x.new_zeros(size, 2 * width).index_add_(0, group, x) for x in pairs)
            total += sign / 2 * torch.linalg.vecdot(sum_a, sum_b.roll(width, 1)).sum()
            for grad, sums in ((grad_a, sum_b), (grad_b, sum_a)):
                if grad is not None:
                    plain, weighted = sums.index_select(0, group).split(width, 1)
                    grad.index_add_(0, self.rows, weighted.addcmul_(plain, each), alpha=-sign / 2)
        return total
