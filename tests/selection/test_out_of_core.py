"""More rows than are held in memory: the same rows and weights, and memory that hardly grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import curation
from curation import memory
from curation.clustering import Points
from curation.mapped import Mapped
from curation.selection import columns
from curation.selection.columns import Column
from curation.selection.per_row import find_tags, smallest, to_medoid, to_medoids

IN_MEMORY = 1 << 18


def never_asked(rows):
    raise AssertionError(f"the score was asked for {len(rows)} rows")


def make_rows(n: int, *, ties: bool = False, seed: int = 0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 4)).astype(np.float32)
    if ties:  # many rows at equal distances, in bands of equal proxies
        points = np.round(points)
    return points, np.exp(points[:, 0]) * rng.gamma(1.0, 1.0, size=n) ** 2


def names(n: int) -> np.ndarray:
    return np.array([f"row {i}" for i in range(n)])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("n", "budget", "at_a_time", "options"),
    [
        (3000, 300, 700, {}),
        (3000, 300, 64, {"proxy": "cluster", "mix": 0.1}),
        (1200, 1000, 400, {"k": 50}),  # many rows are certain
        (1000, 1000, 300, {}),
        (1500, 3, 400, {}),  # one stratum of all rows
        (1500, 1, 400, {}),
        (1500, 150, 400, {"z": 1, "ids": names(1500)}),
        (1500, 150, 400, {"labels": np.arange(1500) % 3, "space": "embedding+label"}),
        (1500, 150, 400, {"constants": "quantile", "seed": 5}),
        (1500, 150, 400, {"design": "stratified"}),
        (1500, 150, 400, {"design": "iid"}),
        (1500, 150, 400, {"groups": np.arange(1500) % 2, "minimum": 20}),
    ],
)
def test_what_is_kept_on_disk_gives_the_same_rows_and_weights(
    n, budget, at_a_time, options, ties, monkeypatch
):
    """Sums over rows are rounded another way; nothing else may differ."""
    points, scores = make_rows(n, ties=ties)
    plain = curation.select(points, scores, budget=budget, **options)
    values = scores[plain.indices]
    monkeypatch.setattr(columns, "AT_A_TIME", at_a_time)
    chosen = curation.select(points, scores, budget=budget, **options)
    assert isinstance(chosen._state.order, Column) == (
        "design" not in options and "minimum" not in options
    )
    same(plain, chosen)
    assert np.array_equal(np.asarray(plain._state.order), np.asarray(chosen._state.order))
    assert np.asarray(chosen._state.law) == pytest.approx(plain._state.law, rel=1e-12)
    assert chosen.certificate.radius == pytest.approx(plain.certificate.radius, rel=1e-12)
    assert chosen.certificate.additive == pytest.approx(plain.certificate.additive, rel=1e-12)
    for row in (0, 7, int(chosen.indices[0])):
        for told, expected in zip(
            chosen.explain(row).values(), plain.explain(row).values(), strict=True
        ):
            assert told == (
                pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected
            )
    assert chosen.to_frame().height == len(chosen)
    if 10 < budget < n:
        for method in ("ht", "difference", "calibrated"):
            one, two = (it.estimate(values, method=method) for it in (plain, chosen))
            assert one.value == pytest.approx(two.value, rel=1e-9)
        if plain._state.fitted.smoothness.pilot_rows == 0:
            return  # none were asked for: nothing is known of errors
        assert chosen.error_curve([20])["relative_error"][0] == pytest.approx(
            plain.error_curve([20])["relative_error"][0], rel=1e-9
        )
        same(plain.at_budget(budget // 2), chosen.at_budget(budget // 2))


def same(one: curation.Selection, two: curation.Selection) -> None:
    assert np.array_equal(one.indices, two.indices)
    assert np.array_equal(one.cluster, two.cluster)
    assert one.weights == pytest.approx(two.weights, rel=1e-12)
    assert one.score == pytest.approx(two.score, rel=1e-12)
    assert one.reason.tolist() == two.reason.tolist()


def test_strata_are_kept_from_a_selection_on_disk(monkeypatch):
    points, scores = make_rows(3000)
    before, after = np.arange(2800), np.arange(100, 3000)
    kept = {}
    for at_a_time in (IN_MEMORY, 700):
        monkeypatch.setattr(columns, "AT_A_TIME", at_a_time)
        first = curation.select(points[before], scores[before], ids=before, budget=300)
        kept[at_a_time] = curation.select(
            points[after], never_asked, ids=after, budget=300, previous=first
        )
        assert kept[at_a_time]._state.cuts() is not None
    same(kept[IN_MEMORY], kept[700])


def test_a_row_that_would_never_be_drawn_is_refused_on_disk(monkeypatch):
    monkeypatch.setattr(columns, "AT_A_TIME", 8)
    points = np.repeat(np.eye(2), 10, axis=0)
    with pytest.raises(ValueError, match=r"10 rows would never be drawn.*raise mix"):
        curation.select(points, np.repeat([0.0, 1.0], 10), budget=5, k=2, mix=0.0, proxy="cluster")


@pytest.mark.parametrize("block_mib", [1, 16, 256])
def test_a_memory_map_is_as_good_as_an_array(block_mib, tmp_path):
    points, scores = make_rows(50_000)
    points = np.hstack([points] * 6)  # 4.6 MiB
    np.save(tmp_path / "points.npy", points)
    plain = curation.select(points, scores, budget=100)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    for source in (mapped, tmp_path / "points.npy", str(tmp_path / "points.npy")):
        same(plain, curation.select(source, scores, budget=100, block_mib=block_mib))
    part = curation.select(mapped[1000:], scores[1000:], budget=100, block_mib=block_mib)
    same(curation.select(points[1000:], scores[1000:], budget=100), part)


def test_a_path_that_is_no_array_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"rows.csv: expected the path of an .npy file"):
        curation.select(tmp_path / "rows.csv", never_asked, budget=1)
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy"):
        curation.select(tmp_path / "objects.npy", never_asked, budget=1)


def test_changes_to_a_private_copy_of_a_map_are_not_lost(tmp_path):
    """Letting go of its pages would bring back what the file says."""
    array = np.zeros((5000, 4), dtype=np.float32)
    np.save(tmp_path / "points.npy", array)
    for mode, let_go in (("c", False), ("r+", True), ("r", True)):
        source = np.load(tmp_path / "points.npy", mmap_mode=mode)
        if mode != "r":
            source[:] = 7.0
        assert (Mapped.behind(source) is not None) == let_go
        assert (Mapped.behind(np.asarray(source)[10:]) is not None) == let_go
        points = Points(source)
        for _ in range(2):
            assert all((block == 7.0).all() for _, block in points.blocks())
        assert (points.take(np.array([4999, 3, 3])) == 7.0).all()


@pytest.mark.parametrize("mapped", [False, True])
def test_blocks_backwards_are_the_same_blocks(mapped, monkeypatch, tmp_path):
    monkeypatch.setattr("curation.clustering.points.MIB", 4 * 4 * 30)  # 30 rows a block
    points, _ = make_rows(1000)
    if mapped:
        np.save(tmp_path / "points.npy", points)
        points = np.load(tmp_path / "points.npy", mmap_mode="r")
    forwards = [(p, b.copy()) for p, b in Points(points, block_mib=1).blocks()]
    turned = [(p, b.copy()) for p, b in Points(points, block_mib=1).blocks(backwards=True)]
    assert turned[0][0].stop == 1000
    assert len(forwards) > 10
    backwards = turned[::-1]
    for (place, block), (other, again) in zip(forwards, backwards, strict=True):
        assert place == other
        assert np.array_equal(block, again)


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64])
def test_a_column_is_read_like_an_array(dtype, rng, monkeypatch):
    monkeypatch.setattr(columns, "AT_A_TIME", 1000)
    values = rng.integers(0, 1 << 30, size=20_000).astype(dtype)
    column = Column(len(values), dtype)
    for start in range(0, len(values), 777):
        column[start : min(start + 777, len(values))] = values[start : start + 777]
    rows = rng.integers(0, len(values), size=500)
    assert np.array_equal(column[rows], values[rows])
    assert np.array_equal(column[rows[:0]], values[:0])
    assert np.array_equal(column[5:19_000], values[5:19_000])
    assert np.array_equal(column[::7], values[::7])
    assert column[19_999] == values[-1]
    assert np.array_equal(np.asarray(column), values)
    assert column[rows].dtype == dtype


def test_the_smallest_are_those_of_a_stable_sort(rng):
    values = rng.integers(0, 300, size=5000).astype(float)
    for wanted in (0, 1, 30, 4999, 6000):
        blocks = (
            (np.arange(start, start + 100), values[start : start + 100])
            for start in range(0, 5000, 100)
        )
        expected = np.argsort(values, kind="stable")[:wanted]
        assert np.array_equal(smallest(blocks, wanted), expected)


def test_tags_are_found_where_they_are(rng):
    tags = rng.random(5000)
    wanted = np.array([tags[17], 0.5, tags[4999], tags[0]])
    assert find_tags(tags, wanted).tolist() == [17, -1, 4999, 0]
    assert find_tags(tags, wanted[:0]).tolist() == []


@pytest.mark.parametrize("z", [1, 2])
def test_distances_do_not_depend_on_chunks_and_threads(z, rng, monkeypatch):
    points = rng.normal(size=(10_001, 5)).astype(np.float32) * 100
    medoids, cluster = points[:7], rng.integers(0, 7, size=10_001).astype(np.int32)
    expected = to_medoid(points, medoids[cluster], z)
    for threads in (1, 2, 3):
        monkeypatch.setenv("CURATION_THREADS", str(threads))
        assert np.array_equal(to_medoids(points, medoids, cluster, z), expected)


CHILD = """
import json, sys, time
from curation.threads import set_defaults
set_defaults()
import numpy as np
import curation
from curation import memory
from curation.sampling import permanent_random_numbers
path, budget = sys.argv[1], int(sys.argv[2])
score = lambda rows: permanent_random_numbers(rows, seed=1)
import faiss, scipy.optimize, scipy.linalg
before = memory.resident()
n, d = np.load(path, mmap_mode="r").shape
plan = curation.memory_needed(n, d, budget=budget, block_mib=8)
began = time.perf_counter()
chosen = curation.select(path, score, budget=budget, block_mib=8)
took = time.perf_counter() - began
print(json.dumps({"grown": memory.peak() - before, "plan": plan.bytes, "seconds": took,
                  "total": float(chosen.weights.sum())}))
