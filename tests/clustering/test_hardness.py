"""What labels say of a row's difficulty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.clustering import Hardness, RidgeHead
from curation.clustering.hardness import NEIGHBOURS


def one_hot(codes: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[codes]


def clouds(n: int = 400, *, classes: int = 3, wrong: int = 40, seed: int = 0):
    """Points around a centre of their class; the first `wrong` have another class as label."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    points = (rng.normal(size=(classes, 5)) * 3)[true] + rng.normal(size=(n, 5))
    labels = true.copy()
    labels[:wrong] = (true[:wrong] + 1 + rng.integers(0, classes - 1, wrong)) % classes
    return points.astype(np.float32), labels


def fit(points, targets, *, rows=None, references: int = 4000, seed: int = 0) -> Hardness:
    rows = np.arange(len(points)) if rows is None else rows
    return Hardness.fit(points, targets, rows, references=references, seed=seed)


@pytest.mark.parametrize("classes", [2, 3])
def test_mislabelled_rows_are_harder(classes):
    """Every covariate's mean is at least twice as large on rows with a wrong label.

    Three data sets of 40 wrong and 360 right labels; at 4 standard errors of the mean apart the
    chance of a miss is 3e-5 each, and they are apart by far more.
    """
    for seed in range(3):
        points, labels = clouds(classes=classes, seed=seed)
        targets = one_hot(labels, classes)
        found = fit(points, targets, seed=seed)(points, targets, np.arange(400))
        for column in found.T:
            wrong, right = column[:40], column[40:]
            error = np.hypot(wrong.std() / np.sqrt(40), right.std() / np.sqrt(360))
            assert wrong.mean() - right.mean() > 4 * error
            assert wrong.mean() > 2 * right.mean()


def test_numeric_targets_that_are_off_are_harder():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(400, 4)).astype(np.float32)
    targets = (points[:, :1] + 0.1 * rng.normal(size=(400, 1))).astype(np.float32)
    targets[:40] += rng.choice([-3.0, 3.0], size=(40, 1)).astype(np.float32)
    found = fit(points, targets)(points, targets, np.arange(400))
    assert np.all(found >= 0)
    assert np.all(found[:40].mean(axis=0) > 3 * found[40:].mean(axis=0))


def test_share_of_neighbours_with_another_class_by_brute_force():
    points, labels = clouds(120)
    targets = one_hot(labels, 3)
    hardness = fit(points, targets, references=100)
    found = hardness(points, targets, np.arange(120))
    expected = []
    for i in range(120):
        distance = ((points[:100] - points[i]) ** 2).sum(axis=1)
        line = [j for j in np.argsort(distance, kind="stable")[: NEIGHBOURS + 1] if j != i]
        expected.append(np.mean(labels[line] != labels[i]))
    assert found[:, -2] == pytest.approx(expected, abs=1e-6)
    assert found[:, -1] == pytest.approx(np.square(expected), abs=1e-6)


def test_distance_to_the_neighbours_mean_by_brute_force():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(60, 3)).astype(np.float32)
    targets = rng.normal(size=(60, 1)).astype(np.float32)
    found = fit(points, targets)(points, targets, np.arange(60))
    for i in range(60):
        distance = ((points - points[i]) ** 2).sum(axis=1)
        line = [j for j in np.argsort(distance)[: NEIGHBOURS + 1] if j != i]
        expected = abs(targets[line].mean() - targets[i, 0])
        assert found[i, 2] == pytest.approx(expected, abs=1e-5)


def test_a_row_is_not_its_own_neighbour():
    """Told by which row it is: the same point as another row does see it."""
    points = np.array([[0.0, 0.0], [9.0, 9.0]], dtype=np.float32)
    targets = one_hot(np.array([0, 1]), 2)
    hardness = fit(points, targets, rows=np.array([70, 71]))
    itself = hardness(points[:1], targets[:1], np.array([70]))
    another = hardness(points[:1], targets[:1], np.array([5]))
    assert itself[0, -2] == 1.0  # its one neighbour has the other class
    assert another[0, -2] == 0.5
    alone = fit(points[:1], targets[:1], rows=np.array([70]))
    assert alone(points[:1], targets[:1], np.array([70]))[0, -2] == 0.0


