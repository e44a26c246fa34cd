"""The nearest of many vectors, exactly: products in tiles, the best of each few rows kept, and only those weighed in full.

It knows arrays, not models or files; the arrays may be mapped from files that are larger than the memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from sensorium.layers.precision import multiplies_bf16
from sensorium.layers.rounded import WEIGHTED, WIDE

GROUP = 32
"""Rows of which only the best score is kept: the k nearest of all lie in the k groups whose best are highest. They share what they are rounded by."""
TILE = 4096
"""Rows that are multiplied at once, so that their scores stay in the cache."""
SPARE = 2, 16
"""Groups that are weighed in full where the products are rough: so many times k, and so many more."""
FEW = 0.05
"""Share of the rows that may be found below which these are taken out and searched alone."""
ALONE, LONG = 8, 131_072
"""So many queries are multiplied by the rounded numbers themselves, so many rows at once: what counts then is how much is read."""
MANY = 64
"""Queries beyond which multiplying takes longer than reading, where the processor has no bf16 that would make up for more groups that are weighed in full."""
AT_ONCE = 73_728
"""Rows that are weighed in full together."""
MORE = 8
"""Times as many groups are weighed for a query where one that wasn't could hold a nearer row."""
SURE, BF16 = 4.0, 2.0**-8
"""Standard deviations of rounding that are reckoned with, and the share of a product that bf16 may take, of the query and of the result."""


class Rough(NamedTuple):
    """Vectors by which rows are chosen that are then weighed in full: a quarter of what is read.

    Attributes:
        numbers: int8 [n, d]; scales: float32 [n / 32], by which those of each ``GROUP`` rows are multiplied.
    """

    numbers: np.ndarray
    scales: np.ndarray


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None, rough: Rough | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose product with each query is largest.

    Args:
        queries: float32 [q, d]; vectors: float32 [n, d].
        allowed: bool [n]: rows that may be found; all by default.
        rough: the vectors rounded (``as_rough``), by which rows are chosen first.

    Returns:
        scores float32 [q, k] and rows int64 [q, k], best first; where fewer than k may be found, -inf and -1 at the end.
    """
    count, found = len(queries), np.flatnonzero(allowed) if allowed is not None else None
    scores, rows = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
    if found is not None and len(found) < max(FEW * len(vectors), 2 * GROUP):
        if len(found) and count:
            score, at = nearest(queries, np.ascontiguousarray(vectors[found]), k)
            scores, rows = score, np.where(at >= 0, found[at], -1)
        return scores, rows
    if not count or not len(vectors):
        return scores, rows
    asked, whole = torch.from_numpy(np.ascontiguousarray(queries, np.float32)), torch.from_numpy(vectors)
    if rough is None or (count > MANY and not multiplies_bf16()):
        rough, best, wanted = None, groups(asked, whole, allowed), k
    else:
        best, wanted = at_most(asked, rough, allowed), SPARE[0] * k + SPARE[1]
    left = np.arange(count)
    while len(left):
        chosen = best[left].topk(min(wanted + 1, best.shape[1]), dim=1)
        bound = chosen.values[:, wanted] if best.shape[1] > wanted else torch.full((len(left),), -torch.inf)
        step = max(1, AT_ONCE // (wanted * GROUP))
        for start in range(0, len(left), step):
            some = left[start : start + step]
            score, at = weighed(asked[some], whole, chosen.indices[start : start + step, :wanted], k, allowed)
            scores[some, : score.shape[1]], rows[some, : score.shape[1]] = score, at
        if rough is None:
            break
        left = left[scores[left, -1] < bound.numpy()]
        wanted *= MORE
        if len(left) and wanted * GROUP > FEW * len(vectors):
            scores[left], rows[left] = nearest(queries[left], vectors, k, allowed)
            break
    return scores, rows


def weighed(queries: torch.Tensor, vectors: torch.Tensor, chosen: torch.Tensor, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The best rows of each query's chosen groups [q, g], by the full product: scores and rows, -1 where no more may be found."""
    at = (chosen[..., None] * GROUP + torch.arange(GROUP)).flatten(1)
    there = at < len(vectors)
    at.clamp_(max=len(vectors) - 1)
    if allowed is not None:
        there &= torch.from_numpy(allowed)[at]
    score = torch.bmm(vectors[at.flatten()].view(*at.shape, -1), queries[..., None])[..., 0].masked_fill_(~there, -torch.inf)
    top = score.topk(min(k, score.shape[1]), dim=1)
    return top.values.numpy(), torch.where(top.values > -torch.inf, at.gather(1, top.indices), -1).numpy()


