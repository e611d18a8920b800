"""Designs that walk along an order, cut it into strata, and draw by permanent random numbers.

A row is drawn if its own number is small among those of its stratum, so rows that come or go
change little: the others keep their numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.sampling.base import (
    Draw,
    Floats,
    Rows,
    check_size,
    inclusion_probabilities,
    own_numbers,
    without_replacement,
)

Strata = NDArray[np.int64]

# Larger strata keep more rows where strata are cut anew (5% of the rows added at random places,
# n = 20,000, s = 500, strata of 2, 4, 8 and 16 draws: 83, 90, 93 and 94% stay), smaller ones follow
# the order more closely: strata of 4 have 2 to 10% less error than strata of 8, of 2 hardly less
# than of 4. With cuts that are kept, 93% and more stay with 4 as well.
DRAWS_PER_STRATUM = 4
# Strata are joined until sum pi (1 - pi) is this. Pareto sampling is furthest from its pi where
# small ones and ones near 1 are mixed: half of the rows at 0.05 or 0.1 and half at 0.95 or 0.9, the
# small ones come out 8% too low at 1.1, 3% at 1.4, 1% at 3 (300,000 strata).
LEAST_SLACK = 2.0
MIXED_SLACK = 4.0  # where a stratum has rows near 1 (above 0.8) beside others
NEAR = 1.5  # logarithm of a ranking: hardly a stratum has fewer rows below than it has draws


def coordinated(
    law: Floats,
    s: int,
    order: Rows,
    rng: np.random.Generator,
    numbers: Floats | None = None,
    cuts: Rows | None = None,
) -> Draw:
    """Stratified draw with probabilities proportional to the law, stable under changes of the rows.

    Strata are runs of the order holding about ``DRAWS_PER_STRATUM`` expected draws; inside one,
    Pareto sampling by the rows' permanent random numbers (methods.md, section 6). Exactly s rows.
    """
    pi = inclusion_probabilities(law, s)
    return _draw_by_strata(pi, s, order, rng, numbers, cuts, "coordinated", alike=False)


def stratified(
    law: Floats,
    s: int,
    order: Rows,
    rng: np.random.Generator,
    numbers: Floats | None = None,
    cuts: Rows | None = None,
) -> Draw:
    """Stratified draw with Neyman's allocation: the law decides how many, not which.

    Strata as in :func:`coordinated`, each with as many expected draws as the law has mass in it;
    inside a stratum all rows are alike. Rows that the law makes certain stay take-all.
    """
    pi = inclusion_probabilities(law, s)
    return _draw_by_strata(pi, s, order, rng, numbers, cuts, "stratified", alike=True)


def stratified_uniform(
    law: Floats,
    s: int,
    order: Rows,
    rng: np.random.Generator,
    numbers: Floats | None = None,
    cuts: Rows | None = None,
) -> Draw:
    """Proportional stratified draw: every row has probability s / n. The law is not used."""
    n = len(law)
    check_size(n, s)
    pi = np.full(n, s / n)
    return _draw_by_strata(pi, s, order, rng, numbers, cuts, "stratified_uniform", alike=True)


def _draw_by_strata(
    pi: Floats,
    s: int,
    order: Rows,
    rng: np.random.Generator,
    numbers: Floats | None,
    cuts: Rows | None,
    design: str,
    *,
    alike: bool,
) -> Draw:
    start = rng.random()  # first: it must not depend on how many rows there are
    own = own_numbers(numbers, len(pi), rng)
    certain = np.flatnonzero(pi >= 1.0)
    walk = pi[order]
    places = np.flatnonzero((walk < 1.0) & (walk > 0.0))
    line = order[places]
    left = s - len(certain)
    if not left:
        drawn = without_replacement(pi, certain, line[:0], design)
        none = np.empty(0, dtype=np.int64)
        return replace(
            drawn, stratum=np.full(s, -1, dtype=np.int64), rounding=np.empty(0), cuts=none
        )
    chance = pi[line]
    given = None if cuts is None else np.searchsorted(cuts, places, side="right")
    stratum, ends = _strata(chance, left, given)
    if alike:
        chance = (np.bincount(stratum, chance) / np.bincount(stratum))[stratum]
        pi = pi.copy()
        pi[line] = chance
    filled = np.floor(ends + start).astype(np.int64)
    sizes = filled - np.concatenate([[0], filled[:-1]])
    if left == 1:
        ranking = -np.log1p(-own[line]) / chance  # the least of exponentials: exact for one draw
    else:
        ranking = _ranking(chance, stratum, sizes, own[line])
    if not alike and left > 1 and len(sizes) == 1 and nearly_settled(chance):
        chosen = comb(chance, left, start)
    else:
        chosen = smallest(ranking, stratum, sizes)
    drawn = without_replacement(pi, certain, line[chosen], design)
    none = np.full(len(certain), -1, dtype=np.int64)
    return replace(
        drawn,
        stratum=np.concatenate([none, stratum[chosen]]),
        rounding=ends - np.floor(ends),
        cuts=places[np.flatnonzero(np.diff(stratum)) + 1],
    )


def _strata(chance: Floats, left: int, given: Strata | None) -> tuple[Strata, Floats]:
    """Cut the line into strata; return each row's, and the expected draws up to each one's end.

    A row belongs to the stratum its middle lies in, unless strata are given. A last short stratum
    joins the one before, and so do strata too close to certainty: ``sum pi (1 - pi) >= 1`` would be
    enough to keep every target inside (0, 1) and every size within the rows there are.
    """
    edges = np.cumsum(chance)
    edges *= left / edges[-1]  # rounding must not cost or add a row
    if given is None:
        last = max(left // DRAWS_PER_STRATUM, 1) - 1
        middle = edges - chance / 2.0 + 1e-9  # one right on a cut must not be left to rounding
        stratum = np.minimum(middle // DRAWS_PER_STRATUM, last).astype(np.int64)
    else:
        stratum = np.cumsum(np.diff(given, prepend=given[:1]) > 0)  # without those that are empty
    slack = np.bincount(stratum, chance * (1.0 - chance))
    large = np.bincount(stratum, chance > 0.8) > 0
    needed = np.where(large, MIXED_SLACK, LEAST_SLACK)
    if np.any(slack < needed):
        stratum = joined(slack, needed)[stratum]
    ends = edges[np.flatnonzero(np.diff(stratum, append=stratum[-1] + 1))]
    ends[-1] = left
    return stratum, ends


def joined(slack: NDArray[Any], needed: NDArray[Any]) -> Strata:
    """Return new numbers of the strata: neighbours joined until each has the slack it needs."""
    numbers, current, held, least = [], 0, 0.0, 0.0
    for own, need in zip(slack.tolist(), needed.tolist(), strict=True):
        numbers.append(current)
        held, least = held + own, max(least, need)
        if held >= least:
            current, held, least = current + 1, 0.0, 0.0
    # what is left over at the end joins the last full one
    return np.minimum(np.array(numbers, dtype=np.int64), max(current - 1, 0))


def _targets(chance: Floats, stratum: Strata, sizes: Strata) -> tuple[Floats, Floats]:
    """Return what :func:`_target` does, and each row's d, of strata whose rows are all there."""
    mass = np.asarray(np.bincount(stratum, chance), dtype=np.float64)
    slack = np.asarray(np.bincount(stratum, chance * (1.0 - chance)), dtype=np.float64)
    return _target(chance, stratum, sizes, mass, slack), slack[stratum]


