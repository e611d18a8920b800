"""Adaptive rounds: unbiased though each law follows from the draws before it."""

from __future__ import annotations

import numpy as np
import pytest

from curation.sampling import DESIGNS
from curation.selection import AdaptiveRounds

N = 240


def make_data(seed: int = 0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(N, 3)).astype(np.float32)
    return points, np.exp(0.8 * points[:, 0]) + rng.gamma(0.5, size=N)


def run(points, score, *, rounds: int = 3, **options) -> tuple[AdaptiveRounds, list]:
    """All rounds; `score(rows, n)` is the model's after n rounds."""
    adaptive = AdaptiveRounds(points, rounds=rounds, **{"budget": 36, "k": 6, **options})
    drawn = []
    for number in range(rounds):
        one = adaptive.draw(lambda rows, number=number: score(rows, number))
        adaptive.observe(score(one.indices, number))
        drawn.append(one)
    return adaptive, drawn


@pytest.mark.parametrize("design", ["coordinated", "iid", "systematic"])
def test_weighted_totals_are_unbiased(design):
    """200 runs of three rounds, each within 4 standard errors, and all together.

    What the model says depends on what was drawn: scores near the rows of the rounds before are
    halved, as if they had been learned. 5 comparisons for each of 3 designs fail by chance with
    probability below 0.1%.
    """
    points, losses = make_data()
    truth = np.array([losses.sum(), float(N)])
    total, each = np.empty((200, 2)), np.empty((200, 3))
    for seed in range(200):
        learned = np.ones(N)
        adaptive = AdaptiveRounds(points, budget=36, rounds=3, k=6, design=design, seed=seed)
        for number in range(3):
            one = adaptive.draw(lambda rows, learned=learned: losses[rows] * learned[rows])
            adaptive.observe((losses * learned)[one.indices])
            each[seed, number] = one.weights @ losses[one.indices]
            for row in one.indices[:6]:
                learned[((points - points[row]) ** 2).sum(axis=1) < 0.5] *= 0.5
        total[seed] = adaptive.weights @ losses[adaptive.indices], adaptive.weights.sum()
    for values, expected in ((total, truth), (each, truth[0])):
        error = values.std(axis=0, ddof=1) / np.sqrt(200)
        assert np.all(np.abs(values.mean(axis=0) - expected) <= 4 * error + 1e-9 * N)


@pytest.mark.parametrize(("budget", "rounds"), [(36, 3), (37, 3), (10, 4), (5, 5), (7, 1)])
def test_sizes_add_up(budget, rounds):
    points, losses = make_data()
    adaptive, drawn = run(points, lambda rows, _: losses[rows], budget=budget, rounds=rounds)
    sizes = [len(one.indices) for one in drawn]
    assert sum(sizes) == budget
    assert max(sizes) - min(sizes) <= 1
    assert len(drawn) == rounds
    for one in drawn:
        assert np.all(np.diff(one.indices) > 0)
        assert one.weights * one.inclusion_probability == pytest.approx(np.ones(len(one.indices)))
    expected = np.zeros(N)
    for size, one in zip(sizes, drawn, strict=True):
        expected[one.indices] += size / budget * one.weights
    assert np.array_equal(adaptive.indices, np.flatnonzero(expected))
    assert adaptive.weights == pytest.approx(expected[adaptive.indices])


def test_weights_between_rounds_are_those_of_the_rounds_so_far():
    points, losses = make_data()
    adaptive = AdaptiveRounds(points, budget=30, rounds=3, k=6)
    assert adaptive.indices.tolist() == []
    assert adaptive.weights.tolist() == []
    first = adaptive.draw(lambda rows: losses[rows])
    assert np.array_equal(adaptive.indices, first.indices)
    assert adaptive.weights == pytest.approx(first.weights)


