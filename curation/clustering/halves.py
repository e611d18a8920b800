"""Scores in products of bfloat16: which centroids may be the nearest, for half the memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.scores import SLACK, UNIT, Rows, Vectors, Wide, decided

ROUNDING = 2.0**-8  # largest relative rounding error of bfloat16
FURTHER = 3  # numbers of bfloat16 that hold one of float32
ALIGNED = 32  # coordinates that a processor's tiles take at a time
EVERYONE = np.int16(-(2**15))  # no score is less


@dataclass(frozen=True)
class Half:
    """Scores in products of bfloat16 that are summed in float32 and rounded to bfloat16 again.

    Products of coordinates are exact, and half the centroids' squares are the sum of three numbers.
    With e the rounding error of a vector, scores are off by at most ``|e_x| |c| + |x| |e_c|``, of
    which ``|e_x| <= |x| / 256``, and by what sums and they themselves are rounded by.

    A constant is added to all scores so that their mean over the centroids is 0: a point's best one
    is not below that, and bits of numbers of bfloat16 that are not negative are in order as
    integers, which are compared in a quarter of the time. Where the bound reaches below 0, all
    centroids are candidates.

    Attributes
    ----------
    middle
        (d,) what is taken from points first; None where their mean is so near to the origin that
        it makes no difference.
    right
        (w, k) int16, bits of bfloat16: the centroids around their mean, and in further rows what
        is left of scores at the origin.
    norm, error
        Largest norm of rounded centroids around their mean, and of what rounding took off them.
    half
        The largest of what is in the further rows.
    """

    middle: Vectors | None
    right: NDArray[np.int16]
    norm: float
    error: float
    half: float

    @classmethod
    def of(cls, wide: Wide) -> Half:
        """Round what float32 scores are made of."""
        d, k = wide.right.shape
        left, middle = wide.right.astype(np.float64), wide.middle.astype(np.float64)
        near = float(np.linalg.norm(middle)) <= wide.radius
        right = np.zeros((-(-(d + FURTHER) // ALIGNED) * ALIGNED, k), dtype=np.int16)
        rounded = products.to_bfloat16(wide.right, out=right[:d])
        rest = 0.5 * np.square(left).sum(axis=0)
        if near:  # points are not centred: their score is x.c less this further term
            rest += middle @ left
        rest = rest.mean() - rest
        half = float(np.abs(rest).max())
        for row in right[d : d + FURTHER]:
            rest = rest - products.to_bfloat16(rest.astype(np.float32), out=row)
        return cls(
            None if near else wide.middle,
            right,
            SLACK * float(np.sqrt(np.square(rounded, dtype=np.float64).sum(axis=0).max())),
            SLACK * float(np.sqrt(np.square(left - rounded).sum(axis=0).max())),
            half,
        )

    def candidates(self, points: Vectors, limit: int, scratch: products.Scratch) -> Rows | None:
        """Return which of the (m, k) scores may be the largest of their row, None if too many."""
        m, d = points.shape
        width, k = self.right.shape
        if self.middle is not None:
            left = scratch.array("wide", (m, d), np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                points = np.subtract(points, self.middle, out=left)
        with np.errstate(over="ignore", invalid="ignore"):
            norm = np.sqrt(np.vecdot(points, points))
        if not np.isfinite(norm).all():
            return None
        rounded = scratch.array("rounded", (m, width), np.int16)
        products.round_to_bfloat16(points, out=rounded[:, :d])
        rounded[:, d:] = products.ONE
        scores = scratch.array("halves", (m, k), np.int16)
        products.halves(rounded, self.right, out=scores)
        mask = scratch.array("mask", (m, k), np.bool_)
        least = self._least(scores.max(axis=1), norm.astype(np.float64), d)
        np.greater_equal(scores, least[:, None], out=mask)
        found = np.flatnonzero(mask)
        return None if len(found) > limit else found

    def _least(
        self, best: NDArray[np.int16], norm: NDArray[np.float64], d: int
    ) -> NDArray[np.int16]:
        """Return (m,) what scores must be for the bound to leave them a chance."""
        error = ROUNDING * norm * (self.norm + self.error) + norm * self.error
        # what float32 takes off sums, squares and the mean
        error += 2.0 * (d + 16) * UNIT * (norm * self.norm + self.half)
        error += decided(norm, self.norm, d)
        own = products.from_bfloat16(best).astype(np.float64)
        least = own - SLACK * (2.0 * ROUNDING * np.abs(own) + 2.0 * error)
        found: NDArray[np.int16] = products.towards_zero(np.maximum(least, 0.0))
        return np.where(least > 0.0, found, EVERYONE)
