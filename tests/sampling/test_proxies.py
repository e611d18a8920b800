"""Proxies: what they predict, what they are not told, and in which units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sampling.proxies import (
    FOLDS,
    PROXIES,
    RIDGES,
    Block,
    ClusterProxy,
    LowRankProxy,
    Queried,
    RegressionProxy,
    _Ridge,
    medoid_scores,
    relative_least_squares,
)


def make_block(points: np.ndarray, cluster=None, covariates: np.ndarray | None = None) -> Block:
    m = len(points)
    return Block(
        np.asarray(points, dtype=np.float32),
        np.zeros(m, dtype=np.int32) if cluster is None else np.asarray(cluster, dtype=np.int32),
        np.empty((m, 0)) if covariates is None else covariates,
    )


def make_known(
    q: int = 60, *, k: int = 12, d: int = 3, p: int = 2, seed: int = 0, scores=None
) -> Queried:
    """Queried rows of k clusters, the medoids somewhere among them."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(q, d))
    cluster = rng.permutation(np.concatenate([np.arange(k), rng.integers(0, k, q - k)]))
    medoid = np.zeros(q, dtype=bool)
    medoid[[np.flatnonzero(cluster == c)[-1] for c in range(k)]] = True
    covariates = rng.gamma(1.0, size=(q, p))
    if scores is None:
        scores = np.exp(points[:, 0]) + covariates.sum(axis=1) + rng.gamma(0.2, size=q)
    return Queried(make_block(points, cluster, covariates), scores, medoid)


def other_rows(known: Queried, m: int = 40) -> Block:
    rng = np.random.default_rng(99)
    k, d, p = known.medoid.sum(), known.block.points.shape[1], known.block.covariates.shape[1]
    return make_block(rng.normal(size=(m, d)), rng.integers(0, k, m), rng.gamma(1.0, size=(m, p)))


def with_scores(known: Queried, scores: np.ndarray) -> Queried:
    return Queried(known.block, scores, known.medoid)


def test_cluster_predicts_the_medoids_score():
    known = make_known()
    by_cluster = {
        int(c): s
        for c, s, m in zip(known.block.cluster, known.scores, known.medoid, strict=True)
        if m
    }
    block = other_rows(known)
    found = ClusterProxy.fit(known).predict(block)
    assert found.tolist() == [by_cluster[int(c)] for c in block.cluster]
    assert medoid_scores(known).tolist() == [by_cluster[c] for c in range(12)]


@pytest.mark.parametrize("name", ["cluster", "low_rank"])
def test_what_is_made_of_medoids_alone_holds_out_the_pilot(name):
    """The pilot's scores change nothing; a medoid has nothing to be held out from."""
    known = make_known()
    proxy = PROXIES[name].fit(known)
    assert proxy.name == name
    assert np.array_equal(np.isnan(proxy.held_out), known.medoid)
    assert proxy.held_out[~known.medoid] == pytest.approx(proxy.predict(known.block)[~known.medoid])
    other = PROXIES[name].fit(with_scores(known, np.where(known.medoid, known.scores, 1e6)))
    block = other_rows(known)
    assert np.array_equal(other.predict(block), proxy.predict(block))


def linear(d: int = 4, k: int = 30, *, rank: int | None = None, seed: int = 3):
    """Scores linear in the embedding, all rows in a span of the given rank."""
    rng = np.random.default_rng(seed)
    rank = rank or d
    axes = np.linalg.qr(rng.normal(size=(d, rank)))[0]
    points = rng.normal(size=(200, rank)) @ axes.T
    scores = 20.0 + points @ rng.normal(size=d)
    known = Queried(make_block(points[:k], np.arange(k)), scores[:k], np.ones(k, dtype=bool))
    return known, points, scores


