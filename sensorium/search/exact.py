"""The nearest of many vectors, exactly: products in tiles, the best of each few rows kept, and only those weighed in full.

It knows arrays, not models or files; the arrays may be mapped from files that are larger than the memory.
"""

from __future__ import annotations

import numpy as np
import torch

from sensorium.layers.precision import multiplies_bf16

GROUP = 32
"""Rows of which only the best score is kept: the k nearest of all lie in the k groups whose best are highest."""
TILE = 4096
"""Rows that are multiplied at once, so that their scores stay in the cache."""
SPARE = 2, 16
"""Groups that are weighed in full where the products are rough: so many times k, and so many more."""
FEW = 0.05
"""Share of the rows that may be found below which these are taken out and searched alone."""
ALONE = 4
"""So many queries are multiplied one by one in bf16 where a processor doesn't multiply it: what counts then is how much is read."""
AT_ONCE = 64
"""Queries whose rows are weighed in full together."""


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int, allowed: np.ndarray | None = None, rough: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose product with each query is largest.

    Args:
        queries: float32 [q, d]; vectors: float32 [n, d].
        allowed: bool [n]: rows that may be found; all by default.
        rough: the vectors in bf16, as uint16 [n, d], by which rows are chosen where that is faster.

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
    exact = rough is None or not (multiplies_bf16() or count <= ALONE)
    best = groups(asked, whole if exact else torch.from_numpy(rough).view(torch.bfloat16), allowed)
    wanted = min(best.shape[1], k if exact else SPARE[0] * k + SPARE[1])
    chosen = best.topk(wanted, dim=1, sorted=False).indices
    for start in range(0, count, AT_ONCE):
        some = slice(start, start + AT_ONCE)
        at = (chosen[some, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
        there = at < len(vectors)
        at.clamp_(max=len(vectors) - 1)
        if allowed is not None:
            there &= torch.from_numpy(allowed)[at]
        score = torch.bmm(whole[at.flatten()].view(*at.shape, -1), asked[some, :, None])[..., 0].masked_fill_(~there, -torch.inf)
        top = score.topk(min(k, score.shape[1]), dim=1)
        scores[some, : top.values.shape[1]] = top.values.numpy()
        rows[some, : top.values.shape[1]] = torch.where(top.values > -torch.inf, at.gather(1, top.indices), -1).numpy()
    return scores, rows


def groups(queries: torch.Tensor, vectors: torch.Tensor, allowed: np.ndarray | None) -> torch.Tensor:
    """The best score of each ``GROUP`` rows, [q, n / 32], in the precision of ``vectors``."""
    turned, n = queries.to(vectors.dtype).T.contiguous(), len(vectors)
    apart = vectors.dtype == torch.bfloat16 and not multiplies_bf16()
    result = torch.empty((-(-n // GROUP), len(queries)), dtype=vectors.dtype)
    for start in range(0, n, TILE):
        part = vectors[start : start + TILE]
        score = torch.stack([part @ one for one in turned.T.contiguous()], 1) if apart else part @ turned
        if allowed is not None:
            score.masked_fill_(~torch.from_numpy(allowed[start : start + TILE])[:, None], -torch.inf)
        if short := -len(score) % GROUP:
            score = torch.cat([score, score.new_full((short, len(queries)), -torch.inf)])
        torch.amax(score.view(-1, GROUP, len(queries)), 1, out=result[start // GROUP : start // GROUP + len(score) // GROUP])
    return result.T.contiguous()


def as_rough(vectors: np.ndarray) -> np.ndarray:
    """float32 [n, d] as bf16, uint16 [n, d]."""
    return torch.from_numpy(np.ascontiguousarray(vectors)).bfloat16().view(torch.uint16).numpy()
