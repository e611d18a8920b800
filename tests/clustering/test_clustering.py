"""k-means, medoids and spaces against brute force."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import curation.clustering.medoids as medoids_module
from curation.clustering import (
    GradientSketch,
    LabelScale,
    Summariser,
    append_labels,
    assign,
    fit_centroids,
    squared_distance,
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


def nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The first of the nearest centroids, in float64."""
    wide = centroids.astype(np.float64)
    distance = np.stack([((points.astype(np.float64) - c) ** 2).sum(axis=1) for c in wide], axis=1)
    return distance.argmin(axis=1)


def in_blocks(points: np.ndarray, centroids: np.ndarray, size: int) -> np.ndarray:
    parts = [assign(points[i : i + size], centroids)[0] for i in range(0, len(points), size)]
    return np.concatenate(parts)


def exact_ties(rng):
    """Points on a grid, centroids on its corners and in between: most distances are tied."""
    points = rng.integers(0, 5, size=(700, 3)).astype(np.float32)
    centroids = np.stack(np.meshgrid(*[[0, 2, 4]] * 3), axis=-1).reshape(-1, 3)
    return points, rng.permutation(centroids).astype(np.float32)


def many_ties(rng):
    """The origin, and 200 centroids that are all equally far from it."""
    centroids = np.vstack([np.eye(100), -np.eye(100)]) * 3
    return np.zeros((50, 100), dtype=np.float32), centroids.astype(np.float32)


def near_ties(rng):
    """Points halfway between two centroids, give or take what float32 can barely tell."""
    centroids = rng.normal(size=(30, 16)).astype(np.float32)
    one, two = rng.integers(0, 30, size=(2, 700))
    middle = (centroids[one] + centroids[two]) / 2
    return (middle * (1 + 1e-7 * rng.normal(size=(700, 1)))).astype(np.float32), centroids


def many_near_ties(rng):
    """Points close to the centre of a sphere that 60 centroids lie on."""
    centroids = rng.normal(size=(60, 16))
    centroids /= np.linalg.norm(centroids, axis=1)[:, None]
    return (rng.normal(size=(400, 16)) * 1e-8).astype(np.float32), centroids.astype(np.float32)


def far_from_the_origin(rng):
    """Embeddings with a large common part, as those of many models have."""
    points = (rng.normal(size=(3000, 64)) + 1000.0).astype(np.float32)
    return points, points[:300] + np.float32(0.25)


@pytest.mark.parametrize(
    "case", [exact_ties, many_ties, near_ties, many_near_ties, far_from_the_origin]
)
def test_assignment_is_exact_for_any_block(rng, case):
    """The nearest centroid and the first of equal ones, one row at a time or all at once."""
    points, centroids = case(rng)
    expected = nearest(points, centroids)
    for size in (1, 3, 19, 20, 64, len(points)) if len(points) < 1000 else (300, len(points)):
        found = in_blocks(points, centroids, size)
        assert (found != expected).sum() == 0


THREADS = """
import os, sys
import numpy as np
from curation.threads import set_defaults
set_defaults()
from curation.clustering import assign, fit_centroids
rng = np.random.default_rng(0)
grid = rng.integers(0, 4, size=(6000, 4)).astype(np.float32)
cloud = rng.normal(size=(6000, 24)).astype(np.float32)
wide = rng.normal(size=(6000, 64)).astype(np.float32)
for points, k in ((grid, 40), (cloud, 40), (wide, 50)):
    centroids = fit_centroids(points, k, seed=3)
    cluster, distance = assign(points, centroids)
    sys.stdout.write(f"{centroids.tobytes().hex()} {cluster.tobytes().hex()} ")
    sys.stdout.write(f"{distance.tobytes().hex()} ")
"""


def test_centroids_and_assignments_do_not_depend_on_the_threads():
    """To the last bit, on one thread and on two."""
    told = []
    for threads in ("1", "2"):
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        found = subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**environment, "CURATION_THREADS": threads},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        told.append(found.stdout)
    assert told[0] == told[1]
    assert len(told[0]) > 6000


def test_distances_are_exact(points):
    """Squared distances in float64, also of float32 points that nearly coincide."""
    one = np.full((2, 3), 1e4, dtype=np.float32)
    two = one.copy()
    two[1, 0] = np.nextafter(np.float32(1e4), np.float32(2e4))
    assert squared_distance(one, two).tolist() == [0.0, float(two[1, 0] - 1e4) ** 2]
    centroids = fit_centroids(points, 9, seed=0)
    cluster, distance = assign(points, centroids)
    exact = ((points.astype(np.float64) - centroids[cluster]) ** 2).sum(axis=1)
    assert distance == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("k", [3, 10, 40])
