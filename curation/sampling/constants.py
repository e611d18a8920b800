"""The constants L of the sensitivity ``q = l-hat + L v``, in five ways (docs/methods.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.sampling.laws import balanced_constant, sensitivity

Floats = NDArray[np.float64]

CONSTANTS = ("balanced", "max", "quantile", "conformal", "variance")
PER_CLUSTER = ("max", "quantile")  # these need pilot rows in every cluster
QUANTILE = 0.9
CONFORMAL_LEVEL = 0.9
PRIOR_ROWS = 5.0  # how many pilot rows the quantile over all clusters counts as


@dataclass(frozen=True)
class Pilot:
    """Rows beyond the medoids whose score was asked for, to see how well the proxy does.

    Attributes
    ----------
    cluster
        (m,) int32.
    distance
        (m,) squared distance to the medoid.
    score
        (m,) the score.
    proxy
        (m,) what the proxy says without that score.
    weight
        (m,) how many rows each stands for; they sum to about n.
    """

    cluster: NDArray[np.int32]
    distance: Floats
    score: Floats
    proxy: Floats
    weight: Floats

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.score)

    def __getitem__(self, rows: NDArray[np.bool_]) -> Pilot:
        """Return some of the rows."""
        return Pilot(
            self.cluster[rows],
            self.distance[rows],
            self.score[rows],
            self.proxy[rows],
            self.weight[rows],
        )


def pilot_rows_per_cluster(k: int) -> int:
    """Return how many pilot rows a cluster needs for its largest ratio to be seen.

    ``ceil(ln(100 k) / ln(1 / (1 - 0.9)))``: the chance that any of the k clusters misses its upper
    tenth in all of them is below 1%.
    """
    return math.ceil(math.log(100.0 * k) / math.log(10.0))


@dataclass(frozen=True)
class Constants:
    """How distance enters the sensitivity.

    Attributes
    ----------
    mode
        One of ``CONSTANTS``.
    values
        (k,) L of each cluster, in units of the score per squared distance; for ``variance`` the
        score's variance per squared distance.
    """

    mode: str
    values: Floats

    def scaled(self, share: float) -> Constants:
        """Return the constants times a share."""
        return self if share == 1.0 else Constants(self.mode, share * self.values)

    def scores(self, proxy: Floats, distance: Floats, cluster: NDArray[np.int32]) -> Floats:
        """Return (m,) sensitivity scores q of rows given by proxy, distance and cluster."""
        own = self.values[cluster]
        if self.mode == "variance":
            return np.sqrt(proxy**2 + own * distance)
        return sensitivity(proxy, distance, own)

    def additive(self, distance: Floats, cluster: NDArray[np.int32]) -> float:
        """Return ``sum L v`` over the rows, the additive term of the guarantee."""
        own = self.values[cluster]
        return float((np.sqrt(own * distance) if self.mode == "variance" else own * distance).sum())


def estimate_constants(
    mode: str, *, mean_proxy: float, mean_distance: float, k: int, rows: int, pilot: Pilot | None
) -> Constants:
    """Estimate the constants.

    Parameters
    ----------
    mode
        ``balanced`` (no pilot: both terms of q get equal weight), ``max`` (the largest ratio
        ``r = |l - l-hat| / v`` seen in the cluster, times ln n, as published), ``quantile`` (the
        cluster's 0.9-quantile of r, shrunk towards that of all clusters), ``conformal`` (the
        balanced constant times the one factor that makes q cover 90% of the pilot's scores) or
        ``variance`` (no bound: ``q = sqrt(l-hat^2 + s2 v)`` with s2 the pilot's squared error per
        squared distance).
    mean_proxy, mean_distance
        Means over all rows.
    k, rows
        Numbers of clusters and of rows.
    pilot
        Needed by all but ``balanced``.

    Raises
    ------
    ValueError
        If the mode is unknown or needs a pilot.
    """
    if mode not in CONSTANTS:
        raise ValueError(f"unknown constants {mode!r}; known: {', '.join(CONSTANTS)}")
    balanced = balanced_constant(np.array([mean_proxy]), np.array([mean_distance]))
    if mode == "balanced":
        return Constants(mode, np.full(k, balanced))
    if pilot is None:
        raise ValueError(f"constants {mode!r} need pilot rows")
    error = np.abs(pilot.score - pilot.proxy)
    apart = pilot.distance > 0.0
    if not apart.any():  # every pilot row lies on its medoid: distance says nothing
        return Constants(mode, np.zeros(k))
    if mode == "variance":
        spread = float(pilot.weight @ error**2) / float(pilot.weight @ pilot.distance)
        return Constants(mode, np.full(k, spread))
    ratio = error[apart] / pilot.distance[apart]
    cluster = pilot.cluster[apart]
    if mode == "conformal":
        return Constants(mode, np.full(k, balanced * _conformal_factor(pilot, balanced)))
    return Constants(mode, _per_cluster(mode, ratio, cluster, pilot.weight[apart], k, rows))


def _conformal_factor(pilot: Pilot, balanced: float) -> float:
    """Return the smallest a with ``l <= l-hat + a L v`` on the level's share of the pilot rows."""
    excess = np.maximum(pilot.score - pilot.proxy, 0.0)
    reach = balanced * pilot.distance
    needed = np.sort(np.where(excess > 0.0, excess / np.maximum(reach, 1e-300), 0.0))
    place = min(math.ceil((len(needed) + 1) * CONFORMAL_LEVEL), len(needed)) - 1
    finite = needed[np.isfinite(needed) & (needed < 1e200)]
    return float(min(needed[place], finite[-1] if len(finite) else 0.0))


def _per_cluster(
    mode: str,
    ratio: Floats,
    cluster: NDArray[np.int32],
    weight: Floats,
    k: int,
    rows: int,
) -> Floats:
    order = np.lexsort((ratio, cluster))
    ratio, cluster = ratio[order], cluster[order]
    present, first, number = np.unique(cluster, return_index=True, return_counts=True)
    if mode == "max":
        largest = ratio[first + number - 1] * math.log(max(rows, 3))
        values = np.full(k, float(np.median(largest)))
        values[present] = largest
        return values
    by_size = np.argsort(ratio, kind="stable")
    share = np.cumsum(weight[order][by_size])
    everywhere = float(ratio[by_size][np.searchsorted(share, QUANTILE * share[-1])])
    own = ratio[first + np.minimum((QUANTILE * number).astype(np.int64), number - 1)]
    values = np.full(k, everywhere)
    values[present] = (number * own + PRIOR_ROWS * everywhere) / (number + PRIOR_ROWS)
    return values
