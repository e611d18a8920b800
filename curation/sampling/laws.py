"""From a proxy of the score to the law that rows are drawn by (docs/methods.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def balanced_constant(proxy: Floats, distance: Floats) -> float:
    """Return the constant L that gives both terms of the sensitivity equal weight.

    ``L = mean(proxy) / mean(distance)``, so that over all rows ``sum L v = sum l-hat``. It needs no
    pilot rows per cluster; unbiasedness never depends on it. 0 where every distance is 0.
    """
    spread = float(np.mean(distance))
    return float(np.mean(proxy)) / spread if spread > 0.0 else 0.0


def sensitivity(proxy: Floats, distance: Floats, constant: Floats | float) -> Floats:
    """Return the sensitivity score ``q = l-hat + L v`` (arXiv 2402.17327, algorithm 1).

    Parameters
    ----------
    proxy
        (n,) score of the row's medoid, >= 0.
    distance
        (n,) squared distance of the row to its medoid.
    constant
        L, one for all rows or one per row.
    """
    return proxy + constant * distance


def law(scores: Floats, *, mix: float = 0.1, classes: NDArray[np.int64] | None = None) -> Floats:
    """Return the probability of each row per draw.

    Parameters
    ----------
    scores
        (n,) sensitivity scores, >= 0. All zero: the law is uniform.
    mix
        Share of the uniform law mixed in; it caps every weight at ``n / (mix s)``.
    classes
        (n,) class of each row, to tilt the law towards rare classes: the geometric mean
        ``sqrt(sensitivity * class-balanced)``, normalised, before uniform is mixed in.

    Returns
    -------
    ndarray
        (n,) float64, positive where `mix` or the score is, summing to 1.

    Raises
    ------
    ValueError
        If a score is negative, NaN or infinite, or `mix` is not in [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    n = len(scores)
    if n == 0:
        raise ValueError("there are no rows to draw from")
    if not 0.0 <= mix <= 1.0:
        raise ValueError(f"mix must be in [0, 1], got {mix}")
    wrong = ~(np.isfinite(scores) & (scores >= 0.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"score of row {row} is {scores[row]}: it must be finite and >= 0")
    total = scores.sum()
    base = scores / total if total > 0.0 else np.full(n, 1.0 / n)
    if classes is not None:
        balanced = 1.0 / np.bincount(classes)[classes]
        base = np.sqrt(base * balanced)
        base /= base.sum()
    return (1.0 - mix) * base + mix / n