"""


def run_child(path: Path, budget: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(budget)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def write_rows(path: Path, n: int, d: int) -> Path:
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    for start in range(0, n, 50_000):
        block = rng.standard_normal((min(50_000, n - start), d), dtype=np.float32)
        file[start : start + 50_000] = block + np.float32(4.0) * np.sign(block[:, :1])
    return path


@pytest.mark.parametrize("how", ["forwards", "backwards", "here and there"])
def test_what_was_read_of_a_map_is_let_go(how, tmp_path):
    """A file of 98 MiB in blocks of 4: without that, all of it would be resident in the end."""
    mapped = np.load(write_rows(tmp_path / "rows.npy", 200_000, 128), mmap_mode="r")
    points, before, most = Points(mapped, block_mib=4), memory.resident(), 0
    if how == "here and there":
        points.take(np.arange(0, 200_000, 50))
        most = memory.resident()
    else:
        for _ in points.blocks(backwards=how == "backwards"):
            most = max(most, memory.resident())
    assert most - before < 32 << 20


def test_memory_grows_by_bytes_a_row_and_keeps_what_it_promised(tmp_path):
    """Of 400,000 rows more the embeddings take 64 bytes each and their numbers 180 in arrays."""
    few = run_child(write_rows(tmp_path / "few.npy", 500_000, 16), 1000)
    many = run_child(write_rows(tmp_path / "many.npy", 900_000, 16), 1000)
    assert (many["grown"] - few["grown"]) / 400_000 < 32.0
    for found in (few, many):
        assert found["grown"] <= found["plan"] <= 2.0 * found["grown"]
    assert few["total"] == pytest.approx(500_000, rel=0.2)