def test_low_rank_is_ridge_regression_on_the_landmarks():
    """Along each axis the coefficient is shrunk by s^2 / (s^2 + ridge), with one ridge for all."""
    known, _, _ = linear(k=8)
    x = known.block.points.astype(np.float64)
    centre = x.mean(axis=0)
    left, singular, right = np.linalg.svd(x - centre, full_matrices=False)
    exact = left.T @ (known.scores - known.scores.mean()) / singular
    shift = LowRankProxy.fit(known).predict(make_block(centre + right)) - known.scores.mean()
    ridge = singular**2 * (exact / shift - 1.0)
    assert np.all(ridge >= -1e-6 * singular**2)
    assert ridge == pytest.approx(np.full(4, ridge.mean()), abs=1e-4 * singular[0] ** 2)


@pytest.mark.parametrize("rank", [4, 2])
def test_low_rank_finds_linear_scores(rank):
    """Linear scores within the landmarks' span: exact up to "a little ridge", here 10%."""
    known, points, scores = linear(rank=rank)
    found = LowRankProxy.fit(known).predict(make_block(points))
    slope, _ = np.polyfit(scores, found, 1)
    assert slope == pytest.approx(1.0, abs=0.1)
    assert np.sqrt(np.mean((found - scores) ** 2)) <= 0.1 * scores.std()


