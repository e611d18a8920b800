"""Estimates and their intervals, against truths that are known.

Statistical tests say how often they would fail by chance; their seeds are fixed.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling import (
    DESIGNS,
    Draw,
    design_effect,
    draw,
    effective_sample_size,
    estimate_calibrated,
    estimate_difference,
    estimate_total,
    law,
)
from curation.sampling.estimators import _rounding_variance, _unskewed

N, S = 2500, 200


def make_population(rng, noise):
    """A law and values that follow it and the order, up to residuals of the kind asked for."""
    size = rng.lognormal(sigma=0.7, size=N)
    residual = {
        "gamma": lambda: rng.gamma(2.0, 0.5, size=N),
        "lognormal": lambda: rng.lognormal(sigma=1.5, size=N),
        "mostly zero": lambda: 9.0 * rng.gamma(1.0, size=N) * (rng.random(N) < 0.1),
    }[noise]()
    level = 0.0 if noise == "mostly zero" else 1.0 + np.sin(np.linspace(0, 6, N))
    return law(size, mix=0.1), size * (level + residual)


def measure(design, noise, draws, *, seed=5, s=S):
    """Coverage of 95% intervals, and the ratio of stated to true variance.

    Each population is drawn from 4 times only: given one population and order, a systematic draw
    has a few dozen outcomes, and its coverage over them is that population's.
    """
    rng = np.random.default_rng(seed)
    hits, stated, errors = 0, 0.0, 0.0
    for i in range(draws):
        if i % 4 == 0:
            p, values = make_population(rng, noise)
        sample = draw(design, p, s, rng=rng)
        told = estimate_total(values[sample.indices], sample)
        hits += told.low <= values.sum() <= told.high
        stated += told.standard_error**2
        errors += (told.value - values.sum()) ** 2
    return hits / draws, stated / errors


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_intervals_cover_what_they_say(design):
    """Moderate skewness, 2,000 intervals of a nominal 95%: 93% to 98% cover the truth.

    Measured with 4,000: 94.9% to 96.2%. The binomial standard error is 0.5 points: by chance below
    93% once in 5,000, times 7 designs. A variance half as large covers 83%. Stated over true
    variance has a standard error of about 3.5%, and 15% is more than 4 of them.
    """
    covered, ratio = measure(design, "gamma", 2000)
    assert 0.93 <= covered <= 0.98
    assert 0.85 <= ratio <= 1.15


@pytest.mark.parametrize("design", ["iid", "systematic", "coordinated"])
@pytest.mark.parametrize(
    ("noise", "least", "most"), [("lognormal", 0.91, 0.97), ("mostly zero", 0.96, 0.995)]
)
def test_intervals_of_skewed_values(design, noise, least, most):
    """Heavy tails, or 9 of 10 values zero, 1,200 intervals each.

    Measured with 4,000: 93.2% to 94.2% and 97.9% to 98.5%; standard errors here 0.7 and 0.4 points.
    By chance below the least once in 1,000 per case. Student's interval alone is at 88% and 91%.
    """
    covered, _ = measure(design, noise, 1200)
    assert least <= covered <= most


def test_error_of_strata_counts_their_rounding():
    """Strata of very different levels, ends far from whole draws: stated variance within 15%.

    2,000 draws: the variance has a standard error of 3.2%. Without the part that rounding adds it
    would be stated a third too low or more.
    """
    rng = np.random.default_rng(8)
    # 13 or 14 rows of pi 0.6 a stratum: 7.8 or 8.4 expected draws
    n, s = 80, 48
    p = np.full(n, 1 / n)
    level = np.array([0, 30, 0, 0, 30, 0])[((np.arange(n) + 0.5) * 0.6 // 8).astype(int)]
    values = level + rng.normal(scale=6.0, size=n)
    stated, told, without = 0.0, [], 0.0
    for _ in range(2000):
        sample = draw("coordinated", p, s, rng=rng)
        at = values[sample.indices]
        stated += estimate_total(at, sample).standard_error ** 2 / 2000
        plain = dataclasses.replace(sample, rounding=None)
        without += estimate_total(at, plain).standard_error ** 2 / 2000
        told.append(sample.weights @ at)
    true = np.mean((np.array(told) - values.sum()) ** 2)
    assert 0.85 <= stated / true <= 1.15
    assert without / true < 0.7


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_variance_of_the_rounding(strata, seed):
    """Against the shift of the total at 20,001 values of the one uniform number."""
    rng = np.random.default_rng(seed)
    levels, ends = rng.normal(size=strata), np.append(rng.random(strata - 1), 0.0)
    u = (np.arange(20001) + 0.5) / 20001
    up = u[:, None] >= 1.0 - ends
    sizes = np.diff(up - ends, axis=1, prepend=0.0)  # beyond those expected
    assert _rounding_variance(levels, ends) == pytest.approx(np.var(sizes @ levels), abs=5e-3)


def test_variance_within_strata_is_the_textbook_one():
    """Whole sizes: sum of N_h^2 (1 - n_h / N_h) s_h^2 / n_h; a single draw joins the one before."""
    rng = np.random.default_rng(3)
    rows, sizes = np.array([40, 10, 25]), np.array([8, 5, 5])
    stratum = np.repeat([0, 1, 2], sizes)
    pi = (sizes / rows)[stratum]
    values = rng.gamma(1.0, size=18)
    sample = make_draw(pi, stratum=stratum, rounding=np.zeros(3))
    spread = [np.var(values[stratum == h], ddof=1) for h in range(3)]
    expected = np.sum(rows**2 * (1 - sizes / rows) * spread / sizes)
    assert estimate_total(values, sample).standard_error ** 2 == pytest.approx(expected)
    pi = np.full(7, 0.2)
    for lonely in ([0, 0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5, 6]):
        alone = make_draw(pi, stratum=np.array(lonely), rounding=np.zeros(lonely[-1] + 1))
        one = make_draw(pi, stratum=np.zeros(7, dtype=int), rounding=np.zeros(1))
        expected = estimate_total(values[:7], one).standard_error
        assert estimate_total(values[:7], alone).standard_error == pytest.approx(expected)


def make_draw(pi, **fields):
    m = len(pi)
    made = Draw(np.arange(m), 1 / pi, pi, pi >= 1.0, np.ones(m, dtype=int), "coordinated")
    return dataclasses.replace(made, **fields)


def test_variances_by_their_formulas():
    """uniform: N^2 (1 - n/N) s^2 / n; poisson: sum (1 - pi) (y / pi)^2; systematic of two alike."""
    values = np.array([1.0, 4.0, 2.0, 9.0, 5.0])
    alike = make_draw(np.full(5, 0.25), design="uniform")
    expected = 20**2 * (1 - 0.25) * np.var(values, ddof=1) / 5
    assert estimate_total(values, alike).standard_error ** 2 == pytest.approx(expected)
    pi = np.array([0.1, 0.5, 1.0, 0.9, 0.2])
    chance = make_draw(pi, design="poisson")
    expected = np.sum((1 - pi) * (values / pi) ** 2)
    assert estimate_total(values, chance).standard_error ** 2 == pytest.approx(expected)
    comb = make_draw(np.full(2, 0.5), design="systematic")
    assert estimate_total(values[:2], comb).standard_error ** 2 == pytest.approx(
        2 / 1 * 0.5 / 2 * 6.0**2 + 6.0**2 / 12
    )


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_take_all_rows_add_no_error(design):
    """All rows certain: the total itself. One random row: nothing is known of the error."""
    every = draw(design, np.full(4, 0.25), 4, rng=np.random.default_rng(0))
    if design != "iid":
        told = estimate_total(np.arange(4.0), every)
        assert told.value == 6.0
        assert (told.low, told.high) == (6.0, 6.0) or design == "poisson"
    one = draw(design, np.full(30, 1 / 30), 1, rng=np.random.default_rng(3))
    told = estimate_total(np.ones(len(one.indices)), one, known=2.0)
    assert (told.low, told.high) == (-np.inf, np.inf) or len(one.indices) > 1


def test_an_empty_sample_knows_nothing():
    numbers = np.full(5, 0.9)
    none = draw("poisson", np.full(5, 0.2), 1, rng=np.random.default_rng(0), numbers=numbers)
    told = estimate_total(np.empty(0), none, known=3.0)
    assert (told.value, told.low, told.high) == (3.0, -np.inf, np.inf)


@pytest.mark.parametrize("skewness", [-0.9, -0.3, 1e-8, 0.05, 0.4, 1.2])
def test_transformation_is_inverted(skewness):
    """Hall's g(t) = t + a t^2 / 3 + a^2 t^3 / 27 + a / 6, put into its own inverse."""
    t = np.array([-3.0, -0.5, 0.0, 2.0])
    g = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    assert [_unskewed(x, skewness) for x in g] == pytest.approx(t, abs=1e-6)


