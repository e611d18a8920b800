"""What the pilot rows say of a law: the estimated costs against sums over all rows.

Where all rows are the pilot, each standing for itself, the estimates are exact.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling import DESIGNS, draw
from curation.sampling.constants import Pilot
from curation.sampling.guard import (
    LEAST_MIX,
    MIXES,
    UNRELATED,
    UNSTRATIFIED,
    Candidate,
    Judged,
    Smoothness,
    choose,
    contributions,
    explained,
    look,
    mixed,
    proxy_spread,
)


def make_pilot(score: np.ndarray, proxy: np.ndarray, weight: np.ndarray | None = None) -> Pilot:
    m = len(score)
    return Pilot(
        cluster=np.zeros(m, dtype=np.int32),
        distance=np.ones(m),
        score=score,
        proxy=proxy,
        weight=np.ones(m) if weight is None else weight,
    )


def whole(n: int = 60, *, noise: float = 0.2, seed: int = 0) -> tuple[Pilot, np.ndarray]:
    """All rows as the pilot, and their sensitivity."""
    rng = np.random.default_rng(seed)
    proxy = rng.gamma(1.0, size=n)
    score = np.maximum(proxy + noise * rng.normal(size=n), 0.0)
    return make_pilot(score, proxy), proxy + rng.gamma(1.0, size=n)


def judge(pilot: Pilot, q: np.ndarray, *, mix="auto", design="poisson", rows=None, draws=16):
    """What is said of a law whose rows are all in the pilot, in the order of their proxies."""
    order = np.argsort(pilot.proxy, kind="stable")
    judged = Judged(pilot.proxy[order], q[order], len(q) if rows is None else rows)
    return look(pilot, [Candidate(1.0, q, judged)], mix=mix, design=design, draws=draws)


def test_mixed_laws():
    _, q = whole()
    found = mixed(q, MIXES, total=float(q.sum()), rows=60)
    assert found.shape == (len(MIXES), 60)
    for mix, law in zip(MIXES, found, strict=True):
        assert law == pytest.approx((1 - mix) * q / q.sum() + mix / 60)


def test_contributions_add_up_to_the_variance():
    """Of one independent draw, of Poisson sampling, and of what a stratified draw leaves."""
    pilot, q = whole()
    law, total = q / q.sum(), pilot.score.sum()
    one_draw = np.sum(law * (pilot.score / law - total) ** 2)
    assert one_draw == pytest.approx(np.sum(pilot.score**2 / law) - total**2)
    assert contributions(pilot, law, "iid").sum() == pytest.approx(one_draw)
    squares = np.sum(pilot.score**2 / law)
    assert contributions(pilot, law, "poisson").sum() == pytest.approx(squares)
    left = (pilot.score - pilot.proxy) ** 2 / law
    for design in sorted(set(DESIGNS) - {"iid", "poisson", "uniform"}):
        assert contributions(pilot, law, design) == pytest.approx(left)


@pytest.mark.parametrize("strata", [1, 3, 7])
def test_proxy_spread_is_what_varies_within_strata(strata):
    """The variance of l-hat / p under p, in each run of equal mass; none where p follows l-hat."""
    rng = np.random.default_rng(0)
    proxy, law = np.sort(rng.gamma(1.0, size=90)), rng.uniform(1.0, 2.0, 90)
    law /= law.sum()
    edges = np.cumsum(law)
    expected = 0.0
    for h in range(strata):
        own = [i for i in range(90) if min(int(edges[i] / edges[-1] * strata), strata - 1) == h]
        p, value = law[own], proxy[own] / law[own]
        mean = p @ value / p.sum()
        expected += p @ (value - mean) ** 2
    assert proxy_spread(proxy, law, strata=strata) == pytest.approx(expected)
    both = proxy_spread(proxy, np.stack([law, proxy / proxy.sum()]), strata=strata)
    assert both[0] == pytest.approx(expected)
    assert both[1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("design", ["iid", "poisson"])
def test_weights_stand_for_rows(design):
    """A pilot row of weight 3 counts as three of weight 1."""
    pilot, q = whole(20)
    heavy = make_pilot(pilot.score, pilot.proxy, np.repeat([1.0, 3.0], 10))
    times = np.repeat(np.arange(20), np.repeat([1, 3], 10))
    copied = make_pilot(pilot.score[times], pilot.proxy[times])
    judged = Judged(pilot.proxy, q, 40)
    one = look(heavy, [Candidate(1.0, q, judged)], mix=0.2, design=design, draws=8)
    two = look(copied, [Candidate(1.0, q[times], judged)], mix=0.2, design=design, draws=8)
    assert one.mix == two.mix
    assert one.r2 == pytest.approx(two.r2)
    assert one.relative_error == pytest.approx(two.relative_error)
    assert one.uniform_error == pytest.approx(two.uniform_error)


def test_uniform_error_is_that_of_uniform_rows():
    """n sqrt(variance) / total, and what 4,000 uniform draws show, within 4 standard errors."""
    pilot, q = whole()
    told = judge(pilot, q).uniform_error
    assert told == pytest.approx(60 * pilot.score.std() / pilot.score.sum())
    assert judge(pilot, q, design="uniform").relative_error == pytest.approx(told)
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(4000):
        drawn = draw("uniform", np.full(60, 1 / 60), 6, rng=rng)
        errors.append(pilot.score[drawn.indices] @ drawn.weights / pilot.score.sum() - 1.0)
    # s of n rows without replacement: variance / s times (n - s) / (n - 1)
    expected = told * math.sqrt((1 / 6) * 54 / 59)
    assert np.std(errors) == pytest.approx(expected, rel=4 / math.sqrt(2 * 4000))


def test_error_of_independent_draws():
    """What 4,000 draws of 6 show, within 4 standard errors."""
    pilot, q = whole()
    told = judge(pilot, q, mix=0.25, design="iid").relative_error
    law = 0.75 * q / q.sum() + 0.25 / 60
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(4000):
        drawn = draw("iid", law, 6, rng=rng)
        errors.append(pilot.score[drawn.indices] @ drawn.weights / pilot.score.sum() - 1.0)
    assert np.std(errors) == pytest.approx(told / math.sqrt(6), rel=4 / math.sqrt(2 * 4000))


@pytest.mark.parametrize("design", sorted(set(DESIGNS) - {"uniform"}))
def test_relative_error_is_that_of_the_law_it_settles_on(design):
    pilot, q = whole()
    for mix in (0.05, 0.25, 1.0):
        told = judge(pilot, q, mix=mix, design=design, draws=24)
        own = 1.0 if design == "stratified_uniform" else mix
        law = (1 - own) * q / q.sum() + own / 60
        cost = contributions(pilot, law, design).sum()
        if design not in UNSTRATIFIED:
            order = np.argsort(pilot.proxy, kind="stable")
            cost += proxy_spread(pilot.proxy[order], law[order], strata=6)
        assert told.relative_error == pytest.approx(math.sqrt(cost) / pilot.score.sum())
        assert told.mix == mix
        assert told.pilot_rows == 60
        assert not told.raised


def test_explained_is_a_weighted_r2():
    pilot, _ = whole()
    weight = np.random.default_rng(2).uniform(1, 9, 60)
    weighted = make_pilot(pilot.score, pilot.proxy, weight)
    mean = np.average(pilot.score, weights=weight)
    left = np.average((pilot.score - pilot.proxy) ** 2, weights=weight)
    spread = np.average((pilot.score - mean) ** 2, weights=weight)
    assert explained(weighted) == pytest.approx(1 - left / spread)
    assert explained(make_pilot(pilot.score, pilot.score)) == pytest.approx(1.0)
    flat = np.full(60, np.average(pilot.score))
    assert explained(make_pilot(pilot.score, flat)) == pytest.approx(0.0, abs=1e-12)
    assert explained(make_pilot(pilot.score, 5.0 - pilot.score)) < 0.0
    # scores that are all the same: explained if they are predicted
    assert explained(make_pilot(np.ones(5), np.ones(5))) == 1.0
    assert explained(make_pilot(np.ones(5), np.zeros(5))) == 0.0


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 60),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["iid", "poisson", "coordinated"]),
    st.floats(0.0, 3.0),
)
def test_auto_takes_the_least_mixture_that_is_not_clearly_worse(n, seed, design, noise):
    """Clearly: by more than half the standard error of the difference, told by the rows' own.

    Where the proxy explains nothing, the mixture that costs least is taken, as in the law's
    favour there is nothing to be said.
    """
    pilot, q = whole(n, noise=noise, seed=seed)
    told = judge(pilot, q, design=design)
    laws = mixed(q, MIXES, total=float(q.sum()), rows=n)
    cost = contributions(pilot, laws, design)
    known = np.zeros(len(MIXES))
    if design == "coordinated":
        order = np.argsort(pilot.proxy, kind="stable")
        strata = max(1, min(4, n // 8))
        known = proxy_spread(pilot.proxy[order], laws[:, order], strata=strata)
    total = cost.sum(axis=1) + known
    best = int(np.argmin(total))
    related = told.r2 >= UNRELATED
    assert told.mix == MIXES[choose(cost, known, related=related)]
    assert told.raised == (told.mix > LEAST_MIX)
    if not related:
        assert told.mix == MIXES[best]
        return
    for mix, one, value in zip(MIXES, cost, total, strict=True):
        error = 0.5 * np.std(one - cost[best], ddof=1) / np.sqrt(n) * n  # half, of the sum
        if value - total[best] <= error * (1 - 1e-9):
            assert told.mix <= mix
        if mix == told.mix:
            assert value - total[best] <= error * (1 + 1e-9) + 1e-9 * total[best]


@pytest.mark.parametrize("design", ["iid", "poisson", "coordinated"])
def test_noise_moves_the_mixture_and_smoothness_does_not(design):
    """Errors unrelated to q: most of the law is uniform. Errors in proportion to q: a tenth."""
    rng = np.random.default_rng(3)
    q = rng.lognormal(0.0, 1.5, 400)
    noise = make_pilot(rng.gamma(1.0, size=400), np.ones(400))
    smooth = make_pilot(q + 0.3 * q * rng.normal(size=400), q)
    told = judge(noise, q, design=design)
    assert told.mix >= 0.5
    assert told.raised
    assert judge(smooth, q, design=design).mix == LEAST_MIX
    for mix in (0.0, 0.1, 0.37):
        assert judge(noise, q, design=design, mix=mix).mix == mix


@pytest.mark.parametrize("pilot", [None, make_pilot(np.ones(1), np.ones(1))])
def test_without_pilot_rows_nothing_is_claimed(pilot):
    judged = Judged(np.ones(9), np.ones(9), 9)
    only = [Candidate(1.0, np.ones(1), judged)]
    told = look(pilot, only, mix="auto", design="coordinated", draws=3)
    assert math.isnan(told.r2)
    assert math.isnan(told.relative_error)
    assert math.isnan(told.uniform_error)
    assert told.mix == LEAST_MIX
    assert told.pilot_rows == 0
    assert told.verdict == "not measured: no pilot rows were asked for"
    fixed = look(pilot, only, mix=0.4, design="coordinated", draws=3)
    assert fixed.mix == 0.4


@pytest.mark.parametrize("design", sorted(DESIGNS))
@pytest.mark.parametrize("mix", ["auto", 0.1, 1.0])
def test_scores_of_zero(mix, design):
    """No score, no sensitivity: nothing divides by zero."""
    told = judge(make_pilot(np.zeros(10), np.zeros(10)), np.zeros(10), mix=mix, design=design)
    assert told.relative_error == told.uniform_error == 0.0
    assert LEAST_MIX <= told.mix <= 1.0
    assert told.verdict == "all pilot rows have the same score"


def test_verdicts():
    def verdict(mix: float, *, raised: bool) -> str:
        return Smoothness(0.42, mix, 1.0, 1.0, 50, raised).verdict

    assert verdict(0.1, raised=False) == "the proxy explains 42% of the score"
    assert verdict(0.4, raised=False) == "the proxy explains 42% of the score"
    told = verdict(0.4, raised=True)
    assert told.startswith("the proxy explains 42% of the score: 40% of the law is uniform")
    assert verdict(1.0, raised=True).startswith("the proxy explains 42% of the score: ")
    assert verdict(1.0, raised=True) != verdict(1.0, raised=False)


def reaches(pilot: Pilot, qs: list[np.ndarray]) -> list[Candidate]:
    order = np.argsort(pilot.proxy, kind="stable")
    return [
        Candidate(reach, q, Judged(pilot.proxy[order], q[order], len(q)))
        for reach, q in zip((0.5, 1.0, 0.25), qs, strict=True)
    ]


def test_distance_reaches_as_far_as_it_explains_errors():
    """Errors in proportion to q with all of the constant, with a quarter, or with neither."""
    rng = np.random.default_rng(4)
    proxy, far = rng.gamma(2.0, size=800), rng.gamma(0.5, size=800) * 4.0
    qs = {reach: proxy + reach * far for reach in (0.5, 1.0, 0.25)}
    found = {}
    for reach, q in {**qs, 0.0: proxy}.items():
        score = np.maximum(proxy + 3.0 * q * rng.normal(size=800), 0.0)
        pilot = make_pilot(score, proxy)
        told = look(
            pilot, reaches(pilot, list(qs.values())), mix="auto", design="coordinated", draws=400
        )
        found[reach] = told.reach
        fixed = look(pilot, reaches(pilot, list(qs.values())), mix=0.1, design="iid", draws=400)
        assert fixed.reach == 0.5  # the first, where nothing is to be settled
    assert found[0.0] == found[0.25] == 0.25
    assert found[1.0] > 0.25


def test_ties_go_to_the_first():
    pilot, q = whole()
    told = look(pilot, reaches(pilot, [q, q, q]), mix="auto", design="poisson", draws=16)
    assert told.reach == 0.5
