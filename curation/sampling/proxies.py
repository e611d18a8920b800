"""Proxies: an estimate of every row's score from the few that were asked for.

All are valid. With known inclusion probabilities a weighted total is unbiased for any proxy; a good
one makes it precise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curation import products
from curation.nearest import nearest

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

FOLDS = 5
PIECE = 1024  # rows looked at together
FEW, MANY = 4, 10
RIDGES = np.array(
    [1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
)  # of mean squared singular values


@dataclass(frozen=True)
class Block:
    """Rows a proxy is asked about.

    Attributes
    ----------
    points
        (m, d) float32 in the space that was clustered.
    cluster
        (m,) int32.
    covariates
        (m, p) float64 >= 0: what else is known of each row; p may be 0.
    """

    points: Vectors
    cluster: NDArray[np.int32]
    covariates: Floats


@dataclass(frozen=True)
class Queried:
    """Rows whose score was asked for.

    Attributes
    ----------
    block
        The rows, (q,).
    scores
        (q,) float64 >= 0.
    medoid
        (q,) bool: the medoids, one for each cluster; the others are the pilot's rows.
    """

    block: Block
    scores: Floats
    medoid: NDArray[np.bool_]


class Proxy(Protocol):
    """An estimate of scores."""

    @property
    def name(self) -> str:
        """The key in ``PROXIES``."""
        ...

    @property
    def held_out(self) -> Floats:
        """(q,) what is predicted for each queried row without its own score.

        NaN for the medoids where the proxy is nothing but their scores.
        """
        ...

    def predict(self, block: Block) -> Floats:
        """Return (m,) float64 estimates >= 0."""
        ...


@dataclass(frozen=True)
class ClusterProxy:
    """A row's score is that of its medoid (arXiv 2402.17327)."""

    scores: Floats  # (k,)
    held_out: Floats
    name: str = "cluster"

    @classmethod
    def fit(cls, known: Queried) -> ClusterProxy:
        """Fit on queried rows, of which the medoids are used."""
        scores = medoid_scores(known)
        return cls(scores, np.where(known.medoid, np.nan, scores[known.block.cluster]))

    def predict(self, block: Block) -> Floats:
        """Return each row's medoid's score."""
        return self.scores[block.cluster]


@dataclass(frozen=True)
class LowRankProxy:
    """Scores as a combination of the landmarks' (the medoids'), in the space they span.

    After arXiv 2606.16045: a row is written as a combination of landmarks, its score is the same
    combination of theirs, and what the landmarks can't span adds ``lambda |residual|^2``, with
    lambda balanced so that both parts have the same mean. A ridge, the best of a few by the
    landmarks left out one at a time, keeps the coefficients of nearly dependent ones small.
    Negative combinations are cut at zero.
    """

    centre: Vectors
    basis: Floats  # (d, r) orthonormal
    slope: Floats  # (r,)
    intercept: float
    penalty: float
    held_out: Floats
    name: str = "low_rank"

    @classmethod
    def fit(cls, known: Queried) -> LowRankProxy:
        """Fit on queried rows, of which the medoids are used."""
        landmarks, scores = known.block.points[known.medoid], known.scores[known.medoid]
        plane = _Ridge.fit(landmarks, scores)
        mean = plane.mean
        half = cls(plane.centre, plane.right.T, plane.slope, mean, 0.0, np.empty(0))
        centred = (known.block.points - plane.centre).astype(np.float64)
        combined, left_over = half._combined(centred), half._left_over(centred)
        spread = float(left_over.mean())
        flat = spread <= 1e-9 * max(float(np.square(plane.singular).sum()) / len(scores), 1e-12)
        penalty = 0.0 if flat else float(combined.mean()) / spread
        held_out = np.where(known.medoid, np.nan, combined + penalty * left_over)
        return cls(plane.centre, plane.right.T, plane.slope, mean, penalty, held_out)

    def predict(self, block: Block) -> Floats:
        """Return each row's combination of the landmarks' scores."""
        found = np.empty(len(block.points))
        for rows, part in _pieces(block.points, self.centre):
            centred = part.astype(np.float64)
            found[rows] = self._combined(centred)
            if self.penalty > 0.0:
                found[rows] += self.penalty * self._left_over(centred)
        return found

    @cached_property
    def _along(self) -> Floats:
        """Return the slope along the coordinates, (d,)."""
        found: Floats = self.basis @ self.slope
        return found

    def _combined(self, centred: Floats) -> Floats:
        return np.maximum(self.intercept + np.vecdot(centred, self._along), 0.0)

    def _left_over(self, centred: Floats) -> Floats:
        inside = centred @ self.basis
        return np.maximum(np.vecdot(centred, centred) - np.vecdot(inside, inside), 0.0)


