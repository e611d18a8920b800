"""`curation.select`: the notebook's way in."""

from __future__ import annotations

import numpy as np
import pytest

import curation


@pytest.fixture
def data(rng):
    code = rng.integers(0, 5, 900)
    centres = rng.normal(size=(5, 6)) * 3
    points = (centres[code] + rng.normal(size=(900, 6))).astype(np.float32)
    losses = code * 1.0 + rng.gamma(1, 0.2, size=900)
    return points, losses, code.astype(str)


def counting(losses):
    """A score that remembers what it was asked for."""
    asked: list[np.ndarray] = []

    def score(rows):
        asked.append(rows)
        return losses[rows]

    return score, asked


def test_asks_for_medoids_and_pilot_rows_only(data):
    """The published algorithm's k scores where no pilot is needed; with one, 60 more."""
    points, losses, _ = data
    score, asked = counting(losses)
    chosen = curation.select(points, score, budget=60, k=15, proxy="cluster", mix=0.1)
    assert len(asked) == 1
    assert chosen.queries == len(asked[0]) <= 15
    score, asked = counting(losses)
    chosen = curation.select(points, score, budget=60, k=15)
    rows = np.concatenate(asked)
    assert len(asked) <= 2
    assert len(rows) == len(set(rows.tolist())) == chosen.queries <= 15 + 60
    assert len(asked[1]) == 60
    assert rows.dtype == np.int64
    assert len(chosen.indices) == 60
    assert np.all(np.diff(chosen.indices) > 0)


@pytest.mark.parametrize("space", ["embedding", "embedding+label"])
def test_estimates_beat_uniform_and_are_unbiased(data, space):
    """60 selections: unbiased within 4 standard errors, error below half of uniform's.

    Four comparisons that fail by chance with probability 6e-5 each; the seeds are fixed.
    """
    points, losses, labels = data
    ours, uniform = [], []
    for seed in range(60):
        for design, into in (("systematic", ours), ("uniform", uniform)):
            chosen = curation.select(
                points, losses, budget=60, k=15, labels=labels, space=space, design=design,
                proxy="cluster", seed=seed,
            )  # fmt: skip
            into.append(chosen.weights @ losses[chosen.indices])
    for totals in (ours, uniform):
        error = np.std(totals, ddof=1) / np.sqrt(60)
        assert abs(np.mean(totals) - losses.sum()) <= 4 * error
    assert np.std(ours) < 0.5 * np.std(uniform)


def test_estimate_is_aligned_with_the_indices(data):
    points, losses, _ = data
    chosen = curation.select(points, losses, budget=100)
    told = chosen.estimate(losses[chosen.indices])
    assert told.value == pytest.approx(chosen.weights @ losses[chosen.indices])
    assert told.low < told.value < told.high
    assert chosen.to_frame().shape == (100, 8)
    assert chosen.certificate.radius > 0


def test_same_seed_same_rows(data):
    points, losses, _ = data
    one = curation.select(points, losses, fraction=0.1, seed=3)
    two = curation.select(points, losses, fraction=0.1, seed=3)
    assert np.array_equal(one.indices, two.indices)
    assert not np.array_equal(
        one.indices, curation.select(points, losses, fraction=0.1, seed=4).indices
    )


def test_edges():
    point = np.ones((1, 3))
    assert curation.select(point, np.ones(1), budget=1).weights.tolist() == [1.0]
    points = np.random.default_rng(0).normal(size=(20, 3))
    every = curation.select(points, np.ones(20), budget=20, k=1)
    assert every.indices.tolist() == list(range(20))
    assert every.weights == pytest.approx(np.ones(20))
    assert len(curation.select(np.ones((20, 3)), np.ones(20), budget=5, k=3).indices) == 5
    assert len(curation.select(points, np.zeros(20), budget=5, k=3).indices) == 5


