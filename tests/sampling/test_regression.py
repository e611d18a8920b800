"""Scores, leverages, laws and fits of a regression, against their definitions.

Two tests are statistics: they say how often they would fail by chance, and their seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling import draw, linear
from curation.sampling.regression import (
    REGRESSION_LAWS,
    excess_risk,
    leverage_scores,
    medoid_leverage,
    regression_baseline,
    regression_law,
    regression_scores,
    ridge_leverage_scores,
    row_norm_scores,
    sketched_leverage,
    weighted_least_squares,
)

SEEDS = st.integers(0, 2**32 - 1)


def of_rank(n: int, d: int, rank: int, seed: int) -> np.ndarray:
    """An (n, d) matrix of the rank asked for, or of the highest that its shape allows."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))


def make_case(n: int = 300, d: int = 3, k: int = 12, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Heavy-tailed features with an intercept, a target that is not linear, random clusters.

    The arrays cannot be written to: what changes its inputs fails.
    """
    rng = np.random.default_rng(seed)
    features = np.column_stack([np.ones(n), rng.standard_t(4, size=(n, d - 1))])
    noise = rng.normal(size=n) * (1 + np.abs(features[:, -1]))
    targets = features @ rng.normal(size=d) + features[:, -1] ** 2 + noise
    cluster = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    medoid_rows = np.array([rng.choice(np.flatnonzero(cluster == c)) for c in range(k)])
    points = np.column_stack([features, targets])
    case = {
        "features": features,
        "targets": targets,
        "cluster": cluster,
        "medoid_rows": medoid_rows,
        "sizes": np.bincount(cluster),
        "distance": np.sum((points - points[medoid_rows][cluster]) ** 2, axis=1),
    }
    for array in case.values():
        array.flags.writeable = False
    return case


def put(case: dict[str, np.ndarray], name: str, place: object, value: float) -> dict:
    changed = case[name].copy()
    changed[place] = value
    return case | {name: changed}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 8), SEEDS)
def test_leverage_is_the_diagonal_of_the_hat_matrix(n, d, rank, seed):
    """Of any rank, with fewer rows than columns too, and summing to the rank."""
    a = of_rank(n, d, rank, seed)
    scores = leverage_scores(a)
    assert scores == pytest.approx(np.diag(a @ np.linalg.pinv(a, rcond=1e-10)), abs=1e-8)
    assert scores.sum() == pytest.approx(min(n, d, rank), abs=1e-8)
    assert np.all((scores >= 0.0) & (scores <= 1.0))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 8), st.floats(1e-3, 1e3), SEEDS)
def test_ridge_leverage_by_its_definition(n, d, rank, ridge, seed):
    a = of_rank(n, d, rank, seed)
    expected = np.diag(a @ np.linalg.solve(a.T @ a + ridge * np.eye(d), a.T))
    assert ridge_leverage_scores(a, ridge) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("rank", [2, 5])
def test_ridge_leverage_lies_between_leverage_and_row_norms(rank):
    """The first as the ridge vanishes, collinear columns or not; the second as it grows."""
    a = of_rank(40, 5, rank, 3)
    far = [np.abs(ridge_leverage_scores(a, r) - leverage_scores(a)).max() for r in (1, 0.1, 0.01)]
    assert far[0] > 5 * far[1] > 25 * far[2] > 0.0
    for ridge in (1e-10, 1e-20, 1e-30, 1e-100, 0.0):
        assert ridge_leverage_scores(a, ridge) == pytest.approx(leverage_scores(a), abs=1e-8)
    assert ridge_leverage_scores(a, 1e12) * 1e12 == pytest.approx(row_norm_scores(a))


def test_leverage_depends_on_neither_units_nor_blocks(monkeypatch):
    """Columns 400 orders of magnitude apart, and blocks of 6 or 3 rows instead of all."""
    a = of_rank(200, 6, 5, 5)
    expected = leverage_scores(a)
    units = np.array([1e200, 1e-200, 1.0, 1e-9, 1e9, 1e3])
    assert leverage_scores(a * units) == pytest.approx(expected, abs=1e-8)
    case = make_case()
    p = regression_law(**case)
    x = weighted_least_squares(case["features"], case["targets"], np.arange(1, 301))
    monkeypatch.setattr(linear, "BLOCK_MIB", 0)
    assert leverage_scores(a) == pytest.approx(expected, abs=1e-8)
    assert regression_law(**case) == pytest.approx(p, rel=1e-8)
    again = weighted_least_squares(case["features"], case["targets"], np.arange(1, 301))
    assert again == pytest.approx(x, rel=1e-8)
    with pytest.raises(ValueError, match="features: row 200 has a NaN"):
        leverage_scores(put(case, "features", 200, np.nan)["features"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_rounding_adds_no_rank(dtype):
    """Classes one-hot beside an intercept: 6 columns, rank 5, in every dtype; standardised too."""
    onehot = np.eye(5)[np.random.default_rng(2).integers(0, 5, 10_000)]
    both = np.column_stack([onehot, np.ones(10_000)])
    assert leverage_scores(both.astype(dtype)).sum() == pytest.approx(5.0)
    if dtype in (np.float32, np.float64):
        standardised = ((onehot - onehot.mean(axis=0)) / onehot.std(axis=0)).astype(dtype)
        assert leverage_scores(standardised).sum() == pytest.approx(4.0)


def test_large_ill_conditioned_features_keep_their_rank():
    """Two columns that differ by 1e-9 of their length: lost to a Gram matrix, not to QR."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=50_000)
    a = np.column_stack([x, x + 1e-9 * rng.normal(size=50_000)])
    assert leverage_scores(a).sum() == pytest.approx(2.0)


def test_medoid_leverage_is_that_of_medoids_repeated():
    """Each of N_c copies of a medoid has the leverage that a row of its cluster gets."""
    for k, d in ((12, 3), (4, 7), (1, 1)):
        rng = np.random.default_rng(k)
        medoids, sizes = rng.normal(size=(k, d)), rng.integers(1, 40, size=k)
        copies = np.repeat(np.arange(k), sizes)
        mixed = rng.permutation(len(copies))
        scores = medoid_leverage(medoids, sizes, copies[mixed])
        assert scores == pytest.approx(leverage_scores(medoids[copies])[mixed], abs=1e-9)
        assert scores.sum() == pytest.approx(min(k, d))
        assert medoid_leverage(medoids, sizes, copies[mixed][:1]) == pytest.approx(scores[:1])


def test_weighted_least_squares_against_numpy():
    """numpy's lstsq on rows scaled by the root of their weight; repeated rows; a ridge."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(40, 4)), rng.normal(size=40)
    w = rng.gamma(0.5, size=40)
    root = np.sqrt(w)
    expected = np.linalg.lstsq(a * root[:, None], b * root, rcond=None)[0]
    assert weighted_least_squares(a, b, w) == pytest.approx(expected)
    times = rng.integers(0, 5, size=40)
    repeated = np.linalg.lstsq(np.repeat(a, times, axis=0), np.repeat(b, times), rcond=None)[0]
    assert weighted_least_squares(a, b, times) == pytest.approx(repeated)
    shrunk = np.linalg.solve(a.T @ (w[:, None] * a) + 3.0 * np.eye(4), a.T @ (w * b))
    assert weighted_least_squares(a, b, w, ridge=3.0) == pytest.approx(shrunk)


@pytest.mark.parametrize(("n", "d", "rank"), [(30, 6, 3), (4, 9, 9), (1, 1, 1), (5, 5, 0)])
def test_least_squares_of_any_rank_predict_as_numpy_does(n, d, rank):
    a = of_rank(n, d, rank, 8)
    b, w = np.random.default_rng(9).normal(size=n), np.arange(1.0, n + 1)
    root = np.sqrt(w)
    expected = a @ np.linalg.lstsq(a * root[:, None], b * root, rcond=1e-10)[0]
    assert a @ weighted_least_squares(a, b, w) == pytest.approx(expected)


def test_excess_risk_by_its_definition(rng):
    a, b, x = rng.normal(size=(60, 3)), rng.normal(size=60), rng.normal(size=3)
    best = np.linalg.lstsq(a, b, rcond=None)[0]
    least, risk = (np.sum((a @ some - b) ** 2) for some in (best, x))
    assert excess_risk(a, b, x) == pytest.approx((risk - least) / least)
    assert 0.0 <= excess_risk(a, b, best) < 1e-20
    tiny = np.sum((a @ np.full(3, 1e-9)) ** 2) / least  # lost in a difference of two risks
    assert excess_risk(a, b, best + 1e-9) == pytest.approx(tiny, rel=1e-3, abs=0.0)


def test_excess_risk_where_the_best_fit_is_exact(rng):
    a, x = rng.normal(size=(20, 3)), rng.normal(size=3)
    assert excess_risk(a, a @ x, x) == 0.0
    assert excess_risk(a, a @ x, x + 0.1) == np.inf
    assert excess_risk(a, np.zeros(20), np.zeros(3)) == 0.0
    assert excess_risk(a[:2], rng.normal(size=2), x) == np.inf


def brute_force_scores(case: dict, constant: float | None = None, ridge: float = 0) -> np.ndarray:
    """The formula, row by row, with numpy's lstsq; a ridge is d more rows."""
    medoids, root = case["medoid_rows"], np.sqrt(case["sizes"])
    centres, values = case["features"][medoids], case["targets"][medoids]
    rows = np.vstack([centres * root[:, None], np.sqrt(ridge) * np.eye(3)])
    x0 = np.linalg.lstsq(rows, np.append(values * root, np.zeros(3)), rcond=None)[0]
    proxy = np.array([(centres[c] @ x0 - values[c]) ** 2 for c in case["cluster"]])
    if constant is None:
        constant = proxy.mean() / case["distance"].mean()
    return proxy + constant * case["distance"]


@pytest.mark.parametrize("ridge", [0.0, 100.0])
@pytest.mark.parametrize("constant", [None, 0.0, 0.7])
def test_scores_by_brute_force(constant, ridge):
    case = make_case()
    scores = regression_scores(**case, constant=constant, ridge=ridge)
    assert scores == pytest.approx(brute_force_scores(case, constant, ridge))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [12, 30])
