"""One pass over all points: cluster sizes, costs and medoids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.clustering.kmeans import assign


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
    """

    centroids: NDArray[np.float32]
    medoids: NDArray[np.float32]
    medoid_rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    centroid_cost: NDArray[np.float64]
    medoid_cost: NDArray[np.float64]
    rank: NDArray[np.int32]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.sizes)


def summarise(
    blocks: Iterable[NDArray[np.float32]], centroids: NDArray[np.float32]
) -> ClusterSummary:
    """Assign every point and keep, per cluster, its size, costs and medoid.

    The cost to the medoid m needs no second pass: with the members' sum S and their sum of squares
    Q it is ``Q - 2 m.S + size |m|^2``, kept in float64.

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
    k, d = centroids.shape
    sizes = np.zeros(k, dtype=np.int64)
    sums = np.zeros((k, d), dtype=np.float64)
    squares = np.zeros(k, dtype=np.float64)
    cost = np.zeros(k, dtype=np.float64)
    nearest = np.full(k, np.inf, dtype=np.float64)
    rows = np.full(k, -1, dtype=np.int64)
    medoids = np.zeros((k, d), dtype=np.float32)
    start = 0
    for block in blocks:
        cluster, distance = assign(block, centroids)
        order = np.argsort(cluster, kind="stable")
        present, first = np.unique(cluster[order], return_index=True)
        members = block[order].astype(np.float64)
        sizes[present] += np.diff(np.append(first, len(order)))
        sums[present] += np.add.reduceat(members, first, axis=0)
        squares[present] += np.add.reduceat(np.einsum("ij,ij->i", members, members), first)
        cost[present] += np.add.reduceat(distance[order].astype(np.float64), first)
        # lexsort: within a cluster by distance, ties by row, so that the result does not
        # depend on the size of the blocks.
        best = np.lexsort((np.arange(len(block)), distance, cluster))
        best = best[np.unique(cluster[best], return_index=True)[1]]
        better = distance[best] < nearest[present]
        nearest[present[better]] = distance[best[better]]
        rows[present[better]] = start + best[better]
        medoids[present[better]] = block[best[better]]
        start += len(block)
    if start == 0:
        raise ValueError("there are no points to cluster")
    wide = medoids.astype(np.float64)
    medoid_cost = (
        squares
        - 2.0 * np.einsum("ij,ij->i", wide, sums)
        + sizes * np.einsum("ij,ij->i", wide, wide)
    )
    keep = sizes > 0
    return ClusterSummary(
        centroids=centroids[keep],
        medoids=medoids[keep],
        medoid_rows=rows[keep],
        sizes=sizes[keep],
        centroid_cost=cost[keep],
        medoid_cost=np.maximum(medoid_cost[keep], 0.0),
        rank=_rank(medoids[keep]),
    )


def _rank(medoids: NDArray[np.float32]) -> NDArray[np.int32]:
    """Place of each medoid along the first principal axis, its sign fixed."""
    centred = medoids.astype(np.float64) - medoids.mean(axis=0, dtype=np.float64)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))] or 1.0)
    rank = np.empty(len(medoids), dtype=np.int32)
    rank[np.argsort(centred @ axis, kind="stable")] = np.arange(len(medoids), dtype=np.int32)
    return rank
