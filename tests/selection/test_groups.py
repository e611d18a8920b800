"""Shares, minima and tilts: how many rows each group gets, and that totals stay right."""

from __future__ import annotations

import numpy as np
import pytest

import curation
from curation.sampling import DESIGNS

N = 400
NAMES = ("large", "middle", "rare")


def make_data(seed: int = 0):
    """Groups of 300, 85 and 15 rows; the rare one has small scores."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(NAMES, [300, 85, 15]))
    points = rng.normal(size=(N, 3))
    points[groups == "middle"] += 2.0
    losses = np.exp(0.7 * points[:, 0]) + rng.gamma(0.5, size=N)
    losses[groups == "rare"] *= 0.1
    return points.astype(np.float32), losses, groups


def counts(chosen, groups) -> np.ndarray:
    """Chosen rows of each group; of `iid`, distinct ones."""
    found = groups[chosen.indices]
    return np.array([(found == name).sum() for name in NAMES])


SIZES = np.array([300, 85, 15])


def test_proportional_shares_are_met_to_the_row():
    """Coordinated, over 40 seeds and budgets that do not divide: each group within a row."""
    points, losses, groups = make_data()
    for seed in range(40):
        budget = 50 + seed
        chosen = curation.select(
            points, losses, budget=budget, groups=groups, shares="proportional", seed=seed,
            proxy="cluster",
        )  # fmt: skip
        assert len(chosen) == budget
        assert np.abs(counts(chosen, groups) - budget * SIZES / N).max() <= 1.0


@pytest.mark.parametrize("design", sorted(set(DESIGNS) - {"iid"}))
def test_shares_by_name_are_met_by_every_design(design):
    """Half of the budget for a group that has a fifth of the rows: 30 rows on average.

    Poisson counts within 4 standard errors over 30 seeds; the others in every one of them.
    """
    points, losses, groups = make_data()
    found = []
    for seed in range(30):
        options = {"groups": groups, "shares": {"middle": 0.5}, "design": design}
        chosen = curation.select(points, losses, budget=60, seed=seed, proxy="cluster", **options)
        found.append(counts(chosen, groups)[1])
    if design == "poisson":
        assert abs(np.mean(found) - 30.0) <= 4 * np.sqrt(30.0 / 30)
    else:
        assert np.abs(np.array(found) - 30).max() <= 1


def test_independent_draws_share_the_draws():
    """By `iid` it is the draws that are shared, of which one row can have several."""
    points, losses, groups = make_data()
    found = []
    for seed in range(30):
        chosen = curation.select(
            points, losses, budget=60, groups=groups, shares={"middle": 0.5}, design="iid",
            seed=seed, proxy="cluster",
        )  # fmt: skip
        law = np.array([chosen.explain(row)["law"] for row in np.flatnonzero(groups == "middle")])
        found.append(law.sum())
    assert found == pytest.approx(np.full(30, 0.5))


@pytest.mark.parametrize(
    "options",
    [
        {"shares": "proportional"},
        {"shares": {"rare": 0.2}},
        {"shares": {"rare": 0.1, "middle": 0.3, "large": 0.6}},
        {"minimum": 8},
        {"minimum": {"rare": 10}},
        {"shares": "proportional", "minimum": {"rare": 5}},
        {"tilt": "groups"},
    ],
    ids=str,
)
def test_totals_of_groups_are_unbiased(options):
    """Totals of the score in each group, over 100 seeds, within 4 standard errors.

    The whole procedure is repeated, clusters and pilot included. 3 comparisons for each of 7
    options fail by chance with probability below 0.2%.
    """
    points, losses, groups = make_data()
    truth = np.array([losses[groups == name].sum() for name in NAMES])
    totals = np.empty((100, 3))
    for seed in range(100):
        chosen = curation.select(
            points, losses, budget=40, k=10, groups=groups, seed=seed, proxy="cluster", **options
        )
        own = groups[chosen.indices]
        parts = chosen.weights * losses[chosen.indices]
        totals[seed] = [parts[own == name].sum() for name in NAMES]
    error = totals.std(axis=0, ddof=1) / 10
    assert np.all(np.abs(totals.mean(axis=0) - truth) <= 4 * error)


def mean_counts(points, losses, codes, *, seeds: int = 20, **options) -> np.ndarray:
    return np.mean(
        [
            counts(
                curation.select(points, losses, budget=60, seed=seed, proxy="cluster", **options),
                codes,
            )
            for seed in range(seeds)
        ],
        axis=0,
    )


def test_minimum_is_met():
    """On average over 20 seeds; it is the expected number. The others keep their proportions."""
    points, losses, groups = make_data()
    plain = mean_counts(points, losses, groups)
    assert plain[2] < 3
    one = mean_counts(points, losses, groups, groups=groups, minimum={"rare": 10})
    all_of_them = mean_counts(points, losses, groups, groups=groups, minimum=12)
    assert one[2] == pytest.approx(10.0, abs=0.5)
    assert all_of_them[2] == pytest.approx(12.0, abs=0.5)
    assert np.all(all_of_them >= 11.5)
    assert one[0] / one[1] == pytest.approx(plain[0] / plain[1], rel=0.15)
    # no more than the group has
    small = curation.select(points, losses, budget=60, groups=groups, minimum=20, proxy="cluster")
    assert counts(small, groups)[2] == 15


def test_tilt_gives_rare_groups_and_classes_more():
    """At least twice as many rows of the rare one, on average over 20 seeds."""
    points, losses, groups = make_data()
    plain = mean_counts(points, losses, groups)
    by_group = mean_counts(points, losses, groups, groups=groups, tilt="groups")
    by_class = mean_counts(points, losses, groups, labels=groups, tilt="classes")
    assert by_group[2] > 2 * plain[2]
    assert by_class == pytest.approx(by_group)
    assert by_group[0] < plain[0]


def test_tilt_is_the_geometric_mean_with_the_balanced_law():
    """Of the law without uniform; uniform is mixed in afterwards."""
    points, losses, groups = make_data()
    sizes = dict(zip(NAMES, SIZES, strict=True))

    def laws(**options):
        chosen = curation.select(
            points, losses, budget=60, groups=groups, proxy="cluster", **options
        )
        return np.array([chosen.explain(row)["law"] for row in range(N)])

    bare = laws(mix=0.0)
    expected = np.sqrt(bare / np.array([sizes[g] for g in groups]))
    assert laws(mix=0.0, tilt="groups") == pytest.approx(expected / expected.sum())
    mixed = 0.7 * expected / expected.sum() + 0.3 / N
    assert laws(mix=0.3, tilt="groups") == pytest.approx(mixed)


def test_groups_may_be_numbers():
    """Then shares and minima are named by them, as numbers or as texts."""
    points, losses, groups = make_data()
    numbers = np.array([NAMES.index(g) for g in groups])
    for shares in ({"2": 0.2}, {2: 0.2}):
        chosen = curation.select(
            points, losses, budget=50, groups=numbers, shares=shares, proxy="cluster"
        )
        assert abs(counts(chosen, groups)[2] - 10) <= 2
    for minimum in ({"2": 10}, {2: 10}):
        chosen = curation.select(
            points, losses, budget=50, groups=numbers, minimum=minimum, proxy="cluster"
        )
        assert abs(counts(chosen, groups)[2] - 10) <= 2


@pytest.mark.parametrize("design", ["coordinated", "uniform", "systematic", "iid"])
def test_intervals_cover_where_groups_have_shares(design):
    """Nominal 95%, in 120 selections of 60 rows: 87% or more.

    The binomial standard error is 2 points; what covers 95% comes out below 87% in 1 of 10,000
    cases.
    """
    points, losses, groups = make_data()
    hits = 0
    for seed in range(120):
        chosen = curation.select(
            points, losses, budget=60, k=10, groups=groups, shares={"rare": 0.2, "middle": 0.4},
            seed=seed, proxy="cluster", design=design, mix=0.1,
        )  # fmt: skip
        told = chosen.estimate(losses[chosen.indices])
        hits += told.low <= losses.sum() <= told.high
    assert hits / 120 >= 0.87


@pytest.mark.parametrize("design", ["coordinated", "uniform", "stratified", "systematic"])
def test_explain_says_the_probability_of_rows_in_groups(design):
    """They add up to the groups' shares, chosen or not, and are those of the chosen rows."""
    points, losses, groups = make_data()
    chosen = curation.select(
        points, losses, budget=60, groups=groups, shares={"rare": 0.1, "middle": 0.3}, mix=0.1,
        proxy="cluster", design=design,
    )  # fmt: skip
    for row, pi in zip(chosen.indices, chosen.inclusion_probability, strict=True):
        assert chosen.explain(int(row))["inclusion_probability"] == pi
    told = np.array([chosen.explain(row)["inclusion_probability"] for row in range(N)])
    assert [told[groups == name].sum() for name in NAMES] == pytest.approx([36.0, 18.0, 6.0])
    smaller = chosen.at_budget(20)
    told = np.array([smaller.explain(row)["inclusion_probability"] for row in range(N)])
    assert [told[groups == name].sum() for name in NAMES] == pytest.approx([12.0, 6.0, 2.0])


def test_calibrated_weights_count_groups_and_classes():
    points, losses, groups = make_data()
    classes = np.where(points[:, 2] > 0, "up", "down")
    chosen = curation.select(points, losses, budget=80, groups=groups, labels=classes, minimum=5)
    weights = chosen.calibrated_weights()
    assert np.all(weights > 0)
    for codes in (groups, classes):
        for name in np.unique(codes):
            own = codes[chosen.indices] == name
            assert weights[own].sum() == pytest.approx((codes == name).sum())
