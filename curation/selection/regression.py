"""Rows for a least-squares fit: leverage, residual and weights, in a notebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.sampling import regression
from curation.selection.inputs import Numbers, read_ids, read_seed
from curation.selection.plan import resolve_budget, resolve_k

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

LAWS = ("mix", *regression.REGRESSION_LAWS)


@dataclass(frozen=True)
class RegressionSelection:
    """Rows for a weighted least-squares fit.

    Attributes
    ----------
    indices
        (m,) int64 rows, sorted.
    weights
        (m,) Horvitz-Thompson weights.
    inclusion_probability
        (m,) in (0, 1].
    law
        (n,) probability of every row per draw.
    k
        Clusters the law was made with; 0 where it needs none.
    """

    indices: Rows
    weights: Floats
    inclusion_probability: Floats
    law: Floats
    k: int

    def fit(self, features: ArrayLike, targets: ArrayLike) -> Floats:
        """Return (d,) weighted least-squares coefficients from the chosen rows.

        Parameters
        ----------
        features, targets
            (n, d) and (n,) of all rows; only the chosen ones are read.
        """
        x, y = np.asarray(features), np.asarray(targets)
        if len(x) != len(self.law) or len(y) != len(self.law):
            raise ValueError(
                f"expected features and targets of all {len(self.law):,} rows, got {len(x):,} and "
                f"{len(y):,}"
            )
        return regression.weighted_least_squares(x[self.indices], y[self.indices], self.weights)


def select_regression(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    budget: int | None = None,
    fraction: float | None = None,
    law: str = "mix",
    k: int | str = "auto",
    design: str = "coordinated",
    ids: ArrayLike | None = None,
    seed: int = 0,
) -> RegressionSelection:
    """Choose rows whose weighted least-squares fit comes close to that of all rows.

    Parameters
    ----------
    features
        (n, d) finite numbers. Give a constant column for an intercept.
    targets
        (n,) finite numbers. The mix reads them all: rows are clustered by features and target.
    budget, fraction
        Number of rows or share of them. Give exactly one.
    law
        ``mix`` (0.4 residual at the medoids and distance, 0.4 leverage of the weighted medoids, 0.2
        uniform), or a baseline: ``uniform``, ``row_norm``, ``leverage``, ``ridge_leverage``.
    k
        Clusters of the mix, or ``auto``.
    design
        How rows are drawn, as in :func:`curation.select`.
    ids
        (n,) unique whole numbers or texts, for a choice that stays when rows come and go.
    seed
        Same ids and seed: same rows.

    Raises
    ------
    ValueError
        For an unknown law or design, wrong shapes, or numbers that are not finite.
    """
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}; known: {', '.join(LAWS)}")
    x, y = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
        raise ValueError(f"expected (n, d) features and (n,) targets, got {x.shape} and {y.shape}")
    n = len(x)
    # squares have to be finite as well
    wrong = ~((np.abs(x) < 1e150).all(axis=1) & (np.abs(y) < 1e150))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"features or target of row {row} are not finite, or far too large")
    if (budget is None) == (fraction is None):
        raise ValueError("give exactly one of budget and fraction")
    s = resolve_budget(n, budget=budget, fraction=fraction)
    numbers = Numbers(read_ids(ids, n), read_seed(seed))
    luck = numbers.of("draw")
    if law == "mix":
        probability, order, clusters = _mix(x, y, resolve_k(k, budget=s, rows=n), numbers)
    else:
        probability = regression.regression_baseline(law, x)
        # any order will do that has nothing to do with the numbers rows are drawn by
        order, clusters = np.argsort(numbers.tags(), kind="stable"), 0
    drawn = sampling.draw(
        design,
        probability,
        s,
        order=order,
        rng=np.random.default_rng([seed, 1]),
        numbers=luck,
    )
    by_row = np.argsort(drawn.indices, kind="stable")
    return RegressionSelection(
        drawn.indices[by_row],
        drawn.weights[by_row],
        drawn.inclusion_probability[by_row],
        probability,
        clusters,
    )


def _mix(x: Floats, y: Floats, k: int, numbers: Numbers) -> tuple[Floats, Rows, int]:
    """Cluster by standardised features and target, and return law, order and k."""
    both = np.column_stack([x, y])
    spread = both.std(axis=0)
    points = ((both - both.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)).astype(np.float32)
    luck = numbers.of("k-means")
    sample = np.argsort(luck, kind="stable")[: 64 * k]
    centroids = clustering.fit_centroids(
        points[sample], min(k, len(sample)), seed=numbers.seed, numbers=luck[sample]
    )
    found = clustering.Summariser(centroids)
    cluster = found.add(points, numbers.of("medoid"))
    clusters = found.finish()
    new = np.zeros(len(centroids), dtype=np.int64)
    new[clusters.kept] = np.arange(clusters.k)
    own = new[cluster]
    distance = clustering.squared_distance(points, clusters.medoids[own])
    law = regression.regression_law(
        x,
        y,
        cluster=own,
        medoid_rows=clusters.medoid_rows,
        sizes=clusters.sizes,
        distance=distance,
    )
    return law, np.lexsort((numbers.tags(), distance, clusters.rank[own])), clusters.k
