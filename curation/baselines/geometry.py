"""Strategies that look at embeddings alone."""

from __future__ import annotations

import numpy as np

from curation import clustering
from curation.baselines.pool import Choice, Pool, Vectors

REFERENCES = 1000  # rows that facility location has to cover, and
LAZINESS = 0.01  # the chance of missing the best candidate of a step
SAMPLE_PER_CENTROID = 64


def k_center(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Greedy k-center (Gonzalez, 1985; as a core-set: Sener and Savarese, 2018).

    The row that is farthest from all chosen ones is next; the pilot's rows are chosen already.
    """
    x = pool.embeddings[pool.rest]
    squares = np.einsum("ij,ij->i", x, x)
    far = np.full(len(x), np.inf, dtype=np.float32)
    for row in pool.pilot:
        _come_nearer(far, x, squares, pool.embeddings[row])
    if not len(pool.pilot):
        _come_nearer(far, x, squares, x[rng.integers(len(x))])
    chosen = np.empty(size, dtype=np.int64)
    for step in range(size):
        chosen[step] = np.argmax(far)
        _come_nearer(far, x, squares, x[chosen[step]])
        far[chosen[step]] = -1.0  # never twice, not even where rows are equal
    return Choice(pool.rest[chosen])


def _come_nearer(far: Vectors, x: Vectors, squares: Vectors, centre: Vectors) -> None:
    reach = squares - 2.0 * (x @ centre) + centre @ centre
    np.minimum(far, np.maximum(reach, 0.0), out=far, where=far >= 0.0)


def medoids(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """The row nearest to each of `size` k-means centroids, weighted by its cluster's rows."""
    x = pool.embeddings[pool.rest]
    sample = rng.permutation(len(x))[: size * SAMPLE_PER_CENTROID]
    centroids = clustering.fit_centroids(x[sample], size, seed=int(rng.integers(2**31)))
    found = clustering.summarise([x], centroids)
    chosen, weights = found.medoid_rows, found.sizes.astype(np.float64)
    if len(chosen) < size:  # clusters of equal rows
        other = np.setdiff1d(np.arange(len(x)), chosen)
        more = rng.choice(other, size - len(chosen), replace=False)
        chosen = np.concatenate([chosen, more])
        weights = np.concatenate([weights, np.ones(len(more))])
    return Choice(pool.rest[chosen], weights)


def herding(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Herding (Welling, 2009): the mean of the chosen rows follows the mean of all."""
    x = pool.embeddings[pool.rest]
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    towards = mean.copy()
    free = np.ones(len(x), dtype=bool)
    chosen = np.empty(size, dtype=np.int64)
    for step in range(size):
        chosen[step] = np.argmax(np.where(free, x @ towards, -np.inf))
        free[chosen[step]] = False
        towards += mean - x[chosen[step]]
    return Choice(pool.rest[chosen])


def facility_location(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Facility location by stochastic greedy (Mirzasoleiman et al., 2015), on a sample of rows.

    Chosen rows are to be similar to 1,000 random rows; similarity is ``max distance - distance``.
    Each step compares ``n / size * ln(1 / 0.01)`` random candidates. A row is weighted by the rows
    it is the most similar of.
    """
    x = pool.embeddings[pool.rest]
    seen = x[np.sort(rng.permutation(len(x))[:REFERENCES])]
    scale = float(np.linalg.norm(seen - seen.mean(axis=0), axis=1).max()) * 2.0
    candidates = max(1, round(len(x) / size * np.log(1.0 / LAZINESS)))
    best = np.zeros(len(seen), dtype=np.float32)
    for row in pool.pilot:
        np.maximum(best, _similar(pool.embeddings[row : row + 1], seen, scale)[0], out=best)
    free = np.ones(len(x), dtype=bool)
    chosen = np.empty(size, dtype=np.int64)
    for step in range(size):
        tried = np.flatnonzero(free)
        tried = tried[rng.integers(len(tried), size=min(candidates, len(tried)))]
        close = _similar(x[tried], seen, scale)
        gain = np.maximum(close - best, 0.0).sum(axis=1)
        at = int(np.argmax(gain))
        chosen[step], best = tried[at], np.maximum(best, close[at])
        free[chosen[step]] = False
    cluster, _ = clustering.assign(x, np.ascontiguousarray(x[chosen]))
    weights = np.bincount(cluster, minlength=size).astype(np.float64)
    return Choice(pool.rest[chosen], np.maximum(weights, 1.0))


def _similar(some: Vectors, seen: Vectors, scale: float) -> Vectors:
    apart = np.einsum("ij,ij->i", some, some)[:, None] - 2.0 * (some @ seen.T)
    apart += np.einsum("ij,ij->i", seen, seen)
    return np.maximum(np.float32(scale) - np.sqrt(np.maximum(apart, 0.0)), 0.0)