@dataclass(frozen=True)
class RegressionProxy:
    """Non-negative regression of the queried scores on neighbours' scores, a plane and covariates.

    The columns are a constant, the mean score of the 4 and of the 10 nearest queried rows, a ridge
    regression of the scores on the points, cut at zero, and the covariates; the coefficients are
    found by non-negative least squares with weights that aim at relative errors. A queried row is
    never its own neighbour, the ridge regression leaves it out, and `held_out` comes from
    coefficients of other folds, so that no row predicts itself.
    """

    points: Vectors
    scores: Floats
    centre: Vectors
    slope: Vectors  # (d,)
    intercept: float
    coefficients: Floats
    held_out: Floats
    name: str = "regression"

    @classmethod
    def fit(cls, known: Queried) -> RegressionProxy:
        """Fit on all queried rows."""
        points, scores = np.ascontiguousarray(known.block.points), known.scores
        plane = _Ridge.fit(points, scores)
        columns = np.column_stack(
            [
                np.ones(len(scores)),
                _neighbour_means(points, scores, points, itself=True),
                np.maximum(plane.left_out, 0.0),
                known.block.covariates,
            ]
        )
        held_out = np.empty(len(scores))
        fold = np.arange(len(scores)) % FOLDS
        for one in range(FOLDS):
            out = fold == one
            if out.any():
                rest = scores[~out] if (~out).any() else scores
                chosen = columns[~out] if (~out).any() else columns
                held_out[out] = columns[out] @ relative_least_squares(chosen, rest)
        slope = (plane.right.T @ plane.slope).astype(np.float32)
        found = relative_least_squares(columns, scores)
        return cls(points, scores, plane.centre, slope, plane.mean, found, held_out)

    def predict(self, block: Block) -> Floats:
        """Return the fitted combination of neighbours' scores, plane and covariates."""
        near = _neighbour_means(block.points, self.scores, self.points, itself=False)
        plane = np.empty(len(near))
        for rows, part in _pieces(block.points, self.centre):
            # one row at a time: a product's rounding would depend on how many there are
            plane[rows] = self.intercept + np.vecdot(part, self.slope)
        return (
            self.coefficients[0]
            + near @ self.coefficients[1:3]
            + np.maximum(plane, 0.0) * self.coefficients[3]
            + block.covariates @ self.coefficients[4:]
        )


def _pieces(points: Vectors, centre: Vectors) -> Iterator[tuple[slice, Vectors]]:
    """Yield some points at a time around a centre: they stay in the cache."""
    for start in range(0, len(points), PIECE):
        part = points[start : start + PIECE]
        yield slice(start, start + len(part)), part - centre


PROXIES: dict[str, type[ClusterProxy] | type[LowRankProxy] | type[RegressionProxy]] = {
    "cluster": ClusterProxy,
    "low_rank": LowRankProxy,
    "regression": RegressionProxy,
}


def medoid_scores(known: Queried) -> Floats:
    """Return (k,) the score of each cluster's medoid."""
    scores = np.zeros(int(known.block.cluster.max()) + 1)
    scores[known.block.cluster[known.medoid]] = known.scores[known.medoid]
    return scores


