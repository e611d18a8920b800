"""Estimates from a draw, with their standard errors."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from curation.sampling.designs import Draw

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """An estimated total with a two-sided normal interval.

    Attributes
    ----------
    value, standard_error, low, high
        In the unit of the values.
    level
        Nominal coverage of [low, high].
    """

    value: float
    standard_error: float
    low: float
    high: float
    level: float


def estimate_total(
    values: Floats, sample: Draw, *, known: float = 0.0, level: float = 0.95
) -> Estimate:
    """Return the Horvitz-Thompson estimate of a total over all rows.

    Parameters
    ----------
    values
        (m,) values of the drawn rows, in the order of ``sample.indices``.
    sample
        The draw.
    known
        Total over rows that were not up for drawing because their values are known (the pilot).
    level
        Nominal coverage of the interval.

    Returns
    -------
    Estimate
        The standard error is that of independent draws for ``iid``, successive differences along
        the order for ``systematic`` and the textbook one for ``uniform``;
        infinite where a single random row leaves it open. Coverage is nominal (docs/methods.md).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != sample.weights.shape:
        raise ValueError(f"expected {len(sample.weights)} values, got shape {values.shape}")
    value = known + float(values @ sample.weights)
    error = float(np.sqrt(_variance(values, sample)))
    reach = NormalDist().inv_cdf(0.5 + level / 2.0) * error
    return Estimate(value, error, value - reach, value + reach, level)


def _variance(values: Floats, sample: Draw) -> float:
    drawn = ~sample.take_all
    if sample.design == "iid":
        # each draw contributes values / p; a row drawn m times is m equal contributions
        s = int(sample.multiplicity.sum())
        if s < 2:
            return np.inf
        per_draw = values * sample.weights / sample.multiplicity * s
        mean = float(np.average(per_draw, weights=sample.multiplicity))
        squares = float(((per_draw - mean) ** 2) @ sample.multiplicity)
        return squares / (s * (s - 1))
    m = int(drawn.sum())
    if m < 2:
        return np.inf if m else 0.0  # one random row says nothing of the spread
    # sqrt(1 - pi): rows that are nearly certain contribute nearly nothing
    parts = (values * sample.weights * np.sqrt(1.0 - sample.inclusion_probability))[drawn]
    if sample.design == "systematic":
        return float(m * np.sum(np.diff(parts) ** 2) / (2.0 * (m - 1)))
    return float(m * np.var(parts, ddof=1))


def effective_sample_size(weights: Floats) -> float:
    """Return Kish's effective sample size ``(sum w)^2 / sum w^2``, in rows."""
    weights = np.asarray(weights, dtype=np.float64)
    return float(weights.sum() ** 2 / np.square(weights).sum())
