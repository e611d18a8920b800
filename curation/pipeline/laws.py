"""What rows are drawn by: sensitivity, or for least-squares fits leverage and residuals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation import sampling
from curation.pipeline.codes import Codes
from curation.pipeline.people import Population
from curation.sampling.guard import LEAST_MIX
from curation.selection import FLAT, Fitted, PerRow

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def law_of_rows(people: Population, fitted: Fitted, there: PerRow, rows: Rows) -> Floats:
    """Return the probability of each row per draw, by the law the data set's settings ask for.

    Parameters
    ----------
    people
        The population.
    fitted
        What was learned.
    there, rows
        What it says of the (r,) rows that are up for drawing, and their indices.
    """
    wanted = people.dataset.config.selection
    if wanted.law == "sensitivity":
        return fitted.law(
            there,
            flat=wanted.design in FLAT,  # the certificate is of the law that rows are drawn by
            tilt=_tilt(people, rows),
        )
    if wanted.law == "regression":
        return _regression(people, fitted, there)
    law = sampling.regression_baseline(wanted.law, _with_intercept(people.embeddings(rows)))
    return (1.0 - LEAST_MIX) * law + LEAST_MIX / len(rows)  # a row of zeros is stood for as well


def _regression(people: Population, fitted: Fitted, there: PerRow) -> Floats:
    """Return the mix of :func:`curation.sampling.regression_law` from what the medoids tell.

    The same formula, without all features in memory: of the rows that are not medoids it needs
    cluster and distance alone.
    """
    assert people.labels is not None  # noqa: S101  the configuration was checked
    clusters = fitted.clusters
    features = _with_intercept(people.embeddings(clusters.medoid_rows))
    every = np.arange(clusters.k)
    residual = sampling.regression_scores(
        features,
        people.labels[clusters.medoid_rows].astype(np.float64),
        cluster=every,
        medoid_rows=every,
        sizes=clusters.sizes,
        distance=np.zeros(clusters.k),
        constant=0.0,
    )
    proxy = residual[there.cluster]
    constant = sampling.balanced_constant(proxy, there.distance) if proxy.any() else 1.0
    score = sampling.law(sampling.sensitivity(proxy, there.distance, constant), mix=0.0)
    leverage = sampling.law(
        sampling.medoid_leverage(features, clusters.sizes, there.cluster), mix=0.0
    )
    shares = sampling.regression.SCORE_SHARE, sampling.regression.LEVERAGE_SHARE
    rest = sampling.regression.UNIFORM_SHARE / len(proxy)
    return shares[0] * score + shares[1] * leverage + rest


def _with_intercept(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return embeddings with a column of ones, as the ridge probe has an intercept."""
    return np.hstack([embeddings, np.ones((len(embeddings), 1), dtype=np.float32)])


def _tilt(people: Population, rows: Rows) -> Rows | None:
    """Return the classes or groups that rare rows are favoured by."""
    tilt = people.dataset.config.selection.tilt
    if tilt == "classes" and isinstance(people.labels, Codes):
        return people.labels.codes[rows].astype(np.int64)
    return groups_of(people, rows)[0] if tilt == "groups" else None


def groups_of(people: Population, rows: Rows) -> tuple[Rows | None, tuple[str, ...]]:
    """Return the group of each row and the groups' names."""
    if people.groups is None:
        return None, ()
    return people.groups.codes[rows].astype(np.int64), people.groups.classes