@dataclass(frozen=True)
class _Ridge:
    """Ridge regression of scores on points.

    The ridge is the best of a few by the rows left out one at a time, whose errors follow from one
    fit (PRESS; Allen, 1974). Computed by one thread: several round differently.

    Attributes
    ----------
    centre, mean
        (d,) of the points, and of the scores.
    right, singular, slope
        (r, d) axes, and (r,) singular values and slopes along them.
    left_out
        (q,) what is predicted for each row by the others.
    """

    centre: Vectors
    mean: float
    right: Floats
    singular: Floats
    slope: Floats
    left_out: Floats

    @classmethod
    def fit(cls, points: Vectors, scores: Floats) -> _Ridge:
        """Fit (q, d) points and (q,) scores."""
        centre = points.mean(axis=0, dtype=np.float64).astype(np.float32)
        mean = float(scores.mean())
        with products.one_thread():
            left, singular, right = _singular((points - centre).astype(np.float64))
            kept = singular > 1e-6 * max(float(singular[0]), 1e-12)
            left, singular, right = left[:, kept], singular[kept], right[kept]
            along, square = left.T @ (scores - mean), np.square(left)
            best, least = np.zeros(len(singular)), np.inf
            left_out = np.full(len(scores), mean)
            for ridge in RIDGES * float((singular**2).mean()) if len(singular) else ():
                share = singular**2 / (singular**2 + ridge)
                own = 1.0 / len(scores) + square @ share
                error = (scores - mean - left @ (share * along)) / np.maximum(1.0 - own, 1e-6)
                if (squares := float(error @ error)) < least:
                    best, least, left_out = share / singular * along, squares, scores - error
        return cls(centre, mean, right, singular, best, left_out)


def _singular(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the singular value decomposition of (q, d) rows.

    Where there are no more coordinates than rows, by the eigenvectors of their products, in a third
    of the time. Singular values below 1e-8 of the largest are rounding then.
    """
    if rows.shape[1] > len(rows):
        return np.linalg.svd(rows, full_matrices=False)
    squares, vectors = np.linalg.eigh(rows.T @ rows)
    singular, right = np.sqrt(np.maximum(squares[::-1], 0.0)), vectors.T[::-1]
    return rows @ right.T / np.where(singular > 0.0, singular, 1.0), singular, right


def relative_least_squares(columns: Floats, scores: Floats) -> Floats:
    """Return (p,) coefficients >= 0 that minimise errors relative to the prediction.

    Three rounds of non-negative least squares; each row is weighted by the inverse of its
    prediction, kept away from 0 by a share of the mean score. Losses are spread over orders of
    magnitude, and plain least squares would fit the largest alone.
    """
    from scipy.optimize import nnls

    floor = 0.3 * float(scores.mean())
    if floor <= 0.0:
        return np.zeros(columns.shape[1])
    size = np.maximum(columns.mean(axis=0), 1e-12)
    scaled = columns / size
    weight = np.ones(len(scores))
    for _ in range(3):
        found, _ = nnls(scaled * weight[:, None], scores * weight)
        weight = 1.0 / np.hypot(scaled @ found, floor)
    return found / size


def _neighbour_means(points: Vectors, scores: Floats, others: Vectors, *, itself: bool) -> Floats:
    """Mean score of the 4 and of the 10 nearest of `others`, (m, 2)."""
    wanted = min(MANY + itself, len(others))
    found = nearest(points, others, min(FEW + itself, wanted), wanted)
    if itself and wanted > 1:
        # the row itself need not be the nearest, or among them: drop it, else the last
        own = found == np.arange(len(points))[:, None]
        own[:, -1] |= ~own.any(axis=1)
        found = found[~own].reshape(len(points), wanted - 1)
    values = scores[found]
    return np.stack([values[:, :FEW].mean(axis=1), values.mean(axis=1)], axis=1)
