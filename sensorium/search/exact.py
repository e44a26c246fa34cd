"""Exact nearest neighbours: products in tiles, the best of each group of rows, and full products of only these groups.

It knows arrays, not models or files; the arrays may be mapped from files that are larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from sensorium.nn.precision import multiplies_bf16
from sensorium.nn.quantized import INT8_ALIGNMENT, INT8_MATMUL

GROUP = 32
"""Rows of which only the best score is stored: the k nearest of all lie in the k groups whose best are highest.

A group shares the scale of its rounded numbers.
"""
TILE = 4096
"""Rows that are multiplied at once, so that their scores stay in the cache."""
FEW_ROWS = 0.05
"""Share of the rows that counts as few.

If fewer may be found, these are taken out and searched by themselves. If more would be rescored, all are multiplied in
full.
"""
MAX_INT8_QUERIES, INT8_TILE = 8, 131_072
"""Queries up to which the rounded numbers are multiplied as they are, and rows at once: reading then takes the time."""
AT_ONCE = 73_728
"""Rows that are rescored together."""
SURE, BF16 = 4.0, 2.0**-8
"""Bounds of rounding: standard deviations of int8's errors, and the share of a product that bf16 may lose."""


class CoarseVectors(NamedTuple):
    """Vectors in int8 by which rows are chosen that are then rescored in full: a quarter of what is read.

    Attributes:
        numbers: int8 [n, d]; scales: float32 [n / 32], by which those of each ``GROUP`` rows are multiplied.
    """

    numbers: np.ndarray
    scales: np.ndarray


