"""A pass over points: the nearest centroid, the distance to it, and totals of every cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.closest import Closest
from curation.threads import count

if TYPE_CHECKING:
    from curation.clustering.leading import Leading

Totals = NDArray[np.float64] | NDArray[np.float32]
Vectors = NDArray[np.float32]

PIECE = 4096  # most rows that a thread takes at a time: threads take turns at every call
PIECE_VALUES = 1 << 21  # most float64 values that it leaves behind


def over(
    closest: Closest | Leading, block: Vectors, *, totals: Totals | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the nearest centroid of every point of a block, and add the points to their totals.

    Neither the block's size nor the number of threads makes a difference, to the last bit: points
    do not know of each other, and totals grow by one row after the other.

    Parameters
    ----------
    closest
        The centroids.
    block
        (m, d) float32.
    totals
        (k, d + 1) of float64, or float32, that is added to: of each cluster the sum of its points,
        measured from the centroid in :func:`precision`, and in the last column that of their
        squares.

    Returns
    -------
    cluster
        (m,) int32 index of the nearest centroid.
    distance
        (m,) float32 squared Euclidean distance to it.
    """
    points = np.ascontiguousarray(block, dtype=np.float32)
    m, d = points.shape
    cluster, distance = np.empty(m, dtype=np.int32), np.empty(m, dtype=np.float32)
    if not m:
        return cluster, distance
    size, pieces = _evenly(m, _most(d)), products.ahead() + 1
    room: list[Totals] = []  # the one given back last is taken first: its memory is at hand
    if totals is not None:
        rows_of = size + min(size, len(totals))
        room = [np.empty((rows_of, d + 1), totals.dtype) for _ in range(pieces)]
    closest.prepare(m)
    kind = precision(closest)
    centroids: NDArray[np.floating] = closest.centroids.astype(kind, copy=False)
    scratch = products.Scratch()

    def one(number: int) -> tuple[slice, Totals | None]:
        rows = slice(number * size, min((number + 1) * size, m))
        part = points[rows]
        own = closest(part)
        values = None if totals is None else room.pop()
        theirs = scratch.array("theirs", (len(part), d), kind)
        np.take(centroids, own, axis=0, out=theirs, mode="clip")
        at_hand = values is not None and values.dtype == kind
        apart = values[: len(part), :d] if values is not None and at_hand else theirs
        with np.errstate(over="ignore", under="ignore"):
            np.subtract(part, theirs, out=apart)
            squares = np.vecdot(apart, apart)
            cluster[rows], distance[rows] = own, squares
        if values is not None:
            own_values = values[: len(part), :d]
            if not at_hand:
                own_values[:] = apart
                squares = np.vecdot(own_values, own_values)
            values[: len(part), d] = squares
        return rows, values

    for rows, values in products.in_order(one, range(-(-m // size))):
        if totals is not None and values is not None:
            _add(totals, cluster[rows], values)
            room.append(values)
    return cluster, distance


def handed_over(rows: int, d: int, k: int) -> int:
    """Return how many bytes threads hold that add up totals of k clusters of a block."""
    size = min(rows, _most(d))
    return (products.ahead() + 1) * (size + min(size, k)) * (d + 1) * 8


def _most(d: int) -> int:
    """Return how many rows of d coordinates a piece holds at most."""
    return min(PIECE, max(PIECE_VALUES // (d + 1), 16))


def _evenly(rows: int, most: int) -> int:
    """Return the size of pieces of about as many rows each, as many pieces for every thread."""
    threads = count()
    if rows <= most:
        return rows
    return -(-rows // (-(-rows // (most * threads)) * threads))


def precision(closest: Closest | Leading) -> type:
    """Return in which numbers points are measured from their centroids.

    float32 says how far apart two vectors of float32 are to six digits, unless squares vanish or
    overflow.
    """
    return np.float32 if closest.tame else np.float64


def _add(totals: Totals, cluster: NDArray[np.int32], values: Totals) -> None:
    """Add rows to their clusters' totals, in order.

    A sparse product sums from the left: with a cluster's total so far as its first term, the
    result is that of one long sum.

    Parameters
    ----------
    totals
        (k, w) that is added to.
    cluster
        (m,) of each row.
    values
        (at least m + r, w): the rows, and room for the totals so far of their r clusters.
    """
    from scipy import sparse

    m = len(cluster)
    order = np.argsort(cluster, kind="stable")
    first = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    present = cluster[order[first]]
    r = len(present)
    np.take(totals, present, axis=0, out=values[m : m + r], mode="clip")
    terms = np.insert(order, first, m + np.arange(r))
    starts = np.append(first + np.arange(r), m + r)
    which = sparse.csr_array((np.ones(m + r, values.dtype), terms, starts), shape=(r, m + r))
    totals[present] = which @ values[: m + r]
