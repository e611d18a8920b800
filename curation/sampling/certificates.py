"""What can be promised about the error before a single drawn row is evaluated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


ROWS_AT_A_TIME = 1 << 18

IN_ROUNDS = (
    "score <= q on every row in every round, where each q goes by the model of its round; "
    "independent draws"
)
STRICT = "score <= q on every row, independent draws"
ALLOWING = (
    "scores that exceed q do so as the pilot's rows suggest (the excess), the others do not; "
    "independent draws"
)


@dataclass(frozen=True)
class Certificate:
    """An a-priori bound on the error of the estimated total.

    Attributes
    ----------
    epsilon
        Error radius as a share of `bound`: the smaller one of Hoeffding's and Bernstein's.
    delta
        Probability with which the error may exceed the radius.
    radius
        ``epsilon * bound + excess``, in units of the score.
    excess
        What scores above q may add, estimated from rows whose score is known and that the proxy had
        not seen; 0 where there are none. No theorem: it takes their part of the error for a normal
        one.
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
    excess: float = 0.0
    conditional_on: str = STRICT
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
    excess_variance: float | None = None,
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
    excess_variance
        ``sum max(l - q, 0)^2 / p`` over the rows, what is above q adds to the variance of a total
        at one draw, as estimated from a pilot; None without one. Draws of the part below q are
        bounded, and the inequalities above hold for them; the part above adds
        ``sqrt(2 ln(2 / delta) excess_variance / s)``, as if it were normal.
    """
    return certify_rounds(
        [(scores, law, s)],
        additive=additive,
        delta=delta,
        violated_share=violated_share,
        excess_variance=excess_variance,
    )


def certify_rounds(
    rounds: Sequence[tuple[Floats, Floats, int]],
    *,
    additive: float,
    delta: float,
    violated_share: float | None = None,
    excess_variance: float | None = None,
) -> Certificate:
    """Return the certificate of a mean over rounds, each in proportion to its draws.

    The terms of all rounds are martingale differences, for which both inequalities hold as well
    (Azuma, Freedman): by the largest bound of any round, and the rounds' mean second moment. Laws
    of later rounds follow from earlier draws, so that unlike that of a single draw this radius is
    known only when the last law is, and holds as far as bound and moment hardly vary with draws.

    Parameters
    ----------
    rounds
        Scores q, law and number of draws of each.
    additive, delta, violated_share, excess_variance
        As in :func:`certify`.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie in (0, 1), got {delta}")
    log, s = math.log(2.0 / delta), sum(draws for _, _, draws in rounds)
    bound = second = 0.0
    for scores, law, draws in rounds:
        for start in range(0, len(law), ROWS_AT_A_TIME):  # they need not be in memory
            q, p = (np.asarray(x[start : start + ROWS_AT_A_TIME]) for x in (scores, law))
            positive = p > 0.0
            terms = q[positive] / p[positive]
            bound = max(bound, float(np.max(terms, initial=0.0)))
            second += draws / s * float(q[positive] @ terms)
    epsilon = math.sqrt(log / (2.0 * s))
    if bound > 0.0:
        # Bernstein, with the second moment that scores of q would have: closer where the law is
        # flatter than q and few terms come near the bound. Both are known before the draw.
        spread = math.sqrt(second) / bound
        epsilon = min(epsilon, math.sqrt(2.0 * log / s) * spread + log / (3.0 * s))
    excess = math.sqrt(2.0 * log * (excess_variance or 0.0) / s)
    told = STRICT if excess_variance is None else ALLOWING
    return Certificate(
        epsilon=epsilon,
        delta=delta,
        radius=epsilon * bound + excess,
        bound=bound,
        additive=additive,
        excess=excess,
        conditional_on=told if len(rounds) == 1 else IN_ROUNDS,
        violated_share=violated_share,
    )
