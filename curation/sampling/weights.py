"""Weights for training, next to the Horvitz-Thompson weights for estimation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def training_weights(
    weights: Floats,
    pilot: NDArray[np.bool_],
    *,
    rows: int,
    draws: int | None = None,
    exponent: float = 1.0,
) -> Floats:
    """Return weights for a training loss, mean 1.

    Pilot rows have Horvitz-Thompson weight 1: they stand for themselves. For training they are a
    uniform sample of all rows, as good as any. Two unbiased estimates of the same total, the
    pilot's and the draw's, are combined in proportion to their sizes::

        pilot row   (n / m) * (m / b)
        drawn row   w * n / (n - m) * (b - m) / b

    with m pilot rows among b. An exponent below 1 tempers the weights: less variance in training,
    at the price of a bias towards rows that were drawn more often (methods.md, section 7).

    Parameters
    ----------
    weights
        (b,) Horvitz-Thompson weights, pilot rows included.
    pilot
        (b,) bool.
    rows
        n, the number of rows the subset stands for.
    draws
        b - m, the number of draws; left out, the number of rows that are not in the pilot. With
        replacement there are more draws than rows, and how many fewer is random.
    exponent
        In [0, 1].
    """
    m = int(pilot.sum())
    b = m + (len(weights) - m if draws is None else draws)
    combined = np.asarray(weights, dtype=np.float64).copy()
    if 0 < m < min(b, rows):
        combined[pilot] = rows / b
        combined[~pilot] *= rows / (rows - m) * (b - m) / b
    tempered = combined**exponent
    return tempered / tempered.mean()
