"""k-means with faiss: fitted on a sample, assigned in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.threads import count


def fit_centroids(
    sample: NDArray[np.float32], k: int, *, iterations: int = 20, seed: int = 0
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
        Seed of the initial centroids. Same sample, seed and thread count: same centroids.

    Returns
    -------
    ndarray
        (k, d) float32 centroids. Where the sample has fewer than k distinct points, some lie on
        top of each other; :func:`curation.clustering.summarise` drops those that stay empty.

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
    faiss.omp_set_num_threads(count())
    # The caller chose the sample: faiss must neither thin it out nor warn about its size.
    # k-means++: a random start leaves true clusters merged, even far apart ones.
    kmeans = faiss.Kmeans(
        d,
        k,
        niter=iterations,
        seed=seed,
        max_points_per_centroid=m,
        min_points_per_centroid=1,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    )
    kmeans.train(points)
    return np.asarray(kmeans.centroids, dtype=np.float32).reshape(k, d)


def assign(
    block: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Assign each point of a block to its nearest centroid.

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
        (m,) float32 squared Euclidean distance to it, never negative.
    """
    import faiss

    faiss.omp_set_num_threads(count())
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids, dtype=np.float32))
    distance, cluster = index.search(np.ascontiguousarray(block, dtype=np.float32), 1)
    return cluster[:, 0].astype(np.int32), np.maximum(distance[:, 0], 0.0)
