"""Where k-means starts: k-means++ whose choices stay when rows come and go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import products

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

CANDIDATES = 8  # points tried for each centre; the one that lowers the cost most is taken


def first_centres(points: Vectors, k: int, *, numbers: Floats, seed: int) -> Vectors:
    """Return k starting centres by greedy k-means++ (Arthur and Vassilvitskii, 2007).

    Each centre is drawn among the points with probability proportional to the squared distance to
    the nearest centre so far. The draw is a race: point i arrives at ``-ln(u_i) / d_i^2`` with its
    own number u_i for this step, and the first one wins. A point that comes or goes changes the
    winner only where it takes part in winning, so nearly the same points lead to nearly the same
    centres, which draws by a stream of random numbers would not. Of the first few to arrive, the
    one that lowers the cost most is taken: small clusters far from all others are found that single
    draws leave merged.

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
    # Threads round the products differently. One makes the start the same on every machine; the
    # products are too narrow for more to help.
    m = len(points)
    chosen = np.empty(k, dtype=np.int64)
    words = (numbers * 2.0**53).astype(np.uint64)
    keys = np.random.default_rng([seed, 0x6B2B2B]).integers(2**64, size=(k, 2), dtype=np.uint64)
    at_home = _standard(points)
    squares = np.einsum("ij,ij->i", at_home, at_home)
    chosen[0] = np.argmin(_arrivals(words, keys[0]))
    with products.one_thread():
        nearest = _squared_distances(at_home, squares, chosen[:1])[:, 0]
        for step in range(1, k):
            with np.errstate(divide="ignore"):  # who sits on a centre never arrives
                race = _arrivals(words, keys[step]) / nearest
            few = np.argpartition(race, min(CANDIDATES, m) - 1)[:CANDIDATES]
            few = few[np.argsort(race[few], kind="stable")]
            reach = np.minimum(_squared_distances(at_home, squares, few), nearest[:, None])
            best = int(np.argmin(reach.sum(axis=0, dtype=np.float64)))
            chosen[step], nearest = few[best], np.ascontiguousarray(reach[:, best])
    return points[chosen]


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
    size = float(np.abs(centred).max(initial=0.0))
    return centred / np.float32(size) if size > 0.0 else centred


def _squared_distances(
    points: Vectors, squares: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (m, c) squared distances of all points to some of them, at least 0."""
    product = points @ points[rows].T
    found = np.maximum(squares[:, None] + squares[rows] - 2.0 * product, 0.0)
    found[rows, np.arange(len(rows))] = 0.0  # to itself, whatever rounding says
    return found.astype(np.float32, copy=False)
