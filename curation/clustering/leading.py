"""Of very many centroids, a near one without a product with all coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.closest import Closest, nearest_of
from curation.clustering.scores import Narrow, Wide

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

MANY = 8192  # centroids from which it pays
SHARE = 3  # of the axes, one in so many is looked along
NARROWEST = 96  # coordinates from which it pays
WITHIN = 1.0  # standard errors of a score's difference
CROWDED = 64  # most candidates to a point; one that has more goes the exact way


def finder(centroids: Vectors, *, approximate: bool) -> Closest | Leading:
    """Return what finds the nearest of some centroids, or of many, on wish, a near one."""
    k, d = centroids.shape
    if approximate and k >= MANY and d >= NARROWEST and Wide.of(centroids).tame:
        return Leading(centroids)
    return Closest(centroids)


class Leading:
    """Finds a centroid that is near, and mostly the nearest.

    Scores along the leading principal axes of the centroids say which may be the nearest: those
    within a standard error of the best, as the coordinates along the other axes are left out. These
    are compared by their distance. All products are of whole numbers, hence exact: which centroid
    is found depends on the point and the centroids alone, not on the block or the threads.

    Parameters
    ----------
    centroids
        (k, d) float32.
    """

    def __init__(self, centroids: Vectors) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        self.k, self.d = self.centroids.shape
        self._exact = Closest(self.centroids)
        self._middle = self.centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
        left = np.subtract(self.centroids, self._middle, dtype=np.float64)
        with products.one_thread():  # threads round products differently
            axes = np.linalg.eigh(left.T @ left)[1][:, -(self.d // SHARE) :]
            along = left @ axes
        self._step = float(np.abs(axes).max()) / products.LEVELS
        self._axes = np.rint(axes.T / self._step).astype(np.int8)
        self._along = along.astype(np.float32)
        rest = np.einsum("ij,ij->i", left, left) - np.einsum("ij,ij->i", along, along)
        self._rest = float(np.sqrt(np.median(np.maximum(rest, 0.0))))
        self._half = 0.5 * np.einsum("ij,ij->i", along, along)
        self._scratch = products.Scratch()
        self._ready = False

    @property
    def tame(self) -> bool:
        """Whether distances between points and centroids can be computed in float32."""
        return self._exact.tame

    def prepare(self, rows: int) -> None:
        """Choose the kind of product, before threads share the points."""
        self._exact.prepare(rows)
        if not self._ready:
            use_bytes = products.bytes_pay(float(rows) * self.k * self.d)
            half = self._half - (self._half.max() + self._half.min()) / 2.0
            wide = Wide(
                np.zeros(len(self._axes), dtype=np.float32),
                np.ascontiguousarray(self._along.T),
                half.astype(np.float32),
                float(np.sqrt(2.0 * self._half.max())),
                float(np.abs(half).max()),
            )
            self._right = products.Right(self._axes, use_bytes=use_bytes)
            self._narrow = Narrow.of(wide, use_bytes=use_bytes)
            self._ready = True

    def __call__(self, points: Vectors) -> Rows:
        """Return (m,) a near centroid of each point."""
        found = np.empty(len(points), dtype=np.int64)
        for start in range(0, len(points), 256):
            part = slice(start, start + 256)
            found[part] = self._few(points[part])
        return found

    def _few(self, points: Vectors) -> Rows:
        left = points - self._middle
        square = np.vecdot(left, left)
        step = np.abs(left).max(axis=1) / np.float32(products.LEVELS)
        if not np.isfinite(square).all():
            return self._exact(points)
        step[step == 0.0] = 1.0
        integers = np.rint(left / step[:, None]).astype(np.int8)
        whole = self._scratch.array("along", (len(points), len(self._axes)), np.int32)
        self._right.product(integers, out=whole)
        along = whole.astype(np.float32) * (step * np.float32(self._step))[:, None]
        rest = np.sqrt(np.maximum(square - np.vecdot(along, along), 0.0)).astype(np.float64)
        within = WITHIN * np.sqrt(2.0 / (self.d - len(self._axes))) * rest * self._rest
        every = len(points) * self.k
        pairs = self._narrow.candidates(along, every, self._scratch, within=within)
        if pairs is None:
            return self._exact(points)
        rows, columns = np.divmod(pairs, self.k)
        crowded = np.bincount(rows, minlength=len(points)) > CROWDED
        found = np.empty(len(points), dtype=np.int64)
        if crowded.any():
            found[crowded] = self._exact(points[crowded])
            rows, columns = rows[~crowded[rows]], columns[~crowded[rows]]
        found[~crowded] = nearest_of(points, self.centroids, rows, columns)[1]
        return found
