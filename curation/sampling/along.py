"""The coordinated draw along an order that does not fit into memory.

The same strata, rankings and rows as :func:`curation.sampling.stratified.coordinated`: what is of
the number of rows goes by in blocks, what is kept is of the number of strata or of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.sampling.base import Draw, Floats, Rows
from curation.sampling.inclusion import Inclusion
from curation.sampling.stratified import (
    DRAWS_PER_STRATUM,
    LEAST_SLACK,
    MIXED_SLACK,
    NEAR,
    Strata,
    comb,
    joined,
    nearly_settled,
    ranking_of,
    smallest,
)

Walk = Callable[[], Iterable[tuple[Rows, Floats]]]  # rows and their law, in the order


@dataclass(frozen=True)
class _Part:
    """The rows of a block that chance decides on.

    Attributes
    ----------
    rows, chance
        (m,) which they are, and their inclusion probabilities in (0, 1).
    places
        (m,) where they stand in the order.
    edges
        (m,) running sum of the chances, from the first block on.
    """

    rows: Rows
    chance: Floats
    places: Rows
    edges: Floats


@dataclass
class _Cut:
    """The strata: what is summed up over their rows.

    Attributes
    ----------
    slack, mass, ends, first
        (H,) ``sum pi (1 - pi)``, ``sum pi``, the expected draws up to the end, and the place of the
        first row.
    large
        (H,) whether a row is close to certain.
    """

    slack: Floats
    mass: Floats
    ends: Floats
    first: Rows
    large: NDArray[np.bool_]


def coordinated_along(
    walk: Walk,
    s: int,
    inclusion: Inclusion,
    rng: np.random.Generator,
    numbers: Callable[[Rows], Floats],
    cuts: Rows | None = None,
) -> Draw:
    """Draw s rows; see :func:`curation.sampling.stratified.coordinated`.

    Parameters
    ----------
    walk
        Gives rows and their law in the order, from its beginning, a block at a time. It is called
        three times.
    s
        Number of draws.
    inclusion
        Of the law, from :func:`curation.sampling.find_inclusion`.
    rng
        Settles where the strata's sizes are rounded.
    numbers
        Gives the permanent random numbers of rows.
    cuts
        Places in the order at which a new stratum begins, if they are given.

    Returns
    -------
    Draw
        With ``inclusion`` in place of ``probabilities``.
    """
    start = rng.random()  # first: it must not depend on how many rows there are
    sure = [rows[inclusion(law) >= 1.0] for rows, law in walk()]
    certain: Rows = np.sort(np.concatenate(sure)).astype(np.int64)
    left = s - len(certain)
    if not left:
        none = np.empty(0, dtype=np.int64)
        drawn = _drawn(certain, none, np.empty(0), inclusion)
        return replace(
            drawn, stratum=np.full(s, -1, dtype=np.int64), rounding=np.empty(0), cuts=none
        )
    total = 0.0
    for part in _parts(walk, inclusion):
        total = float(part.edges[-1])
    labels = _Labels(left, total, cuts)
    found, new = _joined(_cut(walk, inclusion, labels), left)
    filled = np.floor(found.ends + start).astype(np.int64)
    sizes = filled - np.concatenate([[0], filled[:-1]])
    chosen = _chosen(walk, inclusion, labels, new, found, sizes, numbers, left, start)
    drawn = _drawn(certain, chosen[0], chosen[1], inclusion)
    none = np.full(len(certain), -1, dtype=np.int64)
    return replace(
        drawn,
        stratum=np.concatenate([none, chosen[2]]),
        rounding=found.ends - np.floor(found.ends),
        cuts=found.first[1:],
    )


@dataclass
class _Labels:
    """Says which stratum rows belong to, before strata are joined."""

    left: int
    total: float
    cuts: Rows | None

    @property
    def scale(self) -> float:
        """What brings the last edge to the number of draws."""
        return self.left / self.total

    def __call__(self, part: _Part) -> Strata:
        """Return (m,) strata; numbers may be left out where strata are given."""
        if self.cuts is not None:
            return np.searchsorted(self.cuts, part.places, side="right").astype(np.int64)
        last = max(self.left // DRAWS_PER_STRATUM, 1) - 1
        middle = part.edges * self.scale - part.chance / 2.0 + 1e-9
        return np.minimum(middle // DRAWS_PER_STRATUM, last).astype(np.int64)

    @property
    def most(self) -> int:
        """How many there can be."""
        if self.cuts is not None:
            return len(self.cuts) + 1
        return max(self.left // DRAWS_PER_STRATUM, 1)


def _parts(walk: Walk, inclusion: Inclusion) -> Iterator[_Part]:
    before, carry = 0, 0.0
    for rows, law in walk():
        pi = inclusion(law)
        at = np.flatnonzero((pi < 1.0) & (pi > 0.0))
        if len(at):
            chance = pi[at]
            edges = np.cumsum(np.concatenate([[carry], chance]))[1:]
            carry = float(edges[-1])
            yield _Part(rows[at], chance, before + at, edges)
        before += len(rows)


def _cut(walk: Walk, inclusion: Inclusion, labels: _Labels) -> _Cut:
    number = labels.most
    found = _Cut(
        slack=np.zeros(number),
        mass=np.zeros(number),
        ends=np.full(number, -1.0),
        first=np.full(number, -1, dtype=np.int64),
        large=np.zeros(number, dtype=bool),
    )
    for part in _parts(walk, inclusion):
        stratum = labels(part)
        low, high = int(stratum[0]), int(stratum[-1]) + 1
        own = stratum - low
        # what is carried over comes first, so that the sums are those of all rows in one go
        for sums, values in (
            (found.slack, part.chance * (1.0 - part.chance)),
            (found.mass, part.chance),
        ):
            values = np.concatenate([[sums[low]], values])
            sums[low:high] = np.bincount(np.concatenate([[0], own]), values)
        found.large[low:high] |= np.bincount(own, part.chance > 0.8) > 0
        last = np.flatnonzero(np.diff(stratum, append=high))
        found.ends[stratum[last]] = part.edges[last] * labels.scale
        begins = np.flatnonzero(np.diff(stratum, prepend=-1))
        begins = begins[found.first[stratum[begins]] < 0]
        found.first[stratum[begins]] = part.places[begins]
    return found


def _joined(found: _Cut, left: int) -> tuple[_Cut, Strata]:
    """Join strata that are too close to certainty; return them, and each old one's new number."""
    there = np.flatnonzero(found.first >= 0)
    new = np.full(len(found.first), -1, dtype=np.int64)
    slack = found.slack[there]
    needed = np.where(found.large[there], MIXED_SLACK, LEAST_SLACK)
    new[there] = joined(slack, needed) if np.any(slack < needed) else np.arange(len(there))
    own = new[there]
    first = np.flatnonzero(np.diff(own, prepend=-1))
    last = np.flatnonzero(np.diff(own, append=own[-1] + 1))
    ends = found.ends[there][last]
    ends[-1] = left
    return (
        _Cut(
            slack=np.asarray(np.bincount(own, slack), dtype=np.float64),
            mass=np.asarray(np.bincount(own, found.mass[there]), dtype=np.float64),
            ends=ends,
            first=found.first[there][first],
            large=np.bincount(own, found.large[there]) > 0,
        ),
        new,
    )


