"""Projection of rows to two dimensions: PCA or UMAP."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np

from sensorium.core.errors import UserError, unknown
from sensorium.search.exact import nearest

KINDS = ("pca", "umap")
LEADING = 64
"""Dimensions of the vectors that are looked at, the leading ones, which hold most."""
FITTED = 50_000
"""Rows that UMAP places; the others come to lie among their nearest."""
NEAR = 15
"""Rows that UMAP takes for a row's neighbours."""
BETWEEN = 3
"""Placed rows between which others are placed."""
MIN_ROWS = 10
"""Rows below which UMAP is replaced by the two leading dimensions."""


def check(kind: str) -> None:
    """Check that a projection can be computed.

    Raises:
        UserError: no such map, or its package isn't installed.
    """
    if kind not in KINDS:
        raise unknown("map:", kind, KINDS)
    if kind == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError(
            "The map 'umap' needs the package 'umap-learn', which isn't installed. "
            "Install it with: pip install sensorium[umap]"
        )


def umap(vectors: np.ndarray, has: np.ndarray) -> np.ndarray:
    """UMAP projection (McInnes et al. 2018, arXiv 1802.03426), float32 [n, 2].

    Args:
        vectors: [n, size], leading dimensions first. has: [n]; where it is False the result is zeros.
    """
    result, some = np.zeros((len(vectors), 2), np.float32), np.flatnonzero(has)
    fitted = some[:: max(1, -(-len(some) // FITTED))]
    leading = np.array(vectors[fitted, :LEADING])
    if len(fitted) < MIN_ROWS:
        result[fitted] = leading[:, :2]
        return result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it has a part that would like TensorFlow
        from umap import UMAP

    result[fitted] = UMAP(
        n_neighbors=min(NEAR, len(fitted) - 1), metric="cosine", random_state=0, n_jobs=1, init="pca"
    ).fit_transform(leading)
    others = np.setdiff1d(some, fitted, assume_unique=True)
    result[others] = between(np.array(vectors[others]), np.array(vectors[fitted]), result[fitted])
    return result


def between(vectors: np.ndarray, known: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolated places of rows [n, size]: the weighted mean of the nearest rows whose places [m, 2] are known."""
    if not len(vectors) or not len(known):
        return np.zeros((len(vectors), 2), np.float32)
    score, row = nearest(vectors, np.ascontiguousarray(known), min(BETWEEN, len(known)))
    weight = np.exp(20 * (score - score.max(1, keepdims=True)))[..., None]
    return ((weight * places[row]).sum(1) / weight.sum(1)).astype(np.float32)


def flat(vectors: np.ndarray) -> np.ndarray:
    """PCA projection of vectors [n, size] to their two principal components, [n, 2]."""
    middle = vectors - vectors.mean(0)
    return middle @ np.linalg.eigh(middle.T @ middle)[1][:, :-3:-1]


def framed(places: np.ndarray) -> np.ndarray:
    """Places [n, 2] scaled to about 0 to 1; outliers are clipped to the edge."""
    low, high = np.quantile(places, 0.001, axis=0), np.quantile(places, 0.999, axis=0)
    return ((places - low) / (high - low).clip(1e-9)).clip(-0.05, 1.05).round(4)
