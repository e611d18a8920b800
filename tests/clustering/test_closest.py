"""The nearest centroid, by products of either kind, against brute force in float64."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.clustering import assign
from curation.clustering.closest import Closest
from curation.clustering.leading import Leading, finder
from curation.clustering.passes import over

KINDS = ("float32", "bfloat16", "bytes")


def brute(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The first of the nearest centroids, in float64."""
    wide = centroids.astype(np.float64)
    every = [((points.astype(np.float64) - one) ** 2).sum(axis=1) for one in wide]
    return np.stack(every, axis=1).argmin(axis=1)


def found(points: np.ndarray, centroids: np.ndarray, product: str) -> np.ndarray:
    closest = Closest(centroids, product=product)
    return over(closest, points)[0]


def sentences_like(rng, n=1500, k=60, d=384):
    """Clouds on a sphere, as embeddings of texts lie."""
    centres = rng.normal(size=(k, d)) + 0.5 * rng.normal(size=d)
    points = centres[rng.integers(0, k, n)] + 1.5 * rng.normal(size=(n, d))
    points /= np.linalg.norm(points, axis=1)[:, None]
    centroids = centres / np.linalg.norm(centres, axis=1)[:, None]
    return points, centroids


def noise(rng):
    """Nothing to tell centroids apart by: many are nearly the nearest."""
    return rng.normal(size=(700, 64)), rng.normal(size=(90, 64))


def copies(rng):
    """Every centroid three times, every point one of them."""
    one = rng.normal(size=(20, 48))
    return one[rng.integers(0, 20, 300)], np.concatenate([one, one[::-1], one])


def halfway(rng):
    """Points between two centroids, give or take a rounding error."""
    centroids = rng.normal(size=(40, 40))
    one, two = rng.integers(0, 40, size=(2, 600))
    middle = (centroids[one] + centroids[two]) / 2
    return middle * (1 + 1e-7 * rng.normal(size=(600, 1))), centroids


def grid(rng):
    return rng.integers(0, 4, size=(800, 3)), rng.permutation(
        np.indices((4, 4, 4)).reshape(3, -1).T
    )


def far_away(rng):
    return rng.normal(size=(500, 64)) + 1000.0, rng.normal(size=(50, 64)) + 1000.0


def outliers(rng):
    """A few points and centroids a thousand times as far away as the rest."""
    points, centroids = rng.normal(size=(600, 33)), rng.normal(size=(50, 33))
    points[::50] *= 1000.0
    centroids[::25] *= 1000.0
    return points, centroids


def points_far_from_all_centroids(rng):
    return rng.normal(size=(300, 40)) * 1e6, rng.normal(size=(60, 40)) * 1e-3


def points_at_the_mean(rng):
    centroids = rng.normal(size=(60, 40))
    return np.repeat(centroids.mean(axis=0)[None], 50, axis=0), centroids


def one_odd_column(rng):
    """One coordinate is ten thousand times the size of all others."""
    points, centroids = rng.normal(size=(500, 50)), rng.normal(size=(50, 50))
    points[:, 7] *= 1e4
    centroids[:, 7] *= 1e4
    return points, centroids


def points_too_near_to_the_mean(rng):
    """Centroids are equally far from it; float64 holds the points' distances to them equal."""
    centroids = np.concatenate([np.eye(40), -np.eye(40)])
    return 1e-18 * rng.normal(size=(200, 40)), centroids


CASES = [
    sentences_like,
    noise,
    copies,
    halfway,
    grid,
    far_away,
    outliers,
    points_far_from_all_centroids,
    points_at_the_mean,
    points_too_near_to_the_mean,
    one_odd_column,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-9, 1e9, 1e18])