def _target(chance: Floats, stratum: Strata, sizes: Strata, mass: Floats, slack: Floats) -> Floats:
    """Return inclusion probabilities given the strata's sizes.

    ``pi + (size - sum pi) / d * pi (1 - pi)`` with ``d = sum pi (1 - pi)``: they add up to the
    size, and their mean over the rounding is pi exactly.
    """
    surplus = (sizes - mass) / slack
    target = chance + surplus[stratum] * (chance * (1.0 - chance))
    return np.clip(target, 1e-300, 1.0 - 2.0**-53)


def _ranking(chance: Floats, stratum: Strata, sizes: Strata, numbers: Floats) -> Floats:
    """Return the ranking in strata whose rows are all there; see :func:`ranking_of`."""
    mass = np.asarray(np.bincount(stratum, chance), dtype=np.float64)
    slack = np.asarray(np.bincount(stratum, chance * (1.0 - chance)), dtype=np.float64)
    return ranking_of(chance, numbers, stratum, sizes, mass, slack)


def ranking_of(
    chance: Floats, numbers: Floats, stratum: Strata, sizes: Strata, mass: Floats, slack: Floats
) -> Floats:
    """Return the logarithm of Pareto's ranking variable: the smallest of a stratum are drawn.

    Pareto sampling meets its targets only nearly; Rosén's adjustment takes the error's leading term
    away. Left is an error of pi below 0.0003 for d of 4 and more, typically 0.001 at d = 2.

    Parameters
    ----------
    chance, numbers, stratum
        (m,) inclusion probabilities pi, permanent random numbers and strata of some rows.
    sizes, mass, slack
        (H,) draws from each stratum, and ``sum pi`` and d over all of its rows.
    """
    target = _target(chance, stratum, sizes, mass, slack)
    adjusted = target * (1.0 - target) * (target - 0.5) / slack[stratum] ** 2
    odds = np.log(target) - np.log1p(-target) - adjusted
    ranking: Floats = np.log(numbers) - np.log1p(-numbers) - odds
    return ranking


def nearly_settled(chance: Floats) -> bool:
    """Whether one stratum alone has so little choice that Pareto sampling would be percents off."""
    return bool(chance @ (1.0 - chance) < 2.0 and chance.max() > 0.5)


def comb(chance: Floats, left: int, start: float) -> Strata:
    """Return the positions that a comb of step 1 hits: exact, whatever the probabilities."""
    edges = np.cumsum(chance)
    edges *= left / edges[-1]
    hits = np.searchsorted(edges, start + np.arange(left), side="right")
    return np.minimum(hits, len(chance) - 1).astype(np.int64)


def smallest(ranking: Floats, stratum: Strata, sizes: Strata) -> Strata:
    """Return the positions of the `sizes[h]` smallest of each stratum h, in ascending order."""
    near = np.flatnonzero(ranking < NEAR)  # most rows are out of the question: don't sort them
    counts = np.bincount(stratum[near], minlength=len(sizes))
    short = counts < sizes
    if np.any(short):
        near = np.flatnonzero((ranking < NEAR) | short[stratum])
        counts = np.bincount(stratum[near], minlength=len(sizes))
    by_stratum = near[np.lexsort((ranking[near], stratum[near]))]
    first = np.cumsum(counts) - counts
    place = np.arange(len(near)) - np.repeat(first, counts)
    return np.sort(by_stratum[place < np.repeat(sizes, counts)])
