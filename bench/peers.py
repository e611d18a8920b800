"""Other people's selectors, each in a process of its own: ``python -m bench.peers NAME FILE ...``.

It runs in the peers' environment (``.venv-peers``), where nothing of ours is installed, and for our
side with the project's own interpreter. A process loads the rows, imports what it times, and then
runs once for every seed it is given; the answer says how long it took and which rows were chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Chosen = tuple[NDArray[np.int64], NDArray[np.float64] | None]
"""(s,) rows, and their weights where the method has any."""
Method = Callable[[Rows, int, int], Chosen]
"""(n, d) rows, how many to choose, a seed."""


@dataclass(frozen=True)
class Peer:
    """A way of choosing rows.

    Attributes
    ----------
    title, package
        What it is called in the table, and the package it comes from.
    load
        Imports what is needed and returns the function that is timed.
    square
        Bytes it holds for every pair of rows, to know beforehand what does not fit.
    slower
        Whether ours must be faster.
    seeded
        Whether it draws: another seed is another choice.
    own
        Whether it runs in the project's own environment, whose packages it is of.
    """

    title: str
    package: str
    load: Callable[[], Method]
    square: float = 0.0
    slower: bool = True
    seeded: bool = False
    own: bool = False


def ours() -> Method:
    """Return `curation.select` with everything left at its default."""
    import curation
    import curation.selection

    scores = np.load(os.environ["BENCH_SCORES"])

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        found = curation.select(rows, scores[: len(rows)], budget=budget, seed=seed)
        return found.indices, found.weights

    return run


def uniform() -> Method:
    """Return rows drawn without replacement."""

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        chosen = np.random.default_rng(seed).choice(len(rows), budget, replace=False)
        return chosen, np.full(budget, len(rows) / budget)

    return run


def lightweight() -> Method:
    """Return lightweight coresets (Bachem, Lucic and Krause 2018, algorithm 1)."""

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        centred = rows - rows.mean(axis=0)
        squared = np.einsum("ij,ij->i", centred, centred).astype(np.float64)
        law = 0.5 / len(rows) + 0.5 * squared / squared.sum()
        chosen = np.random.default_rng(seed).choice(len(rows), budget, p=law / law.sum())
        return chosen, 1.0 / (budget * law[chosen])

    return run


def k_center() -> Method:
    """Return greedy k-center (Gonzalez 1985; Sener and Savarese 2018): the farthest row, again."""

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        squared = np.einsum("ij,ij->i", rows, rows)
        chosen = np.empty(budget, dtype=np.int64)
        chosen[0] = np.random.default_rng(seed).integers(len(rows))
        nearest = np.full(len(rows), np.inf, dtype=np.float32)
        for i in range(budget):
            if i:
                chosen[i] = nearest.argmax()
            away = squared - 2.0 * (rows @ rows[chosen[i]])
            away += squared[chosen[i]]
            np.minimum(nearest, away, out=nearest)
        return chosen, None

    return run


def active_learning() -> Method:
    """Return scikit-activeml's CoreSet, which is greedy k-center, with no row labelled."""
    from skactiveml.pool import CoreSet

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        labels = np.full(len(rows), np.nan)
        return CoreSet(random_state=seed).query(rows, labels, batch_size=budget), None

    return run


def farthest_points() -> Method:
    """Return skmatter's FPS, which is greedy k-center."""
    from skmatter.sample_selection import FPS

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        fitted = FPS(n_to_select=budget, initialize="random", random_state=seed).fit(rows)
        return fitted.selected_idx_, None

    return run


def apricot(optimizer: str) -> Callable[[], Method]:
    """Return facility location on all pairs by apricot."""

    def load() -> Method:
        from apricot import FacilityLocationSelection

        def run(rows: Rows, budget: int, seed: int) -> Chosen:
            fitted = FacilityLocationSelection(
                budget, metric="cosine", optimizer=optimizer, random_state=seed
            ).fit(rows)
            return fitted.ranking[:budget], None

        return run

    return load


def apricot_neighbours() -> Method:
    """Return apricot's facility location on ten neighbours of every row.

    The graph is made here: given dense rows and a number of neighbours, version 0.6.1 fails.
    """
    from apricot import FacilityLocationSelection
    from sklearn.neighbors import kneighbors_graph

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        graph = kneighbors_graph(rows, 10, mode="distance", metric="cosine", include_self=True)
        graph.data = 1.0 - graph.data
        found = FacilityLocationSelection(budget, metric="precomputed", random_state=seed)
        return found.fit(graph.maximum(graph.T).tocsr()).ranking[:budget], None

    return run


def submodlib(mode: str, optimizer: str) -> Callable[[], Method]:
    """Return facility location by submodlib, on all pairs or on ten neighbours of every row."""

    def load() -> Method:
        from submodlib import FacilityLocationFunction

        def run(rows: Rows, budget: int, seed: int) -> Chosen:
            sparse = {"num_neighbors": 10} if mode == "sparse" else {}
            function = FacilityLocationFunction(
                n=len(rows), mode=mode, data=rows, metric="cosine", **sparse
            )
            found = function.maximize(budget=budget, optimizer=optimizer, show_progress=False)
            return np.array([row for row, _ in found], dtype=np.int64), None

        return run

    return load


def herding() -> Method:
    """Return coreax's kernel herding; the length scale is the data's own: rows have length 1."""
    from coreax import Data
    from coreax.kernels import SquaredExponentialKernel
    from coreax.solvers import KernelHerding

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        solver = KernelHerding(
            coreset_size=budget, kernel=SquaredExponentialKernel(length_scale=1.0), block_size=1000
        )
        found, _ = solver.reduce(Data(rows))
        return np.asarray(found.unweighted_indices, dtype=np.int64), None

    return run


