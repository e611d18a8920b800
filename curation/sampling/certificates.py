"""What can be promised about the error before a single drawn row is evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """An a-priori bound on the error of the estimated total.

    Attributes
    ----------
    epsilon
        Error radius as a share of `bound`.
    delta
        Probability with which the error may exceed the radius.
    radius
        ``epsilon * bound``, in units of the score.
    bound
        Largest possible contribution of one draw, ``max q / p``; the sensitivity total where
        the law is exactly proportional to q.
    additive
        ``sum L v``: the part of the sensitivity total that is due to distance, in units of the
        score.
    conditional_on
        What must hold for the bound to.
    violated_share
        Share of the rows on which the score exceeds ``q``, estimated before the draw from rows
        whose score is known and that the proxy had not seen; None where there are none.
    """

    epsilon: float
    delta: float
    radius: float
    bound: float
    additive: float
    conditional_on: str = "score <= q on every row, independent draws"
    violated_share: float | None = None


def sample_size(epsilon: float, delta: float) -> int:
    """Return the number of draws that certifies radius ``epsilon * bound`` at level 1 - delta.

    Hoeffding's inequality for draws in [0, bound]: ``s = ceil(ln(2/delta) / (2 epsilon^2))``.
    """
    if not (0.0 < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(f"epsilon and delta must lie in (0, 1), got {epsilon} and {delta}")
    return math.ceil(math.log(2.0 / delta) / (2.0 * epsilon**2))


def certify(
    scores: Floats,
    law: Floats,
    s: int,
    *,
    additive: float,
    delta: float,
    violated_share: float | None = None,
) -> Certificate:
    """Return the certificate of s draws.

    Parameters
    ----------
    scores
        (n,) sensitivity scores q.
    law
        (n,) probability of each row per draw.
    s
        Number of draws.
    additive
        ``sum L v`` over the rows.
    delta
        Error probability.
    violated_share
        What is known of the assumption; handed on.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")
    epsilon = math.sqrt(math.log(2.0 / delta) / (2.0 * s))
    positive = law > 0.0
    bound = float(np.max(scores[positive] / law[positive]))
    return Certificate(
        epsilon, delta, epsilon * bound, bound, additive, violated_share=violated_share
    )
