"""Designs as statistics.

Each test says how often it would fail by chance. Four standard errors: 6.3e-5 per comparison under
the normal approximation; with the hundred comparisons below, less than 1 in 100 for the file, and
the seeds are fixed.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.sampling import (
    DESIGNS,
    draw,
    inclusion_probabilities,
    law,
    permanent_random_numbers,
)
from curation.sampling import stratified as strata
from curation.sampling.designs import uniform

DRAWS = 4000
BY_NUMBERS = ("coordinated", "poisson", "stratified", "stratified_uniform", "uniform")
FIXED_SIZE = ("coordinated", "stratified", "stratified_uniform", "systematic", "uniform")


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


def frequencies(p, s, design, draws, *, seed=2):
    """How often each row was drawn, and its stated probability."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(p))
    hits, stated = np.zeros(len(p)), np.zeros(len(p))
    for _ in range(draws):
        sample = draw(design, p, s, order=order, rng=rng)
        hits[sample.indices] += 1
        stated[sample.indices] = sample.inclusion_probability
    return hits / draws, stated


@pytest.mark.parametrize("design", ["coordinated", "poisson"])
@pytest.mark.parametrize(
    ("scores", "s"),
    [
        ([0.98, 0.7, 0.2, 0.1, 0.02], 2),  # one stratum with hardly any choice
        ([0.3, 0.3, 0.02, 0.38], 1),  # a single draw
        ([0.95] * 12 + [0.6] * 4 + [0.3] * 10, 16),  # strata close to certainty
        ([0.97] + [0.1] * 70, 8),  # one large row among small ones
    ],
)
def test_small_and_uneven_strata(design, scores, s):
    """5,000 draws: every row's frequency within 5 standard errors and 0.002 of what is stated.

    212 comparisons at 5.7e-7: fails by chance with probability below 2e-4. The 0.002 is what Pareto
    sampling may be off by.
    """
    told, pi = frequencies(law(np.array(scores), mix=0.0), s, design, 5000)
    error = np.sqrt(pi * (1 - pi) / 5000)
    assert pi.sum() == pytest.approx(s)
    assert np.all(np.abs(told - pi) <= 5 * error + 0.002 * (pi < 1))


def test_coordinated_follows_the_order_like_systematic():
    """Values that follow the order, with noise: error within 15% of systematic's.

    1,000 draws each, fresh noise for each: the ratio of two errors has a standard error of 3.2%; by
    chance above 1.15 less than once in 1,000 (1.02 measured). Independent draws are at 1.5.
    """
    rng = np.random.default_rng(4)
    n, s = 2000, 100
    trend = 2.0 + np.sin(np.linspace(0, 8, n)) * 2
    p = law(rng.lognormal(sigma=0.3, size=n), mix=0.1)
    errors = {}
    for design in ("systematic", "coordinated", "iid"):
        missed = np.empty(1000)
        for i in range(1000):
            values = (trend + rng.gamma(2.0, 0.6, size=n)) * p
            sample = draw(design, p, s, rng=rng)
            missed[i] = sample.weights @ values[sample.indices] - values.sum()
        errors[design] = np.std(missed)
    assert errors["coordinated"] < 1.15 * errors["systematic"]
    assert errors["iid"] > 1.3 * errors["coordinated"]


@pytest.mark.parametrize(
    ("pi", "size"),
    [
        ([0.82, 0.7, 0.58, 0.4, 0.3, 0.12, 0.08], 3),
        ([0.95, 0.05, 0.5, 0.5, 0.5, 0.5, 0.02, 0.98], 4),
        ([*[0.9] * 16, *[0.1] * 16], 16),
    ],
)
def test_pareto_sampling_meets_its_targets(pi, size):
    """30,000 strata at once, ``sum pi (1 - pi)`` 1.1 to 2.9: 5 standard errors and 1% of pi.

    47 comparisons at 5.7e-7: by chance below 1e-4.
    """
    told = pareto_frequencies(np.array(pi), size, 30_000, adjusted=True)
    error = np.sqrt(np.array(pi) * (1 - np.array(pi)) / 30_000)
    assert np.all(np.abs(told - pi) <= 5 * error + 0.01 * np.array(pi))


