"""The nearest centroid of every point, exact whatever the products are rounded to.

With the centroids' mean as origin, the nearest centroid c of x is the one with the largest score
``x.c - |c|^2 / 2``. A product of low precision gives scores with an error that is bounded for each
point; every centroid that may be the nearest within that bound is compared by its distance.
Products of another precision, and blocks and threads, change how many are compared, never which
one is found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.halves import Half
from curation.clustering.scores import NARROW, SLACK, UNIT, Narrow, Wide

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

SCORES = 1 << 20  # scores looked at together: fewer calls weigh more than a smaller cache
FEWEST, MOST = 256, 1024  # points of a product
MOST_HALVES = 4096  # the most of bfloat16, whose products take so little that calls weigh more
PAIRS = 2048  # pairs whose distance is computed together
CROWDED = 24  # candidates to a point beyond which bytes are too coarse
GIVE_UP = 8  # how often that may be before they are not tried again
NARROW_FROM = 1 << 22  # multiply-adds of a block below which others are not worth preparing
WORTHWHILE = 640  # centroids from which bytes gain more than it costs to round the points to them


_ROOM = products.Scratch()  # for pairs


class Closest:
    """Finds the nearest of some centroids.

    Parameters
    ----------
    centroids
        (k, d) float32, finite.
    product
        Which products scores come from first: of ``float32``, ``bfloat16`` or ``bytes``; by default
        the fastest. What is found is the same.
    """

    def __init__(self, centroids: Vectors, *, product: products.Kind | None = None) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        self.k, self.d = self.centroids.shape
        self._wide = Wide.of(self.centroids)
        self._narrow: Narrow | Half | None = None
        self._product = product
        self._crowded = 0
        self._scratch = products.Scratch()

    @property
    def tame(self) -> bool:
        """Whether distances between points and centroids can be computed in float32."""
        return self._wide.tame

    @property
    def gave_up(self) -> bool:
        """Whether bytes told too little of the points so far to be tried again."""
        return self._crowded >= GIVE_UP

    def prepare(self, rows: int) -> None:
        """Choose the kind of product for that many points to come, before threads share them."""
        wanted = self._product or self._fastest(rows)
        if wanted == "float32" or not self._wide.tame or self.gave_up:
            self._narrow = None
        elif wanted == "bytes" and not isinstance(self._narrow, Narrow):
            self._narrow = Narrow.of(self._wide)
        elif wanted == "bfloat16" and not isinstance(self._narrow, Half):
            self._narrow = Half.of(self._wide)

    def _fastest(self, rows: int) -> products.Kind:
        work = float(rows) * self.k * self.d
        if work < NARROW_FROM or min(self.k, self.d) < NARROW:
            return "float32"
        kind = products.fastest(work)
        return "float32" if kind == "bytes" and self.k < WORTHWHILE else kind

    def __call__(self, points: Vectors) -> Rows:
        """Return (m,) the nearest centroid of each point, the first of equally near ones."""
        found = np.zeros(len(points), dtype=np.int64)
        if self.k == 1 or self._wide.radius == 0.0:
            return found
        most = MOST_HALVES if isinstance(self._narrow, Half) else MOST
        step = min(max(most * SCORES // (MOST * self.k), FEWEST), most)
        for start in range(0, len(points), step):
            part = slice(start, start + step)
            found[part] = self._few(points[part])
        return found

    def _few(self, points: Vectors) -> Rows:
        """Return the nearest centroids of so few points that their scores stay in the cache."""
        limit = CROWDED * len(points)
        narrow = self._narrow
        pairs = None if narrow is None else narrow.candidates(points, limit, self._scratch)
        if pairs is None:
            if narrow is not None:
                self._crowded += 1  # threads may miss one of another: that costs time alone
                if self.gave_up:
                    self._narrow = None
            pairs = self._wide.candidates(points, self._scratch)
        rows, columns = np.divmod(pairs, self.k)
        if len(pairs) == len(points):
            return columns
        found = np.empty(len(points), dtype=np.int64)
        many = np.bincount(rows, minlength=len(points))[rows] > 1
        found[rows[~many]] = columns[~many]
        rows, columns = rows[many], columns[many]
        which, best = nearest_of(points, self.centroids, rows, columns)
        found[which] = best
        return found


def squared_distance(points: Vectors, others: Vectors) -> Floats:
    """Return (m,) float64 squared distances between the rows of two (m, d) arrays."""
    difference = np.subtract(points, others, dtype=np.float64)
    return np.einsum("ij,ij->i", difference, difference)


def nearest_of(points: Vectors, others: Vectors, rows: Rows, columns: Rows) -> tuple[Rows, Rows]:
    """Return the nearest candidate of each point that has any, the first of equally near ones.

    Distances in float32 are off by less than (d + 4) units of rounding, relative to themselves;
    what they leave open is decided in float64.

    Parameters
    ----------
    points, others
        (m, d) and (k, d).
    rows, columns
        (p,) which point, in ascending order, and which of the others, ascending for each point.

    Returns
    -------
    rows, columns
        (r,) the points that have candidates, and the nearest one of each.
    """
    with np.errstate(over="ignore", under="ignore"):
        apart = _distances(points, others, rows, columns, np.float32)
    relative = 2.0 * SLACK * (points.shape[1] + 4) * UNIT
    rows, columns = _cut(rows, columns, apart, relative)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    if len(first) == len(rows):
        return rows, columns
    several = np.diff(first, append=len(rows))
    left = np.repeat(several > 1, several)
    apart = _distances(points, others, rows[left], columns[left], np.float64)
    tied, nearest = _cut(rows[left], columns[left], apart, 0.0)
    found = columns[first]
    found[several > 1] = nearest[np.flatnonzero(np.diff(tied, prepend=-1))]
    return rows[first], found


def _cut(rows: Rows, columns: Rows, apart: NDArray[Any], relative: float) -> tuple[Rows, Rows]:
    """Return the pairs that are not farther apart than the nearest of their row."""
    np.nan_to_num(apart, copy=False, nan=np.inf, posinf=np.inf)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    best = np.minimum.reduceat(apart, first).astype(np.float64)
    # squares below the smallest normal number are lost in float32
    limit = best * (1.0 + relative) + (1e-30 if relative else 0.0)
    kept = apart <= np.repeat(limit, np.diff(first, append=len(rows)))
    return rows[kept], columns[kept]


def _distances(
    points: Vectors, others: Vectors, rows: Rows, columns: Rows, kind: type
) -> NDArray[Any]:
    found: NDArray[Any] = np.empty(len(rows), dtype=kind)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        shape = len(rows[part]), points.shape[1]
        one, two = (_ROOM.array(name, shape, np.float32) for name in ("points", "others"))
        np.take(points, rows[part], axis=0, out=one, mode="clip")
        np.take(others, columns[part], axis=0, out=two, mode="clip")
        if kind is np.float64:
            found[part] = squared_distance(one, two)
        else:
            one -= two
            found[part] = np.vecdot(one, one)
    return found
