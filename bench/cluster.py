"""k-means against faiss and scikit-learn, and the assignment pass against the matrix product.

``python -m bench.cluster`` measures everything in one run; ``--part fit|assign|same|many`` a part.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.embedded import sentences
from bench.harness import Ratio, Timings, finish, in_turn, machine
from curation.clustering import Summariser, assign, fit_centroids
from curation.clustering.closest import Closest
from curation.clustering.passes import over
from curation.products import Kind
from curation.threads import count

Vectors = NDArray[np.float32]

ROWS, WIDTH, K = 50_000, 384, 500
PER_CENTROID = 64
FAISS_ITERATIONS = 25
SLOW_ROUNDS = 2  # of scikit-learn
ALL_ROWS, ALL_K = 1_000_000, 1000
BLOCK = 43_690  # rows of 384 float32 values in 64 MiB
LARGE_K = (8192, 16_384)
LARGE_ROWS = 100_000


def mixture(rows: int, *, clouds: int = 700, seed: int = 0) -> Vectors:
    """Return (rows, 384) points of clouds of unequal sizes on a sphere."""
    rng = np.random.default_rng([seed, 0x6D6978])
    centres = rng.standard_normal((clouds, WIDTH), dtype=np.float32)
    shares = rng.gamma(1.0, size=clouds)
    own = rng.choice(clouds, size=rows, p=shares / shares.sum())
    points = centres[own] + rng.standard_normal((rows, WIDTH), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1)[:, None]
    return points


def cost(points: Vectors, centroids: Vectors) -> float:
    """Return the mean squared distance to the nearest centroid, exactly."""
    return float(assign(points, centroids)[1].mean(dtype=np.float64))


def ours(points: Vectors, per_centroid: int = PER_CENTROID) -> Vectors:
    """Fit on a sample, assign all rows, and return the centroids."""
    order = np.random.default_rng(1).permutation(len(points))[: per_centroid * K]
    centroids = fit_centroids(points[order], K, seed=0)
    over(Closest(centroids), points)
    return centroids


def faiss_kmeans(points: Vectors) -> Vectors:
    """Fit by faiss on all rows, assign them, and return the centroids."""
    import faiss

    faiss.omp_set_num_threads(count())
    kmeans = faiss.Kmeans(
        WIDTH, K, niter=FAISS_ITERATIONS, seed=1, max_points_per_centroid=len(points)
    )
    kmeans.train(points)
    kmeans.index.search(points, 1)
    return np.asarray(kmeans.centroids)


def sklearn_kmeans(points: Vectors, *, small_batches: bool) -> Vectors:
    """Fit by scikit-learn, which assigns all rows as it ends, and return the centroids."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if small_batches:
        return MiniBatchKMeans(K, n_init=1, random_state=0).fit(points).cluster_centers_
    found = KMeans(K, n_init=1, max_iter=FAISS_ITERATIONS, random_state=0).fit(points)
    return found.cluster_centers_


def fit_part(name: str, points: Vectors, figures: dict[str, Any]) -> tuple[Timings, list[Ratio]]:
    """Time fit and assignment of all sides, and compare their costs."""
    kept: dict[str, Vectors] = {}

    def side(key: str, run: Callable[[], Vectors]) -> Callable[[], None]:
        def timed() -> None:
            kept[key] = run()

        return timed

    timings = in_turn(
        {
            "curation": side("curation", lambda: ours(points)),
            "faiss": side("faiss", lambda: faiss_kmeans(points)),
        }
    )
    slow = in_turn(
        {
            name: side(name, lambda small=small: sklearn_kmeans(points, small_batches=small))
            for name, small in (("MiniBatchKMeans", True), ("KMeans", False))
        },
        repeats=SLOW_ROUNDS,
        warm_up=False,
    )
    timings.seconds.update(slow.seconds)
    costs = {key: cost(points, centroids) for key, centroids in kept.items()}
    figures[f"{name}: cost per row"] = {key: round(value, 5) for key, value in costs.items()}
    target = name == "sentences"
    return timings, [
        Ratio(
            f"{name}: fit and assign, time over faiss's {FAISS_ITERATIONS} iterations",
            timings.ratio("curation", "faiss"),
            0.30 if target else np.inf,
            False,
            timings.spread("curation", "faiss"),
        ),
        Ratio(
            f"{name}: cost over all rows, over faiss's",
            costs["curation"] / costs["faiss"],
            1.025 if target else np.inf,
            False,
        ),
    ]