def pareto_frequencies(pi, size, copies, *, adjusted):
    """Frequencies of a stratum's rows over many copies of it, by the same numbers each time."""
    rows = len(pi)
    stratum = np.repeat(np.arange(copies), rows)
    chance, sizes = np.tile(pi, copies), np.full(copies, size)
    numbers = np.random.default_rng(6).uniform(1e-9, 1 - 1e-9, copies * rows)
    ranking = np.log(numbers / (1 - numbers) * (1 - chance) / chance)
    if adjusted:
        ranking = strata._ranking(chance, stratum, sizes, numbers)
    chosen = strata.smallest(ranking, stratum, sizes)
    assert np.all(np.bincount(chosen // rows) == size)
    return np.bincount(chosen % rows, minlength=rows) / copies


@pytest.mark.parametrize("far", ["none", "one stratum", "all"])
def test_smallest_of_each_stratum(far):
    """Against sorting; also where a stratum has too few rows that are anywhere near."""
    rng = np.random.default_rng(8)
    stratum = np.sort(rng.integers(0, 30, 900))
    sizes = np.minimum(np.bincount(stratum, minlength=30), rng.integers(0, 6, 30))
    ranking = rng.normal(strata.NEAR - 3.0, 1.0, 900)
    off = {"none": stratum < 0, "one stratum": stratum == 7, "all": stratum >= 0}[far]
    sizes[7] = 4
    ranking[off] += 6.0
    expected = [
        row
        for h in range(30)
        for row in sorted(np.flatnonzero(stratum == h), key=lambda row: ranking[row])[: sizes[h]]
    ]
    assert strata.smallest(ranking, stratum, sizes).tolist() == sorted(expected)


def test_rosens_adjustment_moves_frequencies_to_their_targets():
    """Unadjusted, pi = 0.5 among larger ones comes out at 0.493 (400,000 strata); adjusted, 0.4975.

    The same numbers for both: their difference has a standard error below 0.0003.
    """
    pi = np.array([0.9, 0.9, 0.9, 0.8, 0.5] * 2)
    plain, adjusted = (pareto_frequencies(pi, 8, 60_000, adjusted=a) for a in (False, True))
    lifted = (adjusted - plain)[pi == 0.5].mean()
    assert 0.003 <= lifted <= 0.0055


class FixedStart(np.random.Generator):
    """A generator whose first number is given."""

    def __init__(self, first):
        super().__init__(np.random.PCG64(1))
        self.first = first

    def random(self, size=None):
        assert size is None, "the start must not depend on how many rows there are"
        return self.first


def test_one_stratum_with_hardly_any_choice_is_exact():
    """Rows drawn at 10,000 starts of the comb: the share of each is its pi; numbers are no matter.

    Pareto sampling would be off by up to 0.012.
    """
    p = np.array([0.98, 0.7, 0.2, 0.1, 0.02]) / 2
    hits = np.zeros(5)
    for start in (np.arange(10_000) + 0.5) / 10_000:
        hits[draw("coordinated", p, 2, rng=FixedStart(start), numbers=np.full(5, 0.5)).indices] += 1
    assert hits / 10_000 == pytest.approx(2 * p, abs=2e-4)


def test_one_draw_is_the_least_of_exponentials():
    """Which is exact: row i with probability pi_i; stable, too, when rows are added."""
    rng = np.random.default_rng(9)
    for _ in range(200):
        p, numbers = rng.dirichlet(np.ones(12)), rng.uniform(1e-9, 1 - 1e-9, 12)
        sample = draw("coordinated", p, 1, rng=FixedStart(0.3), numbers=numbers)
        assert sample.indices.tolist() == [np.argmin(-np.log1p(-numbers) / p)]


@settings(max_examples=100, deadline=None)
@example(200, 0.97, 0.01, 0)
@example(40, 0.95, 0.02, 0)
@given(st.integers(2, 400), st.floats(0.01, 1.0), st.floats(0.0, 3.0), st.integers(0, 2**32 - 1))
def test_targets_given_the_sizes(n, share, spread, seed):
    """They add up to each stratum's size and lie in (0, 1); their mean over the rounding is pi."""
    rng = np.random.default_rng(seed)
    pi = inclusion_probabilities(law(rng.lognormal(sigma=spread, size=n)), max(1, int(share * n)))
    chance = pi[pi < 1.0]
    left = round(chance.sum())
    if not left:
        return
    stratum, ends = strata._strata(chance, left, None)
    assert np.all(np.diff(stratum, prepend=0) >= 0)
    assert len(ends) == stratum[-1] + 1
    assert ends[-1] == left
    fractions = np.unique(ends - np.floor(ends))
    starts = np.concatenate([[0.0], 1.0 - fractions[::-1], [1.0]])
    mean = np.zeros(len(chance))
    for low, high in pairwise(starts):
        if high - low < 1e-9:
            continue
        sizes = np.diff(np.floor(ends + (low + high) / 2).astype(int), prepend=0)
        assert sizes.sum() == left
        assert np.all(sizes <= np.bincount(stratum))
        target, d = strata._targets(chance, stratum, sizes)
        if len(ends) > 1:
            assert np.all(d >= strata.LEAST_SLACK)
        assert np.bincount(stratum, target) == pytest.approx(sizes, abs=1e-6)
        assert np.all((target > 0.0) & (target < 1.0))
        mean += (high - low) * target
    assert mean == pytest.approx(chance, abs=1e-6)


def test_strata_hold_about_four_draws():
    """3 to 5 expected draws each, or twice that where two near certainty were joined.

    Sizes differ from what is expected by less than 1.
    """
    p, _, order = make_case(3000)
    for seed in range(20):
        sample = draw("coordinated", p, 205, order=order, rng=np.random.default_rng(seed))
        drawn = ~sample.take_all
        counts = np.bincount(sample.stratum[drawn])
        assert np.all(sample.stratum[sample.take_all] == -1)
        assert counts.sum() == 205 - sample.take_all.sum()
        assert np.all((counts >= 3) & (counts <= 9))
        assert np.mean(counts <= 5) > 0.7
        assert len(sample.rounding) == len(counts)
        assert np.all((sample.rounding >= 0.0) & (sample.rounding < 1.0))


def test_neyman_gives_strata_the_draws_of_their_mass():
    """Inside a stratum all rows are alike; over it they hold what the law's own pi add up to."""
    p, _, order = make_case(2000)
    rng = np.random.default_rng(1)
    pi = inclusion_probabilities(p, 160)
    line = order[pi[order] < 1.0]
    stratum, _ = strata._strata(pi[line], round(pi[line].sum()), None)
    mass, rows = np.bincount(stratum, pi[line]), np.bincount(stratum)
    sample = draw("stratified", p, 160, order=order, rng=rng)
    drawn = ~sample.take_all
    expected = (mass / rows)[sample.stratum[drawn]]
    assert sample.inclusion_probability[drawn] == pytest.approx(expected)
    where = np.empty(2000, dtype=int)
    where[line] = stratum
    assert np.array_equal(where[sample.indices[drawn]], sample.stratum[drawn])


def grown(n=12_000, share=0.05, *, seed=0):
    """Scores and numbers of rows in order, and which of them were there before."""
    rng = np.random.default_rng(seed)
    total = round(n * (1 + share))
    ids = np.array([f"row-{i}" for i in range(total)])
    scores = rng.lognormal(sigma=0.7, size=total)
    before = np.sort(rng.permutation(total)[:n])
    return scores, permanent_random_numbers(ids, seed=seed), before


def kept(design, s=400, *, seed=0):
    """Share of the rows chosen before that are chosen again after 5% more rows came."""
    scores, numbers, before = grown(seed=seed)
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    old = draw(design, law(scores[before]), s, rng=rngs[0], numbers=numbers[before])
    new = draw(design, law(scores), s, rng=rngs[1], numbers=numbers)
    return np.mean(np.isin(before[old.indices], new.indices))


@pytest.mark.parametrize(("design", "least"), [*((d, 0.88) for d in BY_NUMBERS)])
def test_most_rows_stay_when_rows_are_added(design, least):
    """5% more rows at random places, mean of 8 cases: 93% of the rows stay (uniform: 95%).

    One case has a standard error of 1.3 points, the mean 0.5: ten below are no matter of chance.
    Without numbers of their own next to none stay.
    """
    assert np.mean([kept(design, seed=seed) for seed in range(8)]) >= least
    assert kept("systematic") < 0.4


def test_chosen_rows_depend_on_ids_and_seed():
    """Another seed of the numbers, other rows; the same, the same rows."""
    p, _, order = make_case(2000, heavy=False)
    ids = np.arange(2000)
    for design in BY_NUMBERS:
        chosen = [
            draw(
                design,
                p,
                50,
                order=order,
                rng=np.random.default_rng(0),
                numbers=permanent_random_numbers(ids, seed=seed),
            ).indices
            for seed in (1, 1, 2)
        ]
        assert np.array_equal(chosen[0], chosen[1])
        assert len(np.intersect1d(chosen[0], chosen[2])) < 15


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.floats(0.0, 1.0), st.floats(0.0, 3.0), st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_in_memory_is_no_matter(n, share, spread, seed):
    """Rows moved together with law, order and numbers: the same rows, in the same order."""
    rng = np.random.default_rng(seed)
    p = law(rng.lognormal(sigma=spread, size=n))
    order, numbers, moved = rng.permutation(n), rng.uniform(1e-9, 1 - 1e-9, n), rng.permutation(n)
    back = np.argsort(moved)  # row r is at back[r] now
    s = 1 + int(share * (n - 1))
    for design in BY_NUMBERS:
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        here = draw(design, p, s, order=order, rng=rngs[0], numbers=numbers)
        there = draw(design, p[moved], s, order=back[order], rng=rngs[1], numbers=numbers[moved])
        assert sorted(moved[there.indices]) == sorted(here.indices)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6) | st.just(1.0), min_size=1, max_size=80),
    st.integers(1, 80),
    st.sampled_from([0.0, 0.05]),
    st.integers(0, 2**32 - 1),
)
def test_designs_of_fixed_size_draw_s_distinct_rows(scores, s, mix, seed):
    """Whatever the scores: s distinct rows, weights 1/pi, take-all rows first with weight 1."""
    n = len(scores)
    s = min(s, n)
    p = law(np.array(scores), mix=mix)
    rng = np.random.default_rng(seed)
    for design in (*FIXED_SIZE, "poisson"):
        sample = draw(design, p, s, order=rng.permutation(n), rng=rng)
        m = len(sample.indices)
        assert m == len(set(sample.indices.tolist()))
        assert m == s or design == "poisson"
        pi = sample.inclusion_probability
        assert np.all((pi > 0) & (pi <= 1))
        assert np.allclose(sample.weights * pi, 1.0)
        assert np.all(sample.weights[sample.take_all] == 1.0)
        assert np.all(np.diff(sample.take_all.astype(int)) <= 0)
        assert np.all(sample.multiplicity == 1)
        for part in (sample.weights, pi, sample.take_all, sample.multiplicity, sample.stratum):
            assert part is None or len(part) == m


