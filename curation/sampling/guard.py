"""Does the score have anything to do with the embedding? The pilot rows tell, and the law follows.

Where a score is unrelated to the embedding, drawing by sensitivity is worse than drawing uniformly.
The pilot's rows show what each row's error would have contributed to the variance of the estimate
under every mixture of the law with the uniform one; the mixture that costs least is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.sampling.constants import Pilot
from curation.sampling.stratified import DRAWS_PER_STRATUM

Floats = NDArray[np.float64]

LEAST_MIX = 0.1
MIXES = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0])
UNSTRATIFIED = ("iid", "poisson", "uniform")
FLAT = ("uniform", "stratified_uniform")  # these do not follow a law: there is nothing to settle
CLEARLY = 0.5  # standard errors by which a law has to be better than one that comes before it
UNRELATED = 0.02  # R2 below which the score counts as unrelated to the embedding


@dataclass(frozen=True)
class Smoothness:
    """How much of the score the proxy explains, and what follows.

    Attributes
    ----------
    r2
        Share of the score's variance that the proxy explains on pilot rows it has not seen; at
        most 1, negative where it is worse than the mean. NaN without pilot rows.
    mix
        Share of the uniform law to mix in.
    relative_error
        Expected relative error of the estimated total at one draw, by the law; divide by the root
        of the number of draws. NaN without pilot rows.
    uniform_error
        The same for uniform rows.
    pilot_rows
        How many rows that rests on.
    raised
        Whether the guard asked for more of the uniform law than without it.
    reach
        Share of the constants that the guard left in the law.
    power
        The law follows q raised to this: below 1 where scores are spread less than in proportion.
    """

    r2: float
    mix: float
    relative_error: float
    uniform_error: float
    pilot_rows: int
    raised: bool = False
    reach: float = 1.0
    power: float = 1.0

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        if self.pilot_rows == 0:
            return "not measured: no pilot rows were asked for"
        if self.uniform_error == 0.0:
            return "all pilot rows have the same score"
        if not np.isfinite(self.r2):
            return "not measured: the scores' squares overflow or vanish; scale them"
        if self.raised and self.mix >= 1.0:
            return f"the proxy explains {self.r2:.0%} of the score: it is left out of the law"
        if self.raised:
            return (
                f"the proxy explains {self.r2:.0%} of the score: {self.mix:.0%} of the law is "
                "uniform, where 10% would do on a smooth score"
            )
        if self.power < 1.0:
            return (
                f"the proxy explains {self.r2:.0%} of the score: the law follows the sensitivity "
                f"raised to {self.power:g}"
            )
        return f"the proxy explains {self.r2:.0%} of the score"


def contributions(pilot: Pilot, law: Floats, design: str) -> Floats:
    """Return (..., m) what each pilot row adds to the variance of a total at one draw.

    With independent draws that is the squared distance of ``l / p`` from the total, with Poisson
    sampling the squared score over p. A design that stratifies along the proxy leaves the squared
    error of the proxy over p, and what :func:`proxy_spread` adds.

    Parameters
    ----------
    pilot
        Held-out pilot rows.
    law
        (..., m) their probability per draw.
    design
        The design's name.
    """
    if design == "iid":
        total = float(pilot.weight @ pilot.score)
        return pilot.weight * law * (pilot.score / law - total) ** 2
    part = pilot.score if design == "poisson" else pilot.score - pilot.proxy
    return pilot.weight * part**2 / law


def proxy_spread(proxy: Floats, law: Floats, *, strata: int) -> Floats:
    """Return (...) what the proxy itself adds to the variance of a total at one draw.

    Weights ``1 / pi`` cancel what the proxy explains only as far as ``l-hat / p`` is the same
    within a stratum; distance in the law sees to it that it is not quite.

    Parameters
    ----------
    proxy
        (m,) proxies, in the order of the draw.
    law
        (..., m) probabilities per draw in the same order.
    strata
        Number of runs of equal mass to cut the order into.
    """
    rows = np.atleast_2d(law)
    found = np.empty(len(rows))
    for place, p in enumerate(rows):
        edges = np.cumsum(p)
        stratum = np.minimum((edges / edges[-1] * strata).astype(np.int64), strata - 1)
        squares = np.bincount(stratum, proxy**2 / p)
        sums, mass = np.bincount(stratum, proxy), np.bincount(stratum, p)
        found[place] = np.maximum(squares - sums**2 / np.where(mass > 0.0, mass, 1.0), 0.0).sum()
    return found.reshape(np.shape(law)[:-1])


def mixed(sensitivity: Floats, mix: Floats, *, total: float, rows: int) -> Floats:
    """Return (mixes, m) the law of some rows for each share of the uniform law."""
    return (1.0 - mix[:, None]) * (sensitivity / total)[None, :] + mix[:, None] / rows


def choose(cost: Floats, fixed: Floats, *, related: bool) -> int:
    """Return the first of several laws that is not clearly worse than the best.

    A few pilot rows estimate a variance badly, and where the law is right uniform draws give its
    gain away. While the proxy explains something, a law therefore has to be better than one that
    comes before it by more than half a standard error of their difference over the pilot rows.
    Where it explains nothing, the best is taken as it is.

    Parameters
    ----------
    cost
        (laws, m) what each pilot row adds to the variance, the laws in order of preference.
    fixed
        (laws,) what is known to add to it.
    related
        Whether the proxy explains a part of the score.
    """
    total = cost.sum(axis=1) + fixed
    best = int(np.argmin(total))
    if not related:
        return best
    excess = cost - cost[best]
    error = np.sqrt(cost.shape[1] * excess.var(axis=1, ddof=1))
    return int(np.argmax(total - total[best] <= CLEARLY * error))


def explained(pilot: Pilot) -> float:
    """Return the share of the pilot scores' variance that the held-out proxy explains."""
    weight = pilot.weight / pilot.weight.sum()
    mean = float(weight @ pilot.score)
    spread = float(weight @ (pilot.score - mean) ** 2)
    left = float(weight @ (pilot.score - pilot.proxy) ** 2)
    return 1.0 - left / spread if spread > 0.0 else float(left == 0.0)


