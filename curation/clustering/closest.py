"""The nearest centroid of every point, exact whatever the products are rounded to.

With the centroids' mean as origin, the nearest centroid c of x is the one with the largest score
``x.c - |c|^2 / 2``. A product of low precision gives scores with an error that is bounded for each
point; every centroid that may be the nearest within that bound is compared by its distance.
Products of another precision, and blocks and threads, change how many are compared, never which
one is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import products

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

UNIT = 2.0**-24  # relative rounding error of float32
SLACK = 1.01  # the bounds themselves are computed in float32
SCORES = 1 << 20  # scores looked at together: fewer calls weigh more than a smaller cache
FEWEST = 256  # points that are worth a product of their own
PAIRS = 512  # pairs whose distance is computed together
CROWDED = 24  # candidates to a point beyond which bytes are too coarse
GIVE_UP = 8  # how often that may be before they are not tried again
BYTES_FROM = 1 << 22  # multiply-adds of a block below which bytes are not worth their preparation
WORTHWHILE = 640  # centroids from which bytes gain more than it costs to round the points to them
NARROW = 32  # points of fewer coordinates, and fewer centroids, gain nothing from bytes


_ROOM = products.Scratch()  # for pairs


class Closest:
    """Finds the nearest of some centroids.

    Parameters
    ----------
    centroids
        (k, d) float32, finite.
    use_bytes
        Whether scores come from products of one-byte integers first; by default where that is
        faster. What is found is the same.
    """

    def __init__(self, centroids: Vectors, *, use_bytes: bool | None = None) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        self.k, self.d = self.centroids.shape
        self._wide = Wide.of(self.centroids)
        self._narrow: Narrow | None = None
        self._use_bytes = use_bytes
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
        wanted = self._use_bytes
        if wanted is None:
            work = float(rows) * self.k * self.d
            small = work < BYTES_FROM or self.k < WORTHWHILE or self.d < NARROW
            wanted = not small and products.bytes_pay(work)
        if not wanted:
            self._narrow = None
        elif self._narrow is None and self._wide.tame and not self.gave_up:
            self._narrow = Narrow.of(self._wide)

    def __call__(self, points: Vectors) -> Rows:
        """Return (m,) the nearest centroid of each point, the first of equally near ones."""
        found = np.zeros(len(points), dtype=np.int64)
        if self.k == 1 or self._wide.radius == 0.0:
            return found
        step = min(max(SCORES // self.k, FEWEST), 1024)
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
    if len(first) < len(rows):
        apart = _distances(points, others, rows, columns, np.float64)
        rows, columns = _cut(rows, columns, apart, 0.0)
        first = np.flatnonzero(np.diff(rows, prepend=-1))
    return rows[first], columns[first]


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


@dataclass(frozen=True)
class Wide:
    """Scores in float32.

    Attributes
    ----------
    middle
        (d,) the centroids' mean.
    right, halves
        (d, k) and (k,) float32: what is left of the centroids, and half their squares, around the
        middle of these.
    radius, half
        Largest norm of the centroids around their mean, and of the halved squares.
    """

    middle: Vectors
    right: Vectors
    halves: Vectors
    radius: float
    half: float

    @classmethod
    def of(cls, centroids: Vectors) -> Wide:
        """Prepare scores of (k, d) centroids."""
        middle = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
        left = np.subtract(centroids, middle, dtype=np.float64)
        half = 0.5 * np.einsum("ij,ij->i", left, left)
        radius = float(np.sqrt(2.0 * half.max()))
        half -= (half.max() + half.min()) / 2.0
        with np.errstate(over="ignore"):
            right = np.ascontiguousarray(left.T, dtype=np.float32)
            halves = half.astype(np.float32)
        return cls(middle, right, halves, radius, float(np.abs(half).max()))

    @cached_property
    def _extended(self) -> Vectors:
        """Return (d + 1, k): half the squares are a row of the product, not a pass after it."""
        return np.vstack([self.right, -self.halves])

    @property
    def tame(self) -> bool:
        """Whether squares of such numbers neither vanish nor overflow."""
        return 1e-12 < self.radius < 1e15

    def candidates(self, points: Vectors, scratch: products.Scratch) -> Rows:
        """Return which of the (m, k) scores may be the largest of their row."""
        m, d = points.shape
        extended = scratch.array("wide", (m, d + 1), np.float32)
        scores = scratch.array("scores", (m, self.right.shape[1]), np.float32)
        left, extended[:, d] = extended[:, :d], 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(points, self.middle, out=left)
            norm = SLACK * np.sqrt(np.vecdot(left, left).astype(np.float64))
            np.matmul(extended, self._extended, out=scores)
        odd = np.flatnonzero(~np.isfinite(norm)) if self.tame else np.arange(m)
        if len(odd):
            scores[odd] = 0.0  # beyond what float32 can square: all centroids are candidates
        error = (d + 9) * UNIT * (norm * self.radius + self.half)
        error += (d + 8) * 2.0**-53 * norm**2 + 1e-30
        best = scores.argmax(axis=1)
        here = np.arange(m)
        with np.errstate(over="ignore"):
            least = (scores[here, best] - 2.0 * SLACK * error).astype(np.float32)
        if scores.shape[1] < NARROW or len(odd):
            return np.flatnonzero(_at_least(scores, least, scratch))
        # Few rows have a second candidate: to look for the second best costs less than for all.
        scores[here, best] = -np.inf
        several = np.flatnonzero(scores[here, scores.argmax(axis=1)] >= least)
        alone = best + here * self.right.shape[1]
        if not len(several):
            return alone
        scores[here, best] = np.inf
        rows, columns = np.nonzero(scores[several] >= least[several, None])
        more = several[rows] * self.right.shape[1] + columns
        return np.sort(np.concatenate([np.delete(alone, several), more]))


@dataclass(frozen=True)
class Narrow:
    """Scores in products of one-byte integers.

    Points and centroids are extended by a few coordinates whose product is minus half the
    centroid's square, and rounded to multiples of a step: one for all centroids, one for each
    point. With e the rounding error of an extended vector, scores are off by at most ``|e_x| |c| +
    |x| |e_c| + |e_x| |e_c|`` (Cauchy and Schwarz): the worst case, so that no arrangement of points
    is decided wrongly.

    Attributes
    ----------
    middle
        (d,) the centroids' mean.
    right
        The centroids' integers, as the right side of a product.
    further, at
        How many coordinates are added, and a point's value there.
    step
        Size of a step of the centroids.
    norms, errors
        (k,) float32 norm of each extended centroid, and of its rounding error.
    """

    middle: Vectors
    right: products.Right
    further: int
    at: float
    step: float
    norms: Vectors
    errors: Vectors

    @property
    def radius(self) -> float:
        """The largest norm."""
        return float(self.norms.max())

    @classmethod
    def of(cls, wide: Wide, *, use_bytes: bool = True) -> Narrow:
        """Round what float32 scores are made of."""
        left = wide.right.T.astype(np.float64)
        half = -wide.halves.astype(np.float64)
        at = float(np.abs(left).max())
        further = int(np.clip(np.ceil(wide.half / at**2), 1, 64))
        # rows of the right side begin at multiples of what a processor loads at a time
        further += -(left.shape[1] + further) % 16
        extended = np.hstack([left, np.repeat(half[:, None] / (further * at), further, axis=1)])
        step = float(np.abs(extended).max()) / products.LEVELS
        whole = np.rint(extended / step)
        error = extended - whole * step
        return cls(
            wide.middle,
            products.Right(whole.astype(np.int8), use_bytes=use_bytes),
            further,
            at,
            step,
            _rounded_up(np.sqrt(np.einsum("ij,ij->i", extended, extended))),
            _rounded_up(np.sqrt(np.einsum("ij,ij->i", error, error))),
        )

    def candidates(
        self,
        points: Vectors,
        limit: int,
        scratch: products.Scratch,
        *,
        within: Floats | None = None,
    ) -> Rows | None:
        """Return which of the scores may be the largest of their row, or None if too many may.

        Parameters
        ----------
        points
            (m, d).
        limit
            How many they may be.
        scratch
            Room.
        within
            (m,) the error of scores apart from rounding; of the bound on that, half
            is allowed for then.
        """
        m, d = points.shape
        width = d + self.further
        left = scratch.array("left", (m, width), np.float32)
        np.subtract(points, self.middle, out=left[:, :d])
        left[:, d:] = self.at
        norm = np.sqrt(np.vecdot(left, left))
        if not np.isfinite(norm).all():
            return None
        step = np.maximum(left.max(axis=1), -left.min(axis=1)) / np.float32(products.LEVELS)
        left *= (np.float32(1.0) / step)[:, None]
        whole = scratch.array("whole", (m, width), np.float32)
        np.rint(left, out=whole)
        integers = scratch.array("integers", (m, width), np.int8)
        np.copyto(integers, whole, casting="unsafe")
        scores = scratch.array("whole scores", (m, len(self.right.rows)), np.int32)
        self.right.product(integers, out=scores)
        left -= whole
        off = np.sqrt(np.vecdot(left, left)) * step
        off += np.float32(4.0 * UNIT) * norm
        beside = self._beside(norm, d)
        bound = 2.0 * (self._error(off, norm, self.radius, float(self.errors.max())) + beside)
        within = bound if within is None else np.hypot(bound / 2.0, within)
        unit = step.astype(np.float64) * self.step
        first = scores.argmax(axis=1)
        best = scores[np.arange(m), first]
        least = best - np.minimum(np.ceil(within / unit) + 1.0, 1 << 30).astype(np.int32)
        found = np.flatnonzero(_at_least(scores, least, scratch))
        if len(found) > limit:
            return None
        if within is not bound or len(found) == m:
            return found
        # by their own norms, not by the largest of all
        rows, columns = np.divmod(found, len(self.norms))
        mine = self._error(off, norm, self.norms[first], self.errors[first]) + 2.0 * beside
        theirs = self._error(off[rows], norm[rows], self.norms[columns], self.errors[columns])
        behind = (best[rows] - scores.reshape(-1)[found]) * unit[rows]
        return found[behind <= mine[rows] + theirs]

    @staticmethod
    def _error(
        off: Vectors, norm: Vectors, radius: Vectors | float, error: Vectors | float
    ) -> Floats:
        """Return by how much scores may be off for rounding to whole steps.

        Parameters
        ----------
        off, norm
            Norms of what rounding took off extended points, and of these.
        radius, error
            Norms of extended centroids, and of what rounding took off them.
        """
        found: Floats = (SLACK * (off * radius + (norm + off) * error)).astype(np.float64)
        return found

    def _beside(self, norm: Vectors, d: int) -> Floats:
        """Return (m,) by how much they may be off for rounding of float32 and float64."""
        error = (4.0 * UNIT * self.radius) * norm.astype(np.float64)
        return SLACK * (error + (d + 8) * 2.0**-53 * np.square(norm, dtype=np.float64))


def _rounded_up(values: Floats) -> Vectors:
    """Return float32 that are not below the values."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _at_least(
    scores: NDArray[Any], least: NDArray[Any], scratch: products.Scratch
) -> NDArray[np.bool_]:
    """Return (m k,) which scores are at least as much as their row's least one of interest."""
    mask = scratch.array("mask", scores.shape, np.bool_)
    np.greater_equal(scores, least[:, None], out=mask)
    return mask.reshape(-1)
