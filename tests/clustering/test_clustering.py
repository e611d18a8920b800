"""k-means, medoids and spaces against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from curation.clustering import (
    GradientSketch,
    LabelScale,
    append_labels,
    assign,
    fit_centroids,
    summarise,
)


@pytest.fixture
def points(rng):
    centres = rng.normal(size=(5, 8)) * 4
    return (centres[rng.integers(0, 5, 600)] + rng.normal(size=(600, 8))).astype(np.float32)


def test_assignment_is_the_nearest_centroid(points):
    centroids = fit_centroids(points, 7, seed=1)
    cluster, distance = assign(points, centroids)
    every = ((points[:, None, :] - centroids[None]) ** 2).sum(axis=2)
    assert np.array_equal(cluster, every.argmin(axis=1))
    assert distance == pytest.approx(every.min(axis=1), rel=1e-3, abs=1e-3)


def test_clusters_are_found(points):
    """Five well separated clouds: the cost per point is near the dimension (8)."""
    centroids = fit_centroids(points, 5, seed=0)
    _, distance = assign(points, centroids)
    assert 6 < distance.mean() < 12


def test_summary_against_brute_force(points):
    centroids = fit_centroids(points, 9, seed=2)
    cluster, _ = assign(points, centroids)
    summary = summarise([points], centroids)
    assert summary.sizes.sum() == len(points)
    for i in range(summary.k):
        members = np.flatnonzero(cluster == i)
        to_centroid = ((points[members] - summary.centroids[i]) ** 2).sum(axis=1)
        medoid = members[to_centroid.argmin()]
        assert summary.medoid_rows[i] == medoid
        assert np.array_equal(summary.medoids[i], points[medoid])
        cost = ((points[members].astype(np.float64) - points[medoid]) ** 2).sum()
        assert summary.medoid_cost[i] == pytest.approx(cost, rel=1e-6)
        assert summary.centroid_cost[i] == pytest.approx(to_centroid.sum(), rel=1e-3)
    assert sorted(summary.rank.tolist()) == list(range(summary.k))


@pytest.mark.parametrize("size", [1, 7, 100, 599, 600])
def test_summary_does_not_depend_on_the_blocks(points, size):
    centroids = fit_centroids(points, 9, seed=2)
    whole = summarise([points], centroids)
    parts = summarise([points[i : i + size] for i in range(0, 600, size)], centroids)
    assert np.array_equal(whole.medoid_rows, parts.medoid_rows)
    assert np.array_equal(whole.sizes, parts.sizes)
    assert whole.medoid_cost == pytest.approx(parts.medoid_cost, rel=1e-9)


def test_empty_clusters_are_dropped():
    """Ten copies of two points can't fill five clusters."""
    points = np.repeat(np.eye(2, 4, dtype=np.float32), 5, axis=0)
    summary = summarise([points], fit_centroids(points, 5, seed=0))
    assert 1 <= summary.k <= 2
    assert summary.sizes.sum() == 10
    assert summary.medoid_cost == pytest.approx(np.zeros(summary.k), abs=1e-6)


def test_one_point_one_cluster():
    point = np.ones((1, 3), dtype=np.float32)
    summary = summarise([point], fit_centroids(point, 1))
    assert summary.medoid_rows.tolist() == [0]


def test_same_seed_same_centroids(points):
    assert np.array_equal(fit_centroids(points, 6, seed=4), fit_centroids(points, 6, seed=4))
    assert not np.array_equal(fit_centroids(points, 6, seed=4), fit_centroids(points, 6, seed=5))


def test_errors_name_the_cause(points):
    with pytest.raises(ValueError, match="k = 601 clusters need between 1 and 600"):
        fit_centroids(points, 601)
    broken = points.copy()
    broken[17, 2] = np.nan
    with pytest.raises(ValueError, match="point 17 has a NaN"):
        fit_centroids(broken, 3)
    with pytest.raises(ValueError, match="no points"):
        summarise([], points[:2])


def test_labels_are_appended_one_hot():
    embeddings = np.zeros((3, 2), dtype=np.float32)
    how = LabelScale(("a", "b"), 2.0)
    expected = [[0, 0, 2, 0], [0, 0, 0, 2], [0, 0, 2, 0]]
    assert append_labels(embeddings, np.array(["a", "b", "a"]), how).tolist() == expected
    with pytest.raises(ValueError, match="'c' is not one of the 2 known classes"):
        append_labels(embeddings, np.array(["a", "c", "a"]), how)
    number = append_labels(embeddings, np.array([1.0, 2.0, 3.0]), LabelScale((), 2.0, 2.0, 0.5))
    assert number[:, 2].tolist() == [-4.0, 0.0, 4.0]


def test_sketch_keeps_inner_products_of_gradients(rng):
    """Mean over 400 sketches within 4 standard errors of the exact inner product and norm."""
    residuals = rng.normal(size=(2, 5)).astype(np.float32)
    features = rng.normal(size=(2, 11)).astype(np.float32)
    full = np.einsum("nc,nh->nch", residuals, features).reshape(2, -1)
    inner = []
    for seed in range(400):
        points = GradientSketch.create(5, 11, dimension=64, seed=seed)(residuals, features)
        inner.append([points[0] @ points[1], points[0] @ points[0]])
    error = np.std(inner, axis=0, ddof=1) / 20
    expected = np.array([full[0] @ full[1], full[0] @ full[0]])
    assert np.all(np.abs(np.mean(inner, axis=0) - expected) <= 4 * error)