def _chosen(
    walk: Walk,
    inclusion: Inclusion,
    labels: _Labels,
    new: Strata,
    found: _Cut,
    sizes: Strata,
    numbers: Callable[[Rows], Floats],
    left: int,
    start: float,
) -> tuple[Rows, Floats, Strata]:
    """Return the rows drawn in the order, their chances and strata."""
    if left > 1 and len(sizes) == 1 and found.slack[0] < 2.0:  # few rows matter: hold them all
        parts = list(_parts(walk, inclusion))
        chance = np.concatenate([part.chance for part in parts])
        if nearly_settled(chance):
            hits = comb(chance, left, start)
            rows = np.concatenate([part.rows for part in parts])
            return rows[hits], chance[hits], np.zeros(len(hits), dtype=np.int64)
    short = np.zeros(len(sizes), dtype=bool)
    for _ in range(2):  # most rows are out of the question; where too few are not, all are kept
        kept: list[tuple[Rows, Floats, Strata, Floats]] = []
        for part in _parts(walk, inclusion):
            stratum, own = new[labels(part)], numbers(part.rows)
            if left == 1:
                ranking = -np.log1p(-own) / part.chance
                few = np.array([np.argmin(ranking)])
            else:
                ranking = ranking_of(part.chance, own, stratum, sizes, found.mass, found.slack)
                few = np.flatnonzero((ranking < NEAR) | short[stratum])
            kept.append((part.rows[few], part.chance[few], stratum[few], ranking[few]))
        rows, chance, stratum, ranking = (np.concatenate(one) for one in zip(*kept, strict=True))
        short = np.bincount(stratum, minlength=len(sizes)) < sizes
        if not short.any():
            break
    chosen = smallest(ranking, stratum, sizes)
    return rows[chosen], chance[chosen], stratum[chosen]


def _drawn(certain: Rows, rows: Rows, chance: Floats, inclusion: Inclusion) -> Draw:
    pi = np.concatenate([np.ones(len(certain)), chance])
    return Draw(
        indices=np.concatenate([certain, rows]).astype(np.int64),
        weights=1.0 / pi,
        inclusion_probability=pi,
        take_all=np.arange(len(pi)) < len(certain),
        multiplicity=np.ones(len(pi), dtype=np.int64),
        design="coordinated",
        inclusion=inclusion,
    )