def many_rows(rows: int = ALL_ROWS) -> Vectors:
    """Return (rows, 384) points: sentences again and again, each time moved by a fifth."""
    base = np.array(sentences())
    rng = np.random.default_rng(2)
    found = np.empty((rows, WIDTH), dtype=np.float32)
    for start in range(0, rows, len(base)):
        part = found[start : start + len(base)]
        rng.standard_normal(out=part, dtype=np.float32)
        part *= np.float32(0.2 / np.sqrt(WIDTH))
        part += base[: len(part)]
    return found


def assign_part(figures: dict[str, Any]) -> tuple[Timings, list[Ratio]]:
    """Time the pass over a million rows, in blocks of 64 MiB, against the product alone."""
    import faiss

    points = many_rows()
    centroids = fit_centroids(points[:PER_CENTROID * ALL_K], ALL_K, seed=0)  # fmt: skip
    blocks = [points[i : i + BLOCK] for i in range(0, ALL_ROWS, BLOCK)]
    right = np.ascontiguousarray(centroids.T)
    out = np.empty((8192, ALL_K), dtype=np.float32)

    def product() -> None:
        for start in range(0, ALL_ROWS, len(out)):
            part = points[start : start + len(out)]
            np.matmul(part, right, out=out[: len(part)])

    def by(product: Kind) -> Callable[[], None]:
        def run() -> None:
            finder = Closest(centroids, product=product)
            for block in blocks:
                over(finder, block)

        return run

    def summary() -> None:
        found = Summariser(centroids)
        for block in blocks:
            found.add(block)

    def by_faiss() -> None:
        faiss.omp_set_num_threads(count())
        index = faiss.IndexFlatL2(WIDTH)
        index.add(centroids)
        for block in blocks:
            index.search(block, 1)

    timings = in_turn(
        {
            "matrix product": product,
            "curation, float32": by("float32"),
            "curation, bytes": by("bytes"),
            "curation, bfloat16": by("bfloat16"),
            "curation, summary": summary,
            "faiss search": by_faiss,
        }
    )
    rate = ALL_ROWS * WIDTH * ALL_K / timings.median("matrix product")
    figures["matrix product, multiply-adds a second"] = f"{rate:.4g}"

    def share(side: str, bound: float) -> Ratio:
        return Ratio(
            f"assignment of {ALL_ROWS:,} rows, {side}: rate over the matrix product's",
            timings.ratio("matrix product", side),
            bound,
            True,
            timings.spread("matrix product", side),
        )

    narrow = ("curation, bytes", "curation, bfloat16")
    best = min(narrow, key=timings.median)
    return timings, [
        share("faiss search", 0.0),
        share("curation, summary", 0.0),
        *(share(one, 0.0) for one in narrow if one != best),
        share("curation, float32", 0.85),
        share(best, 1.10),
    ]


