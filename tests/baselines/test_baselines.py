"""Each strategy is what its name says, and counts what it asks for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from curation.baselines import STRATEGIES, Pool, choose, geometry, uncertainty
from curation.clustering import assign
from curation.models import fit_pilot

N, SIZE, PILOT = 600, 60, 40
FULL = {"margin", "entropy", "badge", "el2n", "gradient-norm", "gradient-norm-sampled"}
NOTHING = {
    *("uniform", "class-stratified", "class-balanced", "cluster-stratified", "k-center"),
    *("medoids", "herding", "facility-location", "leverage"),
}


def rows(n: int = N, *, seed: int = 0):
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, size=n, p=[0.6, 0.25, 0.1, 0.05])
    x = rng.normal(size=(4, 12))[kind] + 0.7 * rng.normal(size=(n, 12))
    return x.astype(np.float32), np.array(["a", "b", "c", "d"])[kind]


@pytest.fixture
def pool():
    x, y = rows()
    pilot = np.sort(np.random.default_rng(1).choice(N, PILOT, replace=False))
    model = fit_pilot(
        "probe", x[pilot], y[pilot], task="classification", classes=("a", "b", "c", "d")
    )
    return Pool(x, y, pilot, model)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_rules(pool, name):
    found = choose(name, pool, SIZE, seed=3)
    assert len(np.unique(found.rows)) == len(found.rows)
    assert not np.isin(found.rows, pool.pilot).any()
    replaced = name in ("published", "low-rank")
    assert len(found.rows) <= SIZE if replaced else len(found.rows) == SIZE
    if found.weights is not None:
        assert found.weights.shape == found.rows.shape
        assert (found.weights > 0).all()
    again = choose(name, pool, SIZE, seed=3)
    assert np.array_equal(found.rows, again.rows)
    assert found.seconds > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_evaluations_are_counted(pool, name):
    found = choose(name, pool, SIZE)
    if name in FULL:
        assert found.evaluations == N - PILOT
    elif name == "ours":  # once for the gradients
        assert N - PILOT < found.evaluations < 1.5 * (N - PILOT)
    elif name in NOTHING:
        assert found.evaluations == 0
    else:
        assert 0 < found.evaluations < (N - PILOT) / 2


def test_k_center_is_greedy_and_starts_from_the_pilot(pool):
    found = choose("k-center", pool, 8)
    centres, wanted = list(pool.pilot), []
    x = pool.embeddings.astype(np.float64)
    for _ in range(8):
        apart = np.linalg.norm(x[:, None] - x[centres], axis=2).min(axis=1)
        wanted.append(int(apart.argmax()))
        centres.append(wanted[-1])
    assert found.rows.tolist() == wanted


def test_medoids_stand_for_their_clusters(pool):
    found = choose("medoids", pool, SIZE)
    assert found.weights.sum() == N - PILOT
    uniform = [choose("uniform", pool, SIZE, seed=s).rows for s in range(10)]

    def cost(chosen: np.ndarray) -> float:
        return float(assign(pool.embeddings, pool.embeddings[chosen])[1].sum())

    assert cost(found.rows) < min(cost(rows) for rows in uniform)


def test_herding_follows_the_mean(pool):
    mean = pool.embeddings[pool.rest].mean(axis=0)
    found = choose("herding", pool, SIZE)
    off = np.linalg.norm(pool.embeddings[found.rows].mean(axis=0) - mean)
    uniform = [choose("uniform", pool, SIZE, seed=s).rows for s in range(20)]
    assert off < min(np.linalg.norm(pool.embeddings[r].mean(axis=0) - mean) for r in uniform) / 3


def test_facility_location_is_near_plain_greedy(pool):
    """Stochastic greedy loses at most 1% of what greedy would give, in expectation."""
    bare = Pool(pool.embeddings, pool.labels, pool.pilot[:0], pool.model)
    x = bare.embeddings
    scale = 2.0 * float(np.linalg.norm(x - x.mean(axis=0), axis=1).max())
    close = geometry._similar(x, x, scale)
    best, greedy = np.zeros(N, dtype=np.float32), []
    for _ in range(12):
        gain = np.maximum(close - best, 0.0).sum(axis=1)
        greedy.append(int(gain.argmax()))
        best = np.maximum(best, close[greedy[-1]])
    found = [choose("facility-location", bare, 12, seed=s).rows for s in range(5)]
    values = [close[r].max(axis=0).sum() for r in found]
    assert np.mean(values) > 0.99 * best.sum()
    uniform = [choose("uniform", bare, 12, seed=s).rows for s in range(20)]
    assert min(values) > max(close[r].max(axis=0).sum() for r in uniform)


def test_uncertainty_takes_the_least_certain(pool):
    p = np.sort(pool.model.predict_proba(pool.embeddings[pool.rest]), axis=1)
    gap = dict(zip(pool.rest.tolist(), p[:, -1] - p[:, -2], strict=True))
    found = choose("margin", pool, SIZE).rows.tolist()
    assert max(gap[r] for r in found) <= min(v for r, v in gap.items() if r not in set(found))
    score = pool.model.score(
        pool.embeddings[pool.rest], pool.labels[pool.rest], value="gradient_norm"
    )
    for value in ("gradient_norm", "loss"):  # of what others ask for makes no difference
        pool.value = value
        top = set(choose("gradient-norm", pool, SIZE).rows.tolist())
        assert top == set(pool.rest[np.argsort(-score)[:SIZE]].tolist())
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    truth = pool.labels[pool.rest][:, None] == np.array(pool.classes)
    wrong = np.linalg.norm(pool.model.predict_proba(pool.embeddings[pool.rest]) - truth, axis=1)
    for name, values in (("entropy", entropy), ("el2n", wrong)):
        taken = np.isin(pool.rest, choose(name, pool, SIZE).rows)
        assert values[taken].min() >= values[~taken].max() - 1e-6


def test_draws_by_the_gradient_norm_are_those_whatever_the_score_is(pool):
    one = choose("gradient-norm-sampled", pool, SIZE, seed=1)
    pool.value = "loss"
    other = choose("gradient-norm-sampled", pool, SIZE, seed=1)
    assert np.array_equal(one.rows, other.rows)
    assert np.array_equal(one.weights, other.weights)


def test_badge_s_distances_are_those_of_its_gradients(pool):
    p = pool.model.predict_proba(pool.embeddings).astype(np.float32)
    p[np.arange(N), p.argmax(axis=1)] -= 1.0
    h = pool.model.features(pool.embeddings)
    gradients = (p[:, :, None] * h[:, None, :]).reshape(N, -1)
    squares = np.einsum("ij,ij->i", p, p) * np.einsum("ij,ij->i", h, h)
    found = uncertainty._apart(p, h, squares, 5)
    assert found == pytest.approx(((gradients - gradients[5]) ** 2).sum(axis=1), abs=1e-4)


def test_class_balanced_gives_rare_classes_what_there_is(pool):
    rest = pool.labels[pool.rest]
    found = pool.labels[choose("class-balanced", pool, 160).rows]  # 40 of each; one has fewer
    counts = {c: int((found == c).sum()) for c in pool.classes}
    there = {c: int((rest == c).sum()) for c in pool.classes}
    full = [c for c in pool.classes if counts[c] < there[c]]
    assert 0 < len(full) < len(pool.classes)
    assert len(found) == 160
    assert max(counts[c] for c in full) - min(counts[c] for c in full) <= 1
    assert all(counts[c] == there[c] for c in pool.classes if c not in full)


def test_class_stratified_is_in_proportion(pool):
    rest = pool.labels[pool.rest]
    found = pool.labels[choose("class-stratified", pool, SIZE).rows]
    for name in pool.classes:
        expected = SIZE * (rest == name).mean()
        assert abs((found == name).sum() - expected) < 1.0 + 1e-9


@pytest.mark.parametrize("name", ["leverage", "gradient-norm-sampled", "published"])
def test_weighted_strategies_estimate_totals(pool, name):
    """The weighted mean of a number is that of all rows: 200 draws, 4.5 standard errors.

    Weights are of mean 1 here, so the estimate is a ratio, whose bias is of order 1 / size and
    allowed for. That the mean goes wrong by chance has a probability of 1e-5.
    """
    y = pool.embeddings[:, 0] ** 2
    truth = float(y[pool.rest].mean())
    told = []
    for seed in range(200):
        found = choose(name, pool, SIZE, seed=seed)
        told.append(float(np.average(y[found.rows], weights=found.weights)))
    error = np.std(told, ddof=1) / np.sqrt(len(told))
    assert abs(np.mean(told) - truth) < 4.5 * error + 0.02 * truth


def test_unknown_names_and_sizes_are_refused(pool):
    with pytest.raises(ValueError, match="unknown strategy 'best'; known: uniform"):
        choose("best", pool, 3)
    for size in (0, N):
        with pytest.raises(ValueError, match="rows of 560 that are not in the pilot"):
            choose("uniform", pool, size)


def test_rows_that_are_all_equal_do_not_hang(pool):
    same = Pool(np.ones_like(pool.embeddings), pool.labels, pool.pilot, pool.model)
    for name, size in itertools.product(("k-center", "medoids", "herding", "badge"), (1, 30)):
        found = choose(name, same, size)
        assert len(np.unique(found.rows)) == size