@dataclass(frozen=True)
class Judged:
    """A sample of all rows, in the order of the draw, to see what the proxy adds to the variance.

    Attributes
    ----------
    proxy, sensitivity
        (j,) l-hat and q.
    rows
        Number of all rows.
    """

    proxy: Floats
    sensitivity: Floats
    rows: int

    @property
    def total(self) -> float:
        """Sum of q over all rows, estimated."""
        return float(self.sensitivity.mean()) * self.rows

    def spread(self, mixes: Floats, draws: int) -> Floats:
        """Return (mixes,) what the proxy adds to the variance at one draw."""
        strata = max(1, min(draws // DRAWS_PER_STRATUM, len(self.proxy) // 8))
        law = mixed(self.sensitivity, mixes, total=self.total, rows=self.rows)
        return self.rows / len(self.proxy) * proxy_spread(self.proxy, law, strata=strata)


@dataclass(frozen=True)
class Candidate:
    """One way for proxy and distance to enter the law.

    Attributes
    ----------
    reach
        Share of the constants L that is left in ``q = l-hat + L v``.
    power
        What q is raised to.
    sensitivity
        (m,) q of the pilot's rows, raised.
    judged
        The same for a sample of all rows.
    """

    reach: float
    sensitivity: Floats
    judged: Judged
    power: float = 1.0


def look(
    pilot: Pilot | None,
    candidates: Sequence[Candidate],
    *,
    mix: float | str,
    design: str,
    draws: int,
) -> Smoothness:
    """Judge laws by the pilot's rows; settle reach and power of q, and the uniform share.

    Parameters
    ----------
    pilot
        Held-out pilot rows.
    candidates
        Ways for q to enter, in order of preference; the first is taken unless ``mix`` is
        ``auto`` and another is clearly better.
    mix
        A share in [0, 1], or ``auto`` to take the one that costs least, at least 0.1.
    design
        The design's name.
    draws
        Number of draws: how many strata there are.
    """
    fixed = LEAST_MIX if mix == "auto" else float(mix)
    nothing, first = float("nan"), candidates[0]
    if pilot is None or len(pilot) < 2:
        return Smoothness(nothing, fixed, nothing, nothing, 0, reach=first.reach, power=first.power)
    if first.judged.total <= 0.0:
        flat = Judged(first.judged.proxy, np.ones(len(first.judged.proxy)), first.judged.rows)
        first = Candidate(first.reach, np.ones(len(pilot)), flat, first.power)
        candidates = [first]
    taken, chosen = first, fixed
    if mix == "auto" and design not in FLAT:
        taken, chosen = _settle(pilot, candidates, design, draws)
    one = np.array([1.0 if design == "stratified_uniform" else chosen])
    cost, known = _costs(pilot, taken, one, design, draws)
    error = float(cost.sum() + known.sum())
    whole = float(pilot.weight @ pilot.score)
    mean = whole / float(pilot.weight.sum())
    rows = taken.judged.rows
    spread = float(pilot.weight @ (pilot.score - mean) ** 2) * rows
    scale = max(whole, 1e-300)
    return Smoothness(
        r2=explained(pilot),
        mix=chosen,
        relative_error=float(np.sqrt(spread if design == "uniform" else error)) / scale,
        uniform_error=float(np.sqrt(spread)) / scale,
        pilot_rows=len(pilot),
        raised=mix == "auto" and chosen > LEAST_MIX,
        reach=taken.reach,
        power=taken.power,
    )


def _settle(
    pilot: Pilot, candidates: Sequence[Candidate], design: str, draws: int
) -> tuple[Candidate, float]:
    """Return the candidate and the share of the uniform law that are not clearly worse."""
    parts = [_costs(pilot, one, MIXES, design, draws) for one in candidates]
    # little of the uniform law first, and among equal shares of it the candidates as they come
    cost = np.stack([cost for cost, _ in parts], axis=1).reshape(-1, len(pilot))
    known = np.stack([known for _, known in parts], axis=1).reshape(-1)
    place = choose(cost, known, related=explained(pilot) >= UNRELATED)
    return candidates[place % len(candidates)], float(MIXES[place // len(candidates)])


def _costs(
    pilot: Pilot, candidate: Candidate, mixes: Floats, design: str, draws: int
) -> tuple[Floats, Floats]:
    """Return (mixes, m) what pilot rows add to the variance, and (mixes,) what the proxy adds."""
    judged = candidate.judged
    law = mixed(candidate.sensitivity, mixes, total=judged.total, rows=judged.rows)
    stratified = design not in UNSTRATIFIED
    known = judged.spread(mixes, draws) if stratified else np.zeros(len(mixes))
    return contributions(pilot, law, design), known
