"""Which rows a least squares fit should be drawn from: scores, leverages and laws.

Not one total but a fit has to survive the draw: the law needs the rows that are fitted badly *and*
those that hold a direction of the features up. The score is that of [arXiv 2402.17327], the mix
that of docs/methods.md "regression". An intercept is a column of ones, added by the caller. Every
function here raises ValueError, naming the row, for a shape or a number that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from curation.sampling.laws import balanced_constant, law, sensitivity
from curation.sampling.linear import (
    Floats,
    Ids,
    Integers,
    Numbers,
    as_integers,
    as_matrix,
    as_scalar,
    as_vector,
    blocks_of,
    refuse,
    rounding_of,
    solve,
    squared_lengths,
    triangle_of,
    whiten,
)

SCORE_SHARE, LEVERAGE_SHARE, UNIFORM_SHARE = 0.4, 0.4, 0.2
SKETCH_ROWS, SKETCH_COLUMNS = 8, 16  # rows for each column of the features; columns in their place


def regression_scores(
    features: Numbers,
    targets: Numbers,
    *,
    cluster: Integers,
    medoid_rows: Integers,
    sizes: Integers,
    distance: Numbers,
    ridge: float = 0.0,
    constant: float | None = None,
) -> Floats:
    """Return the sensitivity score of a regression, ``q_j = (a_c x_0 - b_c)^2 + L v_j``.

    ``x_0`` is the weighted least squares fit of the k medoids, each weighing as much as its cluster
    has rows; of the targets only the medoids' are used. The score knows nothing of leverage and
    can do worse than uniform: draw by :func:`regression_law`. Source: [arXiv 2402.17327].

    Parameters
    ----------
    features, targets
        (n, d) and (n,) numbers, of any integer or float dtype.
    cluster, sizes
        (n,) integers in 0..k-1, and (k,) integers >= 1, the number of rows of each cluster.
    medoid_rows
        (k,) integers in 0..n-1: the row of each cluster's medoid, itself in that cluster.
    distance
        (n,) v_j >= 0, squared distance of each row to its medoid in the space that was clustered.
        It bounds how far a residual is from the medoid's only if the target is part of that space.
    ridge
        Penalty ``ridge |x|^2`` on ``x_0``, >= 0, in squared units of the features times rows.
        Collinear features and k < d do not need it: a shortest solution is taken.
    constant
        L >= 0, squared unit of the target per unit of distance. Left out, the balanced one
        (:func:`curation.sampling.laws.balanced_constant`); 1 where the medoids are fitted exactly,
        as they are for k <= d, so that the distances alone decide.

    Returns
    -------
    ndarray
        (n,) float64 >= 0, in squared units of the target.

    Raises
    ------
    ValueError
        If a shape or a number is wrong; the message names the row or the cluster.
    """
    a = as_matrix(features)
    b = as_vector(targets, len(a), "target of row")
    v = as_vector(distance, len(a), "distance of row", least=0.0)
    cluster, sizes, medoids = _clusters(cluster, sizes, medoid_rows, rows=len(a))
    centres, values = a[medoids].astype(np.float64), b[medoids]
    x0 = solve(triangle_of(centres, values, sizes), as_scalar(ridge, "ridge"), rounding_of(a))
    residual = centres @ x0 - values
    # Rounding is no residual: the balanced constant would blow it up to half of the score.
    noise = rounding_of(a) * (np.abs(centres) @ np.abs(x0) + np.abs(values))
    proxy = np.where(np.abs(residual) <= noise, 0.0, residual**2)[cluster]
    if constant is None:
        constant = balanced_constant(proxy, v) if proxy.any() else 1.0
    return sensitivity(proxy, v, as_scalar(constant, "constant"))


def leverage_scores(features: Numbers) -> Floats:
    """Return the leverage of each row, the diagonal of the hat matrix ``A (A'A)^+ A'``.

    By QR, block by block, in two passes and ``O(n d^2)``; a Gram matrix would square the condition
    number. Columns are brought to one length first: units do not decide the rank.

    Parameters
    ----------
    features
        (n, d) numbers of any rank. Leave them in the precision they were computed in: in float32 a
        direction that is nothing but float32's rounding is not counted.

    Returns
    -------
    ndarray
        (n,) float64 in [0, 1], without unit, summing to the rank.

    Raises
    ------
    ValueError
        If the features are not (n, d) finite numbers.
    """
    return ridge_leverage_scores(features, 0.0)


def ridge_leverage_scores(features: Numbers, ridge: float) -> Floats:
    """Return the (n,) float64 ridge leverages, the diagonal of ``A (A'A + ridge I)^-1 A'``.

    In [0, 1], without unit, summing to the effective dimension. Computed and raising as
    :func:`leverage_scores`: they are the leverages of the rows of A within ``[A; sqrt(ridge) I]``.

    Parameters
    ----------
    features
        (n, d) numbers.
    ridge
        Penalty >= 0, in squared units of the features times rows. At 0 the plain leverage; far
        above every squared singular value the squared row norms over `ridge`.
    """
    a = as_matrix(features)
    whitener = whiten(triangle_of(a), as_scalar(ridge, "ridge"), rounding_of(a))[1]
    return np.minimum(squared_lengths(a, whitener), 1.0)


def sketched_leverage(features: Numbers, numbers: Numbers, *, seed: int = 0) -> Floats:
    """Return estimated leverages of (n, d) features, in one pass of ``O(n d)`` and one of 16 n d.

    Rows are summed, with random signs, in ``8 d`` sums (CountSketch; Clarkson and Woodruff, STOC
    2013), the leverages are those within the sums, and of the d directions 16 random combinations
    are looked at. Estimates are off by a quarter to a half, as good as exact for drawing by; below
    50 columns the exact ones cost less. Raises as :func:`leverage_scores`.

    Parameters
    ----------
    features
        (n, d) numbers.
    numbers
        (n,) in [0, 1), independent and uniform: which sum a row goes into, and its sign.
    seed
        Of the combinations.

    Returns
    -------
    ndarray
        (n,) float64 in [0, 1], without unit.
    """
    from scipy import sparse

    a = as_matrix(features)
    u = as_vector(numbers, len(a), "number of row", least=0.0)
    refuse(u >= 1.0, "number of row {0} is {1}: it must be below 1", u)
    total = SKETCH_ROWS * a.shape[1]
    where_to = (u * 2 * total).astype(np.int64)
    sums = np.zeros((total, a.shape[1]))
    for where, rows in blocks_of(a):
        to = where_to[where]
        entries = (1.0 - 2.0 * (to % 2), (to // 2, np.arange(len(rows))))
        sums += sparse.csr_array(entries, shape=(total, len(rows))) @ rows
    whitener = whiten(triangle_of(sums), 0.0, rounding_of(a))[1]
    rng = np.random.default_rng([seed, 0x736B6574])
    through = rng.standard_normal((whitener.shape[1], SKETCH_COLUMNS)) / np.sqrt(SKETCH_COLUMNS)
    return np.minimum(squared_lengths(a, whitener @ through), 1.0)


def row_norm_scores(features: Numbers) -> Floats:
    """Return the squared length of each row of (n, d) features: (n,) float64, squared units.

    One pass, ``O(n d)``. A wrong choice where columns differ in unit: the largest one decides.
    Raises as :func:`leverage_scores`.
    """
    return squared_lengths(as_matrix(features))


def medoid_leverage(features_of_medoids: Numbers, sizes: Integers, cluster: Integers) -> Floats:
    """Return each row's share of its medoid's leverage, in ``O(k d^2 + n)``.

    The k medoids, each counted as often as its cluster has rows, stand for all rows. A medoid's
    leverage in that weighted matrix is its cluster's, and each of the N_c rows has ``1 / N_c`` of
    it (docs/methods.md "regression"). Raises as :func:`regression_scores`.

    Parameters
    ----------
    features_of_medoids
        (k, d) numbers.
    sizes, cluster
        As for :func:`regression_scores`; a part of the rows will do.

    Returns
    -------
    ndarray
        (n,) float64 in [0, 1], without unit; over all rows it sums to the rank of the medoids.
    """
    centres = as_matrix(features_of_medoids, "features of the medoids")
    sizes = as_integers(sizes, len(centres), "sizes")
    cluster, sizes, _ = _clusters(cluster, sizes, None, rows=np.size(cluster))
    whitener = whiten(triangle_of(centres, weights=sizes), 0.0, rounding_of(centres))[1]
    leverage = np.minimum(sizes * squared_lengths(centres, whitener), 1.0)
    return np.asarray((leverage / sizes)[cluster])


def regression_law(
    features: Numbers,
    targets: Numbers,
    *,
    cluster: Integers,
    medoid_rows: Integers,
    sizes: Integers,
    distance: Numbers,
    leverage: Numbers | None = None,
) -> Floats:
    """Return the probability of each row per draw, for a least squares fit on the drawn rows.

    ``0.4 score + 0.4 leverage of the weighted medoids / N_c + 0.2 uniform``, each part normalised
    to sum to 1, or uniform if it is zero on every row (docs/methods.md "regression"; the score from
    [arXiv 2402.17327]). No weight exceeds ``n / (0.2 s)``. Fit with the weights of the draw:
    :func:`weighted_least_squares`. Other parameters and errors: :func:`regression_scores`.

    Parameters
    ----------
    leverage
        (n,) leverages instead of the medoids'. Those say little where the medoids are not many
        times the columns, and nothing where they are fewer: see :func:`sketched_leverage`.

    Returns
    -------
    ndarray
        (n,) float64 probabilities, at least ``0.2 / n`` each, summing to 1.
    """
    scores = regression_scores(
        features, targets, cluster=cluster, medoid_rows=medoid_rows, sizes=sizes, distance=distance
    )
    if leverage is None:
        held = medoid_leverage(np.asarray(features)[np.asarray(medoid_rows)], sizes, cluster)
    else:
        held = as_vector(leverage, len(scores), "leverage of row", least=0.0)
    aimed = SCORE_SHARE * law(scores, mix=0.0) + LEVERAGE_SHARE * law(held, mix=0.0)
    return aimed + UNIFORM_SHARE / len(scores)


# Scores of the baselines, which look at the features alone.
REGRESSION_LAWS: dict[str, Callable[[Numbers], Floats]] = {
    "uniform": lambda a: np.ones(len(as_matrix(a))),
    "row_norm": row_norm_scores,
    "leverage": leverage_scores,
    "ridge_leverage": lambda a: ridge_leverage_scores(a, row_norm_scores(a).sum() / np.shape(a)[1]),
}


def regression_baseline(kind: str, features: Numbers) -> Floats:
    """Return the law of a baseline, (n,) float64 probabilities that sum to 1.

    Nothing uniform is mixed in: a row of zeros has probability 0, except in ``uniform``. Raises as
    :func:`leverage_scores`, and for a kind that is not known.

    Parameters
    ----------
    kind : {"uniform", "row_norm", "leverage", "ridge_leverage"}
        A key of ``REGRESSION_LAWS``. The ridge is the mean squared singular value of the features,
        half way between leverage and row norms.
    features
        (n, d) numbers.
    """
    if kind not in REGRESSION_LAWS:
        raise ValueError(f"unknown regression law {kind!r}; known: {', '.join(REGRESSION_LAWS)}")
    return law(REGRESSION_LAWS[kind](features), mix=0.0)


def weighted_least_squares(
    features: Numbers, targets: Numbers, weights: Numbers, *, ridge: float = 0.0
) -> Floats:
    """Return the (d,) float64 coefficients that minimise ``sum w (a x - b)^2 + ridge |x|^2``.

    Where many do, as for m < d, the shortest, with the weighted columns brought to one length.
    Raises as :func:`leverage_scores`, and for a wrong target or weight.

    Parameters
    ----------
    features, targets
        (m, d) and (m,) numbers.
    weights
        (m,) numbers >= 0, not all 0, such as ``Draw.weights``.
    ridge
        Penalty >= 0, in squared units of the features times rows.
    """
    a = as_matrix(features)
    b, w = (
        as_vector(targets, len(a), "target of row"),
        as_vector(weights, len(a), "weight of row", least=0.0),
    )
    if not w.any():
        raise ValueError(f"all {len(w)} weights are 0")
    return solve(triangle_of(a, b, w), as_scalar(ridge, "ridge"), rounding_of(a))


def excess_risk(features: Numbers, targets: Numbers, coefficients: Numbers) -> float:
    """Return how much worse than the best fit of all rows the coefficients are, as a share of it.

    ``(R(x) - R(x*)) / R(x*)`` with R the sum of squared errors over **all** rows and x* its
    minimiser; the numerator is computed as ``|A (x - x*)|^2``, which is the same, never negative.

    Parameters
    ----------
    features, targets, coefficients
        (n, d), (n,) and (d,) numbers.

    Returns
    -------
    float
        >= 0, without unit. Where the best fit is exact, as for n <= d: 0 for coefficients that are
        exact too, infinity for others. Raises as :func:`weighted_least_squares`.
    """
    a = as_matrix(features)
    b, x = (
        as_vector(targets, len(a), "target of row"),
        as_vector(coefficients, a.shape[1], "coefficient"),
    )
    triangle = triangle_of(a, b)
    best = solve(triangle, 0.0, rounding_of(a))
    least = float(np.sum((triangle[:, :-1] @ best - triangle[:, -1]) ** 2))
    excess = float(np.sum((triangle[:, :-1] @ (x - best)) ** 2))
    exact = rounding_of(a) ** 2 * float(np.sum(triangle[:, -1] ** 2))
    if least <= exact:
        return 0.0 if excess <= exact else float("inf")
    return excess / least


def _clusters(
    cluster: Integers, sizes: Integers, medoid_rows: Integers | None, *, rows: int
) -> tuple[Ids, Ids, Ids]:
    ids = as_integers(cluster, rows, "cluster")
    k = np.size(sizes)
    counts = as_integers(sizes, k, "sizes")
    refuse(counts < 1, "cluster {0} has size {1}: leave empty clusters out", counts)
    bad = (ids < 0) | (ids >= k)
    refuse(bad, "row {0} is in cluster {1}: " + f"the clusters are 0 to {k - 1}", ids)
    members = np.bincount(ids, minlength=k)
    refuse(members > counts, "cluster {0} has {1} rows, more than its size says", members)
    if medoid_rows is None:
        return ids, counts, np.empty(0, dtype=np.int64)
    medoids = as_integers(medoid_rows, k, "medoid_rows")
    bad = (medoids < 0) | (medoids >= rows)
    refuse(bad, "medoid of cluster {0} is row {1}: " + f"the rows are 0 to {rows - 1}", medoids)
    refuse(ids[medoids] != np.arange(k), "medoid of cluster {0}, row {1}, is in another", medoids)
    return ids, counts, medoids
