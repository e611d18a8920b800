"""Shares of one budget for groups and classes, with known inclusion probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from curation.sampling.designs import IN_STRATA, Draw, draw, inclusion_probabilities

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def allocate(
    law: Floats,
    codes: Codes,
    names: tuple[str, ...],
    s: int,
    *,
    shares: Mapping[str, float] | str | None = None,
    minimum: Mapping[str, int] | int | None = None,
) -> Floats:
    """Return a law that gives each group its part of s draws, in whole draws.

    Inside a group rows keep the proportions of the given law; rows that would be certain stay
    certain, so that the result is ``pi / s`` with the inclusion probabilities pi.

    Parameters
    ----------
    law
        (n,) probability of each row per draw.
    codes
        (n,) group of each row, 0..len(names) - 1.
    names
        The groups' names.
    s
        Number of draws.
    shares
        ``proportional`` to the groups' sizes, or the share of the draws for some groups by name;
        the others divide the rest as the law says.
    minimum
        Least expected number of draws of every group, or of some groups by name.

    Raises
    ------
    ValueError
        If a name is unknown, the shares or minima do not fit the budget, or a group has fewer rows
        than it is to give.
    """
    if shares is None and minimum is None:
        return inclusion_probabilities(law, s) / s
    sizes = np.bincount(codes, minlength=len(names)).astype(np.float64)
    if isinstance(shares, Mapping):
        shares = {str(name): share for name, share in shares.items()}
    if isinstance(minimum, Mapping):
        minimum = {str(name): least for name, least in minimum.items()}
    fixed = np.array([isinstance(shares, Mapping) and name in shares for name in names])
    wanted = _by_share(law, codes, names, sizes, s, shares)
    least = _least(minimum, names, sizes)
    wanted = _raise_to(wanted, least, names, s, fixed=fixed)
    wanted = _whole(_within(wanted, sizes, names, fixed=fixed), sizes, least, s)
    pi = np.empty(len(law))
    for group in range(len(names)):
        rows = np.flatnonzero(codes == group)
        if len(rows):
            pi[rows] = inclusion_probabilities(law[rows] / law[rows].sum(), int(wanted[group]))
    return pi / pi.sum()


def _by_share(
    law: Floats,
    codes: Codes,
    names: tuple[str, ...],
    sizes: Floats,
    s: int,
    shares: Mapping[str, float] | str | None,
) -> Floats:
    mass = np.bincount(codes, law, minlength=len(names))
    if shares is None:
        return s * mass / mass.sum()
    if isinstance(shares, str):
        if shares != "proportional":
            raise ValueError(f"shares must be 'proportional' or a mapping, got {shares!r}")
        return s * sizes / sizes.sum()
    _known(shares, names, "shares")
    given = np.array([shares.get(name, np.nan) for name in names], dtype=np.float64)
    fixed = ~np.isnan(given)
    total = float(given[fixed].sum())
    strange = [name for name, share in shares.items() if not np.isfinite(share)]
    if strange or (given[fixed] < 0.0).any() or total > 1.0 + 1e-9:
        raise ValueError(f"shares must be >= 0 and add up to at most 1, got {dict(shares)}")
    rest = mass[~fixed].sum()
    if rest == 0.0 and total < 1.0 - 1e-9:
        raise ValueError(f"every group has a share, and they add up to {total:g}, not 1")
    wanted = np.where(fixed, np.nan_to_num(given), 0.0)
    if rest > 0.0:
        wanted[~fixed] = (1.0 - total) * mass[~fixed] / rest
    if ((wanted <= 0.0) & (sizes > 0.0)).any():
        name = names[int(np.flatnonzero((wanted <= 0.0) & (sizes > 0.0))[0])]
        raise ValueError(f"group {name!r} would never be drawn and so not be stood for")
    return s * wanted


def _least(
    minimum: Mapping[str, int] | int | None, names: tuple[str, ...], sizes: Floats
) -> Floats:
    if minimum is None:
        return np.zeros(len(names))
    values = list(minimum.values()) if isinstance(minimum, Mapping) else [minimum]
    if any(not np.isfinite(value) or value < 0 or value != int(value) for value in values):
        raise ValueError(f"minimum must be whole numbers >= 0, got {minimum}")
    if isinstance(minimum, Mapping):
        _known(minimum, names, "minimum")
        least = np.array([float(minimum.get(name, 0)) for name in names])
        short = np.flatnonzero(least > sizes)
        if len(short):
            name = names[int(short[0])]
            raise ValueError(
                f"group {name!r} has {int(sizes[short[0]]):,} rows, fewer than its minimum "
                f"of {int(least[short[0]]):,}"
            )
        return least
    return np.minimum(float(minimum), sizes)


def _raise_to(
    wanted: Floats,
    least: Floats,
    names: tuple[str, ...],
    s: int,
    *,
    fixed: NDArray[np.bool_],
) -> Floats:
    """Raise groups to their minimum; the others pay in proportion, those with shares last."""
    if least.sum() > s:
        raise ValueError(
            f"the minima of {len(names)} groups add up to {int(least.sum()):,}, more than the "
            f"budget of {s:,}"
        )
    low = wanted < least
    while low.any():
        paying = ~low & ~fixed
        kept = float(wanted[fixed & ~low].sum())
        if not paying.any() or s - least[low].sum() - kept < least[paying].sum():
            paying, kept = ~low, 0.0
        rest = float(wanted[paying].sum())
        if rest <= 0.0:
            break
        left = s - least[low].sum() - kept
        raised = np.where(low, least, np.where(paying, wanted * left / rest, wanted))
        if not ((raised < least - 1e-9) & ~low).any():
            return raised
        low |= raised < least
    return np.where(low, least, wanted)


def _within(
    wanted: Floats, sizes: Floats, names: tuple[str, ...], *, fixed: NDArray[np.bool_]
) -> Floats:
    """Cap groups at their sizes; those without a share of their own take over what is left."""
    for _ in range(len(names)):
        over = wanted > sizes + 1e-9
        if not over.any():
            break
        left = float((wanted - sizes)[over].sum())
        room = ~over & ~fixed & (wanted < sizes)
        if (over & fixed).any() or not room.any():
            short = int(np.flatnonzero(over & fixed if (over & fixed).any() else over)[0])
            raise ValueError(
                f"group {names[short]!r} has {int(sizes[short]):,} rows, fewer than the "
                f"{wanted[short]:,.1f} its share of the budget asks for"
            )
        wanted = np.where(over, sizes, wanted)
        wanted[room] += left * wanted[room] / wanted[room].sum()
    return np.minimum(wanted, sizes)


def _whole(wanted: Floats, sizes: Floats, least: Floats, s: int) -> Floats:
    """Round to whole draws that add up to s: at least one of every group that has rows."""
    there = sizes > 0.0
    if s < there.sum():
        raise ValueError(
            f"{s} draws do not reach for one row of each of {int(there.sum())} groups; raise the "
            "budget, or join groups"
        )
    least = np.maximum(least, np.where(there, 1.0, 0.0))
    if s < least.sum():
        raise ValueError(
            f"one row of every group and the minima add up to {int(least.sum())}, more than the "
            f"budget of {s}"
        )
    whole = np.clip(np.floor(wanted + 1e-9), least, sizes)
    while whole.sum() != s:
        step = 1.0 if whole.sum() < s else -1.0
        free = whole < sizes if step > 0 else whole > least
        gap = np.where(free, step * (wanted - whole), -np.inf)
        whole[int(np.argmax(gap))] += step
    return whole


def draw_by_group(
    design: str,
    law: Floats,
    codes: Codes,
    s: int,
    *,
    order: Codes,
    rng: np.random.Generator,
    numbers: Floats,
) -> Draw:
    """Draw each group by itself, as many rows as the law of :func:`allocate` gives it.

    Parameters
    ----------
    design
        A key of ``DESIGNS``.
    law
        (n,) from :func:`allocate`.
    codes
        (n,) group of each row.
    s, order, rng, numbers
        As in :func:`curation.sampling.draw`.
    """
    counts = np.rint(np.bincount(codes, law) * s).astype(np.int64)
    parts, strata = [], 0
    # one start rounds the strata's sizes in all groups: a group that comes does not move the
    # others, and the estimators know how the sizes hang together
    start = int(rng.integers(2**63))
    probabilities = np.zeros(len(law))
    line = codes[order]
    for group in np.flatnonzero(counts):
        rows = order[line == group]
        own = law[rows] / law[rows].sum()
        found = draw(
            design,
            own,
            int(counts[group]),
            order=np.arange(len(rows)),
            rng=np.random.default_rng(start) if design in IN_STRATA else rng,
            numbers=numbers[rows],
        )
        if found.probabilities is not None:
            probabilities[rows] = found.probabilities
        stratum = found.stratum
        if stratum is None:  # to the estimators, every group is a stratum of its own
            stratum = np.zeros(len(found.indices), dtype=np.int64)
        stratum = np.where(found.take_all, -1, stratum + strata)
        strata = max(strata, int(stratum.max(initial=-1)) + 1)
        parts.append(replace(found, indices=rows[found.indices], stratum=stratum))
    return replace(_together(parts, design), probabilities=probabilities)


def _together(parts: list[Draw], design: str) -> Draw:
    rounding = [part.rounding for part in parts if part.rounding is not None]
    stratified = design in IN_STRATA
    joined = Draw(
        indices=np.concatenate([part.indices for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        inclusion_probability=np.concatenate([part.inclusion_probability for part in parts]),
        take_all=np.concatenate([part.take_all for part in parts]),
        multiplicity=np.concatenate([part.multiplicity for part in parts]),
        # uniform rows of every group are a stratified sample
        design="stratified_uniform" if design == "uniform" else design,
    )
    if design != "uniform" and not stratified:
        return joined
    strata = np.concatenate([part.stratum for part in parts if part.stratum is not None])
    number = int(strata.max(initial=-1)) + 1
    whole = np.concatenate(rounding) if rounding else np.zeros(number)
    return replace(joined, stratum=strata, rounding=whole)


def _known(given: Mapping[str, object], names: tuple[str, ...], what: str) -> None:
    strange = sorted(set(given) - set(names))
    if strange:
        raise ValueError(f"{what}: {strange[0]!r} is not a group; there are {', '.join(names)}")
