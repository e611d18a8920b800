"""Where k-means starts: k-means++ whose choices stay when rows come and go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import products

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

PLENTY = 56  # points to a centre from which half of them race: each step reads all that do, and
# half of 64 cost 0.0 to 0.4% more after Lloyd's iterations
SMALL = 1 << 20  # points times centres up to which time is no reason to be careless: of clusters
# that are 0.3% of the rows 5 in 60 had no centre, and 19 with half of the points and iterations
# that end at a hundredth
WIDE = 64  # coordinates from which distances are computed in whole steps
MANY = 1 << 18  # points times centres, likewise
COARSE = 50.0  # how many times their rounding error squared distances must be
SLOW = 6.0  # how much longer a multiply-add takes in float32 products of so few rows
GROUP = 64
CANDIDATES = 8  # points tried for each centre; the one that lowers the cost most is taken


def first_centres(points: Vectors, k: int, *, numbers: Floats, seed: int) -> Vectors:
    """Return k starting centres by greedy k-means++ (Arthur and Vassilvitskii, 2007).

    Each centre is drawn among the points with probability proportional to the squared distance to
    the nearest centre so far. The draw is a race: point i arrives at ``-ln(u_i) / d_i^2`` with its
    own number u_i for this step, and the first one wins. A point that comes or goes changes the
    winner only where it takes part in winning, so nearly the same points lead to nearly the same
    centres, which draws by a stream of random numbers would not. Of the first few to arrive, the
    one that lowers the cost most is taken: small clusters far from all others are found that single
    draws leave merged. Where there are many points to a centre, and many in all, the half with the
    smaller numbers takes part.

    Parameters
    ----------
    points
        (m, d) float32.
    k
        Number of centres, 1..m.
    numbers
        (m,) permanent random numbers in (0, 1), one for each point.
    seed
        Of the numbers each step makes of them.

    Returns
    -------
    ndarray
        (k, d) float32. Where the points have fewer than k different places, some are equal.
    """
    if len(points) >= PLENTY * k and len(points) * k > SMALL:
        half = np.flatnonzero(numbers <= np.median(numbers))
        points, numbers = points[half], numbers[half]
    words = (numbers * 2.0**53).astype(np.uint64)
    keys = np.random.default_rng([seed, 0x6B2B2B]).integers(2**64, size=(k, 2), dtype=np.uint64)
    at_home = _standard(points)
    chosen = None
    if points.shape[1] >= WIDE and len(points) * k >= MANY:
        whole = _Whole.of(at_home, k)
        chosen, left = _race(whole, words, keys)
        if left < COARSE * whole.noise:
            chosen = None  # so close to the centres steps are too coarse
    if chosen is None:
        # Threads round the products differently. One makes the start the same on every machine; the
        # products are too narrow for more to help.
        with products.one_thread():
            chosen, _ = _race(_Float(at_home), words, keys)
    return points[chosen]


def _race(
    points: _Float | _Whole, words: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], float]:
    """Return which points the centres are, and the mean squared distance to the nearest."""
    m, k = len(words), len(keys)
    wanted = min(CANDIDATES, m)
    chosen = np.empty(k, dtype=np.int64)
    chosen[0] = np.argmin(_arrivals(words, keys[0]))
    nearest = points.distances(chosen[:1])[0].copy()
    for step in range(1, k):
        with np.errstate(divide="ignore"):  # who sits on a centre never arrives
            race = _arrivals(words, keys[step]) / nearest.astype(np.float32, copy=False)
        few = _smallest(race, wanted)
        reach = np.minimum(points.distances(few), nearest, out=points.room(wanted))
        best = int(np.argmin(reach.sum(axis=1, dtype=points.total)))
        chosen[step] = few[best]
        nearest[:] = reach[best]
    return chosen, float(nearest.mean(dtype=np.float64))


def _smallest(values: NDArray[np.float32], wanted: int) -> NDArray[np.int64]:
    """Return where the smallest values are, in ascending order."""
    where = np.arange(len(values))
    if len(values) > GROUP * wanted:
        # those of the groups with the smallest minima: most groups are looked at once
        whole = len(values) // GROUP * GROUP
        least = values[:whole].reshape(-1, GROUP).min(axis=1)
        groups = np.argpartition(least, wanted - 1)[:wanted]
        where = np.append(
            (np.sort(groups)[:, None] * GROUP + np.arange(GROUP)).ravel(), where[whole:]
        )
    few = where[np.argpartition(values[where], wanted - 1)[:wanted]]
    return few[np.argsort(values[few], kind="stable")]


class _Float:
    """Squared distances in float32."""

    total = np.float64

    def __init__(self, points: Vectors) -> None:
        self.points = points
        self.squares = np.einsum("ij,ij->i", points, points)

    def distances(self, rows: NDArray[np.int64]) -> Vectors:
        """Return (c, m) squared distances of all points to some of them, at least 0."""
        found = self.points[rows] @ self.points.T
        found *= -2.0
        found += self.squares
        found += self.squares[rows, None]
        np.maximum(found, 0.0, out=found)
        found[np.arange(len(rows)), rows] = 0.0  # to itself, whatever rounding says
        return found

    def room(self, rows: int) -> None:
        """Return where minima are written: anywhere."""


class _Whole:
    """Squared distances between points rounded to whole steps: exact, on any number of threads.

    The largest coordinate is as many steps as a byte holds.
    """

    total = np.int64

    def __init__(self, points: NDArray[np.int8], noise: float, *, use_bytes: bool) -> None:
        self.noise = noise  # what rounding adds to a squared distance, on average
        self._points = points
        wide = points.astype(np.float32)
        self._squares = np.einsum("ij,ij->i", wide, wide).astype(np.int32)
        self._right = products.Right(points, use_bytes=use_bytes)
        self._room = np.empty((CANDIDATES, len(points)), dtype=np.int32)

    @classmethod
    def of(cls, at_home: Vectors, k: int) -> _Whole:
        """Round (m, d) points whose largest coordinate is 1."""
        m, d = at_home.shape
        whole = np.empty((m, d), dtype=np.int8)
        for start in range(0, m, 1024):  # in the cache
            part = at_home[start : start + 1024] * np.float32(products.LEVELS)
            whole[start : start + 1024] = np.rint(part, out=part)
        work = float(m) * k * d * CANDIDATES * SLOW
        return cls(whole, d / 6.0, use_bytes=products.bytes_pay(work))

    def distances(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return (c, m) squared distances of all points to some of them, in steps."""
        found = self._room[: len(rows)]
        self._right.product(self._points[rows], out=found)
        found *= -2
        found += self._squares
        found += self._squares[rows, None]
        return found

    def room(self, rows: int) -> NDArray[np.int32]:
        """Return where minima are written: over the distances."""
        return self._room[:rows]


def _arrivals(words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return (m,) standard exponentials, independent from one pair of keys to the next."""
    mixed = (words ^ keys[0]) * (keys[1] | np.uint64(1))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    uniform = ((mixed >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    return -np.log(uniform)  # never 0: 23 bits and a half are exact


def _standard(points: Vectors) -> Vectors:
    """Return points around their mean, of a size whose squares neither vanish nor overflow.

    Far from the origin products cancel, and what is left of small distances is rounding.
    """
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    size = max(float(centred.max(initial=0.0)), -float(centred.min(initial=0.0)))
    if size > 0.0:
        centred /= np.float32(size)  # in place: fresh memory costs more than the division
    return centred
