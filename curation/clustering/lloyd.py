"""Lloyd's iterations, until the cost has settled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.clustering.closest import Closest
from curation.clustering.passes import over, precision
from curation.clustering.seeding import SMALL

Vectors = NDArray[np.float32]

SETTLED = 1e-2  # share by which the cost must still fall for another iteration; with 1e-3 it takes
# twice the iterations, and the cost over all rows is 0.7% lower
CAREFUL = 1e-4  # the same where there is little to do: centroids still find their way to a small
# cluster that the start left merged


def settle(points: Vectors, centroids: Vectors, iterations: int) -> Vectors:
    """Return centroids after Lloyd's iterations (1982), until the cost has settled.

    Parameters
    ----------
    points
        (m, d) float32.
    centroids
        (k, d) float32 to start from. One that loses all its points moves to the point that is
        farthest from its own.
    iterations
        The most there are.
    """
    before = np.inf
    settled = CAREFUL if len(points) * len(centroids) <= SMALL else SETTLED
    for _ in range(iterations):
        closest = Closest(centroids)
        totals = np.zeros((len(centroids), points.shape[1] + 1), dtype=precision(closest))
        cluster, distance = over(closest, points, totals=totals)
        sizes = np.bincount(cluster, minlength=len(centroids))
        moved = totals[:, :-1] / np.maximum(sizes, 1)[:, None]
        centroids = (centroids + moved).astype(np.float32)
        cost = float(totals[:, -1].sum(dtype=np.float64))
        empty = np.flatnonzero(sizes == 0)
        if len(empty):
            _fill(centroids, empty, points, distance)
        elif cost >= (1.0 - settled) * before:
            break
        before = cost
    return centroids


def _fill(centroids: Vectors, empty: NDArray[np.int64], points: Vectors, distance: Vectors) -> None:
    """Move centroids nobody is nearest to to the points that are farthest from their own."""
    far = np.argsort(-distance, kind="stable")[: 8 * len(empty)]
    far = far[distance[far] > 0.0]
    far = far[np.sort(np.unique(points[far], axis=0, return_index=True)[1])][: len(empty)]
    centroids[empty[: len(far)]] = points[far]