def test_distances_decide_where_medoids_are_fitted_exactly(d, dtype):
    """k <= d: the residuals are nothing but rounding, and must not be half of the law."""
    case = make_case(d=d, k=12)
    case["features"] = case["features"].astype(dtype)
    assert np.array_equal(regression_scores(**case), case["distance"])


def test_law_is_the_mix():
    case = make_case()
    centres, sizes = case["features"][case["medoid_rows"]], case["sizes"]
    weighted = centres * np.sqrt(sizes)[:, None]
    leverage = np.diag(weighted @ np.linalg.pinv(weighted))
    shared = np.array([leverage[c] / sizes[c] for c in case["cluster"]])
    scores = brute_force_scores(case)
    expected = 0.4 * scores / scores.sum() + 0.4 * shared / shared.sum() + 0.2 / 300
    assert regression_law(**case) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 20), SEEDS)
def test_laws_sum_to_one(n, d, k, seed):
    """Whatever the shape; the mix leaves out no row, with a probability of at least 0.2 / n."""
    case = make_case(n, d, min(k, n), seed=seed)
    mix = regression_law(**case)
    assert mix.min() >= 0.2 / n * (1 - 1e-12)
    for p in [mix] + [regression_baseline(kind, case["features"]) for kind in REGRESSION_LAWS]:
        assert (p.shape, p.dtype) == ((n,), np.float64)
        assert p.sum() == pytest.approx(1.0, abs=1e-12)
        assert p.min() >= 0.0