def test_no_centroid_comes_twice(rng, k):
    """Three distinct points, forty copies of each."""
    points = np.repeat(rng.normal(size=(3, 4)), 40, axis=0).astype(np.float32)
    centroids = fit_centroids(points, k, seed=1)
    assert len(np.unique(centroids, axis=0)) == len(centroids) <= k
    _, distance = assign(points, centroids)
    assert distance == pytest.approx(np.zeros(120), abs=1e-9)


def test_finite_points_that_are_too_large_are_refused():
    """Their squares overflow float32; the process must not be torn down with the notebook."""
    code = (
        "import numpy as np; from curation.clustering import fit_centroids\n"
        "points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * 1e20\n"
        "try:\n    fit_centroids(points, 3)\n"
        "except ValueError as error:\n    print('refused:', error)\n"
        "else:\n    print('fitted')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-500:]
    assert found.stdout.startswith("refused: the points are too large")


def test_equally_near_members_are_told_apart_by_their_numbers(rng):
    """Four members at the same distance from the centroid, in every order of rows and blocks."""
    points = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [5, 5]], dtype=np.float32)
    numbers = np.array([0.7, 0.3, 0.2, 0.9, 0.1])
    centroids = np.array([[0, 0], [5, 4]], dtype=np.float32)
    for _ in range(10):
        order = rng.permutation(5)
        for size in (1, 2, 5):
            found = Summariser(centroids)
            for i in range(0, 5, size):
                part = order[i : i + size]
                found.add(points[part], numbers[part])
            summary = found.finish()
            assert order[summary.medoid_rows].tolist() == [2, 4]
            assert summary.medoids.tolist() == [[0, 1], [5, 5]]
    # without numbers, the one that comes first
    assert summarise([points[:2], points[2:]], centroids).medoid_rows.tolist() == [0, 4]


def test_a_nearer_member_is_the_medoid_whatever_its_number():
    points = np.array([[2, 0], [1, 0], [-2, 0]], dtype=np.float32)
    for numbers in ([0.1, 0.9, 0.2], [0.9, 0.1, 0.2]):
        found = Summariser(np.zeros((1, 2), dtype=np.float32))
        for i in range(3):
            found.add(points[i : i + 1], np.array(numbers[i : i + 1]))
        assert found.finish().medoid_rows.tolist() == [1]


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_costs_of_copies_are_zero(rng, offset):
    """Every point is its cluster's medoid or a copy of it, also far from the origin.

    Rounding would differ with the blocks, and what is divided by it would be anything.
    """
    base = (rng.normal(size=(6, 5)) * 10 + offset).astype(np.float32)
    points = base[rng.integers(0, 6, 300)]
    for size in (1, 50, 300):
        summary = summarise([points[i : i + size] for i in range(0, 300, size)], base)
        assert summary.medoid_cost.tolist() == [0.0] * 6


def test_kept_says_which_centroids_have_members(rng):
    """Five centroids, of which two are nobody's nearest."""
    points = np.repeat([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], 4, axis=0).astype(np.float32)
    centroids = np.array([[50, 50], [0, 0], [9, 1], [90, 9], [1, 9]], dtype=np.float32)
    summary = summarise([points], centroids)
    assert summary.kept.tolist() == [1, 2, 4]
    assert summary.sizes.tolist() == [4, 4, 4]
    assert np.array_equal(summary.centroids, centroids[[1, 2, 4]])
    assert summary.k == 3


def test_clusters_that_are_close_in_rank_are_close_in_space(rng):
    """Along a line, the rank is the place on it, in one direction or the other."""
    line = rng.permutation(20).astype(np.float32)
    medoids = np.stack([line, np.zeros(20), np.zeros(20)], axis=1).astype(np.float32)
    rank = summarise([medoids], medoids).rank
    assert rank.tolist() in (line.astype(int).tolist(), (19 - line).astype(int).tolist())


def test_the_direction_of_ranks_is_not_said_by_rounding(rng):
    """Two classes, one-hot: their coordinates are each other's negative, around the mean."""
    label = np.where(rng.random(60) < 0.5, 1.0, 0.0)
    medoids = np.column_stack([label, 1.0 - label, 0.1 * rng.normal(size=(60, 5))])
    expected = medoids_module._rank(medoids.astype(np.float32))
    for _ in range(20):
        moved = medoids * (1.0 + 1e-7 * rng.normal(size=(1, 7)))
        assert np.array_equal(medoids_module._rank(moved.astype(np.float32)), expected)