def at_most(queries: torch.Tensor, rough: Rough, allowed: np.ndarray | None) -> torch.Tensor:
    """What the best product of each ``GROUP`` rows with each query can be, [q, n / 32], by the products that are made of the rounded numbers.

    What rounding the d numbers of a vector by steps of s adds to its product with q is the sum of d errors as good as random, so it spreads by
    |q| s / √12; what bf16 adds is a share of the product.
    """
    scales = torch.from_numpy(rough.scales).clamp_min(1e-30)  # which leaves -inf what it is
    best = groups(queries, torch.from_numpy(rough.numbers), allowed) * scales
    if in_bf16(queries, rough.numbers):
        best = torch.maximum(best * (1 + BF16), best * (1 - BF16))
    return best.add_(SURE / 12**0.5 * queries.norm(dim=1, keepdim=True) * scales)


def groups(queries: torch.Tensor, vectors: torch.Tensor, allowed: np.ndarray | None) -> torch.Tensor:
    """The best score of each ``GROUP`` rows, float32 [q, n / 32].

    Whole numbers are brought by the tile to what this machine multiplies fastest, and only their eighth bits come from memory; a few queries are
    multiplied by them as they are.
    """
    (n, size), count = vectors.shape, len(queries)
    few = vectors.dtype == torch.int8 and as_they_are(count, size)
    kind = torch.bfloat16 if vectors.dtype == torch.int8 and in_bf16(queries, vectors) else torch.float32
    asked, tile = queries.to(kind), LONG if few else TILE
    turned, ones = asked.T.contiguous(), torch.ones(tile if few else 0, dtype=kind)
    brought, scored = (torch.empty((0 if few else tile, wide), dtype=kind) for wide in (size, count))  # once: the pages of each new one would cost a fifth
    result = torch.empty((-(-n // GROUP), count), dtype=kind)
    for start in range(0, n, tile):
        part = vectors[start : start + tile]
        if few:
            score = WEIGHTED(asked, part, ones[: len(part)]).T
        else:
            score = torch.mm(part if part.dtype == kind else brought[: len(part)].copy_(part), turned, out=scored[: len(part)])
        if allowed is not None:
            score.masked_fill_(~torch.from_numpy(allowed[start : start + tile])[:, None], -torch.inf)
        if short := -len(score) % GROUP:
            score = torch.cat([score, score.new_full((short, count), -torch.inf)])
        torch.amax(score.unflatten(0, (-1, GROUP)), 1, out=result[start // GROUP : start // GROUP + len(score) // GROUP])
    return result.T.float()


def as_they_are(count: int, size: int) -> bool:
    """Whether so many queries are multiplied by the rounded numbers without bringing these to another kind."""
    return count <= ALONE and size % WIDE == 0 and WEIGHTED is not None


def in_bf16(queries: torch.Tensor, vectors: torch.Tensor | np.ndarray) -> bool:
    """Whether products with rounded numbers are made in bf16."""
    return multiplies_bf16() or as_they_are(len(queries), vectors.shape[1])


def as_rough(vectors: np.ndarray) -> Rough:
    """float32 [n, d] in eight bits; a block that is to follow others begins with a ``GROUP`` of its own."""
    starts = np.arange(0, len(vectors), GROUP)
    scales = (np.maximum.reduceat(np.abs(vectors).max(1, initial=0.0), starts) if len(starts) else np.zeros(0)).astype(np.float32) / 127
    return Rough(np.rint(vectors / np.repeat(scales.clip(1e-30), GROUP)[: len(vectors), None]).astype(np.int8), scales)
