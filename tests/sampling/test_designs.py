"""Designs as statistics.

Each test says how often it would fail by chance. Four standard errors: 6.3e-5 per comparison under
the normal approximation; with the few dozen comparisons below, less than 1 in 300 for the file, and
the seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling import DESIGNS, draw, inclusion_probabilities, law
from curation.sampling.estimators import estimate_total

DRAWS = 4000


def make_case(n: int, *, seed: int = 1, heavy: bool = True):
    """A skewed law with take-all rows, and values that are not proportional to it."""
    rng = np.random.default_rng(seed)
    scores = rng.lognormal(sigma=1.5 if heavy else 0.3, size=n)
    values = rng.gamma(0.5, size=n) + 0.3 * scores
    order = rng.permutation(n)
    return law(scores, mix=0.1), values, order


@pytest.mark.parametrize("design", sorted(DESIGNS))
@pytest.mark.parametrize("heavy", [True, False])
def test_weighted_totals_are_unbiased(design, heavy):
    """Mean over 4,000 draws within 4 standard errors of the true total, for three variables."""
    p, values, order = make_case(300, heavy=heavy)
    variables = np.stack([values, np.ones(300), np.arange(300.0)])
    rng = np.random.default_rng(7)
    totals = np.empty((DRAWS, 3))
    for i in range(DRAWS):
        sample = draw(design, p, 40, order=order, rng=rng)
        totals[i] = variables[:, sample.indices] @ sample.weights
    error = totals.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    truth = variables.sum(axis=1)
    assert np.all(np.abs(totals.mean(axis=0) - truth) <= 4 * error + 1e-9 * truth)


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_rows_are_included_as_often_as_stated(design):
    """Frequency of each of 120 rows over 4,000 draws against its probability, 5 standard errors.

    5 standard errors: 120 comparisons fail by chance with probability below 1e-4.
    """
    p, _, order = make_case(120)
    rng = np.random.default_rng(11)
    hits = np.zeros(120)
    stated = np.full(120, np.nan)
    for _ in range(DRAWS):
        sample = draw(design, p, 30, order=order, rng=rng)
        hits[sample.indices] += 1
        stated[sample.indices] = sample.inclusion_probability
    seen = ~np.isnan(stated)
    pi = stated[seen]
    error = np.sqrt(np.maximum(pi * (1 - pi), 1e-9) / DRAWS)
    assert np.all(np.abs(hits[seen] / DRAWS - pi) <= 5 * error + 1e-9)
    assert np.all(p[~seen] * 30 * DRAWS < 30)  # a row never seen is one hardly ever drawn


def test_systematic_is_more_precise_than_iid_along_a_trend():
    """On values that follow the order, the ratio of errors is well below 1 (0.55 measured)."""
    rng = np.random.default_rng(3)
    n, s = 1000, 50
    values = 1.0 + np.linspace(0, 4, n) + rng.normal(0, 0.1, n)
    p = law(np.ones(n), mix=0.0)
    errors = {}
    for design in ("iid", "systematic"):
        totals = []
        for _ in range(600):
            sample = draw(design, p, s, rng=rng)
            totals.append(values[sample.indices] @ sample.weights)
        errors[design] = np.std(totals)
    assert errors["systematic"] < 0.5 * errors["iid"]


@pytest.mark.parametrize("design", ["iid", "uniform"])
def test_intervals_cover_what_they_say(design):
    """95% intervals over 2,000 draws: coverage in 92% to 97.5%.

    The binomial standard error at 0.95 is 0.5 points; the bounds leave room for the normal
    approximation at s = 200. A variance that is half as large covers 83%.
    """
    p, values, order = make_case(2000, heavy=False)
    rng = np.random.default_rng(5)
    truth, hits = values.sum(), 0
    for _ in range(2000):
        sample = draw(design, p, 200, order=order, rng=rng)
        told = estimate_total(values[sample.indices], sample)
        hits += told.low <= truth <= told.high
    assert 0.92 <= hits / 2000 <= 0.975


def test_systematic_intervals_are_not_too_short():
    """Successive differences along an order without a trend: coverage in 91% to 98%."""
    p, values, _ = make_case(2000, heavy=False)
    rng = np.random.default_rng(6)
    truth, hits = values.sum(), 0
    for _ in range(1000):
        shuffled = rng.permutation(2000)
        sample = draw("systematic", p, 200, order=shuffled, rng=rng)
        told = estimate_total(values[sample.indices], sample)
        hits += told.low <= truth <= told.high
    assert 0.91 <= hits / 1000 <= 0.98


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
def test_systematic_draws_exactly_s_distinct_rows(scores, s, seed):
    """Whatever the scores: s distinct rows, weights 1/pi, take-all rows with weight 1."""
    n = len(scores)
    s = min(s, n)
    p = law(np.array(scores), mix=0.05)
    rng = np.random.default_rng(seed)
    sample = draw("systematic", p, s, order=rng.permutation(n), rng=rng)
    assert len(sample.indices) == s == len(set(sample.indices.tolist()))
    assert np.all((sample.inclusion_probability > 0) & (sample.inclusion_probability <= 1))
    assert np.allclose(sample.weights * sample.inclusion_probability, 1.0)
    assert np.all(sample.weights[sample.take_all] == 1.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=2, max_size=80), st.integers(1, 80))
def test_inclusion_probabilities_add_up(scores, s):
    """They lie in [0, 1], add up to s, and keep the order of the law."""
    p = law(np.array(scores), mix=0.1)
    s = min(s, len(scores))
    pi = inclusion_probabilities(p, s)
    assert pi.sum() == pytest.approx(s, rel=1e-9)
    assert np.all((pi >= 0) & (pi <= 1))
    assert np.all(np.diff(pi[np.argsort(p, kind="stable")]) >= -1e-12)


def test_same_seed_same_rows():
    """A draw depends on its generator alone."""
    p, _, order = make_case(500)
    for design in DESIGNS:
        a = draw(design, p, 50, order=order, rng=np.random.default_rng(9))
        b = draw(design, p, 50, order=order, rng=np.random.default_rng(9))
        c = draw(design, p, 50, order=order, rng=np.random.default_rng(10))
        assert np.array_equal(a.indices, b.indices)
        assert not np.array_equal(a.indices, c.indices)


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_budget_of_all_rows_and_of_one(design):
    """Edges work: one row of one, and every row."""
    one = draw(design, np.array([1.0]), 1, rng=np.random.default_rng(0))
    assert one.indices.tolist() == [0]
    assert one.weights == pytest.approx([1.0])
    if design != "iid":
        every = draw(design, np.full(5, 0.2), 5, rng=np.random.default_rng(0))
        assert sorted(every.indices.tolist()) == [0, 1, 2, 3, 4]
        assert every.weights == pytest.approx(np.ones(5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"design": "nope", "s": 1}, "unknown design 'nope'; known: iid, systematic, uniform"),
        ({"design": "iid", "s": 0}, "between 1 and 3"),
        ({"design": "uniform", "s": 4}, "between 1 and 3"),
        ({"design": "systematic", "s": 4}, "between 1 and 3"),
    ],
)
def test_wrong_draws_are_refused(arguments, message):
    """The message says what would have been right."""
    with pytest.raises(ValueError, match=message):
        draw(law=np.full(3, 1 / 3), rng=np.random.default_rng(0), **arguments)


def test_too_few_positive_scores():
    """A law without uniform can't give more rows than it has positive scores."""
    with pytest.raises(ValueError, match="only 1 have a positive score"):
        draw("systematic", np.array([1.0, 0.0, 0.0]), 2, rng=np.random.default_rng(0))
