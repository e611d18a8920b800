"""Designs: how rows are drawn from a law, and with which probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    indices: Rows
    weights: Floats
    inclusion_probability: Floats
    take_all: NDArray[np.bool_]
    multiplicity: NDArray[np.int64]
    design: str


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
    _check_size(n, s)
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
            return np.where(certain, 1.0, pi)
        certain |= above


def systematic(law: Floats, s: int, order: Rows, rng: np.random.Generator) -> Draw:
    """Ordered systematic sampling with probabilities proportional to the law.

    The rows are laid in `order` on a line, each as long as its inclusion probability, and a comb of
    step 1 with a random start takes the rows it hits: neighbours in the order share a draw, which
    stratifies by it. Exactly s rows, unbiased Horvitz-Thompson weights.
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
    return _without_replacement(pi, certain, drawn, "systematic")


def iid(law: Floats, s: int, order: Rows, rng: np.random.Generator) -> Draw:
    """Independent draws with replacement: the published algorithm (arXiv 2402.17327).

    A row drawn m times has weight ``m / (s p)``; it is in the sample with probability
    ``1 - (1 - p)^s``. `order` is not used.
    """
    _check_size(len(law), s)
    edges = np.cumsum(law)
    rows = np.searchsorted(edges, rng.random(s) * edges[-1], side="right")
    indices, multiplicity = np.unique(np.minimum(rows, len(law) - 1), return_counts=True)
    p = law[indices] / edges[-1]
    return Draw(
        indices=indices.astype(np.int64),
        weights=multiplicity / (s * p),
        inclusion_probability=-np.expm1(s * np.log1p(-np.minimum(p, 1.0 - 1e-16))),
        take_all=np.zeros(len(indices), dtype=bool),
        multiplicity=multiplicity.astype(np.int64),
        design="iid",
    )


def uniform(law: Floats, s: int, order: Rows, rng: np.random.Generator) -> Draw:
    """Simple random sampling without replacement: the baseline. The law is not used."""
    n = len(law)
    _check_size(n, s)
    drawn = np.sort(rng.choice(n, size=s, replace=False))
    pi = np.full(n, s / n)
    certain = np.empty(0, dtype=np.int64) if s < n else drawn
    return _without_replacement(pi, certain, drawn if s < n else certain[:0], "uniform")


Design = Callable[[Floats, int, Rows, np.random.Generator], Draw]

DESIGNS: dict[str, Design] = {"systematic": systematic, "iid": iid, "uniform": uniform}


def draw(
    design: str, law: Floats, s: int, *, order: Rows | None = None, rng: np.random.Generator
) -> Draw:
    """Draw s rows by the named design.

    Parameters
    ----------
    design
        A key of ``DESIGNS``.
    law
        (n,) float64 probabilities per draw.
    s
        Number of draws, 1..n.
    order
        (n,) permutation of the rows that ordered designs walk along; left out, 0..n-1.
    rng
        Source of every random choice.

    Raises
    ------
    ValueError
        If the design is unknown or s is not in 1..n.
    """
    if design not in DESIGNS:
        raise ValueError(f"unknown design {design!r}; known: {', '.join(sorted(DESIGNS))}")
    line = np.arange(len(law), dtype=np.int64) if order is None else order
    return DESIGNS[design](law, s, line, rng)


def _without_replacement(pi: Floats, certain: Rows, drawn: Rows, design: str) -> Draw:
    indices = np.concatenate([certain, drawn]).astype(np.int64)
    chosen = pi[indices]
    return Draw(
        indices=indices,
        weights=1.0 / chosen,
        inclusion_probability=chosen,
        take_all=np.arange(len(indices)) < len(certain),
        multiplicity=np.ones(len(indices), dtype=np.int64),
        design=design,
    )


def _check_size(n: int, s: int) -> None:
    if not 1 <= s <= n:
        raise ValueError(f"the number of draws must be between 1 and {n} (the rows), got {s}")
