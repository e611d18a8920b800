"""Made-up problems in which it is known what a position says about a score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

N = 20_000
D = 16
CLUSTERS = 40
SPREAD = 2.0
"""Standard deviation of the clusters' centres; that of the rows around them is 1."""
RARE = 3
RARE_ROWS = 60
"""Rows of each rare cluster, 0.3% of all."""
RARE_FACTOR = 50.0

Columns = dict[str, NDArray[np.generic]]
Floats = NDArray[np.float64]


def smooth() -> Columns:
    """Return a score that is a smooth function of position, with noise of 5%."""
    rng = np.random.default_rng([1, 0x62656E])
    points, _ = _clusters(rng, _sizes(rng, N, CLUSTERS))
    wave, slope = rng.normal(size=(2, D)) / np.sqrt(D) / SPREAD
    log_score = np.sin(2.0 * points @ wave) + 0.5 * points @ slope
    return _columns(points, np.exp(log_score) * rng.normal(1.0, 0.05, size=N).clip(0.0))


def heavy_tailed() -> Columns:
    """Return a score whose cluster means are lognormal (sigma 1.5), gamma (shape 4) within them."""
    rng = np.random.default_rng([2, 0x62656E])
    points, cluster = _clusters(rng, _sizes(rng, N, CLUSTERS))
    means = rng.lognormal(0.0, 1.5, size=CLUSTERS)
    return _columns(points, means[cluster] * _gamma(rng))


def rare_hard() -> Columns:
    """Return a score that is 50 times as large in three clusters of 60 rows each."""
    rng = np.random.default_rng([3, 0x62656E])
    common = _sizes(rng, N - RARE * RARE_ROWS, CLUSTERS - RARE)
    points, cluster = _clusters(rng, np.append(common, [RARE_ROWS] * RARE))
    factor = np.where(cluster >= CLUSTERS - RARE, RARE_FACTOR, 1.0)
    return _columns(points, factor * _gamma(rng))


def noise() -> Columns:
    """Return a lognormal score (sigma 1) that position says nothing about."""
    rng = np.random.default_rng([4, 0x62656E])
    points, _ = _clusters(rng, _sizes(rng, N, CLUSTERS))
    return _columns(points, rng.lognormal(0.0, 1.0, size=N))


def _sizes(rng: np.random.Generator, n: int, k: int) -> NDArray[np.int64]:
    """Return k unequal sizes, the largest some tens of times the smallest, that add up to n."""
    share = rng.lognormal(0.0, 0.8, size=k)
    ends = np.rint(np.cumsum(share) / share.sum() * n).astype(np.int64)
    return np.diff(ends, prepend=0)


def _clusters(
    rng: np.random.Generator, sizes: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64]]:
    """Return (n, D) points in random order and the number of each one's cluster."""
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.normal(0.0, SPREAD, size=(len(sizes), D))
    return centres[cluster] + rng.normal(size=(len(cluster), D)), cluster


def _gamma(rng: np.random.Generator) -> Floats:
    """Return (N,) positive numbers of mean 1 and standard deviation 1/2."""
    return rng.gamma(4.0, 0.25, size=N)


def _columns(points: Floats, score: Floats) -> Columns:
    return {"embeddings": points.astype(np.float32), "score": score}