def test_the_model_of_the_moment_is_asked_at_the_medoids():
    """Once a round, at the same k rows, and counted; the draw follows what it says."""
    points, losses = make_data()
    asked = []

    def score(rows, number):
        asked.append((number, rows))
        return losses[rows]

    _, drawn = run(points, score)
    medoids = [rows for _, rows in asked[::2]]
    for one, rows in zip(drawn, medoids, strict=True):
        assert np.array_equal(rows, medoids[0])
        assert one.queries == len(rows) == 6
    # a model that finds one cloud hard in the second round has that one drawn
    hard = np.arange(N) < N // 2
    points = points + np.where(hard, 20.0, 0.0)[:, None]

    def turning(rows, number):
        return np.where(hard[rows] == (number == 1), 50.0, 0.1)

    shares = []
    for seed in range(10):
        _, drawn = run(points, turning, rounds=2, budget=60, k=6, mix=0.1, seed=seed)
        shares.append([hard[one.indices].mean() for one in drawn])
    first, second = np.mean(shares, axis=0)
    assert first < 0.35
    assert second > first + 0.15


def test_rounds_are_drawn_independently():
    """A row of the first round is as likely in the second as any other: 60 seeds, scores all 1.

    By chance 20 * 20 / 240 = 1.67 rows are in both; 4 standard errors.
    """
    points, _ = make_data()
    both = []
    for seed in range(60):
        _, drawn = run(
            points, lambda rows, _: np.ones(len(rows)), rounds=2, budget=40, mix=1.0, seed=seed
        )
        both.append(len(np.intersect1d(drawn[0].indices, drawn[1].indices)))
    error = np.std(both, ddof=1) / np.sqrt(60)
    assert abs(np.mean(both) - 20 * 20 / N) <= 4 * error


def test_order_of_calls():
    points, losses = make_data()
    adaptive = AdaptiveRounds(points, budget=20, rounds=2, k=4)
    with pytest.raises(ValueError, match=r"no round waits for its scores; call draw\(\) first"):
        adaptive.observe([1.0])
    first = adaptive.draw(lambda rows: losses[rows])
    with pytest.raises(ValueError, match=r"last round's rows to observe\(\) first"):
        adaptive.draw(lambda rows: losses[rows])
    for wrong in (losses[first.indices][:-1], -losses[first.indices], np.full(10, np.nan)):
        with pytest.raises(ValueError, match=r"expected 10 scores|it must be finite"):
            adaptive.observe(wrong)
    adaptive.observe(losses[first.indices])
    with pytest.raises(ValueError, match="no round waits"):
        adaptive.observe(losses[first.indices])
    second = adaptive.draw(lambda rows: losses[rows])
    adaptive.observe(losses[second.indices])
    with pytest.raises(ValueError, match="all 2 rounds are drawn"):
        adaptive.draw(lambda rows: losses[rows])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rounds": 0}, "1 <= rounds <= budget <= 240"),
        ({"rounds": 21}, "1 <= rounds <= budget <= 240"),
        ({"budget": 241}, "1 <= rounds <= budget <= 240"),
        ({"budget": 0}, "1 <= rounds <= budget <= 240"),
        ({"k": 0}, "k must be `auto` or between 1 and 240"),
        ({"k": 241}, "k must be `auto` or between 1 and 240"),
        ({"mix": 0.0}, r"mix must be a number in \(0, 1\], got 0.0"),
        ({"mix": 1.1}, r"mix must be a number in \(0, 1\]"),
        ({"space": "gradient"}, "space must be embedding or embedding.label"),
        ({"space": "embedding+label"}, "needs `labels`"),
        ({"labels": ["a"]}, "expected 240 labels"),
        ({"ids": np.zeros(N, dtype=int)}, "same id 0"),
        ({"design": "nope"}, "unknown design 'nope'; known: coordinated"),
        ({"embeddings": np.ones(3)}, r"shape \(n, d\)"),
    ],
)
def test_refused_at_once(changes, told):
    """Before a model is asked, let alone trained."""
    points, _ = make_data()
    arguments = {"embeddings": points, "budget": 20, "rounds": 2, "k": 4, **changes}
    with pytest.raises(ValueError, match=told):
        AdaptiveRounds(arguments.pop("embeddings"), **arguments)


