"""What every design is made of: the draw, and inclusion probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.sampling.inclusion import Inclusion

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """Rows drawn, their weights, and what is needed to estimate with them.

    Attributes
    ----------
    indices
        (m,) int64 distinct rows, in the order of the design (take-all rows first).
    weights
        (m,) float64 weights that make a weighted total unbiased: ``1 / pi`` without replacement,
        ``multiplicity / (s p)`` with replacement. Never rescaled.
    inclusion_probability
        (m,) float64 probability, in (0, 1], that the row is in the sample.
    take_all
        (m,) bool: rows that are in every sample.
    multiplicity
        (m,) int64 times the row was drawn (1 except with replacement).
    design
        The design's name.
    stratum
        (m,) int64 stratum 0..H-1 of each row, -1 for take-all rows; None for designs without.
    rounding
        (H,) float64 in [0, 1): the fractional part of the expected number of draws from strata
        0..h, which is the probability that it was rounded up; None for designs without strata.
    probabilities
        (n,) float64 inclusion probability of every row that was up for drawing.
    cuts
        (H-1,) int64 places in the order at which a new stratum begins; None for designs without.
    inclusion
        What gives the inclusion probability of any row from its law, where `probabilities` were not
        kept.
    """

    indices: Rows
    weights: Floats
    inclusion_probability: Floats
    take_all: NDArray[np.bool_]
    multiplicity: NDArray[np.int64]
    design: str
    stratum: NDArray[np.int64] | None = None
    rounding: Floats | None = None
    probabilities: Floats | None = None
    cuts: Rows | None = None
    inclusion: Inclusion | None = None


# law, s, order, rng, permanent random numbers (None: the design draws its own from rng, if any)
Design = Callable[[Floats, int, Rows, np.random.Generator, Floats | None], Draw]


def inclusion_probabilities(law: Floats, s: int) -> Floats:
    """Return inclusion probabilities proportional to the law that sum to s, none above 1.

    Rows that would exceed 1 become certain, and the rest share what is left; repeated until none
    exceeds 1 (methods.md, section 6).

    Raises
    ------
    ValueError
        If s is not in 1..n, or fewer than s rows have a positive probability.
    """
    n = len(law)
    check_size(n, s)
    positive = int((law > 0.0).sum())
    if positive < s:
        raise ValueError(f"{s} rows are to be drawn, but only {positive} have a positive score")
    certain = np.zeros(n, dtype=bool)
    while True:
        left = s - int(certain.sum())
        rest = law[~certain].sum()
        pi = np.where(certain, 1.0, left * law / rest if rest > 0.0 else 0.0)
        above = (pi >= 1.0 - 1e-12) & ~certain  # rounding must not leave a certain row to chance
        if not above.any():
            never = int(((pi <= 0.0) & (law > 0.0)).sum())
            if never:
                raise ValueError(
                    f"{never} rows would never be drawn and so not be stood for: all {s} draws go "
                    "to rows with a far larger score; raise mix"
                )
            return np.where(certain, 1.0, pi)
        certain |= above


def without_replacement(pi: Floats, certain: Rows, drawn: Rows, design: str) -> Draw:
    """Return the draw of take-all rows and drawn rows, each with weight ``1 / pi``."""
    indices = np.concatenate([certain, drawn]).astype(np.int64)
    chosen = pi[indices]
    return Draw(
        indices=indices,
        weights=1.0 / chosen,
        inclusion_probability=chosen,
        take_all=np.arange(len(indices)) < len(certain),
        multiplicity=np.ones(len(indices), dtype=np.int64),
        design=design,
        probabilities=pi,
    )


def own_numbers(numbers: Floats | None, n: int, rng: np.random.Generator) -> Floats:
    """Return the numbers given, or n fresh ones, strictly inside (0, 1)."""
    return np.maximum(rng.random(n), 2.0**-54) if numbers is None else numbers


def check_size(n: int, s: int) -> None:
    """Refuse a number of draws that n rows can't give."""
    if not 1 <= s <= n:
        raise ValueError(f"the number of draws must be between 1 and {n} (the rows), got {s}")