def test_epsilon_gives_the_budget(data):
    points, losses, _ = data
    chosen = curation.select(points, losses, epsilon=0.1, delta=0.1)
    assert len(chosen.indices) == 150  # ln(20) / (2 * 0.01) = 149.8
    assert chosen.certificate.epsilon == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"embeddings": np.ones(5)}, r"shape \(n, d\)"),
        ({"embeddings": np.array([[1.0], [np.nan]] * 10)}, "row 1 has a NaN"),
        ({"score": np.ones(3)}, "expected 20 scores"),
        ({"score": lambda rows: np.ones(1)}, "returned shape"),
        ({"score": -np.ones(20)}, "finite and >= 0"),
        ({"score": np.full(20, np.nan)}, "finite and >= 0"),
        ({"budget": 0}, "does not fit"),
        ({"budget": 21}, "does not fit a data set of 20 rows"),
        ({"budget": None}, "exactly one of"),
        ({"budget": None, "epsilon": 0.01}, "more than the 20 rows"),
        ({"k": 21}, "between 1 and 20"),
        ({"labels": ["a"] * 3}, "expected 20 labels"),
        ({"space": "embedding+label"}, "needs `labels`"),
        ({"space": "nope"}, "unknown space 'nope'; known: embedding, embedding.label, gradient"),
        ({"tilt": "nope"}, "unknown tilt 'nope'"),
        ({"tilt": "groups"}, "need `groups`"),
        ({"design": "nope"}, "unknown design 'nope'; known: coordinated, iid"),
        ({"budget": None, "fraction": 0.0}, "fraction must lie in"),
        ({"budget": 2.5}, "whole number"),
        ({"delta": 2.0}, "delta must lie in"),
        ({"mix": 0.0, "embeddings": np.ones((20, 3)), "score": np.zeros(20)}, None),
    ],
)
def test_input_that_cannot_be_meant(changes, told):
    points = np.random.default_rng(0).normal(size=(20, 3))
    arguments = {"embeddings": points, "score": np.ones(20), "budget": 5, "k": 4, **changes}
    embeddings, score = arguments.pop("embeddings"), arguments.pop("score")
    if told is None:  # all scores zero: the law is uniform, and nothing is left out
        assert len(curation.select(embeddings, score, **arguments).indices) == 5
        return
    with pytest.raises(ValueError, match=told):
        curation.select(embeddings, score, **arguments)


def test_rows_that_would_never_be_drawn_are_refused():
    """Without uniform in the law, a zero score would leave a row unrepresented."""
    points = np.repeat(np.eye(2), 10, axis=0)
    with pytest.raises(ValueError, match=r"10 rows would never be drawn.*raise mix"):
        curation.select(points, np.repeat([0.0, 1.0], 10), budget=5, k=2, mix=0.0, proxy="cluster")


def test_integer_labels_and_lists_are_labels():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 12, 300).tolist()
    chosen = curation.select(
        rng.normal(size=(300, 4)), np.ones(300), budget=30, labels=labels, space="embedding+label"
    )
    assert len(chosen.indices) == 30


def test_estimate_wants_the_chosen_rows_values(data):
    points, losses, _ = data
    chosen = curation.select(points, losses, budget=100)
    with pytest.raises(ValueError, match="values of the 100 chosen rows"):
        chosen.estimate(losses)


def test_one_random_row_gives_no_interval(data):
    points, losses, _ = data
    chosen = curation.select(points, losses, budget=1)
    assert chosen.estimate(losses[chosen.indices]).standard_error == np.inf


def test_uniform_design_is_certified_by_its_own_law(data):
    """The radius of uniform draws is n max(q) epsilon: far larger, and it holds."""
    points, losses, _ = data
    ours = curation.select(points, losses, budget=50, k=15, seed=1, proxy="cluster")
    uniform = curation.select(
        points, losses, budget=50, k=15, seed=1, design="uniform", proxy="cluster"
    )
    q = np.array([uniform.explain(row)["score"] for row in range(900)])
    assert uniform.certificate.bound == pytest.approx(900 * q.max())
    error = abs(uniform.weights @ losses[uniform.indices] - losses.sum())
    assert error <= uniform.certificate.radius
    assert uniform.certificate.bound > ours.certificate.bound