@pytest.mark.parametrize("product", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_nearest_is_found(rng, case, product, scale):
    points, centroids = ((a * scale).astype(np.float32) for a in case(rng))
    assert np.array_equal(found(points, centroids, product), brute(points, centroids))


@settings(max_examples=150, deadline=None)
@given(
    m=st.integers(1, 60),
    d=st.integers(1, 40),
    k=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["normal", "grid", "heavy", "few", "shifted"]),
    product=st.sampled_from(KINDS),
)
def test_any_points_and_centroids(m, d, k, seed, kind, product):
    rng = np.random.default_rng(seed)
    points, centroids = rng.normal(size=(m, d)), rng.normal(size=(k, d))
    if kind == "grid":
        points, centroids = points.round(), centroids.round()
    elif kind == "heavy":
        points, centroids = points / rng.random((m, 1)) ** 4, centroids / rng.random((k, 1)) ** 4
    elif kind == "few":
        centroids = centroids[rng.integers(0, k, k)]
        points = centroids[rng.integers(0, k, m)]
    elif kind == "shifted":
        points, centroids = points + 300.0, centroids + 300.0
    points, centroids = points.astype(np.float32), centroids.astype(np.float32)
    assert np.array_equal(found(points, centroids, product), brute(points, centroids))


@pytest.mark.parametrize("product", ["bfloat16", "bytes"])
def test_the_bound_is_needed(rng, monkeypatch, product):
    """With no allowance for errors they decide wrongly: else this file would test nothing."""
    from curation.clustering import scores
    from curation.clustering.halves import Half

    points, centroids = (a.astype(np.float32) for a in halfway(rng))
    monkeypatch.setattr(scores, "SLACK", 0.0)
    monkeypatch.setattr(Half, "_least", lambda self, best, norm, d: best)
    wrong = found(points, centroids, product) != brute(points, centroids)
    assert 0.05 < wrong.mean() < 0.9


@pytest.mark.parametrize("product", KINDS)
@pytest.mark.parametrize("size", [1, 3, 100, 1500])
def test_blocks_and_views_make_no_difference(rng, size, product):
    """Bit for bit, also the totals, and of arrays that are not contiguous."""
    points, centroids = (a.astype(np.float32) for a in sentences_like(rng, d=40))
    closest = Closest(centroids, product=product)
    whole, parts = np.zeros((60, 41)), np.zeros((60, 41))
    expected = over(closest, points, totals=whole)
    strided = np.repeat(points, 2, axis=0)[::2]
    told = [
        over(Closest(np.asfortranarray(centroids), product=product), block, totals=parts)
        for block in (strided[i : i + size] for i in range(0, len(points), size))
    ]
    assert np.array_equal(np.concatenate([c for c, _ in told]), expected[0])
    assert np.array_equal(np.concatenate([v for _, v in told]), expected[1])
    assert np.array_equal(whole, parts)