def test_interval_leans_to_the_side_that_is_missed():
    """Right-skewed values: longer above; mirrored values: mirrored ends; never below Student's."""
    values = np.random.default_rng(0).lognormal(sigma=1.5, size=200)
    for design in ("uniform", "systematic", "poisson", "coordinated"):
        sample = make_draw(np.full(200, 0.1), design=design)
        told, mirrored = estimate_total(values, sample), estimate_total(-values, sample)
        below, above = told.value - told.low, told.high - told.value
        assert above > 1.1 * below
        assert (-mirrored.low, -mirrored.high) == pytest.approx((told.high, told.low))
        assert below >= 1.95 * told.standard_error
    level = [estimate_total(values, sample, level=c) for c in (0.5, 0.9, 0.99)]
    assert level[0].high < level[1].high < level[2].high


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_difference_estimates(design):
    """Unbiased over 1,000 draws (4 standard errors); exact, without error, for a perfect proxy."""
    rng = np.random.default_rng(2)
    p, values = make_population(rng, "gamma")
    proxy = values + rng.normal(scale=0.3, size=N)
    missed, plain = np.empty(1000), np.empty(1000)
    for i in range(1000):
        sample = draw(design, p, 40, rng=rng)
        rows = sample.indices
        told = estimate_difference(values[rows], proxy[rows], proxy.sum(), sample, known=7.0)
        missed[i] = told.value - 7.0 - values.sum()
        plain[i] = estimate_total(values[rows], sample).value - values.sum()
    assert abs(missed.mean()) <= 4 * missed.std() / np.sqrt(1000)
    assert missed.std() < 0.7 * plain.std()
    exact = estimate_difference(values[rows], values[rows], values.sum(), sample)
    assert exact.value == pytest.approx(values.sum())
    assert (exact.low, exact.high) == (exact.value, exact.value) or design == "poisson"