def k_means(mini: bool) -> Callable[[], Method]:
    """Return the rows nearest to scikit-learn's centroids, weighted by the size of the clusters."""

    def load() -> Method:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.metrics import pairwise_distances_argmin

        def run(rows: Rows, budget: int, seed: int) -> Chosen:
            kind = MiniBatchKMeans if mini else KMeans
            fitted = kind(budget, n_init=1, random_state=seed).fit(rows)
            size = np.bincount(fitted.labels_, minlength=budget).astype(np.float64)
            return pairwise_distances_argmin(fitted.cluster_centers_, rows), size

        return run

    return load


def faiss_k_means() -> Method:
    """Return the rows nearest to faiss' centroids, weighted by the size of the clusters."""
    import faiss

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        d = rows.shape[1]
        fitted = faiss.Kmeans(d, budget, seed=seed + 1, max_points_per_centroid=10**9)
        fitted.train(rows)
        size = np.bincount(fitted.index.search(rows, 1)[1][:, 0], minlength=budget)
        index = faiss.IndexFlatL2(d)
        index.add(rows)
        return index.search(fitted.centroids, 1)[1][:, 0], size.astype(np.float64)

    return run


def sensitivity() -> Method:
    """Return the package `coresets`' sensitivity sampling for k-means."""
    from coresets import KMeansCoreset

    def run(rows: Rows, budget: int, seed: int) -> Chosen:
        np.random.seed(seed)  # noqa: NPY002  (it draws from the global generator)
        built = KMeansCoreset(rows, n_clusters=100, random_state=seed)
        points, weights = built.generate_coreset(budget)
        return _rows_of(rows, points), np.asarray(weights, dtype=np.float64)

    return run


def _rows_of(rows: Rows, points: Rows) -> NDArray[np.int64]:
    """Return which rows some points are, for a package that returns the points."""
    place = {row.tobytes(): i for i, row in enumerate(rows)}
    return np.array([place[point.astype(np.float32).tobytes()] for point in points])


PEERS: dict[str, Peer] = {
    "ours": Peer("curation.select", "curation", ours, seeded=True, own=True),
    "uniform": Peer("uniform rows", "numpy", uniform, slower=False, seeded=True, own=True),
    "lightweight": Peer(
        "lightweight coreset", "numpy", lightweight, slower=False, seeded=True, own=True
    ),
    "k-center": Peer("k-center greedy", "numpy", k_center, seeded=True, own=True),
    "skmatter": Peer("FPS (k-center greedy)", "skmatter", farthest_points, seeded=True),
    "activeml": Peer("CoreSet (k-center greedy)", "scikit-activeml", active_learning, seeded=True),
    "faiss": Peer("Kmeans, nearest rows", "faiss-cpu", faiss_k_means, seeded=True, own=True),
    "minibatch": Peer(
        "MiniBatchKMeans, nearest rows", "scikit-learn", k_means(True), seeded=True, own=True
    ),
    "kmeans": Peer("KMeans, nearest rows", "scikit-learn", k_means(False), seeded=True, own=True),
    "coresets": Peer("sensitivity sampling", "coresets", sensitivity, seeded=True),
    "coreax": Peer("kernel herding", "coreax", herding),
    "submodlib-sparse": Peer(
        "facility location, 10 neighbours",
        "submodlib-py",
        submodlib("sparse", "LazyGreedy"),
        square=8.0,
    ),
    "submodlib": Peer(
        "facility location, lazy", "submodlib-py", submodlib("dense", "LazyGreedy"), square=20.0
    ),
    "submodlib-stochastic": Peer(
        "facility location, stochastic",
        "submodlib-py",
        submodlib("dense", "StochasticGreedy"),
        square=20.0,
        seeded=True,
    ),
    "apricot": Peer("facility location, lazy", "apricot-select", apricot("lazy"), square=8.0),
    "apricot-stochastic": Peer(
        "facility location, stochastic",
        "apricot-select",
        apricot("stochastic"),
        square=8.0,
        seeded=True,
    ),
    "apricot-neighbours": Peer(
        "facility location, 10 neighbours", "apricot-select", apricot_neighbours
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one peer for every seed that comes in, and answer with a line of JSON each."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("name", choices=sorted(PEERS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    asked = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])])
    with _answers() as answer:
        method = PEERS[asked.name].load()
        rows = np.array(np.load(asked.file, mmap_mode="r")[: asked.rows])
        method(rows[:2000].copy(), 20, 0)  # what is compiled or opened at the first call
        answer({"version": version(PEERS[asked.name].package)})
        for line in sys.stdin:
            answer(_run(method, rows, asked.budget, int(line)))


def _run(method: Method, rows: Rows, budget: int, seed: int) -> dict[str, Any]:
    """Time one choice, and what it held in memory on top of the rows and the libraries."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    held = _status("VmRSS")
    used, began = _processor_seconds(), time.perf_counter()
    chosen, weights = method(rows, budget, seed)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu": _processor_seconds() - used,
        "mib": _status("VmHWM") - held,
        "indices": np.asarray(chosen).tolist(),
        "weights": None if weights is None else np.asarray(weights).tolist(),
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _status(name: str) -> float:
    """Return a figure of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024.0
    return float("nan")


@contextmanager
def _answers() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keep the standard output for answers: what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)

        def answer(told: dict[str, Any]) -> None:
            out.write(json.dumps(told) + "\n")
            out.flush()

        yield answer


if __name__ == "__main__":
    main()
