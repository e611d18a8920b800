"""Designs: how rows are drawn from a law, and with which probabilities."""

from __future__ import annotations

import numpy as np

from curation.sampling.base import (
    Design,
    Draw,
    Floats,
    Rows,
    check_size,
    inclusion_probabilities,
    own_numbers,
    without_replacement,
)
from curation.sampling.stratified import coordinated, stratified, stratified_uniform

__all__ = [
    "DESIGNS",
    "Design",
    "Draw",
    "draw",
    "iid",
    "inclusion_probabilities",
    "poisson",
    "systematic",
    "uniform",
]


def systematic(
    law: Floats, s: int, order: Rows, rng: np.random.Generator, numbers: Floats | None = None
) -> Draw:
    """Ordered systematic sampling with probabilities proportional to the law.

    The rows are laid in `order` on a line, each as long as its inclusion probability, and a comb of
    step 1 with a random start takes the rows it hits: neighbours in the order share a draw, which
    stratifies by it. Exactly s rows, unbiased Horvitz-Thompson weights. `numbers` are not used.
    """
    pi = inclusion_probabilities(law, s)
    certain = np.flatnonzero(pi >= 1.0)
    line = order[pi[order] < 1.0]
    drawn: Rows = np.empty(0, dtype=np.int64)
    left = s - len(certain)
    if left:
        edges = np.cumsum(pi[line])
        edges *= left / edges[-1]  # rounding must not cost or add a row
        hits = np.searchsorted(edges, rng.random() + np.arange(left), side="right")
        drawn = line[np.minimum(hits, len(line) - 1)]
    return without_replacement(pi, certain, drawn, "systematic")


def iid(
    law: Floats, s: int, order: Rows, rng: np.random.Generator, numbers: Floats | None = None
) -> Draw:
    """Independent draws with replacement: the published algorithm (arXiv 2402.17327).

    A row drawn m times has weight ``m / (s p)``; it is in the sample with probability
    ``1 - (1 - p)^s``. The line that is drawn from follows `order`, so that the rows drawn do not
    depend on where they stand. `numbers` are not used.
    """
    check_size(len(law), s)
    edges = np.cumsum(law[order])
    places = np.searchsorted(edges, rng.random(s) * edges[-1], side="right")
    rows = order[np.minimum(places, len(law) - 1)]
    indices, multiplicity = np.unique(rows, return_counts=True)
    p = law / edges[-1]
    probabilities = -np.expm1(s * np.log1p(-np.minimum(p, 1.0 - 1e-16)))
    return Draw(
        indices=indices.astype(np.int64),
        weights=multiplicity / (s * p[indices]),
        inclusion_probability=probabilities[indices],
        probabilities=probabilities,
        take_all=np.zeros(len(indices), dtype=bool),
        multiplicity=multiplicity.astype(np.int64),
        design="iid",
    )


def uniform(
    law: Floats, s: int, order: Rows, rng: np.random.Generator, numbers: Floats | None = None
) -> Draw:
    """Simple random sampling without replacement: the baseline. The law is not used.

    The s rows with the smallest numbers; `order` settles ties only.
    """
    n = len(law)
    check_size(n, s)
    own = own_numbers(numbers, n, rng)
    drawn = np.sort(order[np.argsort(own[order], kind="stable")[:s]])
    pi = np.full(n, s / n)
    certain = drawn[:0] if s < n else drawn
    return without_replacement(pi, certain, drawn if s < n else drawn[:0], "uniform")


def poisson(
    law: Floats, s: int, order: Rows, rng: np.random.Generator, numbers: Floats | None = None
) -> Draw:
    """Every row on its own: drawn if its number is below its inclusion probability.

    No row depends on another, so rows can be decided on as they stream by. The price is a random
    size, s on average: it adds to the error of every total, and the sample can be empty.
    """
    pi = inclusion_probabilities(law, s)
    own = own_numbers(numbers, len(pi), rng)
    walk = pi[order]
    drawn = order[(own[order] < walk) & (walk < 1.0)]
    return without_replacement(pi, np.flatnonzero(pi >= 1.0), drawn, "poisson")


IN_STRATA = {
    "coordinated": coordinated,
    "stratified": stratified,
    "stratified_uniform": stratified_uniform,
}
DESIGNS: dict[str, Design] = {
    **IN_STRATA,
    "iid": iid,
    "poisson": poisson,
    "systematic": systematic,
    "uniform": uniform,
}


def draw(
    design: str,
    law: Floats,
    s: int,
    *,
    order: Rows | None = None,
    rng: np.random.Generator,
    numbers: Floats | None = None,
    cuts: Rows | None = None,
) -> Draw:
    """Draw s rows by the named design.

    Parameters
    ----------
    design
        A key of ``DESIGNS``.
    law
        (n,) float64 probabilities per draw.
    s
        Number of draws, 1..n; of ``poisson`` the expected number.
    order
        (n,) permutation of the rows that ordered designs walk along; left out, 0..n-1. It must not
        depend on `numbers`: strata of rows with like numbers would be drawn by their size alone.
    rng
        Source of every random choice that `numbers` leaves open.
    numbers
        (n,) permanent random numbers in (0, 1), one per row: with the same ones, ``coordinated``,
        ``stratified``, ``stratified_uniform``, ``poisson`` and ``uniform`` choose nearly the same
        rows after rows were added or removed. ``iid`` and ``systematic`` don't use them. Left out,
        they are drawn from rng.
    cuts
        (H-1,) increasing places in `order` at which a new stratum begins, for the designs that draw
        in strata; the others don't use them. Strata that stay where they are keep more rows than
        strata cut anew when rows come or go. Left out: about equal expected numbers of draws.

    Raises
    ------
    ValueError
        If the design is unknown, s is not in 1..n, or a number is not strictly inside (0, 1).
    """
    if design not in DESIGNS:
        raise ValueError(f"unknown design {design!r}; known: {', '.join(sorted(DESIGNS))}")
    line = np.arange(len(law), dtype=np.int64) if order is None else order
    if numbers is not None:
        numbers = _checked(numbers, len(law))
    if design in IN_STRATA:
        return IN_STRATA[design](law, s, line, rng, numbers, cuts)
    return DESIGNS[design](law, s, line, rng, numbers)


def _checked(numbers: Floats, n: int) -> Floats:
    numbers = np.asarray(numbers, dtype=np.float64)
    if numbers.shape != (n,):
        raise ValueError(f"expected {n} random numbers, one per row, got shape {numbers.shape}")
    wrong = ~((numbers > 0.0) & (numbers < 1.0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"random number of row {row} is {numbers[row]}: it must lie in (0, 1)")
    return numbers
