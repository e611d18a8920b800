"""k-means with faiss: fitted on a sample, assigned in blocks, the same on any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.clustering.seeding import first_centres
from curation.threads import count

# Float32 distances by matrix product are off by about 1e-6 of the squared norms, and by how much
# depends on the size of the block and the number of threads. Closer calls are decided in float64.
CLOSE = 1e-5
CANDIDATES = 8
CHUNK = 256


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
        Lloyd iterations.
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
    import faiss

    points = np.ascontiguousarray(sample, dtype=np.float32)
    if points.ndim != 2:
        raise ValueError(f"expected points of shape (m, d), got shape {points.shape}")
    m, d = points.shape
    if not 1 <= k <= m:
        raise ValueError(f"k = {k} clusters need between 1 and {m} (the number of points)")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"point {row} has a NaN or infinite coordinate")
    if not np.isfinite(np.einsum("ij,ij->i", points, points)).all():
        raise ValueError("the points are too large: their squares overflow float32; scale them")
    # One thread: matrix products of several are rounded differently, a close call flips, and twenty
    # iterations later every centroid is another. The sample is small; all rows use all threads.
    faiss.omp_set_num_threads(1)
    if numbers is None:
        numbers = np.asarray(np.random.default_rng([seed, 0x737461]).random(m))
    start = first_centres(points, k, numbers=numbers, seed=seed)
    start = start[np.sort(np.unique(start, axis=0, return_index=True)[1])]
    # The caller chose the sample: faiss must neither thin it out nor warn about its size.
    kmeans = faiss.Kmeans(
        d,
        len(start),
        niter=iterations,
        seed=seed,
        max_points_per_centroid=m,
        min_points_per_centroid=1,
    )
    # around the mean: far from the origin float32 distances are rounding
    middle = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    kmeans.train(points - middle, init_centroids=start - middle)
    faiss.omp_set_num_threads(count())
    centroids = np.asarray(kmeans.centroids, dtype=np.float32).reshape(len(start), d) + middle
    first = np.sort(np.unique(centroids, axis=0, return_index=True)[1])
    return centroids[first]


def assign(
    block: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign each point of a block to its nearest centroid, the first of equally near ones.

    The result does not depend on the size of the block or the number of threads: points whose two
    nearest centroids are closer to a tie than float32 can tell are decided in float64.

    Parameters
    ----------
    block
        (m, d) float32 points.
    centroids
        (k, d) float32.

    Returns
    -------
    cluster
        (m,) int32 index of the nearest centroid.
    distance
        (m,) float32 squared Euclidean distance to it, computed in float64.
    """
    import faiss

    faiss.omp_set_num_threads(count())
    points = np.ascontiguousarray(block, dtype=np.float32)
    centres = np.ascontiguousarray(centroids, dtype=np.float32)
    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(centres)
    found, cluster = index.search(points, min(2, len(centres)))
    nearest = cluster[:, 0].astype(np.int32)
    if len(centres) > 1:
        norms = np.einsum("ij,ij->i", points, points) + float((centres**2).sum(axis=1).max())
        close = np.flatnonzero(found[:, 1] - found[:, 0] <= CLOSE * norms)
        if len(close):
            nearest[close] = _decide(index, points[close], centres, CLOSE * norms[close])
    distance = np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), CHUNK):  # what is gathered stays in the cache
        part = slice(start, start + CHUNK)
        distance[part] = squared_distance(points[part], centres[nearest[part]])
    return nearest, distance


def squared_distance(
    points: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return (m,) float64 squared distances between the rows of two (m, d) arrays."""
    difference = np.subtract(points, others, dtype=np.float64)
    return np.einsum("ij,ij->i", difference, difference)


def _decide(
    index: Any,
    points: NDArray[np.float32],
    centres: NDArray[np.float32],
    reach: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Return the nearest centroid of each point, in float64.

    A few nearest candidates are compared; all centroids where even the last of those is within
    `reach` of the first.
    """
    wanted = min(CANDIDATES, len(centres))
    found, candidates = index.search(np.ascontiguousarray(points), wanted)
    candidates = np.sort(candidates, axis=1)  # equally near: the first
    distance = np.stack(
        [squared_distance(points, centres[candidates[:, j]]) for j in range(wanted)], axis=1
    )
    nearest = candidates[np.arange(len(points)), np.argmin(distance, axis=1)]
    if wanted < len(centres):
        for row in np.flatnonzero(found[:, -1] - found[:, 0] <= reach):
            every = np.broadcast_to(points[row], centres.shape)
            nearest[row] = np.argmin(squared_distance(every, centres))
    return nearest
