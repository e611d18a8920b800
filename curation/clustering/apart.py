"""Squared distances between points, in float32 or, exact on any number of threads, whole steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation import products

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

PART = 1024  # points looked at together: they stay in the cache
MOST_WIDE = (2**31 - 1) // (2 * products.LEVELS) ** 2  # coordinates
MOST_TERMS = 64  # of a sum of integers before it is widened


@dataclass(frozen=True)
class Standard:
    """Some of the points around their mean, of a size whose squares neither vanish nor overflow.

    Far from the origin products cancel, and what is left of small distances is rounding. Points are
    made a part at a time: where only what they are rounded to is wanted, all of them are never
    there, and memory that nobody touches costs nothing.

    Attributes
    ----------
    points
        (n, d) float32.
    rows
        (m,) which of them; None for all.
    middle
        (d,) their mean.
    size
        The largest coordinate around it, 0 where all points are equal.
    """

    points: Vectors
    rows: Rows | None
    middle: Vectors
    size: np.float32

    @classmethod
    def of(cls, points: Vectors, rows: Rows | None = None) -> Standard:
        """Find the mean and the size of (n, d) points, or of some of them."""
        m, d = len(points) if rows is None else len(rows), points.shape[1]
        # in the first row the sums so far: rows are added to them one after another
        sums = np.zeros((min(m, PART) + 1, d))
        most, least = np.full(d, -np.inf, np.float32), np.full(d, np.inf, np.float32)
        for start in range(0, m, PART):
            part = _taken(points, rows, start, m)
            sums[1 : len(part) + 1] = part
            sums[0] = sums[: len(part) + 1].sum(axis=0)
            np.maximum(most, part.max(axis=0), out=most)
            np.minimum(least, part.min(axis=0), out=least)
        middle = (sums[0] / m).astype(np.float32)
        # rounding keeps the order: the largest difference is that of the largest coordinate
        size = max((most - middle).max(), (middle - least).max())
        return cls(points, rows, middle, size)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d)."""
        return len(self.points if self.rows is None else self.rows), self.points.shape[1]

    def parts(self) -> Iterator[tuple[slice, Vectors]]:
        """Yield which points they are, and (at most ``PART``, d) points that may be changed.

        The next ones take the same memory.
        """
        m, d = self.shape
        room = np.empty((min(m, PART), d), dtype=np.float32)
        for start in range(0, m, PART):
            part = _taken(self.points, self.rows, start, m)
            found = np.subtract(part, self.middle, out=room[: len(part)])
            if self.size > 0.0:
                found /= self.size
            yield slice(start, start + len(part)), found


def _taken(points: Vectors, rows: Rows | None, start: int, end: int) -> Vectors:
    which = slice(start, min(start + PART, end))
    return points[which] if rows is None else points[rows[which]]


class Float:
    """Squared distances in float32."""

    def __init__(self, standard: Standard) -> None:
        self.points = np.empty(standard.shape, dtype=np.float32)
        for rows, part in standard.parts():
            self.points[rows] = part
        self.squares = np.einsum("ij,ij->i", self.points, self.points)

    def distances(self, rows: Rows) -> Vectors:
        """Return (c, m) squared distances of all points to some of them, at least 0."""
        found = self.points[rows] @ self.points.T
        found *= -2.0
        found += self.squares
        found += self.squares[rows, None]
        np.maximum(found, 0.0, out=found)
        found[np.arange(len(rows)), rows] = 0.0  # to itself, whatever rounding says
        return found

    def sums(self, squared: Vectors) -> NDArray[np.float64]:
        """Return (c,) the sums of (c, m) squared distances."""
        return squared.sum(axis=1, dtype=np.float64)


class Whole:
    """Squared distances between points rounded to whole steps: exact, on any number of threads.

    The largest coordinate is as many steps as a byte holds. Of more than ``MOST_WIDE`` coordinates
    squared distances would overflow.

    Parameters
    ----------
    standard
        The points.
    use_bytes
        As of :class:`curation.products.Right`.
    few, many
        How many rows :meth:`distances` and :meth:`kept`, and :meth:`keep`, are asked for at most.
    """

    def __init__(self, standard: Standard, *, use_bytes: bool, few: int, many: int) -> None:
        m, d = standard.shape
        self.noise = d / 6.0  # what rounding adds to a squared distance, on average
        self._points = np.empty((m, d), dtype=np.int8)
        self._squares = np.empty(m, dtype=np.int32)
        exact = np.float32 if d * products.LEVELS**2 < 2**24 else np.float64
        for rows, part in standard.parts():
            part *= np.float32(products.LEVELS)
            np.rint(part, out=part)
            self._points[rows] = part
            self._squares[rows] = np.einsum("ij,ij->i", part, part, dtype=exact)
        self._right = products.Right(self._points, use_bytes=use_bytes)
        self._room = np.empty((few, m), dtype=np.int32)
        self._kept = np.empty((many, m), dtype=np.int32)
        self._rows = np.empty(0, dtype=np.int64)
        self._terms = min(max(MOST_WIDE // d, 1), MOST_TERMS)

    def distances(self, rows: Rows) -> NDArray[np.int32]:
        """Return (c, m) squared distances of all points to some of them, in steps."""
        found = self._room[: len(rows)]
        self._right.product(self._points[rows], out=found)
        return self._squared(found, rows)

    def keep(self, rows: Rows) -> None:
        """Multiply some of the points with all of them, for :meth:`kept`."""
        self._rows = rows
        self._right.product(self._points[rows], out=self._kept[: len(rows)])

    def kept(self, places: Rows) -> NDArray[np.int32]:
        """Return (c, m) squared distances of all points to some of those that were kept."""
        found = self._room[: len(places)]
        np.take(self._kept, places, axis=0, out=found, mode="clip")
        return self._squared(found, self._rows[places])

    def _squared(self, found: NDArray[np.int32], rows: Rows) -> NDArray[np.int32]:
        """Make squared distances of the products of points with some of them."""
        found *= -2
        found += self._squares
        found += self._squares[rows, None]
        return found

    def sums(self, squared: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return (c,) the sums of (c, m) squared distances.

        As many terms as can't overflow are summed without being widened one by one.
        """
        c, m = squared.shape
        end = m // self._terms * self._terms
        parts = squared[:, :end].reshape(c, self._terms, -1).sum(axis=1, dtype=np.int32)
        rest = squared[:, end:].sum(axis=1, dtype=np.int64)
        return parts.sum(axis=1, dtype=np.int64) + rest