def test_low_rank_adds_what_the_landmarks_cannot_span():
    """Landmarks on a line; a row's squared distance from the line is added, scaled to balance."""
    rng = np.random.default_rng(4)
    points = np.zeros((60, 3))
    points[:, 0] = rng.normal(size=60)
    points[20:, 1:] = rng.normal(size=(40, 2))
    medoid = np.arange(60) < 20
    known = Queried(make_block(points, np.minimum(np.arange(60), 19)), np.full(60, 5.0), medoid)
    proxy = LowRankProxy.fit(known)
    apart = (points[:, 1:] ** 2).sum(axis=1)
    # all landmarks have the same score: the combination is 5 everywhere
    assert proxy.predict(known.block) == pytest.approx(5.0 + 5.0 * apart / apart.mean(), rel=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_landmarks(k):
    """One landmark spans nothing; duplicates span no more than one."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(30, 4))
    points[:k] = points[0]
    medoid = np.arange(30) < k
    cluster = np.concatenate([np.arange(k), np.zeros(30 - k, dtype=int)])
    scores = rng.gamma(1.0, size=30)
    proxy = LowRankProxy.fit(Queried(make_block(points, cluster), scores, medoid))
    found = proxy.predict(make_block(points))
    assert np.isfinite(found).all()
    assert np.all(found >= 0)
    assert found[:k] == pytest.approx(np.full(k, scores[:k].mean()))


def near(points: np.ndarray, scores: np.ndarray, row: np.ndarray, skip: int | None = None):
    """Mean score of the 4 and of the 10 nearest, by brute force."""
    distance = ((points - row) ** 2).sum(axis=1)
    if skip is not None:
        distance[skip] = np.inf
    line = np.argsort(distance)[: 10 if skip is None else min(10, len(points) - 1)]
    return [scores[line[:4]].mean(), scores[line].mean()]


def plane(points: np.ndarray, scores: np.ndarray, ridge: float, rows: np.ndarray) -> np.ndarray:
    """Ridge regression with a free intercept, by its normal equations, cut at zero."""
    centre, mean = points.mean(axis=0), scores.mean()
    left = points - centre
    slope = np.linalg.solve(left.T @ left + ridge * np.eye(left.shape[1]), left.T @ (scores - mean))
    return np.maximum(mean + (rows - centre) @ slope, 0.0)


def best_plane(points: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """The ridge of a few with the smallest error over rows left out, and what is said of them."""
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    tried = []
    for ridge in RIDGES * np.mean(singular**2):
        # a row is left out of the slope, the columns being centred with it
        left, y = points - points.mean(axis=0), scores - scores.mean()
        hat = left @ np.linalg.solve(left.T @ left + ridge * np.eye(left.shape[1]), left.T)
        hat += 1.0 / len(scores)
        error = (y - hat @ y) / (1.0 - np.diag(hat))
        tried.append((float(error @ error), ridge, np.maximum(scores - error, 0.0)))
    _, ridge, said = min(tried, key=lambda one: one[0])
    return ridge, said


def test_regression_is_a_combination_of_neighbours_a_plane_and_covariates():
    known = make_known()
    proxy = RegressionProxy.fit(known)
    block = other_rows(known)
    points = known.block.points.astype(np.float64)
    ridge, _ = best_plane(points, known.scores)
    columns = np.array([[1.0, *near(points, known.scores, row)] for row in block.points])
    columns = np.column_stack([columns, plane(points, known.scores, ridge, block.points)])
    expected = np.hstack([columns, block.covariates]) @ proxy.coefficients
    assert proxy.predict(block) == pytest.approx(expected, rel=1e-5)
    assert np.all(proxy.coefficients >= 0)
    assert proxy.coefficients.shape == (6,)


def test_regression_leaves_each_queried_row_out():
    """Neighbours without the row itself, and coefficients without its fold, by brute force."""
    known = make_known(43)
    points = known.block.points.astype(np.float64)
    columns = np.array(
        [[1.0, *near(points, known.scores, row, skip=i)] for i, row in enumerate(points)]
    )
    _, said = best_plane(points, known.scores)
    columns = np.column_stack([columns, said, known.block.covariates])
    fold = np.arange(43) % FOLDS
    expected = np.empty(43)
    for i in range(43):
        others = fold != fold[i]
        expected[i] = columns[i] @ relative_least_squares(columns[others], known.scores[others])
    assert RegressionProxy.fit(known).held_out == pytest.approx(expected)


def test_the_plane_leaves_rows_out():
    """Nearly what a regression on the others says: it differs by what one row moves the centre."""
    rng = np.random.default_rng(11)
    points = rng.normal(size=(400, 3))
    scores = np.maximum(5.0 + points @ [1.0, 2.0, 0.5] + rng.normal(size=400), 0.0)
    ridge, _ = best_plane(points, scores)
    said = np.maximum(_Ridge.fit(points.astype(np.float32), scores).left_out, 0.0)
    for row in (0, 100, 399):
        others = np.arange(400) != row
        (alone,) = plane(points[others], scores[others], ridge, points[row : row + 1])
        assert said[row] == pytest.approx(alone, rel=2e-3)


def test_a_plane_is_what_regression_finds_where_neighbours_are_far():
    """Scores linear in 40 coordinates: neighbours' means explain little of them."""
    rng = np.random.default_rng(12)
    points = rng.normal(size=(700, 40))
    scores = np.maximum(30.0 + points @ rng.normal(size=40), 0.0)
    known = Queried(make_block(points[:200], np.arange(200)), scores[:200], np.ones(200, bool))
    found = RegressionProxy.fit(known).predict(make_block(points[200:]))
    assert np.var(found - scores[200:]) <= 0.02 * np.var(scores[200:])


@pytest.mark.parametrize("row", [0, 7, 59])
def test_a_row_never_predicts_itself(row):
    """A score a thousand times the others' is not foreseen, nor is that a row lost it."""
    known = make_known(scores=np.random.default_rng(6).uniform(1, 2, 60))
    scores = known.scores.copy()
    scores[row] = 1500.0
    wild = RegressionProxy.fit(with_scores(known, scores))
    assert wild.held_out[row] < 5.0
    # the row itself, asked about like any other, knows its score
    assert wild.predict(known.block)[row] > 10.0


def test_copies_of_a_row_are_not_the_row():
    """Twenty copies of one point, more than there are neighbours: none counts its own score."""
    scores = np.arange(1.0, 21.0)
    known = Queried(make_block(np.ones((20, 2)), np.arange(20)), scores, np.ones(20, dtype=bool))
    flat = RegressionProxy.fit(known)
    scores = scores.copy()
    scores[19] = 1e6
    assert RegressionProxy.fit(with_scores(known, scores)).held_out[19] < 1e4
    assert np.isfinite(flat.held_out).all()


@pytest.mark.parametrize("q", [1, 2, 3, 4, 5, 10, 11, 12])
def test_few_queried_rows(q):
    known = make_known(q, k=1)
    proxy = RegressionProxy.fit(known)
    assert proxy.held_out.shape == (q,)
    for found in (proxy.held_out, proxy.predict(other_rows(known))):
        assert np.isfinite(found).all()
        assert np.all(found >= 0)


@pytest.mark.parametrize("name", sorted(PROXIES))
@pytest.mark.parametrize("factor", [1e-6, 1000.0])
def test_units(name, factor):
    """Scores in other units are predicted in those units."""
    known = make_known()
    block = other_rows(known)
    plain, other = (PROXIES[name].fit(with_scores(known, a * known.scores)) for a in (1.0, factor))
    assert other.predict(block) == pytest.approx(factor * plain.predict(block), rel=1e-6)
    pilot = ~known.medoid
    assert other.held_out[pilot] == pytest.approx(factor * plain.held_out[pilot], rel=1e-6)


def test_units_of_covariates():
    known, factors = make_known(), np.array([1e-4, 300.0])
    block = other_rows(known)
    scaled = Queried(
        Block(known.block.points, known.block.cluster, known.block.covariates * factors),
        known.scores,
        known.medoid,
    )
    found = RegressionProxy.fit(scaled).predict(
        Block(block.points, block.cluster, block.covariates * factors)
    )
    assert found == pytest.approx(RegressionProxy.fit(known).predict(block), rel=1e-6)


def test_relative_least_squares_finds_a_combination():
    """Scores that are one exactly; and one with a negative part is cut at zero."""
    rng = np.random.default_rng(7)
    columns = np.hstack([np.ones((80, 1)), rng.gamma(1.0, size=(80, 3))])
    wanted = np.array([0.5, 2.0, 0.0, 7.0])
    assert relative_least_squares(columns, columns @ wanted) == pytest.approx(wanted, abs=1e-9)
    found = relative_least_squares(columns, np.maximum(10.0 - columns[:, 1], 0.0))
    assert np.all(found >= 0)
    assert found[1] == 0.0


def test_relative_least_squares_aims_at_relative_errors():
    """Two kinds of rows, each with its own coefficient: large scores must not decide on both."""
    rng = np.random.default_rng(8)
    size = rng.lognormal(0.0, 2.0, 400)
    scores = size * rng.uniform(0.5, 1.5, 400)
    found = relative_least_squares(size[:, None], scores)[0]
    # weights 1 / prediction make it nearly the mean ratio; plain least squares follows the largest
    plain = size @ scores / (size @ size)
    far = size > 0.3 * scores.mean()
    assert abs(found - np.mean(scores[far] / size[far])) < abs(
        plain - np.mean(scores[far] / size[far])
    )


@pytest.mark.parametrize("name", sorted(PROXIES))
def test_scores_of_zero(name):
    known = make_known(scores=np.zeros(60))
    proxy = PROXIES[name].fit(known)
    assert proxy.predict(other_rows(known)).tolist() == [0.0] * 40
    assert np.all(proxy.held_out[~known.medoid] == 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(PROXIES)),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_predictions_are_not_negative(name, q, d, seed, whole):
    """Whatever the rows, also tied ones on a grid."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, q + 1))
    points = rng.normal(size=(q, d)) * 10.0 ** rng.integers(-3, 4)
    cluster = np.concatenate([np.arange(k), rng.integers(0, k, q - k)])
    known = Queried(
        make_block(points.round() if whole else points, cluster, rng.gamma(0.1, size=(q, 3))),
        rng.lognormal(0.0, 3.0, q) * (rng.random(q) < 0.7),
        np.arange(q) < k,
    )
    proxy = PROXIES[name].fit(known)
    for found in (proxy.predict(known.block), proxy.held_out[k:]):
        assert np.isfinite(found).all()
        assert np.all(found >= 0)