def test_baselines_are_what_their_names_say():
    a = make_case()["features"]
    norms = np.sum(a**2, axis=1)
    mean_square = norms.sum() / 3
    expected = {
        "uniform": np.ones(300),
        "row_norm": norms,
        "leverage": np.diag(a @ np.linalg.pinv(a)),
        "ridge_leverage": np.diag(a @ np.linalg.inv(a.T @ a + mean_square * np.eye(3)) @ a.T),
    }
    assert sorted(expected) == sorted(REGRESSION_LAWS)
    for kind, scores in expected.items():
        assert regression_baseline(kind, a) == pytest.approx(scores / scores.sum())


@pytest.mark.parametrize("design", ["iid", "systematic"])
def test_normal_equations_are_unbiased(design):
    """A'WA and A'Wb over 4,000 draws: each of 9 entries within 4 standard errors of all rows'.

    9 comparisons for each of two designs at 6.3e-5: fails by chance with probability below 1.2e-3.
    """
    case = make_case()
    rows = np.column_stack([case["features"], case["targets"]])
    upper = np.triu_indices(4)
    products = (rows[:, :, None] * rows[:, None, :])[:, upper[0], upper[1]][:, :-1]  # no b'b
    order = np.lexsort((case["distance"], case["cluster"]))
    p = regression_law(**case)
    rng = np.random.default_rng(12)
    sums = np.empty((4000, 9))
    for i in range(4000):
        sample = draw(design, p, 30, order=order, rng=rng)
        sums[i] = sample.weights @ products[sample.indices]
    error = sums.std(axis=0, ddof=1) / np.sqrt(4000)
    truth = products.sum(axis=0)
    assert np.all(np.abs(sums.mean(axis=0) - truth) <= 4 * error)


