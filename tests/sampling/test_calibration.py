"""Raking: totals reproduced, weights positive and nearest, refusals that name the column."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling import CalibrationError, rake
from curation.sampling.calibration import regression_residuals

SEEDS = st.integers(0, 2**32 - 1)
ONES = np.ones(4)


def make_case(m, clusters, seed):
    """Weights, columns (clusters, a second grouping, numbers of all magnitudes), reachable totals.

    Both groupings add up to 1 on every row, so the columns are linearly dependent; the totals are
    those of other positive weights, so they agree.
    """
    rng = np.random.default_rng(seed)
    groups = [np.eye(k)[rng.integers(0, k, m)] for k in (clusters, 3)]
    numbers = rng.normal(size=(m, 2)) * 10.0 ** rng.integers(-8, 9, 2) + [[0.0, 1.0]]
    columns = np.column_stack([*groups, numbers])
    weights = rng.gamma(2.0, 50.0, size=m) + 1.0
    reached = weights * np.exp(rng.normal(scale=0.4, size=m))
    return weights, columns, reached @ columns, reached


def divergence(w, d):
    return np.sum(w * np.log(w / d) - w + d)


@settings(max_examples=80, deadline=None)
@given(st.integers(20, 200), st.integers(1, 8), SEEDS)
def test_totals_are_reproduced_by_the_nearest_positive_weights(m, clusters, seed):
    """And log(w / d) is a combination of the columns, which is what nearest means."""
    weights, columns, totals, reached = make_case(m, clusters, seed)
    raked = rake(weights, columns, totals)
    assert np.all(raked > 0.0)
    scale = np.maximum(weights @ np.abs(columns), np.abs(totals))
    assert np.all(np.abs(columns.T @ raked - totals) <= 1e-7 * scale)
    assert divergence(raked, weights) <= divergence(reached, weights) * (1 + 1e-6)
    left, _ = regression_residuals(np.log(raked / weights), columns, np.ones(m))
    assert np.abs(left).max() < 1e-4


def test_weights_that_fit_stay():
    weights, columns, _, _ = make_case(50, 4, 1)
    assert rake(weights, columns, weights @ columns) == pytest.approx(weights)
    assert rake(weights, np.zeros((50, 1)), [0.0]).tolist() == weights.tolist()
    assert rake(weights, np.empty((50, 0)), np.empty(0)).tolist() == weights.tolist()


def test_one_grouping_is_ratio_adjustment():
    columns = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    raked = rake([1.0, 3.0, 2.0, 2.0], columns, [8.0, 1.0])
    assert raked == pytest.approx([2.0, 6.0, 0.5, 0.5])


def test_order_and_scale_of_columns_are_no_matter():
    weights, columns, totals, _ = make_case(80, 5, 2)
    raked = rake(weights, columns, totals)
    factor = 10.0 ** np.linspace(-6, 6, columns.shape[1])
    other = rake(weights, (columns * factor)[:, ::-1], (totals * factor)[::-1])
    assert other == pytest.approx(raked, rel=1e-6)


def test_far_totals_are_found():
    """Totals 100,000 times those of the weights: whole Newton steps would overflow."""
    x = np.linspace(0.0, 1.0, 30)
    raked = rake(np.ones(30), np.column_stack([np.ones(30), x]), [3e6, 2.9e6])
    assert raked.sum() == pytest.approx(3e6)
    assert raked @ x == pytest.approx(2.9e6)


@pytest.mark.parametrize(
    ("columns", "totals", "message"),
    [
        (
            [ONES, 0 * ONES],
            [4, 17],
            "cluster 3: 0 on every drawn row, so no weights reach its total of 17; draw more rows",
        ),
        ([ONES, [0, 1, 1, 2]], [4, 0], "cluster 3: no drawn row is below 0 and some are above"),
        ([ONES, [0, -1, -1, 0]], [4, 1], "cluster 3: no drawn row is above 0 and some are below"),
        ([ONES, [1, 2, 3, 4]], [4, 20], "cluster 3: together with the other .* out of reach"),
        ([ONES, [1, 2, 3, 4]], [4, 3], "out of reach of positive weights on the drawn rows"),
        ([ONES, 2 * ONES], [4, 9], "is a combination of other columns, whose totals make its own"),
        ([ONES, [1, 1, -1, -1], [1, 1, -1, -1]], [4, 1, 0], "combination of other columns"),
    ],
)
def test_infeasible_totals_are_refused_by_name(columns, totals, message):
    names = ["rows", "cluster 3", "other"][: len(totals)]
    with pytest.raises(CalibrationError, match=message) as caught:
        rake(ONES, np.column_stack(columns), np.array(totals, dtype=float), names=names)
    assert any(str(caught.value).startswith(f"{name}:") for name in names)
    assert isinstance(caught.value, ValueError)


def test_no_convergence_is_told():
    x = np.column_stack([ONES, [1.0, 2.0, 3.0, 4.0]])
    with pytest.raises(CalibrationError, match=r"column \d: no convergence, its total is"):
        rake(ONES, x, np.array([4.0, 14.0]), max_iter=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones(3)}, r"got shapes \(3,\), \(4, 2\) and \(2,\)"),
        ({"totals": np.ones(3)}, r"got shapes \(4,\), \(4, 2\) and \(3,\)"),
        ({"weights": np.array([1, 1, 0, 1])}, "weight of row 2 is 0.0: it must be above 0"),
        ({"totals": np.array([4, np.nan])}, "a weight, column or total is NaN or infinite"),
        ({"names": ["a"]}, "expected 2 names, got 1"),
    ],
)
def test_wrong_shapes_and_numbers_are_refused(change, message):
    right = {
        "weights": ONES,
        "columns": np.column_stack([ONES, np.arange(4.0)]),
        "totals": np.array([4.0, 6.0]),
    }
    with pytest.raises(ValueError, match=message):
        rake(**(right | change))


def test_residuals_are_those_of_fits_without_the_row():
    """Against 25 weighted fits that leave one row out; dependent columns count once."""
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(25), rng.normal(size=(25, 2)) * [1e6, 1e-6]])
    y, w = rng.normal(size=25), rng.gamma(2.0, size=25) + 0.1
    told, rank = regression_residuals(y, np.column_stack([x, x[:, 1] - x[:, 0]]), w)
    assert rank == 3
    for i in range(25):
        rest = np.arange(25) != i
        root = np.sqrt(w[rest])
        scaled = x / [1.0, 1e6, 1e-6]
        fit = np.linalg.lstsq(scaled[rest] * root[:, None], y[rest] * root, rcond=None)[0]
        assert told[i] == pytest.approx(y[i] - scaled[i] @ fit)