def test_the_row_with_the_wrong_score_is_named():
    points, _ = make_data()
    adaptive = AdaptiveRounds(points, budget=20, rounds=2, k=4)
    with pytest.raises(ValueError, match=r"the score of row \d+ is -1.0"):
        adaptive.draw(lambda rows: -np.ones(len(rows)))


@pytest.mark.parametrize("design", sorted(DESIGNS))
def test_every_design_works(design):
    points, losses = make_data()
    adaptive, drawn = run(points, lambda rows, _: losses[rows], design=design)
    assert {one.drawn.design for one in drawn} == {design}
    assert len(adaptive.weights) > 0
    assert np.all(adaptive.weights > 0)


def splitting(points, order=None, *, split: bool = True, ids=None, seed: int = 0, k: int = 2):
    """Two clouds, in each of which the score says 1 at the centre and 9 on one side."""
    side = np.abs(points[:, 1]) > 0.7
    values = np.where(side, 9.0, 1.0)
    rows = np.arange(len(points)) if order is None else order
    adaptive = AdaptiveRounds(
        points[rows], budget=90, rounds=3, k=k, split=split, mix=0.5, seed=seed,
        ids=rows if ids is None else ids[rows],
    )  # fmt: skip
    sizes, totals = [], []
    for _ in range(3):
        one = adaptive.draw(lambda asked: np.full(len(asked), 0.05))
        adaptive.observe(values[rows][one.indices])
        sizes.append(adaptive.k)
        totals.append(one.weights @ values[rows][one.indices])
    return sizes, set(rows[adaptive.indices].tolist()), totals


def test_clusters_are_split_where_scores_exceed_what_was_promised():
    """Only if asked for; and totals stay unbiased: 100 runs, within 4 standard errors."""
    points, _ = make_data()
    assert splitting(points, split=False)[0] == [2, 2, 2]
    sizes, _, _ = splitting(points)
    assert sizes[0] > 2
    assert sizes == sorted(sizes)
    # the conformal constant of the second round covers nine in ten rows: nothing more to split
    totals = np.array([splitting(points, seed=seed)[2] for seed in range(100)])
    truth = np.where(np.abs(points[:, 1]) > 0.7, 9.0, 1.0).sum()
    error = totals.std(axis=0, ddof=1) / 10
    assert np.all(np.abs(totals.mean(axis=0) - truth) <= 4 * error)


def test_splitting_does_not_depend_on_the_order_of_the_rows():
    """The same ids are drawn, also where medoids are tied."""
    points, _ = make_data()
    for data in (points, points.round(0)):
        for seed in range(3):
            _, expected, _ = splitting(data, seed=seed)
            order = np.random.default_rng(seed).permutation(N)
            assert splitting(data, order, seed=seed)[1] == expected


def test_order_of_the_rows_does_not_matter():
    points, losses = make_data()
    for data in (points, points.round(0)):
        for design in ("coordinated", "systematic", "poisson"):
            one, _ = run(data, lambda rows, _: losses[rows], ids=np.arange(N), design=design)
            order = np.random.default_rng(1).permutation(N)
            two, _ = run(
                data[order], lambda rows, _, o=order: losses[o[rows]], ids=order, design=design
            )
            assert set(order[two.indices].tolist()) == set(one.indices.tolist())


def test_a_cluster_of_copies_cannot_be_split():
    """Whatever the scores: it stays one cluster."""
    points = np.repeat(np.array([[0.0, 0.0], [5.0, 5.0]]), 60, axis=0)
    adaptive = AdaptiveRounds(points, budget=60, rounds=3, k=2, split=True)
    for _ in range(3):
        one = adaptive.draw(lambda rows: np.ones(len(rows)))
        adaptive.observe(np.full(len(one.indices), 5.0))
    assert adaptive.k == 2


def test_labels_are_clustered_too():
    """In the space of embedding and label no cluster has two classes."""
    points, losses = make_data()
    labels = np.where(np.random.default_rng(0).random(N) < 0.5, "a", "b")
    asked = []

    def score(rows, _):
        asked.append(rows)
        return losses[rows]

    run(points * 0.01, score, labels=labels, space="embedding+label", k=2)
    assert sorted(labels[asked[0]].tolist()) == ["a", "b"]