def nearest(
    queries: np.ndarray,
    vectors: np.ndarray,
    k: int,
    allowed: np.ndarray | None = None,
    rough: CoarseVectors | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact nearest neighbours: the rows whose product with each query is largest.

    Args:
        queries: float32 [q, d]; vectors: float32 [n, d].
        allowed: bool [n]: rows that may be found; all by default.
        rough: the vectors rounded (``as_rough``), by which rows are chosen first.

    Returns:
        scores float32 [q, k] and rows int64 [q, k], best first; where fewer than k may be found, -inf and -1 at the
        end.
    """
    count, found = len(queries), np.flatnonzero(allowed) if allowed is not None else None
    scores, rows = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
    if found is not None and len(found) < max(FEW_ROWS * len(vectors), 2 * GROUP):
        if len(found) and count:
            score, at = nearest(queries, np.ascontiguousarray(vectors[found]), k)
            scores, rows = score, np.where(at >= 0, found[at], -1)
        return scores, rows
    if not count or not len(vectors):
        return scores, rows
    asked, whole = torch.from_numpy(np.ascontiguousarray(queries, np.float32)), torch.from_numpy(vectors)
    best = (
        groups(asked, whole, allowed)
        if rough is None
        else groups(asked, torch.from_numpy(rough.numbers), allowed, torch.from_numpy(rough.scales))
    )
    first = best.topk(min(k, best.shape[1]), dim=1).indices
    for some in parts(np.full(count, first.shape[1])):
        score, row = rescored(asked[some], whole, first[some], k, allowed)
        scores[some, : score.shape[1]], rows[some, : score.shape[1]] = score, row
    if rough is None or k > best.shape[1]:
        return scores, rows
    reach = (
        (best.scatter_(1, first, -torch.inf) >= torch.from_numpy(scores[:, -1:])).sum(1).numpy()
    )  # other groups that may hold a nearer row
    lost = np.flatnonzero(reach * GROUP > FEW_ROWS * len(vectors))
    if len(lost):
        scores[lost], rows[lost] = nearest(queries[lost], vectors, k, allowed)
        reach[lost] = 0
    left = np.argsort(reach)[(reach == 0).sum() :]  # those that reach as far together
    for part in parts(reach[left]):
        some = left[part]
        more = best[some].topk(int(reach[some].max()), dim=1).indices
        score, row = (
            np.concatenate(both, 1)
            for both in zip((scores[some], rows[some]), rescored(asked[some], whole, more, k, allowed), strict=True)
        )
        order = np.argsort(-score, axis=1, kind="stable")[:, :k]
        scores[some], rows[some] = np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1)
    return scores, rows


def parts(groups: np.ndarray) -> Iterator[slice]:
    """Split queries, whose numbers of groups to rescore grow, into batches that are rescored at once."""
    start = 0
    while start < len(groups):
        stop = start + max(1, AT_ONCE // (GROUP * int(groups[start])))
        while stop > start + 1 and (stop > len(groups) or (stop - start) * GROUP * int(groups[stop - 1]) > AT_ONCE):
            stop -= 1
        yield slice(start, stop)
        start = stop


def rescored(
    queries: torch.Tensor, vectors: torch.Tensor, chosen: torch.Tensor, k: int, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rescore the rows of each query's chosen groups [q, g] by the full product.

    Returns:
        scores and rows of the best, -1 where no more may be found.
    """
    at = (chosen[..., None] * GROUP + torch.arange(GROUP)).flatten(1)
    there = at < len(vectors)
    at.clamp_(max=len(vectors) - 1)
    if allowed is not None:
        there &= torch.from_numpy(allowed)[at]
    score = torch.bmm(vectors[at.flatten()].view(*at.shape, -1), queries[..., None])[..., 0].masked_fill_(
        ~there, -torch.inf
    )
    top = score.topk(min(k, score.shape[1]), dim=1)
    return top.values.numpy(), torch.where(top.values > -torch.inf, at.gather(1, top.indices), -1).numpy()


def groups(
    queries: torch.Tensor, vectors: torch.Tensor, allowed: np.ndarray | None, scales: torch.Tensor | None = None
) -> torch.Tensor:
    """Best product of each ``GROUP`` rows with each query, float32 [q, n / 32].

    Of rounded vectors and their ``scales`` [n / 32] it is an upper bound. Rounding the d numbers of a vector by steps
    of s adds to its product with q the sum of d errors as good as random, so it spreads by |q| s / √12; bf16 adds a
    share of the product. Whole numbers are cast by the tile to what this machine multiplies fastest, so that only their
    eight bits come from memory; a few queries are multiplied by them as they are.
    """
    (n, size), count = vectors.shape, len(queries)
    few = scales is not None and count <= MAX_INT8_QUERIES and size % INT8_ALIGNMENT == 0 and INT8_MATMUL is not None
    kind = torch.bfloat16 if few or (scales is not None and multiplies_bf16()) else torch.float32
    asked, tile = queries.to(kind), INT8_TILE if few else TILE
    turned, ones = asked.T.contiguous(), torch.ones(tile if few else 0, dtype=kind)
    brought, scored = (
        torch.empty((0 if few else tile, wide), dtype=kind) for wide in (size, count)
    )  # once: the pages of each new one would cost a fifth
    slack = SURE / 12**0.5 * queries.norm(dim=1)
    result = torch.empty(count, -(-n // GROUP))
    for start in range(0, n, tile):
        part = vectors[start : start + tile]
        if few:
            score = INT8_MATMUL(asked, part, ones[: len(part)]).T
        else:
            score = torch.mm(
                part if part.dtype == kind else brought[: len(part)].copy_(part), turned, out=scored[: len(part)]
            )
        if allowed is not None:
            score.masked_fill_(~torch.from_numpy(allowed[start : start + tile])[:, None], -torch.inf)
        if short := -len(score) % GROUP:
            score = torch.cat([score, score.new_full((short, count), -torch.inf)])
        top, at = (
            torch.amax(score.unflatten(0, (-1, GROUP)), 1).float(),
            slice(start // GROUP, (start + len(score)) // GROUP),
        )
        if scales is not None:
            step = scales[at, None].clamp_min(1e-30)  # which leaves -inf what it is
            top = torch.maximum(top * (1 + BF16), top * (1 - BF16)) if kind == torch.bfloat16 else top
            top = top.add_(slack).mul_(step)
        result[:, at] = top.T
    return result


def as_rough(vectors: np.ndarray) -> CoarseVectors:
    """Quantise float32 [n, d] to eight bits; a block that is to follow others begins with a ``GROUP`` of its own."""
    starts = np.arange(0, len(vectors), GROUP)
    scales = (np.maximum.reduceat(np.abs(vectors).max(1, initial=0.0), starts) if len(starts) else np.zeros(0)).astype(
        np.float32
    ) / 127
    return CoarseVectors(
        np.rint(vectors / np.repeat(scales.clip(1e-30), GROUP)[: len(vectors), None]).astype(np.int8), scales
    )
