"""Speed as ratios within one run: bounds that only a mistake falls below."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from curation.clustering import fit_centroids
from curation.clustering.closest import Closest
from curation.clustering.passes import over


def best(run: Callable[[], object], tries: int = 5) -> float:
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_assignment_keeps_up_with_the_matrix_product(rng):
    """At least 0.4 of the float32 product's rate at the best of five tries."""
    points = rng.normal(size=(8192, 256)).astype(np.float32)
    centroids = fit_centroids(points[:4000], 400, iterations=2)
    right, out = np.ascontiguousarray(centroids.T), np.empty((8192, 400), dtype=np.float32)
    finder = Closest(centroids, use_bytes=False)
    rate = best(lambda: np.matmul(points, right, out=out)) / best(lambda: over(finder, points))
    assert rate >= 0.4


def test_fit_and_assignment_take_less_than_faiss(rng):
    """On half of the points and then all, at most as long as faiss with 25 iterations."""
    import faiss

    points = (rng.normal(size=(60, 128))[rng.integers(0, 60, 12_000)]).astype(np.float32)
    points += rng.normal(size=points.shape).astype(np.float32)

    def theirs() -> None:
        kmeans = faiss.Kmeans(128, 200, niter=25, max_points_per_centroid=12_000)
        kmeans.train(points)
        kmeans.index.search(points, 1)

    def ours() -> None:
        over(Closest(fit_centroids(points[:6000], 200)), points)

    assert best(ours, 3) <= best(theirs, 3)