def test_one_class_is_no_difficulty():
    """Labels that are all the same: nothing to be wrong about."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(50, 3)).astype(np.float32)
    targets = np.ones((50, 1), dtype=np.float32)
    found = fit(points, targets)(points, targets, np.arange(50))
    assert found == pytest.approx(np.zeros_like(found), abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1),
    st.sampled_from([1e-3, 1.0, 1e4]), st.booleans(),
)  # fmt: skip
def test_covariates_are_finite_and_not_negative(n, d, classes, seed, scale, constant):
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(n, d)) * scale).astype(np.float32)
    if constant:
        points[:] = points[0]
    targets = one_hot(rng.integers(0, classes, n), classes)
    if classes == 1:
        targets = rng.normal(size=(n, 1)).astype(np.float32)
    found = fit(points, targets, seed=seed % 7)(points, targets, np.arange(n))
    assert found.shape[0] == n
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert np.all(found >= 0)


def test_the_head_learns_classes_and_numbers():
    points, labels = clouds(wrong=0)
    head = RidgeHead.fit(points, one_hot(labels, 3), seed=0)
    assert np.mean(head.outputs(points).argmax(axis=1) == labels) > 0.95
    # outputs estimate probabilities: with an intercept they add up to one
    assert head.outputs(points).sum(axis=1) == pytest.approx(np.ones(400), abs=1e-3)
    number = (points[:, :1] * 2.0 + 5.0).astype(np.float32)
    line = RidgeHead.fit(points, number, seed=0)
    assert np.corrcoef(line.outputs(points)[:, 0], number[:, 0])[0, 1] > 0.95
    assert line.outputs(points).mean() == pytest.approx(number.mean(), rel=1e-3)


def test_residuals_are_probabilities_minus_one_hot():
    points, labels = clouds()
    targets = one_hot(labels, 3)
    head = RidgeHead.fit(points, targets, seed=0)
    residuals = head.residuals(points, targets)
    assert residuals.sum(axis=1) == pytest.approx(np.zeros(400), abs=1e-5)
    probabilities = residuals + targets
    assert np.all((probabilities >= 0) & (probabilities <= 1 + 1e-6))
    number = points[:, :1]
    line = RidgeHead.fit(points, number, seed=0)
    assert line.residuals(points, number) == pytest.approx(line.outputs(points) - number)


def test_the_head_does_not_depend_on_units():
    """Embeddings shifted and scaled: the same outputs, as they are standardised."""
    points, labels = clouds()
    targets = one_hot(labels, 3)
    plain = RidgeHead.fit(points, targets, seed=4).outputs(points)
    moved = points * np.float32(64.0) + np.float32(512.0)
    assert RidgeHead.fit(moved, targets, seed=4).outputs(moved) == pytest.approx(plain, abs=2e-3)
    other = RidgeHead.fit(points, targets, seed=5).outputs(points)
    assert not np.allclose(other, plain, atol=1e-3)


def test_the_head_is_the_solution_of_its_ridge_problem():
    """Residuals in the features' span are the ridge times the weights."""
    points, labels = clouds(120)
    targets = one_hot(labels, 3)
    head = RidgeHead.fit(points, targets, seed=0)
    features = head.features(points).astype(np.float64)
    centred = features - features.mean(axis=0)
    left = targets - (features @ head.weights + head.bias)
    gradient = centred.T @ left
    ridge = 1e-2 * np.trace(centred.T @ centred) / features.shape[1]
    assert np.abs(gradient - ridge * head.weights).max() <= 1e-3 * np.abs(gradient).max()


@pytest.mark.parametrize("size", [1, 7, 19, 20, 100])
def test_covariates_do_not_depend_on_the_blocks(size):
    """Up to float32's rounding: the neighbours are the same."""
    points, labels = clouds()
    targets = one_hot(labels, 3)
    hardness = fit(points, targets)
    whole = hardness(points, targets, np.arange(400))
    parts = [
        hardness(points[i : i + size], targets[i : i + size], np.arange(400)[i : i + size])
        for i in range(0, 400, size)
    ]
    assert np.concatenate(parts) == pytest.approx(whole, rel=1e-3, abs=1e-4)
