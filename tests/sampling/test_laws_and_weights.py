"""Laws, constants, training weights and certificates."""

from __future__ import annotations

import math

import numpy as np
import pytest

from curation.sampling import (
    balanced_constant,
    certify,
    certify_rounds,
    draw,
    effective_sample_size,
    law,
    sample_size,
    sensitivity,
    training_weights,
)


def test_balanced_constant_gives_both_terms_equal_weight(rng):
    proxy, distance = rng.gamma(2, size=50), rng.gamma(1, size=50)
    constant = balanced_constant(proxy, distance)
    assert constant * distance.sum() == pytest.approx(proxy.sum())
    assert balanced_constant(proxy, np.zeros(50)) == 0.0


def test_law_follows_the_scores_and_the_mixture_caps_weights(rng):
    scores = rng.gamma(0.3, size=200)
    assert law(scores, mix=0.0) == pytest.approx(scores / scores.sum())
    mixed = law(scores, mix=0.2)
    assert mixed.sum() == pytest.approx(1.0)
    # 1 / (s p) <= n / (mix s)
    assert np.all(1 / mixed <= 200 / 0.2 + 1e-9)
    assert law(scores, mix=1.0) == pytest.approx(np.full(200, 1 / 200))


def test_all_zero_scores_give_the_uniform_law():
    assert law(np.zeros(4), mix=0.0) == pytest.approx(np.full(4, 0.25))


def test_tilt_is_the_geometric_mean_with_the_class_balanced_law():
    scores = np.array([4.0, 1.0, 1.0, 1.0])
    classes = np.array([0, 0, 0, 1])
    expected = np.sqrt(scores / 7 * np.array([1 / 3, 1 / 3, 1 / 3, 1.0]))
    assert law(scores, mix=0.0, classes=classes) == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_scores_are_named(bad):
    with pytest.raises(ValueError, match="score of row 1 is"):
        law(np.array([1.0, bad, 1.0]))


def test_training_weights_estimate_the_mean_without_bias(rng):
    """Pilot and draw combined, 4,000 repetitions, 4 standard errors."""
    n, m, s = 200, 10, 20
    values = rng.gamma(1, size=n)
    scores = values + rng.gamma(1, size=n)
    totals = []
    for _ in range(4000):
        pilot = rng.choice(n, m, replace=False)
        rest = np.setdiff1d(np.arange(n), pilot)
        sample = draw("systematic", law(scores[rest], mix=0.1), s, rng=rng)
        rows = np.concatenate([pilot, rest[sample.indices]])
        weights = np.concatenate([np.ones(m), sample.weights])
        is_pilot = np.arange(m + s) < m
        # undo the scaling to mean 1, to see the estimator itself
        combined = weights.copy()
        combined[is_pilot] = n / (m + s)
        combined[~is_pilot] *= n / (n - m) * s / (m + s)
        told = training_weights(weights, is_pilot, rows=n)
        assert told == pytest.approx(combined / combined.mean())
        totals.append(combined @ values[rows])
    error = np.std(totals, ddof=1) / math.sqrt(4000)
    assert abs(np.mean(totals) - values.sum()) <= 4 * error


def test_horvitz_thompson_given_the_pilot_is_unbiased(rng):
    """Weight 1 for the pilot, 1 / pi for the rest: what the column `weight` promises.

    The law depends on the pilot (as a pilot model makes it do); 4,000 draws, 4 standard errors.
    """
    n, m, s = 150, 8, 15
    values = rng.gamma(1, size=n)
    totals = []
    for _ in range(4000):
        pilot = rng.choice(n, m, replace=False)
        rest = np.setdiff1d(np.arange(n), pilot)
        scores = np.abs(values[rest] - values[pilot].mean())
        sample = draw("systematic", law(scores, mix=0.2), s, rng=rng)
        totals.append(values[pilot].sum() + sample.weights @ values[rest[sample.indices]])
    error = np.std(totals, ddof=1) / math.sqrt(4000)
    assert abs(np.mean(totals) - values.sum()) <= 4 * error


def test_exponent_tempers():
    weights = np.array([1.0, 4.0, 16.0])
    flat = training_weights(weights, np.zeros(3, bool), rows=21, exponent=0.0)
    assert flat == pytest.approx(np.ones(3))
    half = training_weights(weights, np.zeros(3, bool), rows=21, exponent=0.5)
    assert half == pytest.approx(np.array([1, 2, 4]) * 3 / 7)


def test_effective_sample_size():
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([1.0, 0.0])) == pytest.approx(1)