def test_weighted_fits_approach_the_fit_of_all_rows():
    """Independent draws: the mean excess risk falls as 1/s, without a floor.

    300 fits at each of 200 and 3,200 draws. The ratio of the means is 1/16 with a standard error of
    10%: outside four of them with probability 6.3e-5. Without their weights the same rows end up at
    the fit of another population, more than 100 times as far away.
    """
    case = make_case(5000, 3, 40)
    a, b, p = case["features"], case["targets"], regression_law(**case)
    rng = np.random.default_rng(13)
    risks = np.empty((2, 300, 2))
    for i, s in enumerate((200, 3200)):
        for j in range(300):
            sample = draw("iid", p, s, rng=rng)
            for k, weights in enumerate((sample.weights, sample.multiplicity)):
                x = weighted_least_squares(a[sample.indices], b[sample.indices], weights)
                risks[i, j, k] = excess_risk(a, b, x)
    few, many = risks.mean(axis=1)
    assert 0.6 / 16 <= many[0] / few[0] <= 1.4 / 16
    assert many[1] > 100 * many[0]


def test_one_row_one_cluster():
    one = {"cluster": [0], "medoid_rows": [0], "sizes": [1], "distance": [0.0]}
    assert regression_law([[2.0, 1.0]], [3.0], **one) == pytest.approx([1.0])
    assert regression_scores([[2.0, 1.0]], [3.0], **one).tolist() == [0.0]
    assert leverage_scores([[2.0, 1.0]]) == pytest.approx([1.0])
    for kind in REGRESSION_LAWS:
        assert regression_baseline(kind, [[2.0, 1.0]]) == pytest.approx([1.0])
    assert [[2.0, 1.0]] @ weighted_least_squares([[2.0, 1.0]], [3.0], [5.0]) == pytest.approx([3.0])


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_features(value):
    """All rows alike, or all zero: the features tell nothing, and the law is the uniform one."""
    features = np.full((10, 3), value)
    assert leverage_scores(features) == pytest.approx(np.full(10, 0.1 if value else 0.0))
    for kind in REGRESSION_LAWS:
        assert regression_baseline(kind, features) == pytest.approx(np.full(10, 0.1))
    alike = {"features": features, "distance": np.zeros(10), "targets": np.full(10, 2.0)}
    assert regression_law(**make_case(10, 3, 2) | alike) == pytest.approx(np.full(10, 0.1))


def test_a_single_cluster():
    """k = 1 < d: the leverage is that of no row in particular, the score the distance."""
    case = make_case(50, 3, 1)
    expected = 0.4 * case["distance"] / case["distance"].sum() + 0.6 / 50
    assert regression_law(**case) == pytest.approx(expected)


def test_unsigned_and_narrow_ids_work():
    case = make_case()
    narrow = {"cluster": np.uint64, "medoid_rows": np.uint16, "sizes": np.int16}
    other = case | {name: case[name].astype(dtype) for name, dtype in narrow.items()}
    assert regression_law(**other) == pytest.approx(regression_law(**case))


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("features", (4, 1), np.nan, "features: row 4 has a NaN or infinite value"),
        ("features", (299, 0), np.inf, "features: row 299 has a NaN"),
        ("targets", 5, np.nan, "target of row 5 is nan: it must be finite"),
        ("distance", 6, -1.0, "distance of row 6 is -1.0: it must be finite and >= 0"),
        ("distance", 7, np.inf, "distance of row 7 is inf"),
        ("cluster", 8, 12, "row 8 is in cluster 12: the clusters are 0 to 11"),
        ("cluster", 9, -1, "row 9 is in cluster -1"),
        ("sizes", 3, 0, "cluster 3 has size 0: leave empty clusters out"),
        ("sizes", 2, 1, r"cluster 2 has \d\d rows, more than its size says"),
        ("medoid_rows", 1, 300, "medoid of cluster 1 is row 300: the rows are 0 to 299"),
        ("medoid_rows", 1, -1, "medoid of cluster 1 is row -1"),
    ],
)
def test_wrong_numbers_are_named(name, place, value, message):
    case = make_case()
    for function in (regression_scores, regression_law):
        with pytest.raises(ValueError, match=message):
            function(**put(case, name, place, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones(3)}, r"features: expected \(n, d\) numbers, got float64 of shape"),
        ({"features": np.ones((0, 3))}, r"features: expected .* of shape \(0, 3\)"),
        ({"features": np.array([["a"]])}, "features: expected .* got <U1"),
        ({"targets": np.ones((300, 1))}, r"expected 300 numbers \(target of row 0, \.\.\.\)"),
        ({"distance": np.ones(299)}, r"expected 300 numbers \(distance of row .* \(299,\)"),
        ({"cluster": np.zeros(299, dtype=int)}, "cluster: expected 300 integers, got int64"),
        ({"cluster": np.zeros(300)}, "cluster: expected 300 integers, got float64"),
        ({"sizes": np.ones((2, 6), dtype=int)}, "sizes: expected 12 integers"),
        ({"medoid_rows": np.arange(11)}, "medoid_rows: expected 12 integers"),
        ({"medoid_rows": np.arange(1, 13)}, "medoid of cluster 0, row 1, is in another"),
        ({"constant": -1.0}, "constant must be finite and >= 0, got -1.0"),
        ({"ridge": -1.0}, "ridge must be finite and >= 0, got -1.0"),
    ],
)
def test_wrong_shapes_and_constants_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        regression_scores(**make_case() | change)


