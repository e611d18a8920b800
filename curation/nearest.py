"""Nearest neighbours that do not hang on how products are rounded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from curation.threads import count

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

# Float32 distances by matrix product are off by about 1e-6 of the squared norms, by how much
# depends on the size of the block and the number of threads. Closer calls are decided in float64.
CLOSE = 1e-5
SPARE = 4  # neighbours looked at beyond those asked for
AT_A_TIME = 1 << 19  # float64 values that are worked out together


def nearest(points: Vectors, others: Vectors, *ends: int) -> Rows:
    """Return the nearest of `others` to each point, as sets: who is in and who is out is exact.

    Which are the nearest does not depend on the size of the block or the number of threads; of
    equally near ones the first are taken.

    Parameters
    ----------
    points
        (m, d) float32.
    others
        (r, d) float32.
    *ends
        Increasing sizes of the sets, none above r: with 4 and 10, the first 4 columns are the 4
        nearest, in ascending order, and the next 6 columns those that follow.

    Returns
    -------
    ndarray
        (m, ends[-1]) int64 indices into `others`.
    """
    import faiss

    faiss.omp_set_num_threads(count())
    points = np.ascontiguousarray(points, dtype=np.float32)
    others = np.ascontiguousarray(others, dtype=np.float32)
    index = faiss.IndexFlatL2(others.shape[1])
    index.add(others)
    looked_at = min(ends[-1] + SPARE, len(others))
    distance, found = index.search(points, looked_at)
    largest = float(np.einsum("ij,ij->i", others, others).max(initial=0.0))
    reach = CLOSE * (np.einsum("ij,ij->i", points, points) + largest)
    at = np.array([end for end in ends if end < len(others)], dtype=np.int64)
    close = (distance[:, at] - distance[:, at - 1] <= reach[:, None]).any(axis=1)
    crowded = np.zeros_like(close)  # more are as near as the last one looked at
    if looked_at < len(others):
        crowded = close & (distance[:, -1] - distance[:, ends[-1]] <= reach)
    for rows in _some(np.flatnonzero(close & ~crowded), looked_at * others.shape[1]):
        found[rows] = _by_distance(points[rows], others, np.sort(found[rows], axis=1))
    for rows in _some(np.flatnonzero(crowded), others.size):
        every = np.broadcast_to(np.arange(len(others)), (len(rows), len(others)))
        found[rows] = _by_distance(points[rows], others, every)[:, :looked_at]
    start = 0
    for end in ends:
        found[:, start:end].sort(axis=1)
        start = end
    return np.ascontiguousarray(found[:, : ends[-1]])


def _some(rows: Rows, values: int) -> Iterator[Rows]:
    """Yield pieces of rows; one of them takes so many values that pieces of them stay small."""
    step = max(1, AT_A_TIME // max(values, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _by_distance(points: Vectors, others: Vectors, candidates: Rows) -> Rows:
    """Return the (m, c) candidates of each point in the order of their distance, in float64."""
    apart = np.subtract(others[candidates], points[:, None], dtype=np.float64)
    exact = np.einsum("ijk,ijk->ij", apart, apart)
    return np.take_along_axis(candidates, np.argsort(exact, axis=1, kind="stable"), axis=1)