def test_totals_are_sums_from_the_centroids(rng):
    points, centroids = (a.astype(np.float32) for a in noise(rng))
    totals = np.zeros((90, 65))
    cluster, distance = over(Closest(centroids), points, totals=totals)
    apart = points.astype(np.float64) - centroids[cluster]
    for one in range(90):
        members = apart[cluster == one]
        # differences are rounded to float32, sums of them are not
        assert totals[one, :-1] == pytest.approx(members.sum(axis=0), rel=1e-6, abs=1e-5)
        assert totals[one, -1] == pytest.approx((members**2).sum(), rel=1e-6)
    assert distance == pytest.approx((apart**2).sum(axis=1), rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "scale"), [(np.float64, 1.0), (np.float32, 1.0), (np.float64, 1e18)]
)
def test_threads_make_no_difference(rng, monkeypatch, kind, scale):
    """With totals of the numbers distances are in, and of others."""
    points, centroids = ((scale * a).astype(np.float32) for a in sentences_like(rng, n=4000))
    monkeypatch.setattr("curation.clustering.passes.PIECE", 300)  # else all is one piece
    call, workers = Closest.__call__, set()

    def noted(self, part):
        workers.add(threading.get_ident())
        return call(self, part)

    monkeypatch.setattr(Closest, "__call__", noted)
    seen = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("CURATION_THREADS", threads)
        totals = np.zeros((60, 385), dtype=kind)
        seen.append((*over(Closest(centroids), points, totals=totals), totals))
    assert len(workers) > 2
    for other in seen[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("product", ["bfloat16", "bytes"])
def test_where_rounding_hides_everything_it_is_given_up(rng, monkeypatch, product):
    """Centroids that differ by a rounding error: all are candidates, and float32 takes over."""
    import curation.clustering.closest as module

    monkeypatch.setattr(module, "GIVE_UP", 2)
    centroids = (1.0 + 1e-6 * rng.normal(size=(64, 64))).astype(np.float32)
    centroids[0] += 1.0
    points = (centroids[rng.integers(1, 64, 12_000)]).astype(np.float32)
    closest = Closest(centroids, product=product)
    cluster, _ = over(closest, points)
    assert np.array_equal(cluster, brute(points, centroids))
    assert closest.gave_up


@pytest.mark.parametrize("k", [1, 2])
def test_no_points_and_few_centroids(k):
    centroids = np.zeros((k, 3), dtype=np.float32)
    cluster, distance = assign(np.empty((0, 3), dtype=np.float32), centroids)
    assert len(cluster) == len(distance) == 0
    assert assign(np.ones((4, 3), dtype=np.float32), centroids)[0].tolist() == [0] * 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("product", KINDS)
def test_points_too_large_for_float32_squares(rng, product):
    """Their squares overflow; they are told apart all the same."""
    points = (rng.normal(size=(50, 33)) * 1e30).astype(np.float32)
    assert np.array_equal(found(points, points[:40], product), brute(points, points[:40]))


def many_centroids(rng, k=9000, d=96):
    """Points around more centroids than are looked at one by one, most of them along few axes."""
    spread = 1.0 / np.sqrt(1.0 + np.arange(d))
    centroids = rng.normal(size=(k, d)) * spread
    points = centroids[rng.integers(0, k, 1500)] + 0.3 * rng.normal(size=(1500, d)) * spread
    return points.astype(np.float32), centroids.astype(np.float32)


def test_approximate_assignment_costs_little_more(rng):
    points, centroids = many_centroids(rng)
    assert isinstance(finder(centroids, approximate=True), Leading)
    near, exact = assign(points, centroids, approximate=True), assign(points, centroids)
    own = ((points.astype(np.float64) - centroids[near[0]]) ** 2).sum(axis=1)
    assert near[1] == pytest.approx(own, rel=1e-6)
    assert (near[1] >= exact[1]).all()
    assert near[1].sum() <= 1.02 * exact[1].sum()


@pytest.mark.parametrize("use_bytes", [False, True])
def test_approximate_assignment_does_not_depend_on_blocks_threads_or_products(
    rng, monkeypatch, use_bytes
):
    points, centroids = many_centroids(rng)
    points[3] = centroids.mean(axis=0)  # has more candidates than are compared one by one
    expected = assign(points, centroids, approximate=True)[0]
    monkeypatch.setattr("curation.products.bytes_pay", lambda _: use_bytes)
    monkeypatch.setattr("curation.clustering.passes.PIECE", 100)
    for threads, size in (("1", 1500), ("2", 400)):
        monkeypatch.setenv("CURATION_THREADS", threads)
        blocks = (points[i : i + size] for i in range(0, 1500, size))
        parts = [assign(block, centroids, approximate=True)[0] for block in blocks]
        assert np.array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("product", KINDS)
def test_points_may_be_a_memory_map(rng, tmp_path, product):
    """Read-only, as a file's rows are: nothing is written to them, and nothing is warned of.

    In a process of its own, because torch warns once.
    """
    points, centroids = (a.astype(np.float32) for a in sentences_like(rng, n=400))
    np.save(tmp_path / "points.npy", points)
    np.save(tmp_path / "centroids.npy", centroids)
    code = (
        "import sys, numpy as np\n"
        "from curation.clustering.closest import Closest\n"
        "from curation.clustering.passes import over\n"
        "points = np.load('points.npy', mmap_mode='r')\n"
        f"closest = Closest(np.load('centroids.npy'), product={product!r})\n"
        "np.save('found.npy', over(closest, points)[0])\n"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), brute(points, centroids))
