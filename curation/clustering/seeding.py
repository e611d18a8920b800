"""Where k-means starts: k-means++ whose choices stay when rows come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
AHEAD = 5  # steps whose candidates are looked at together: reading the points is most of the time
SPARE = 2  # candidates more of each, as a centre that is chosen in between may put some off


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
    chosen = np.empty(k, dtype=np.int64)
    chosen[0] = np.argmin(_waits(words, keys[0]))
    nearest = points.distances(chosen[:1])[0].copy()
    alone = _Alone(points, words, keys, min(CANDIDATES, m))
    runners = _Together(alone, points) if isinstance(points, _Whole) else alone
    for step in range(1, k):
        few, reach = runners.first(step, nearest)
        np.minimum(reach, nearest, out=reach)
        best = int(np.argmin(reach.sum(axis=1, dtype=points.total)))
        chosen[step] = few[best]
        nearest[:] = reach[best]
    return chosen, float(nearest.mean(dtype=np.float64))


@dataclass(frozen=True)
class _Alone:
    """The first points to arrive at a step, and how far all points are from them.

    Attributes
    ----------
    points
        Where they are.
    words, keys
        (m,) and (k, 2) of which arrivals are made.
    wanted
        How many are first.
    """

    points: _Float | _Whole
    words: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    wanted: int

    def first(self, step: int, nearest: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return (c,) points in the order they arrive, and (c, m) squared distances."""
        few = _smallest(_arrive(_waits(self.words, self.keys[step]), nearest), self.wanted)
        return few, self.points.distances(few)


class _Together:
    """The same, of several steps at a time.

    Distances come nearer with every centre, so that points arrive later and never earlier. Of a
    step further on, the first few are therefore among those that would be first now, unless many
    of these are put off; a few more of them are looked at, and where it can't be told, the step
    is done by itself. Which points are found is the same.
    """

    def __init__(self, alone: _Alone, points: _Whole) -> None:
        self._alone, self._points = alone, points
        self._looked: list[tuple[NDArray[np.int64], NDArray[np.float32], np.float32]] = []
        self._begin = 0

    def first(self, step: int, nearest: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return (c,) points in the order they arrive, and (c, m) squared distances."""
        wanted = self._alone.wanted
        if step >= self._begin + len(self._looked):
            self._look(step, nearest)
        at = step - self._begin
        rows, waits, limit = self._looked[at]
        now = _arrive(waits, nearest[rows])
        order = np.lexsort((rows, now))[:wanted]
        if not now[order[-1]] < limit:  # somebody who was not looked at may be earlier
            return self._alone.first(step, nearest)
        return rows[order], self._points.kept(at * (wanted + SPARE) + order)

    def _look(self, step: int, nearest: NDArray[Any]) -> None:
        """Look at the candidates of this step and of some after it."""
        self._begin, self._looked = step, []
        for keys in self._alone.keys[step : step + AHEAD]:
            waits = _waits(self._alone.words, keys)
            race = _arrive(waits, nearest)
            rows = _smallest(race, self._alone.wanted + SPARE)
            self._looked.append((rows, waits[rows], race[rows[-1]]))
        self._points.keep(np.concatenate([rows for rows, _, _ in self._looked]))


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
        self._kept = np.empty((AHEAD * (CANDIDATES + SPARE), len(points)), dtype=np.int32)
        self._rows = np.empty(0, dtype=np.int64)

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
        return self._squared(found, rows)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Multiply some of the points with all of them, for :meth:`kept`."""
        self._rows = rows
        self._right.product(self._points[rows], out=self._kept[: len(rows)])

    def kept(self, places: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return (c, m) squared distances of all points to some of those that were kept."""
        found = self._room[: len(places)]
        np.take(self._kept, places, axis=0, out=found, mode="clip")
        return self._squared(found, self._rows[places])

    def _squared(self, found: NDArray[np.int32], rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Make squared distances of the products of points with some of them."""
        found *= -2
        found += self._squares
        found += self._squares[rows, None]
        return found


def _waits(words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return (m,) standard exponentials, independent from one pair of keys to the next."""
    mixed = (words ^ keys[0]) * (keys[1] | np.uint64(1))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    uniform = ((mixed >> np.uint64(41)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    return -np.log(uniform)  # never 0: 23 bits and a half are exact


def _arrive(waits: NDArray[np.float32], nearest: NDArray[Any]) -> NDArray[np.float32]:
    """Return when points arrive that are so far from the nearest centre; on one, never."""
    with np.errstate(divide="ignore"):
        return np.divide(waits, nearest, dtype=np.float32, casting="same_kind")


def _standard(points: Vectors) -> Vectors:
    """Return points around their mean, of a size whose squares neither vanish nor overflow.

    Far from the origin products cancel, and what is left of small distances is rounding.
    """
    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    size = max(float(centred.max(initial=0.0)), -float(centred.min(initial=0.0)))
    if size > 0.0:
        centred /= np.float32(size)  # in place: fresh memory costs more than the division
    return centred
