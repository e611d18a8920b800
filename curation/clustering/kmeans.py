"""k-means: fitted on a sample, assigned in blocks, the same on any number of threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.clustering.closest import squared_distance
from curation.clustering.leading import finder
from curation.clustering.lloyd import settle
from curation.clustering.passes import over
from curation.clustering.seeding import first_centres

__all__ = ["assign", "fit_centroids", "squared_distance"]

Vectors = NDArray[np.float32]


def fit_centroids(
    sample: NDArray[np.float32],
    k: int,
    *,
    iterations: int = 20,
    seed: int = 0,
    numbers: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Fit k-means centroids on a sample of the points.

    Parameters
    ----------
    sample
        (m, d) float32 points with m >= k.
    k
        Number of centroids.
    iterations
        Most Lloyd iterations; fewer where the cost has settled.
    seed
        Seed of the initial centroids. Same sample and seed: same centroids, on any number of
        threads.
    numbers
        (m,) permanent random numbers of the points: with them, a sample that has hardly changed
        starts from hardly other centroids. Left out, they are drawn by the seed.

    Returns
    -------
    ndarray
        (k', d) float32 distinct centroids; k' < k only where the sample has fewer than k distinct
        points.

    Raises
    ------
    ValueError
        If k is not in 1..m, or the sample holds NaN or infinity.
    """
    points = np.ascontiguousarray(sample, dtype=np.float32)
    if points.ndim != 2:
        raise ValueError(f"expected points of shape (m, d), got shape {points.shape}")
    m = len(points)
    if not 1 <= k <= m:
        raise ValueError(f"k = {k} clusters need between 1 and {m} (the number of points)")
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", points, points)))
    wrong = doubtful[~np.isfinite(points[doubtful]).all(axis=1)]
    if len(wrong):
        raise ValueError(f"point {wrong[0]} has a NaN or infinite coordinate")
    if len(doubtful):
        raise ValueError("the points are too large: their squares overflow float32; scale them")
    if numbers is None:
        numbers = np.asarray(np.random.default_rng([seed, 0x737461]).random(m))
    start = first_centres(points, k, numbers=numbers, seed=seed)
    start = start[np.sort(np.unique(start, axis=0, return_index=True)[1])]
    centroids = settle(points, start, iterations)
    first = np.sort(np.unique(centroids, axis=0, return_index=True)[1])
    return centroids[first]


def assign(
    block: NDArray[np.float32], centroids: NDArray[np.float32], *, approximate: bool = False
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign each point of a block to its nearest centroid, the first of equally near ones.

    The result does not depend on the size of the block or the number of threads: centroids that are
    closer to a tie than a product of low precision can tell are compared in float64.

    Parameters
    ----------
    block
        (m, d) float32 points.
    centroids
        (k, d) float32.
    approximate
        Whether, of many centroids, a point is compared only with those that are near along the
        centroids' leading axes (:class:`curation.clustering.leading.Leading`).

    Returns
    -------
    cluster
        (m,) int32 index of the nearest centroid.
    distance
        (m,) float32 squared Euclidean distance to it.
    """
    return over(finder(centroids, approximate=approximate), block)
