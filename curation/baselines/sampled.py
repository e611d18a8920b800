"""Strategies that draw rows with known probabilities, and weight them."""

from __future__ import annotations

from typing import Any

import numpy as np

from curation import clustering, sampling
from curation.baselines.pool import Choice, Floats, Pool, Rows, Vectors
from curation.selection import SKETCH_DIMENSION, Selection, select


def uniform(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Uniform rows."""
    return Choice(rng.choice(pool.rest, size, replace=False))


def class_stratified(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Uniform rows of every class, in proportion to its size."""
    order = np.lexsort((rng.random(len(pool.rest)), pool.labels[pool.rest]))
    even = np.full(len(pool.rest), 1.0 / len(pool.rest))
    drawn = sampling.draw("systematic", even, size, order=order, rng=rng)
    return Choice(pool.rest[drawn.indices], drawn.weights)


def class_balanced(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """As many rows of every class, as far as there are; not weighted."""
    labels = pool.labels[pool.rest]
    line = rng.permutation(len(labels))
    place = np.empty(len(labels), dtype=np.int64)  # of each row within its class
    for name in pool.classes:
        own = line[labels[line] == name]
        place[own] = np.arange(len(own))
    return Choice(pool.rest[np.lexsort((rng.random(len(labels)), place))[:size]])


def cluster_stratified(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Uniform rows of every k-means cluster, in proportion to its size."""
    nothing = np.ones(len(pool.rest))  # the score is not looked at
    found = _select(pool, size, rng, score=nothing, design="stratified_uniform", proxy="cluster")
    return _chosen(pool, found)


def leverage(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows in proportion to the leverage scores of their embeddings, weighted."""
    return _by_law(pool, sampling.leverage_scores(pool.embeddings[pool.rest]), size, rng)


def full_gradient_norm(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows in proportion to their own gradient norm, which is asked for on every row; weighted.

    What ours approximates with k evaluations (Katharopoulos and Fleuret, 2018).
    """
    return _by_law(pool, pool.ask("gradient_norm", pool.rest), size, rng)


def published(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Clustering-based sensitivity sampling as published (Axiotis et al., 2024).

    Independent draws by ``q = l(c) + L v`` on k-means of the embeddings, without a uniform part.
    The paper takes L as given; here both terms have the same total, for which no row is asked.
    """
    found = _select(pool, size, rng, design="iid", proxy="cluster", constants="balanced", mix=0.0)
    return _chosen(pool, found)


def low_rank(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Sensitivities from a low-rank proxy on landmarks (arXiv 2606.16045), independent draws."""
    found = _select(pool, size, rng, design="iid", proxy="low_rank", mix=0.1)
    return _chosen(pool, found)


def ours(pool: Pool, size: int, rng: np.random.Generator, **options: Any) -> Choice:
    """`curation.select` on the pilot's gradients, as in the pipeline's space ``gradient``.

    The pilot sees every row once, for the gradients; its score is asked for at the medoids and
    pilot rows of the clustering.

    Parameters
    ----------
    pool, size, rng
        As everywhere.
    **options
        Of :func:`curation.select`.
    """
    residuals = pool.ask("residuals", pool.rest)
    features = np.asarray(pool.model.features(pool.given(pool.rest)), dtype=np.float32)
    sketch = clustering.GradientSketch.create(
        residuals.shape[1], features.shape[1], dimension=SKETCH_DIMENSION, seed=0
    )
    settings = {"design": "systematic", **options}
    found = _select(pool, size, rng, points=sketch(residuals, features), **settings)
    return _chosen(pool, found)


def ours_by_label(pool: Pool, size: int, rng: np.random.Generator, **options: Any) -> Choice:
    """`curation.select` on embeddings and labels: the model is asked about k rows and a few more.

    Parameters are those of :func:`ours`.
    """
    settings = {"space": "embedding+label", "design": "systematic", **options}
    return _chosen(pool, _select(pool, size, rng, **settings))


def _select(
    pool: Pool,
    size: int,
    rng: np.random.Generator,
    *,
    score: Floats | None = None,
    points: Vectors | None = None,
    **options: Any,
) -> Selection:
    def ask(rows: Rows) -> Floats:
        found: Floats = pool.ask("score", pool.rest[rows])
        return found

    return select(
        pool.embeddings[pool.rest] if points is None else points,
        ask if score is None else score,
        budget=size,
        labels=pool.labels[pool.rest],
        seed=int(rng.integers(2**31)),
        **options,
    )


def _chosen(pool: Pool, found: Selection) -> Choice:
    return Choice(pool.rest[found.indices], found.weights)


def _by_law(pool: Pool, scores: Floats, size: int, rng: np.random.Generator) -> Choice:
    law = sampling.law(scores, mix=0.1)
    drawn = sampling.draw("systematic", law, size, order=np.argsort(scores), rng=rng)
    return Choice(pool.rest[drawn.indices], drawn.weights)
