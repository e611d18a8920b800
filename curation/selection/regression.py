"""Rows for a least-squares fit: leverage, residual and weights, in a notebook."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import clustering, sampling
from curation.sampling import regression
from curation.selection.inputs import Numbers, read_ids, read_seed
from curation.selection.plan import AUTO_K_MOST, resolve_budget, resolve_k

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

WIDE = 32  # columns, of which more are clustered by so many random combinations
MEDOIDS_PER_COLUMN = 8  # fewer, and their leverage says little of the rows'
ROWS_PER_CLUSTER = 20  # that k-means is fitted on
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
        Clusters of the mix, or ``auto``: 400, or a twentieth of the rows. They do not depend on the
        budget, because no row is asked about anything.
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
        probability, order, clusters = clustered_law(x, y, _clusters(k, s, n), numbers)
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


def _clusters(k: int | str, budget: int, rows: int) -> int:
    if k == "auto":
        k = min(AUTO_K_MOST, max(1, rows // ROWS_PER_CLUSTER))
    return resolve_k(k, budget=budget, rows=rows)


def clustered_law(
    x: Floats, y: Floats, k: int, numbers: Numbers, *, by_target: bool = True
) -> tuple[Floats, Rows, int]:
    """Return the mix, an order of the rows along their clusters, and the number of clusters.

    Rows are clustered by standardised features and target. Of more than 32 columns random
    combinations are clustered, and leverages are sketched where the clusters are fewer than 8 for
    each column, so that nothing costs ``n d^2``.

    Parameters
    ----------
    x, y
        (n, d) and (n,), finite.
    k
        Clusters that are looked for.
    numbers
        Permanent random numbers of the rows.
    by_target
        Whether the target is clustered as well. Without it, targets are read at the medoids only.
    """
    luck = numbers.of("k-means")
    sample = np.argsort(luck, kind="stable")[: ROWS_PER_CLUSTER * k]
    points = _points(x, y if by_target else None, sample, numbers.seed)
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
    leverage = None
    if clusters.k < MEDOIDS_PER_COLUMN * x.shape[1] and x.shape[1] > WIDE:
        leverage = regression.sketched_leverage(x, numbers.of("sketch"), seed=numbers.seed)
    law = regression.regression_law(
        x,
        y,
        cluster=own,
        medoid_rows=clusters.medoid_rows,
        sizes=clusters.sizes,
        distance=distance,
        leverage=leverage,
    )
    return law, np.lexsort((numbers.tags(), distance, clusters.rank[own])), clusters.k


def _points(x: Floats, y: Floats | None, sample: Rows, seed: int) -> NDArray[np.float32]:
    """Return what is clustered: standardised columns, or random combinations of many."""
    if x.shape[1] <= WIDE:
        features = _standardised(x)
    else:
        # a pass over all rows for their spread would cost as much as the clusters
        mean, spread = _moments(x[sample])
        rng = np.random.default_rng([seed, 0x70726F6A])
        through = rng.standard_normal((x.shape[1], WIDE)) / (np.sqrt(WIDE) * spread[:, None])
        features = x @ through - mean @ through
    if y is not None:
        features = np.column_stack([features, _standardised(y[:, None])])
    return features.astype(np.float32)


def _standardised(columns: Floats) -> Floats:
    mean, spread = _moments(columns)
    return np.asarray((columns - mean) / spread)


def _moments(columns: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of columns; 1 for those that are constant."""
    spread = columns.std(axis=0)
    return columns.mean(axis=0), np.where(spread > 0.0, spread, 1.0)
