"""Of very many centroids, a nearby one without looking at all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.closest import Closest
from curation.clustering.lloyd import settle

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

MANY = 8192  # centroids from which groups pay
SHARE = 8  # of the centroids, one in so many is compared with a point
ITERATIONS = 8


def finder(centroids: Vectors, *, approximate: bool) -> Closest | Grouped:
    """Return what finds the nearest of some centroids, or of many, on wish, a nearby one."""
    if approximate and len(centroids) >= MANY:
        return Grouped(centroids)
    return Closest(centroids)


class Grouped:
    """Finds a centroid that is near, and mostly the nearest, in two steps.

    The centroids are clustered themselves. A point is compared with the middle of every group, and
    then with those centroids that are nearest to the middle it is nearest to. Which centroid is
    found depends on the point and the centroids alone: not on the block or the threads.

    Parameters
    ----------
    centroids
        (k, d) float32.
    """

    def __init__(self, centroids: Vectors) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        k = len(self.centroids)
        groups = int(np.ceil(2.0 * np.sqrt(k)))
        start = self.centroids[:: max(1, k // groups)][:groups]
        middles = settle(self.centroids, start, ITERATIONS)
        self._all = Closest(self.centroids)
        self._middles = Closest(middles)
        self._members = _nearest_to(middles, self.centroids, max(1, k // SHARE))

    def prepare(self, rows: int) -> None:
        """Choose the kind of product for that many points to come."""
        self._middles.prepare(rows)
        self._all.prepare(rows // SHARE)

    def near(self, points: Vectors) -> Rows:
        """Return (m,) a near centroid of each point."""
        found = np.empty(len(points), dtype=np.int64)
        step = 1024
        starts = range(0, len(points), step)
        parts = products.in_order(lambda at: self._middles(points[at : at + step]), starts)
        group = np.concatenate(list(parts))
        order = np.argsort(group, kind="stable")
        first = np.flatnonzero(np.diff(group[order], prepend=-1))

        def one(rows: Rows) -> tuple[Rows, Rows]:
            members = self._members[group[rows[0]]]
            return rows, members[self._all.among(members)(points[rows])]

        for rows, nearest in products.in_order(one, np.split(order, first[1:])):
            found[rows] = nearest
        return found

    def __call__(self, points: Vectors) -> Rows:
        """Return (m,) a near centroid of each point."""
        return self.near(points)


def _nearest_to(middles: Vectors, centroids: Vectors, number: int) -> Rows:
    """Return (g, number) the centroids nearest to each middle, in ascending order of index."""
    wide = centroids.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    with products.one_thread():  # threads round products differently
        apart = squares - 2.0 * (middles.astype(np.float64) @ wide.T)
    return np.sort(np.argpartition(apart, number - 1, axis=1)[:, :number], axis=1)
