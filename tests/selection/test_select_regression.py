"""Rows for a least-squares fit, by every law. Seeds are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import curation
from curation.sampling import regression
from curation.selection.inputs import Numbers, read_ids
from curation.selection.regression import LAWS, clustered_law

N = 300


def problem() -> tuple[np.ndarray, np.ndarray]:
    """A few rows with far larger features than the others, and targets with noise."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N, 3)) * rng.lognormal(sigma=1.0, size=(N, 1))
    features = np.column_stack([np.ones(N), features])
    return features, features @ rng.normal(size=4) + rng.normal(size=N)


@pytest.mark.parametrize("design", ["coordinated", "systematic", "iid"])
@pytest.mark.parametrize("law", LAWS)
def test_weighted_totals_are_unbiased(law, design):
    """The number of rows and the size of their features, over 400 seeds.

    Thirty comparisons at 4 standard errors: by chance one of them fails in 0.2% of cases.
    """
    features, targets = problem()
    size = np.abs(features).sum(axis=1)
    found = []
    for seed in range(400):
        chosen = curation.select_regression(
            features, targets, budget=50, law=law, design=design, k=20, seed=seed
        )
        found.append([chosen.weights.sum(), chosen.weights @ size[chosen.indices]])
    for values, truth in zip(np.array(found).T, (N, size.sum()), strict=True):
        error = values.std(ddof=1) / math.sqrt(400)
        assert abs(values.mean() - truth) <= 4 * error + 1e-9 * truth
        assert error < 0.02 * truth  # so that a bias of a tenth would be found


def test_rows_do_not_depend_on_where_they_stand():
    features, targets = problem()
    order = np.random.default_rng(1).permutation(N)
    ids = np.arange(N)
    for law in LAWS:
        one = curation.select_regression(features, targets, budget=40, law=law, ids=ids)
        two = curation.select_regression(
            features[order], targets[order], budget=40, law=law, ids=ids[order]
        )
        assert set(ids[one.indices].tolist()) == set(ids[order][two.indices].tolist())


def test_the_mix_fits_better_than_uniform_rows():
    """Mean excess risk over 100 seeds below half of uniform's; it was a seventh."""
    features, targets = problem()
    full, *_ = np.linalg.lstsq(features, targets, rcond=None)
    least = np.sum((features @ full - targets) ** 2)

    def excess(law: str) -> float:
        total = 0.0
        for seed in range(100):
            chosen = curation.select_regression(features, targets, budget=40, law=law, seed=seed)
            own = chosen.fit(features, targets)
            total += np.sum((features @ own - targets) ** 2) / least - 1.0
        return total / 100

    assert excess("mix") < 0.5 * excess("uniform")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"law": "best"}, "unknown law 'best'; known: mix"),
        ({"budget": 0}, "budget"),
        ({"budget": N + 1}, "301"),
        ({"design": "lottery"}, "lottery"),
    ],
)
def test_refused(changes, told):
    features, targets = problem()
    with pytest.raises(ValueError, match=told):
        curation.select_regression(features, targets, **({"budget": 40} | changes))


def test_a_row_that_is_not_finite_is_named():
    features, targets = problem()
    features[17, 2] = np.nan
    with pytest.raises(ValueError, match="row 17"):
        curation.select_regression(features, targets, budget=40)


def test_a_fit_needs_all_rows_and_a_size():
    features, targets = problem()
    chosen = curation.select_regression(features, targets, budget=40)
    with pytest.raises(ValueError, match="expected features and targets of all 300 rows"):
        chosen.fit(features[chosen.indices], targets[chosen.indices])
    for size in ({}, {"budget": 9, "fraction": 0.1}):
        with pytest.raises(ValueError, match="exactly one of budget and fraction"):
            curation.select_regression(features, targets, **size)


def _wide(columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    few = rng.standard_t(4, size=(3000, 6))
    x = np.column_stack([np.cos(few @ rng.normal(size=(6, columns - 1))), np.ones(3000)])
    return x, x[:, :6].sum(axis=1) + rng.normal(size=3000)


@pytest.mark.parametrize("columns", [8, 90])
def test_targets_beside_the_medoids_are_read_only_where_they_are_clustered(columns, monkeypatch):
    x, y = _wide(columns)
    numbers, medoids = Numbers(read_ids(None, len(y)), 0), []
    law = regression.regression_law

    def spy(*given, **clusters):
        medoids.append(clusters["medoid_rows"])
        return law(*given, **clusters)

    monkeypatch.setattr(regression, "regression_law", spy)
    before = clustered_law(x, y, 60, numbers, by_target=False)[0]
    other = y + np.random.default_rng(6).normal(size=len(y))
    other[medoids[0]] = y[medoids[0]]
    assert np.array_equal(clustered_law(x, other, 60, numbers, by_target=False)[0], before)
    clustered = clustered_law(x, y, 60, numbers)[0]
    assert not np.array_equal(clustered_law(x, other, 60, numbers)[0], clustered)


def test_many_columns_are_drawn_from_as_leverages_say():
    """Uniform rows miss the directions that few rows hold up; few medoids would, too."""
    x, y = _wide(90)
    x[:4, 80:84] += 40.0 * np.eye(4)
    law, _, _ = clustered_law(x, y, 60, Numbers(read_ids(None, len(y)), 0))
    exact = regression.leverage_scores(x)
    assert law.sum() == pytest.approx(1.0)
    assert law.min() >= 0.2 / len(y) * (1 - 1e-9)
    assert (exact[:4] > 0.5).all()
    assert (law[:4] > 0.4 * 0.3 * exact[:4] / exact.sum()).all()