def test_other_functions_refuse_too():
    a, b, w = np.ones((3, 2)), np.ones(3), np.ones(3)
    wrong = [
        (lambda: ridge_leverage_scores(a, np.inf), "ridge must be finite"),
        (lambda: row_norm_scores(a * np.nan), "features: row 0"),
        (lambda: regression_baseline("nope", a), "unknown regression law 'nope'; known: uniform, "),
        (lambda: medoid_leverage(a, np.ones(2, dtype=int), [0]), "sizes: expected 3 integers"),
        (lambda: medoid_leverage(a, np.ones(3, dtype=int), [0, 3]), "row 1 is in cluster 3"),
        (lambda: medoid_leverage(a * np.inf, [1, 1, 1], [0]), "features of the medoids: row 0"),
        (lambda: weighted_least_squares(a, b, [1, -1, 1]), "weight of row 1 is -1.0"),
        (lambda: weighted_least_squares(a, b, 0 * w), "all 3 weights are 0"),
        (lambda: weighted_least_squares(a, b[:2], w), r"expected 3 numbers \(target of row 0"),
        (lambda: excess_risk(a, b, w), r"expected 2 numbers \(coefficient 0, \.\.\.\)"),
        (lambda: excess_risk(a, b, [0.0, np.nan]), "coefficient 1 is nan"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()


def test_sketched_leverages_are_near_the_exact_ones(monkeypatch):
    """Rows that hold a direction alone are found; the sum is about the rank, also if deficient."""
    monkeypatch.setattr(linear, "BLOCK_MIB", 1)  # several blocks
    rng = np.random.default_rng(3)
    a = rng.standard_t(3, size=(20_000, 40)) @ rng.normal(size=(40, 60))
    a[7] += 1e3 * rng.normal(size=60)  # a forty-first direction, which one row holds up
    exact = leverage_scores(a)
    found = sketched_leverage(a, rng.random(20_000))
    assert exact[7] > 0.99
    assert found[7] > 0.5
    assert found.sum() == pytest.approx(41.0, rel=0.25)
    ratio = found / exact
    assert np.quantile(ratio, [0.05, 0.95]) == pytest.approx([0.5, 1.6], abs=0.2)


def test_a_sketch_of_equal_rows_does_not_add_them_up():
    """An intercept of 20,000 rows has a leverage of 1: 8 signed sums are off by chance alone."""
    found = sketched_leverage(np.ones((20_000, 1)), np.random.default_rng(4).random(20_000))
    assert 0.3 < found.sum() < 3.0


@pytest.mark.parametrize("wrong", [-0.1, 1.0, np.nan])
def test_a_sketch_needs_numbers_below_one(wrong):
    numbers = np.full(30, 0.5)
    numbers[4] = wrong
    with pytest.raises(ValueError, match="number of row 4"):
        sketched_leverage(of_rank(30, 2, 2, 0), numbers)


def test_leverages_may_be_given_to_the_law():
    case = make_case()
    law = regression_law(**case, leverage=leverage_scores(case["features"]))
    score = regression_scores(**case)
    exact = leverage_scores(case["features"])
    expected = 0.4 * score / score.sum() + 0.4 * exact / exact.sum() + 0.2 / len(exact)
    assert law == pytest.approx(expected)
    with pytest.raises(ValueError, match="leverage of row 5"):
        regression_law(**case, leverage=np.where(np.arange(300) == 5, -1.0, exact))