@pytest.mark.parametrize("design", ["coordinated", "stratified", "stratified_uniform", "uniform"])
def test_stated_probabilities_add_up_to_s(design):
    """Every row's pi, read from draws that the numbers force it into, adds up to s."""
    n, s = 60, 17
    p, _, order = make_case(n)
    stated = np.full(n, np.nan)
    for row in range(n):
        numbers = np.full(n, 0.5)
        numbers[row] = 1e-12
        rng = np.random.default_rng(3)
        sample = draw(design, p, s, order=order, rng=rng, numbers=numbers)
        assert row in sample.indices
        stated[sample.indices] = sample.inclusion_probability
    assert stated.sum() == pytest.approx(s)


def test_poisson_decides_row_by_row():
    """Drawn if and only if the number is below pi; s rows on average; possibly none."""
    p, _, _ = make_case(400)
    pi = inclusion_probabilities(p, 30)
    numbers = np.random.default_rng(1).uniform(1e-9, 1 - 1e-9, 400)
    sample = draw("poisson", p, 30, rng=np.random.default_rng(0), numbers=numbers)
    assert sorted(sample.indices) == np.flatnonzero(numbers < pi).tolist()
    none = draw(
        "poisson", np.full(5, 0.2), 1, rng=np.random.default_rng(0), numbers=np.full(5, 0.9)
    )
    assert len(none.indices) == len(none.weights) == 0


