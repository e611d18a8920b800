"""Composes clustering and sampling in memory: what ``curation.select`` is.

The pipeline runs the same functions over blocks from the store; this module is for a notebook, and
for everything that both need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curation import clustering, sampling
from curation.clustering.spaces import class_codes

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]
Score = Callable[[NDArray[np.int64]], NDArray[np.floating]]

SKETCH_DIMENSION = 256
AUTO_K_MOST = 400


def resolve_k(k: int | str, *, budget: int, rows: int) -> int:
    """Return the number of clusters: `k`, or for ``auto`` a quarter of the budget, at most 400.

    More clusters make the proxy sharper and cost one query each. At a quarter of the budget the
    queries stay well below the rows that are trained on.
    """
    if k == "auto":
        return max(1, min(round(budget / 4), AUTO_K_MOST, rows))
    if not isinstance(k, int) or not 1 <= k <= rows:
        raise ValueError(f"k must be `auto` or between 1 and {rows} (the rows), got {k!r}")
    return k


def label_scale(
    embeddings: NDArray[np.float32], labels: NDArray[np.generic], classes: tuple[str, ...]
) -> clustering.LabelScale:
    """Return how labels are appended to these embeddings (see ``embedding+label``)."""
    norm = float(np.linalg.norm(embeddings, axis=1).mean(dtype=np.float64))
    if classes:
        return clustering.LabelScale(classes, norm)
    numbers = labels.astype(np.float64)
    return clustering.LabelScale((), norm, float(numbers.mean()), float(numbers.std()) or 1.0)


@dataclass(frozen=True)
class Law:
    """The law rows are drawn by, with what it was made of.

    Attributes
    ----------
    scores
        (n,) sensitivity scores ``q = l-hat + L v``.
    probability
        (n,) probability per draw, sums to 1.
    constant
        L.
    additive
        ``sum L v``, in units of the score.
    """

    scores: Floats
    probability: Floats
    constant: float
    additive: float


def make_law(
    proxy: Floats,
    distance: Floats,
    *,
    mix: float,
    classes: NDArray[np.int64] | None = None,
    constant: float | None = None,
) -> Law:
    """Return the law for rows with the given proxies and distances.

    Parameters
    ----------
    proxy, distance
        (n,) score of each row's medoid and squared distance to it.
    mix
        Share of the uniform law.
    classes
        (n,) classes to tilt towards rare ones by; None for no tilt.
    constant
        L; left out, the balanced one over these rows.
    """
    balanced = sampling.balanced_constant(proxy, distance) if constant is None else constant
    scores = sampling.sensitivity(proxy, distance, balanced)
    probability = sampling.law(scores, mix=mix, classes=classes)
    if (probability == 0.0).any():
        raise ValueError(
            f"{int((probability == 0.0).sum())} rows would never be drawn and so not be stood for: "
            "their score is 0 and mix is 0; raise mix"
        )
    return Law(scores, probability, balanced, float(balanced * distance.sum()))


def draw_order(
    cluster: NDArray[np.int32], rank: NDArray[np.int32], distance: Floats
) -> NDArray[np.int64]:
    """Return the order a systematic draw walks along: clusters by rank, then by distance."""
    return np.lexsort((distance, rank[cluster])).astype(np.int64)


@dataclass(frozen=True, repr=False)
class Selection:
    """Rows chosen, their weights and how they came about.

    Attributes
    ----------
    indices
        (m,) int64 rows, sorted.
    weights
        (m,) float64 Horvitz-Thompson weights, never rescaled.
    inclusion_probability
        (m,) float64 in (0, 1].
    reason
        (m,) ``take-all`` or ``drawn``.
    queries
        Score evaluations spent.
    certificate
        A-priori bound on the error of the estimated total score.
    cluster, score
        (m,) cluster and sensitivity score of each chosen row.
    """

    indices: NDArray[np.int64]
    weights: Floats
    inclusion_probability: Floats
    reason: NDArray[np.str_]
    queries: int
    certificate: sampling.Certificate
    cluster: NDArray[np.int32]
    score: Floats
    _draw: sampling.Draw = field(repr=False)

    def __repr__(self) -> str:
        """Say what was chosen, in one line."""
        return (
            f"Selection({len(self.indices):,} rows by {self._draw.design}, {self.queries:,} score "
            f"evaluations, weights from {self.weights.min():.3g} to {self.weights.max():.3g})"
        )

    def estimate(self, values: NDArray[np.floating], *, level: float = 0.95) -> sampling.Estimate:
        """Estimate a total over all rows from the values of the chosen rows.

        Parameters
        ----------
        values
            (m,) values aligned with ``indices``.
        level
            Nominal coverage of the interval.
        """
        if np.shape(values) != self.indices.shape:
            raise ValueError(
                f"expected the values of the {len(self.indices)} chosen rows (values[indices]), "
                f"got shape {np.shape(values)}"
            )
        back = np.searchsorted(self.indices, self._draw.indices)
        return sampling.estimate_total(
            np.asarray(values, np.float64)[back], self._draw, level=level
        )

    def to_frame(self) -> pl.DataFrame:
        """Return the selection as a polars frame, one row per chosen row."""
        import polars as pl

        return pl.DataFrame(
            {
                "index": self.indices,
                "weight": self.weights,
                "inclusion_probability": self.inclusion_probability,
                "cluster": self.cluster,
                "score": self.score,
                "reason": self.reason,
            }
        )


def select(
    embeddings: NDArray[np.floating],
    score: Score | NDArray[np.floating],
    *,
    budget: int | None = None,
    fraction: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.05,
    labels: NDArray[np.generic] | None = None,
    k: int | str = "auto",
    space: str = "embedding",
    design: str = "systematic",
    mix: float = 0.1,
    tilt: str | None = None,
    seed: int = 0,
) -> Selection:
    """Choose rows so that weighted totals over them estimate totals over all rows.

    Parameters
    ----------
    embeddings
        (n, d) finite numbers; cast to float32.
    score
        Called once with the (k,) int64 indices of the medoids, returns their scores, >= 0; or an
        (n,) array of which only those entries are read.
    budget, fraction, epsilon
        Number of draws, share of the rows, or error radius as a share of the sensitivity total at
        level ``1 - delta``. Give exactly one.
    labels
        (n,) class of each row: for ``space="embedding+label"`` and ``tilt="classes"``.
    k
        Clusters, or ``auto``.
    space
        ``embedding`` or ``embedding+label``.
    design
        ``systematic``, ``iid`` (the published algorithm) or ``uniform``.
    mix
        Share of the uniform law, in [0, 1].
    tilt
        ``classes`` tilts the law towards rare classes.
    seed
        Same input, seed and thread count: same rows.

    Raises
    ------
    ValueError
        For input that can't be meant: wrong shapes, NaN, a negative score, a budget above n.
    """
    if labels is not None:
        labels = np.asarray(labels).astype(str)
    points = _points(embeddings, labels, space=space, tilt=tilt)
    n = len(points)
    if sum(x is not None for x in (budget, fraction, epsilon)) != 1:
        raise ValueError("give exactly one of budget, fraction, epsilon")
    s = resolve_budget(n, budget=budget, fraction=fraction, epsilon=epsilon, delta=delta)
    rng = np.random.default_rng(seed)
    clusters = resolve_k(k, budget=s, rows=n)
    sample = np.sort(rng.permutation(n)[: max(64 * clusters, clusters)])
    centroids = clustering.fit_centroids(points[sample], clusters, seed=seed)
    summary = clustering.summarise([points], centroids)
    cluster, _ = clustering.assign(points, summary.centroids)
    distance = ((points - summary.medoids[cluster]) ** 2).sum(axis=1, dtype=np.float64)
    queried = _query(score, summary.medoid_rows, n)
    classes = None
    if tilt == "classes" and labels is not None:
        classes = class_codes(labels, tuple(np.unique(labels)))
    the_law = make_law(
        queried[cluster],
        distance,
        mix=1.0 if design == "uniform" else mix,
        classes=classes,
    )
    drawn = sampling.draw(
        design,
        the_law.probability,
        s,
        order=draw_order(cluster, summary.rank, distance),
        rng=rng,
    )
    certificate = sampling.certify(
        the_law.scores, the_law.probability, s, additive=the_law.additive, delta=delta
    )
    by_row = np.argsort(drawn.indices, kind="stable")
    chosen = drawn.indices[by_row]
    return Selection(
        indices=chosen,
        weights=drawn.weights[by_row],
        inclusion_probability=drawn.inclusion_probability[by_row],
        reason=np.where(drawn.take_all[by_row], "take-all", "drawn"),
        queries=summary.k,
        certificate=certificate,
        cluster=cluster[chosen],
        score=the_law.scores[chosen],
        _draw=drawn,
    )


def _points(
    embeddings: NDArray[np.floating],
    labels: NDArray[np.generic] | None,
    *,
    space: str,
    tilt: str | None,
) -> NDArray[np.float32]:
    points = np.ascontiguousarray(embeddings, dtype=np.float32)
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(f"expected embeddings of shape (n, d) with n >= 1, got {points.shape}")
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ValueError(f"embedding of row {row} has a NaN or infinite coordinate")
    if labels is not None and np.shape(labels) != (len(points),):
        raise ValueError(f"expected {len(points)} labels, got shape {np.shape(labels)}")
    if tilt not in (None, "classes"):
        raise ValueError(f"tilt must be None or 'classes', got {tilt!r}")
    if space not in ("embedding", "embedding+label"):
        raise ValueError(f"space must be 'embedding' or 'embedding+label', got {space!r}")
    if labels is None and (tilt or space != "embedding"):
        raise ValueError("this space or tilt needs `labels`")
    if space == "embedding+label" and labels is not None:
        how = label_scale(points, labels, tuple(np.unique(labels).tolist()))
        return clustering.append_labels(points, labels, how)
    return points


def resolve_budget(
    n: int,
    *,
    budget: int | None = None,
    fraction: float | None = None,
    epsilon: float | None = None,
    delta: float = 0.05,
) -> int:
    """Return the number of rows that a budget, a fraction or an epsilon asks of n rows.

    Raises
    ------
    ValueError
        If that is not between 1 and n.
    """
    if epsilon is not None:
        s = sampling.sample_size(epsilon, delta)
        if s > n:
            raise ValueError(
                f"epsilon = {epsilon} at delta = {delta} needs {s:,} draws, more than the {n:,} "
                f"rows there are; a larger epsilon, or all rows"
            )
        return s
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    s = budget if budget is not None else max(1, round((fraction or 0.0) * n))
    if s != int(s):
        raise ValueError(f"budget must be a whole number of rows, got {s}")
    if not 1 <= s <= n:
        raise ValueError(f"a budget of {s:,} rows does not fit a data set of {n:,} rows")
    return s


def _query(score: Score | NDArray[np.floating], rows: NDArray[np.int64], n: int) -> Floats:
    if callable(score):
        got = np.asarray(score(rows), dtype=np.float64)
        if got.shape != rows.shape:
            raise ValueError(f"score returned shape {got.shape} for {len(rows)} rows")
    else:
        if np.shape(score) != (n,):
            raise ValueError(f"expected {n} scores, got shape {np.shape(score)}")
        got = np.asarray(score, dtype=np.float64)[rows]
    if not (np.isfinite(got).all() and (got >= 0.0).all()):
        row = int(rows[~(np.isfinite(got) & (got >= 0.0))][0])
        raise ValueError(f"the score of row {row} must be finite and >= 0")
    return got
