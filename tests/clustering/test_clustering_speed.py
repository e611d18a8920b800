"""Speed as ratios of processor time within one run: bounds that only a mistake falls below.

Time on the clock would tell what else the machine does.
"""

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
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def test_assignment_keeps_up_with_the_matrix_product(rng):
    """At least 0.25 of the float32 product's rate at the best of five tries."""
    points = rng.normal(size=(8192, 256)).astype(np.float32)
    centroids = fit_centroids(points[:4000], 400, iterations=2)
    right, out = np.ascontiguousarray(centroids.T), np.empty((8192, 400), dtype=np.float32)
    finder = Closest(centroids, product="float32")
    rate = best(lambda: np.matmul(points, right, out=out)) / best(lambda: over(finder, points))
    assert rate >= 0.25


def test_fit_and_assignment_take_less_than_faiss(rng):
    """On a sample and then all points, at most 1.5 times what faiss takes for 25 iterations.

    (0.7 on these 20,000 points on a quiet machine; more points make it less.)
    """
    import faiss

    points = (rng.normal(size=(60, 256))[rng.integers(0, 60, 20_000)]).astype(np.float32)
    points += rng.normal(size=points.shape).astype(np.float32)

    def theirs() -> None:
        kmeans = faiss.Kmeans(256, 200, niter=25, max_points_per_centroid=20_000)
        kmeans.train(points)
        kmeans.index.search(points, 1)

    def ours() -> None:
        over(Closest(fit_centroids(points[:6400], 200)), points)

    ratio = best(ours, 3) / best(theirs, 3)
    assert ratio <= 1.5
