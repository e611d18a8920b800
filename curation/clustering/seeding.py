"""Where k-means starts: k-means++ whose choices stay when rows come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.clustering.apart import MOST_WIDE, Float, Standard, Whole

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
    half = None
    if len(points) >= PLENTY * k and len(points) * k > SMALL:
        half = np.flatnonzero(numbers <= np.median(numbers))
        numbers = numbers[half]
    words = (numbers * 2.0**53).astype(np.uint64)
    keys = np.random.default_rng([seed, 0x6B2B2B]).integers(2**64, size=(k, 2), dtype=np.uint64)
    standard = Standard.of(points, half)
    chosen = None
    if WIDE <= points.shape[1] <= MOST_WIDE and len(numbers) * k >= MANY:
        whole = _whole(standard, k)
        chosen, left = _race(whole, words, keys)
        if left < COARSE * whole.noise:
            chosen = None  # so close to the centres steps are too coarse
    if chosen is None:
        # Threads round the products differently. One makes the start the same on every machine; the
        # products are too narrow for more to help.
        with products.one_thread():
            chosen, _ = _race(Float(standard), words, keys)
    return points[chosen if half is None else half[chosen]]


def _whole(standard: Standard, k: int) -> Whole:
    """Round points to whole steps, with room for as many rows as a race asks for at a time."""
    m, d = standard.shape
    use_bytes = products.bytes_pay(float(m) * k * d * CANDIDATES * SLOW)
    many = AHEAD * (CANDIDATES + SPARE)
    return Whole(standard, use_bytes=use_bytes, few=CANDIDATES, many=many)


def _race(
    points: Float | Whole, words: NDArray[np.uint64], keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], float]:
    """Return which points the centres are, and the mean squared distance to the nearest."""
    m, k = len(words), len(keys)
    chosen = np.empty(k, dtype=np.int64)
    chosen[0] = np.argmin(_waits(words, keys[0]))
    nearest = points.distances(chosen[:1])[0].copy()
    alone = _Alone(points, words, keys, min(CANDIDATES, m))
    runners = _Together(alone, points) if isinstance(points, Whole) else alone
    for step in range(1, k):
        few, reach = runners.first(step, nearest)
        np.minimum(reach, nearest, out=reach)
        best = int(np.argmin(points.sums(reach)))
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

    points: Float | Whole
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

    def __init__(self, alone: _Alone, points: Whole) -> None:
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
    """Return where the smallest values are, in ascending order; of equal ones, the first."""
    where = np.arange(len(values))
    if len(values) > GROUP * wanted:
        # a limit that so many groups have something below: few values are looked at twice
        groups = len(values) // GROUP
        least = values[: groups * GROUP].reshape(GROUP, groups).min(axis=0)
        where = np.flatnonzero(values <= np.partition(least, wanted - 1)[wanted - 1])
    return where[np.argsort(values[where], kind="stable")[:wanted]]


def _waits(words: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return (m,) standard exponentials, independent from one pair of keys to the next."""
    mixed = (words ^ keys[0]) * (keys[1] | np.uint64(1))
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    bits = (mixed >> np.uint64(41)).view(np.int64)  # signed: numpy converts these 8 times as fast
    uniform = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    return -np.log(uniform)  # never 0: 23 bits and a half are exact


def _arrive(waits: NDArray[np.float32], nearest: NDArray[Any]) -> NDArray[np.float32]:
    """Return when points arrive that are so far from the nearest centre; on one, never."""
    with np.errstate(divide="ignore"):
        return np.divide(waits, nearest, dtype=np.float32, casting="same_kind")
