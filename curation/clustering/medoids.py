"""One pass over all points: cluster sizes, costs and medoids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.clustering.leading import finder
from curation.clustering.passes import over, precision


@dataclass(frozen=True)
class ClusterSummary:
    """What one pass over the points found. Empty clusters are left out.

    Attributes
    ----------
    centroids
        (k, d) float32.
    medoids
        (k, d) float32: the member nearest to each centroid.
    medoid_rows
        (k,) int64: its position in the order in which the blocks came.
    sizes
        (k,) int64 members.
    centroid_cost, medoid_cost
        (k,) float64 sums of squared distances of the members to the centroid and to the medoid.
    rank
        (k,) int32 place of each cluster along the first principal axis of the medoids: clusters
        that are close in rank are close in space, which a systematic draw profits from.
    kept
        (k,) int64: which of the centroids that were asked about these are.
    """

    centroids: NDArray[np.float32]
    medoids: NDArray[np.float32]
    medoid_rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    centroid_cost: NDArray[np.float64]
    medoid_cost: NDArray[np.float64]
    rank: NDArray[np.int32]
    kept: NDArray[np.int64]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.sizes)


class Summariser:
    """Collects a :class:`ClusterSummary` block by block.

    The cost to the medoid m needs no second pass: with the members' sum S and their sum of squares
    Q it is ``Q - 2 m.S + size |m|^2``. All are measured from the centroid and kept in float64, so
    that little cancels also far from the origin. They are added row by row, so that the result is
    the same to the last bit whatever the blocks.

    Parameters
    ----------
    centroids
        (k, d) float32.
    approximate
        As in :func:`curation.clustering.assign`.
    """

    def __init__(self, centroids: NDArray[np.float32], *, approximate: bool = False) -> None:
        k, d = centroids.shape
        self.centroids = centroids
        self._closest = finder(centroids, approximate=approximate)
        self.sizes = np.zeros(k, dtype=np.int64)
        self.totals = np.zeros((k, d + 1), dtype=np.float64)  # of coordinates, and of squares
        self.nearest = np.full((k, 2), np.inf, dtype=np.float64)  # distance, then what breaks ties
        self.rows = np.full(k, -1, dtype=np.int64)
        self.medoids = np.zeros((k, d), dtype=np.float32)
        self.seen = 0

    def add(
        self, block: NDArray[np.float32], ties: NDArray[np.float64] | None = None
    ) -> NDArray[np.int32]:
        """Take in the next block and return the cluster of each of its points.

        Parameters
        ----------
        block
            (m, d) float32 points.
        ties
            (m,) numbers; of two members equally near to a centroid, the one with the smaller
            number is the medoid. Left out, the one that comes first.
        """
        cluster, distance = over(self._closest, block, totals=self.totals)
        numbers = self.seen + np.arange(len(block), dtype=np.float64) if ties is None else ties
        self.sizes += np.bincount(cluster, minlength=len(self.sizes))
        least = np.full(len(self.sizes), np.inf, dtype=np.float32)
        np.minimum.at(least, cluster, distance)
        best = np.flatnonzero(distance == least[cluster])
        best = best[np.lexsort((numbers[best], cluster[best]))]
        best = best[np.flatnonzero(np.diff(cluster[best], prepend=-1))]
        present = cluster[best]
        here = np.stack([distance[best].astype(np.float64), numbers[best]], axis=1)
        known = self.nearest[present]
        better = (here[:, 0] < known[:, 0]) | (
            (here[:, 0] == known[:, 0]) & (here[:, 1] < known[:, 1])
        )
        self.nearest[present[better]] = here[better]
        self.rows[present[better]] = self.seen + best[better]
        self.medoids[present[better]] = block[best[better]]
        self.seen += len(block)
        return cluster

    def finish(self) -> ClusterSummary:
        """Return what was found.

        Raises
        ------
        ValueError
            If there was no point at all.
        """
        if self.seen == 0:
            raise ValueError("there are no points to cluster")
        # rounded as members were, so that what is equal to the medoid cancels
        kind = precision(self._closest)
        wide = np.subtract(self.medoids, self.centroids, dtype=kind).astype(np.float64)
        squares = self.totals[:, -1]
        medoid_cost = (
            squares
            - 2.0 * np.einsum("ij,ij->i", wide, self.totals[:, :-1])
            + self.sizes * np.einsum("ij,ij->i", wide, wide)
        )
        kept = np.flatnonzero(self.sizes > 0)
        return ClusterSummary(
            centroids=self.centroids[kept],
            medoids=self.medoids[kept],
            medoid_rows=self.rows[kept],
            sizes=self.sizes[kept],
            centroid_cost=squares[kept],
            medoid_cost=np.maximum(medoid_cost[kept], 0.0),
            rank=_rank(self.medoids[kept]),
            kept=kept,
        )


def summarise(
    blocks: Iterable[NDArray[np.float32]], centroids: NDArray[np.float32]
) -> ClusterSummary:
    """Assign every point and keep, per cluster, its size, costs and medoid.

    Parameters
    ----------
    blocks
        (m_b, d) float32 blocks of points, in the order of the rows.
    centroids
        (k, d) float32.

    Raises
    ------
    ValueError
        If there is no point at all.
    """
    found = Summariser(centroids)
    for block in blocks:
        found.add(block)
    return found.finish()


def _rank(medoids: NDArray[np.float32]) -> NDArray[np.int32]:
    """Place of each medoid along the first principal axis, its sign fixed."""
    centred = medoids.astype(np.float64) - medoids.mean(axis=0, dtype=np.float64)
    wide = centred.shape[1] > len(centred)
    products = centred @ centred.T if wide else centred.T @ centred
    axis = np.linalg.eigh(products)[1][:, -1]  # of the largest eigenvalue
    axis = centred.T @ axis if wide else axis
    # Two classes' coordinates are as large as each other, one up, one down: rounding must not say
    # which of them is the largest.
    first = np.argmax(np.abs(axis) >= (1.0 - 1e-6) * np.abs(axis).max())
    axis = axis * np.sign(axis[first] or 1.0)
    rank = np.empty(len(medoids), dtype=np.int32)
    rank[np.argsort(centred @ axis, kind="stable")] = np.arange(len(medoids), dtype=np.int32)
    return rank