def test_sample_size_formula():
    """ln(2/0.05) / (2 * 0.1^2) = 184.44."""
    assert sample_size(0.1, 0.05) == 185
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        sample_size(0.0, 0.05)


def test_certificate_holds_at_least_as_often_as_it_says(rng):
    """2,000 iid draws of 60 rows with l <= q: violations at most delta + 3 standard errors.

    Hoeffding is loose, so the count is far below; a radius four times too small would fail.
    """
    n, s, delta = 400, 60, 0.1
    proxy, distance = rng.gamma(2, size=n), rng.gamma(1, size=n)
    constant = balanced_constant(proxy, distance)
    scores = sensitivity(proxy, distance, constant)
    # losses as extreme as the assumption allows: all or nothing
    losses = np.where(rng.random(n) < 0.5, scores, 0.0)
    p = law(scores, mix=0.1)
    told = certify(scores, p, s, additive=constant * distance.sum(), delta=delta)
    assert told.radius == pytest.approx(told.epsilon * told.bound)
    assert told.additive == pytest.approx(proxy.sum())
    errors = np.empty(2000)
    for i in range(2000):
        sample = draw("iid", p, s, rng=rng)
        errors[i] = abs(sample.weights @ losses[sample.indices] - losses.sum())
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / 2000)
    assert np.mean(errors > told.radius) <= allowed
    assert np.mean(errors > told.radius / 4) > allowed


def test_bound_without_mixture_is_the_sensitivity_total(rng):
    scores = rng.gamma(1, size=30)
    told = certify(scores, law(scores, mix=0.0), 10, additive=0.0, delta=0.05)
    assert told.bound == pytest.approx(scores.sum())


def test_certificate_with_an_excess():
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    p = law(scores, mix=0.2)
    plain = certify(scores, p, 50, additive=1.0, delta=0.1)
    told = certify(scores, p, 50, additive=1.0, delta=0.1, violated_share=0.1, excess_variance=7.0)
    assert plain.excess == 0.0
    assert told.excess == pytest.approx(math.sqrt(2 * math.log(2 / 0.1) * 7.0 / 50))
    assert told.radius == pytest.approx(plain.radius + told.excess)
    assert told.bound == plain.bound
    assert "pilot" in told.conditional_on
    assert "pilot" not in plain.conditional_on
    none = certify(scores, p, 50, additive=1.0, delta=0.1, excess_variance=0.0)
    assert none.radius == plain.radius


def test_certificate_by_hoeffding_and_bernstein():
    """The smaller of the two: many equal terms, or one far larger than the others."""
    s, delta = 200, 0.1
    log = math.log(2 / delta)
    even = np.ones(50)
    told = certify(even, law(even, mix=0.0), s, additive=0.0, delta=delta)
    assert told.epsilon == pytest.approx(math.sqrt(log / (2 * s)))
    odd = np.array([1.0, *[0.001] * 999])
    flat = np.full(1000, 1e-3)
    told = certify(odd, flat, s, additive=0.0, delta=delta)
    second = float(np.sum(odd**2 / flat))
    assert told.bound == pytest.approx(1000.0)
    assert told.epsilon == pytest.approx(
        math.sqrt(2 * log * second / s) / told.bound + log / (3 * s)
    )
    assert told.epsilon < math.sqrt(log / (2 * s))


def test_certificate_over_rounds_looks_at_all_of_them():
    """One row of a large q in the first round, a thousand in the second: the second one decides.

    Scores at their q, 1,000 repetitions at delta = 0.05: by chance fewer than 930 are within the
    radius with probability 0.003. By the round of the largest bound alone it was 38%.
    """
    n, s = 4000, 100
    one, two = np.full(n, 0.01), np.full(n, 0.01)
    one[0], two[:400] = 1.01, 1.0
    flat = np.full(n, 1.0 / n)
    told = certify_rounds([(one, flat, s), (two, flat, s)], additive=0.0, delta=0.05)
    alone = certify(one, flat, 2 * s, additive=0.0, delta=0.05)
    assert told.bound == alone.bound == pytest.approx(1.01 * n)
    assert told.radius > alone.radius
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(1000):
        parts = [n / s * q[rng.integers(0, n, s)].sum() for q in (one, two)]
        within += abs(np.mean(parts) - (one.sum() + two.sum()) / 2) <= told.radius
    assert within >= 930
    assert "round" in told.conditional_on
    same = certify_rounds([(one, flat, s)], additive=0.0, delta=0.05)
    assert same == certify(one, flat, s, additive=0.0, delta=0.05)