def test_ties_and_extreme_numbers():
    """All numbers equal, or as near 0 and 1 as can be: still s rows; ties go by the order."""
    p, _, order = make_case(100)
    for numbers in (np.full(100, 0.5), np.full(100, 2.0**-1074), np.full(100, 1 - 2.0**-53)):
        for design in FIXED_SIZE:
            rng = np.random.default_rng(0)
            sample = draw(design, p, 20, order=order, rng=rng, numbers=numbers)
            assert len(set(sample.indices.tolist())) == 20
    tied = uniform(p, 20, order, np.random.default_rng(0), np.full(100, 0.5))
    assert sorted(tied.indices) == sorted(order[:20])


@pytest.mark.filterwarnings("error")
def test_extreme_laws():
    """Scores over 300 orders of magnitude, and take-all rows only: s rows, finite weights."""
    scores = np.logspace(-300, 0, 50)
    for p, s in ((scores, 10), (scores, 49), (np.r_[np.ones(10), np.zeros(40)], 10)):
        for design in (*FIXED_SIZE, "poisson"):
            sample = draw(design, p / p.sum(), s, rng=np.random.default_rng(2))
            assert np.all(np.isfinite(sample.weights) | (p[sample.indices] < 1e-290))
            assert len(sample.indices) == s or design == "poisson"
    certain = draw("coordinated", np.r_[np.full(4, 0.25), 0.0], 4, rng=np.random.default_rng(0))
    assert certain.take_all.all()
    assert certain.stratum.tolist() == [-1] * 4


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
        ({"design": "nope", "s": 1}, "unknown design 'nope'; known: coordinated, iid, poisson, st"),
        ({"design": "coordinated", "s": 0}, "between 1 and 3"),
        ({"design": "stratified_uniform", "s": 4}, "between 1 and 3"),
        ({"design": "poisson", "s": 4}, "between 1 and 3"),
        (
            {"design": "uniform", "s": 1, "numbers": [0.5, 0.5]},
            r"expected 3 random .* shape \(2,\)",
        ),
        (
            {"design": "iid", "s": 1, "numbers": [0.5, 1.0, 0.5]},
            r"number of row 1 is 1.0: .* \(0, 1\)",
        ),
        ({"design": "poisson", "s": 1, "numbers": [0.5, 0.5, np.nan]}, "number of row 2 is nan"),
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