SAME = """
import hashlib, sys
import numpy as np
from curation.threads import set_defaults
set_defaults()
import curation
from bench.cluster import mixture
from curation.clustering import Points, Summariser, fit_centroids
points = mixture(20_000)
mib = int(sys.argv[1])
told = hashlib.sha256()
centroids = fit_centroids(points[:6400], 200, seed=0)
found = Summariser(centroids)
cluster = np.concatenate([found.add(block) for _, block in Points(points, block_mib=mib).blocks()])
summary = found.finish()
for array in (centroids, cluster, summary.medoid_rows, summary.centroid_cost, summary.medoid_cost):
    told.update(np.ascontiguousarray(array).tobytes())
labels = (points[:, 0] > 0).astype(np.int64)
score = np.abs(points[:, 1]).astype(np.float64) + 0.1
chosen = curation.select(
    points, budget=500, k=64, score=score, labels=labels, seed=3, block_mib=mib
)
for array in (chosen.indices, chosen.weights, chosen.inclusion_probability):
    told.update(np.ascontiguousarray(array).tobytes())
print(told.hexdigest())
"""


def same_part(figures: dict[str, Any]) -> list[Ratio]:
    """Compare fit, pass and selection for several numbers of threads and sizes of blocks."""
    told = {}
    for threads in (1, 2):
        for mib in (1, 16, 64, 256):
            bare = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
            shown = subprocess.run(
                [sys.executable, "-c", SAME, str(mib)],
                env={**bare, "CURATION_THREADS": str(threads)},
                capture_output=True,
                text=True,
                check=True,
            )
            told[f"{threads} threads, {mib} MiB"] = shown.stdout.strip()
    figures["fit, pass and selection, digests"] = {k: v[:12] for k, v in told.items()}
    return [
        Ratio(
            "distinct results of 1 and 2 threads, 1 to 256 MiB (1: all are equal)",
            len({*told.values()}),
            1,
            False,
        )
    ]


def many_part(figures: dict[str, Any]) -> tuple[dict[str, Timings], list[Ratio]]:
    """Compare approximate with exact assignment where there are very many centroids."""
    points = many_rows(LARGE_ROWS)
    timings, ratios = {}, []
    for k in LARGE_K:
        order = np.random.default_rng(3).permutation(len(points))
        centroids = fit_centroids(points[order[: 4 * k]], k, iterations=3, seed=0)
        found = {}

        def run(key: str, approximate: bool, found: dict[str, Any], centroids: Vectors) -> None:
            found[key] = assign(points, centroids, approximate=approximate)

        timed = in_turn(
            {
                "exact": lambda c=centroids, f=found: run("exact", False, f, c),
                "approximate": lambda c=centroids, f=found: run("approximate", True, f, c),
            },
            repeats=3,
        )
        timings[f"assignment, k = {len(centroids)}"] = timed
        (exact, near), (other, far) = found["exact"], found["approximate"]
        figures[f"k = {len(centroids)}: points whose centroid is the nearest"] = float(
            (exact == other).mean()
        )
        ratios += [
            Ratio(
                f"k = {len(centroids)}: approximate over exact assignment, time",
                timed.ratio("approximate", "exact"),
                1.0,
                False,
            ),
            Ratio(
                f"k = {len(centroids)}: approximate over exact assignment, cost",
                float(far.sum(dtype=np.float64) / near.sum(dtype=np.float64)),
                np.inf,
                False,
            ),
        ]
    return timings, ratios


def main() -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["fit", "assign", "same", "many"])
    part = parser.parse_args().part
    before = machine()
    figures: dict[str, Any] = {"rows, width, k of the fit": (ROWS, WIDTH, K)}
    timings: dict[str, Timings] = {}
    ratios: list[Ratio] = []
    if part in (None, "fit"):
        for name, points in (("mixture", mixture(ROWS)), ("sentences", np.array(sentences()))):
            timings[f"fit and assign, {name}"], found = fit_part(name, points, figures)
            ratios += found
    if part in (None, "many"):
        more, found = many_part(figures)
        timings.update(more)
        ratios += found
    if part in (None, "same"):
        ratios += same_part(figures)
    if part in (None, "assign"):
        timings["assignment pass"], found = assign_part(figures)
        ratios += found
    name = "cluster" if part is None else f"cluster-{part}"
    return finish(name, ratios, timings=timings, figures=figures, before=before)


if __name__ == "__main__":
    sys.exit(main())
