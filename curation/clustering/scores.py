"""Which centroids may be the nearest of a point: scores by products, and how far they are off.

With the centroids' mean as origin, the nearest centroid c of x is the one with the largest score
``x.c - |c|^2 / 2``. Errors of scores are bounded for each point, in the worst case.
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
NARROW = 32  # points of fewer coordinates, and fewer centroids, gain nothing from bytes


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
        error += decided(norm, self.radius, d)
        if scores.shape[1] < NARROW or len(odd):
            least = _below(scores.max(axis=1), error)
            return np.flatnonzero(_at_least(scores, least, scratch))
        return _leading(scores, error)


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
        return SLACK * (error + decided(norm.astype(np.float64), self.radius, d))


def decided(norm: Floats, radius: float, d: int) -> Floats:
    """Return (m,) by how much scores may differ of centroids that float64 holds equally near.

    Of these the first is the nearest, whichever scores say so. The last term is of numbers whose
    squares vanish in float32.

    Parameters
    ----------
    norm
        (m,) of the points around the centroids' mean.
    radius
        The largest norm of a centroid.
    d
        Coordinates.
    """
    return (d + 8) * 2.0**-53 * (norm**2 + radius**2) + 1e-30


def _below(best: Vectors, error: Floats) -> Vectors:
    """Return what a row's scores must reach if twice the error may lie between it and the best."""
    with np.errstate(over="ignore"):
        return (best - 2.0 * SLACK * error).astype(np.float32)


def _leading(scores: Vectors, error: Floats) -> Rows:
    """Return which of (m, k) scores, of which each is off by an error, may be their row's largest.

    Few rows have a second candidate: to look for the second best costs less than for all. Scores
    are changed.
    """
    here, best = np.arange(len(scores)), scores.argmax(axis=1)
    least = _below(scores[here, best], error)
    scores[here, best] = -np.inf
    several = np.flatnonzero(scores[here, scores.argmax(axis=1)] >= least)
    alone = best + here * scores.shape[1]
    if not len(several):
        return alone
    scores[here, best] = np.inf
    rows, columns = np.nonzero(scores[several] >= least[several, None])
    more = several[rows] * scores.shape[1] + columns
    return np.sort(np.concatenate([np.delete(alone, several), more]))


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