def test_calibrated_estimates():
    """500 draws: 92% to 99% of 95% intervals cover; far more precise than without.

    Measured with 1,000: 96.2%; a standard error of 0.9 points: by chance outside once in 1,000.
    """
    rng = np.random.default_rng(6)
    cluster, extra = np.sort(rng.integers(0, 20, N)), rng.gamma(1.0, size=N)
    columns = np.column_stack([np.eye(20)[cluster], np.eye(3)[rng.integers(0, 3, N)], extra])
    values = columns @ rng.normal(2.0, 1.0, size=24) + rng.normal(size=N)
    p, totals, truth = law(rng.lognormal(size=N)), columns.sum(axis=0), values.sum()
    hits, told, plain = 0, [], []
    for _ in range(500):
        sample = draw("coordinated", p, 400, rng=rng)
        at = values[sample.indices]
        e = estimate_calibrated(at, columns[sample.indices], totals, sample)
        hits += e.low <= truth <= e.high
        told.append((e.value, e.standard_error))
        plain.append(estimate_total(at, sample).value)
    assert 0.92 <= hits / 500 <= 0.99
    assert np.std(told, axis=0)[0] < 0.5 * np.std(plain)
    assert np.mean(told, axis=0)[1] == pytest.approx(np.std(told, axis=0)[0], rel=0.15)
    linear = columns @ np.arange(24.0)
    e = estimate_calibrated(linear[sample.indices], columns[sample.indices], totals, sample)
    assert e.value == pytest.approx(linear.sum())
    assert e.standard_error < 1e-6 * linear.sum()


def test_design_effect():
    """1 for equal weights; (1 + CV^2) otherwise; rows over it is the effective sample size."""
    assert design_effect(np.full(7, 3.0)) == pytest.approx(1.0)
    weights = np.array([1.0, 2.0, 3.0])
    assert design_effect(weights) == pytest.approx(3 * 14 / 36)
    assert 3 / design_effect(weights) == pytest.approx(effective_sample_size(weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones(3)}, r"expected 5 values, got shape \(3,\)"),
        ({"values": np.ones((5, 1))}, r"expected 5 values, got shape \(5, 1\)"),
        ({"proxy_at_rows": np.ones(4)}, r"expected 5 proxies, got shape \(4,\)"),
        ({"level": 1.0}, r"level must lie in \(0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    sample = draw("uniform", np.full(20, 0.05), 5, rng=np.random.default_rng(0))
    right = {"values": np.ones(5), "proxy_at_rows": np.ones(5), "proxy_total": 20.0, "level": 0.9}
    with pytest.raises(ValueError, match=message):
        estimate_difference(sample=sample, **(right | change))
