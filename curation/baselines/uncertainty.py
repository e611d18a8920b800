"""Strategies that ask the model about every row."""

from __future__ import annotations

import numpy as np

from curation.baselines.pool import Choice, Floats, Pool, Rows, Vectors


def margin(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows with the smallest difference between the two most probable classes."""
    p = np.sort(pool.ask("probabilities", pool.rest), axis=1)
    return Choice(_least(pool, p[:, -1] - p[:, -2] if p.shape[1] > 1 else p[:, -1], size, rng))


def entropy(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows with the largest entropy of the predicted classes."""
    p = pool.ask("probabilities", pool.rest)
    return Choice(_least(pool, (p * np.log(np.maximum(p, 1e-300))).sum(axis=1), size, rng))


def el2n(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows with the largest error norm ``||p - onehot(y)||`` (Paul et al., 2021)."""
    errors = np.linalg.norm(pool.ask("residuals", pool.rest), axis=1)
    return Choice(_least(pool, -errors.astype(np.float64), size, rng))


def gradient_norm(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """Rows with the largest gradient norm, without weights."""
    return Choice(_least(pool, -pool.ask("gradient_norm", pool.rest), size, rng))


def badge(pool: Pool, size: int, rng: np.random.Generator) -> Choice:
    """BADGE (Ash et al., 2020): k-means++ on last-layer gradients under the predicted label.

    A gradient is ``(p - onehot(argmax p)) (x) h``. It is never formed: inner products of two are
    the product of the inner products of their factors.
    """
    a = pool.ask("probabilities", pool.rest).astype(np.float32)
    a[np.arange(len(a)), a.argmax(axis=1)] -= 1.0
    h = np.asarray(
        pool.model.features(pool.given(pool.rest)), dtype=np.float32
    )  # the same pass as the probabilities
    squares = np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", h, h)
    chosen = np.empty(size, dtype=np.int64)
    chosen[0] = np.argmax(squares)
    near = _apart(a, h, squares, int(chosen[0]))
    for step in range(1, size):
        total = near.sum(dtype=np.float64)
        if total > 0.0:
            line = np.cumsum(near, dtype=np.float64)
            at = np.searchsorted(line, rng.random() * line[-1], side="right")
            chosen[step] = min(int(at), len(near) - 1)
        else:  # all that is left are copies of chosen ones
            chosen[step] = rng.choice(np.setdiff1d(np.arange(len(near)), chosen[:step]))
        near = np.minimum(near, _apart(a, h, squares, int(chosen[step])))
        near[chosen[step]] = 0.0
    return Choice(pool.rest[chosen])


def _apart(a: Vectors, h: Vectors, squares: Vectors, row: int) -> Vectors:
    product = (a @ a[row]) * (h @ h[row])
    return np.maximum(squares - 2.0 * product + squares[row], 0.0)


def _least(pool: Pool, values: Floats, size: int, rng: np.random.Generator) -> Rows:
    """Return the rows of the least values; ties at random."""
    return pool.rest[np.lexsort((rng.random(len(values)), values))[:size]]
