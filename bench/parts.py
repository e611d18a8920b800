"""The parts of the benchmark besides the errors: arrivals, number of clusters, cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import curation
from bench.measures import Effort, Tally, choose, redraw, remembered, uniform_error
from bench.problems import Problem, load
from curation import clustering, sampling
from curation.selection.per_row import sorted_by

Note = Callable[[str], None]
Rows = NDArray[np.int64]

SHARDS = 20
ARRIVALS = (
    ("fashion-1200", "embedding+label"),
    ("fashion-1200", "gradient"),
    ("reviews", "embedding+label"),
    ("smooth", "embedding"),
)
ARRIVAL_BUDGETS = (1000, 4000)

CLUSTERED = ("fashion-1200", "reviews", "smooth")
NUMBERS = (25, 50, 100, 200, 400, 800)
EVALUATIONS = (500, 1600, 5000)
"""Totals of queries and rows at which numbers of clusters are compared."""

COST = {"rows": 1_000_000, "dimension": 384, "clusters": 1000, "budget": 10_000, "block": 100_000}
REPEATS = 3


def stability(wanted: list[str], options: Any, note: Note) -> list[dict[str, Any]]:
    """Measure what changes when a shard arrives, and that nothing changes when nothing does."""
    found: list[dict[str, Any]] = []
    for name, space in ARRIVALS:
        if name not in wanted:
            continue
        problem = load(name)
        for s in ARRIVAL_BUDGETS:
            for share in (False, True):
                for kept in (True, False):
                    found.append(arrival(problem, space, s, share=share, kept=kept))
                    told = found[-1]
                    note(
                        f"{name} {space} s {s} {told['given']}, {told['fit']}: "
                        f"{told['stay']:.1%} stay, {told['left_unfallen']} left unfallen"
                    )
        found.append({"problem": name, "space": space, "same": sameness(problem, space)})
        note(f"{name} {space}: {found[-1]['same']}")
    return found


def shards(n: int) -> Rows:
    """Return the shard of each row, 0 to 19, fixed and at random."""
    return np.random.default_rng(20).permutation(np.arange(n) % SHARDS)


def arrival(
    problem: Problem, space: str, s: int, *, share: bool, kept: bool, seed: int = 0
) -> dict[str, Any]:
    """Select from 19 shards, then from 20, and compare.

    Parameters
    ----------
    problem, space, s
        What is selected from, and how many rows of all.
    share
        Whether the budget is a share of the rows there are, or the same number before and after.
    kept
        Whether the second selection keeps what the first has learned (``previous``).
    seed
        Of both.

    Returns
    -------
    dict
        ``stay``: share of the earlier rows that are chosen again; ``possible``: the largest share
        that the two sets of inclusion probabilities allow on average; ``left_unfallen``: how many
        rows left although their inclusion probability did not fall.
    """
    n = len(problem.score)
    early = np.flatnonzero(shards(n) != SHARDS - 1)
    size: dict[str, Any] = {"fraction": s / n} if share else {"budget": s}
    before = _select(problem, early, space, seed, size)
    after = _select(problem, np.arange(n), space, seed, size, previous=before if kept else None)
    own = early[before.indices]
    left = own[~np.isin(own, after.indices)]
    then, now = np.zeros(n), _chances(after)
    then[early] = _chances(before)
    fell = now[left] < then[left] * (1.0 - 1e-9)
    return {
        "problem": problem.name,
        "space": space,
        "s": s,
        "given": "fraction" if share else "budget",
        "fit": "kept" if kept else "anew",
        "before": len(before),
        "after": len(after),
        "stay": 1.0 - len(left) / len(own),
        "possible": float(np.minimum(then, now).sum() / then.sum()),
        "left": len(left),
        "left_unfallen": int((~fell).sum()),
    }


def sameness(problem: Problem, space: str, s: int = 1000) -> dict[str, bool]:
    """Return whether order of the rows, size of the blocks and threads leave the choice alone."""
    n = len(problem.score)
    size = {"budget": s}
    first = np.sort(_select(problem, np.arange(n), space, 0, size).indices)
    moved = np.random.default_rng(1).permutation(n)
    ordered = _select(problem, moved, space, 0, size)
    blocks = _select(problem, np.arange(n), space, 0, size, block_mib=1)
    found = {
        "order": bool(np.array_equal(np.sort(moved[ordered.indices]), first)),
        "blocks": bool(np.array_equal(np.sort(blocks.indices), first)),
    }
    for threads in (1, 2):
        told = _elsewhere("ids", threads, problem.name, space, str(s))
        found[f"{threads} threads"] = told == first.tolist()
    return found


def ids(name: str, space: str, s: str) -> list[int]:
    """Return the rows that are chosen, for another process to compare."""
    problem = load(name)
    everything = np.arange(len(problem.score))
    rows: list[int] = _select(problem, everything, space, 0, {"budget": int(s)}).indices.tolist()
    return rows


def clusters(wanted: list[str], options: Any, note: Note) -> list[dict[str, Any]]:
    """Measure the error against the number of clusters, at equal rows and equal evaluations."""
    effort = Effort(options.fits, options.draws)
    with remembered():
        return [
            found
            for name in CLUSTERED
            if name in wanted
            for found in numbers_of_clusters(load(name), effort, note)
        ]


def numbers_of_clusters(problem: Problem, effort: Effort, note: Note) -> list[dict[str, Any]]:
    """Return ratios to uniform for each number of clusters."""
    space = problem.spaces[min(1, len(problem.spaces) - 1)]
    found: list[dict[str, Any]] = []
    for k in NUMBERS:
        tallies: dict[int, Tally] = {}
        queries = 0
        for fit in range(effort.fits):
            selection = choose(problem, space, 1000, fit, k=k)
            queries = selection.queries
            sizes = {1000, *(total - queries for total in EVALUATIONS)}
            for s in sorted(size for size in sizes if 20 <= size < len(problem.score) / 2):
                tally = tallies.setdefault(s, Tally())
                _draw_totals(problem, selection, tally, s, (fit, effort.draws))
        uniform = partial(uniform_error, problem.score)
        found.append(
            {
                "problem": problem.name,
                "space": space,
                "k": k,
                "queries": queries,
                "equal_rows": tallies[1000].summary(uniform(1000)),
                "equal_evaluations": {
                    total: tallies[total - queries].summary(uniform(total))
                    for total in EVALUATIONS
                    if total - queries in tallies
                },
            }
        )
        note(f"{problem.name}: k {k}: {found[-1]['equal_rows']['ratio']:.3f} at 1,000 rows")
    return found


def cost(wanted: list[str], options: Any, note: Note) -> list[dict[str, Any]]:
    """Time a draw from a million rows against the assignment of those rows to 1,000 clusters."""
    found = []
    for threads in dict.fromkeys((1, len(os.sched_getaffinity(0)))):
        found.append({"threads": threads} | _elsewhere("seconds", threads))
        note(f"{threads} threads: {found[-1]}")
    return found


def seconds(*, scale: int = 1) -> dict[str, Any]:
    """Return median seconds of the assignment, and of all from the law to the certificate."""
    n, k = COST["rows"] // scale, max(COST["clusters"] // scale, 2)
    s, step = COST["budget"] // scale, COST["block"] // scale
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(k, COST["dimension"])).astype(np.float32)
    block = centroids[rng.integers(k, size=step)]
    block += rng.normal(size=block.shape).astype(np.float32)
    cluster, distance = np.empty(n, dtype=np.int32), np.empty(n)
    passes, draws = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for start in range(0, n, step):
            part = slice(start, start + step)
            cluster[part], distance[part] = clustering.assign(block[: n - start], centroids)
        passes.append(time.perf_counter() - began)
    distance *= rng.uniform(0.9, 1.1, size=n)  # blocks repeat: no two rows are as far in real data
    proxy = rng.gamma(1.0, size=k)[cluster] * rng.gamma(4.0, 0.25, size=n)
    for _ in range(REPEATS):
        began = time.perf_counter()
        _whole_draw(proxy, distance, cluster, s)
        draws.append(time.perf_counter() - began)
    assigned, drawn = float(np.median(passes)), float(np.median(draws))
    return {"assign": assigned, "draw": drawn, "ratio": drawn / assigned, "rows": n, "k": k}


def _whole_draw(
    proxy: NDArray[np.float64], distance: NDArray[np.float64], cluster: NDArray[np.int32], s: int
) -> None:
    """Law, permanent numbers, order, draw, training weights, certificate."""
    n = len(proxy)
    constant = sampling.balanced_constant(proxy, distance)
    scores = sampling.sensitivity(proxy, distance, constant)
    law = sampling.law(scores, mix=0.1)
    numbers = sampling.permanent_random_numbers(np.arange(n), seed=0)
    edges = np.quantile(proxy[:4000], np.linspace(0.0, 1.0, 13)[1:-1])
    band = np.searchsorted(edges, proxy, side="right")
    # band, cluster and distance in one number, sorted as select sorts them
    near = distance.astype(np.float32).view(np.uint32)
    group = band.astype(np.uint64) * np.uint64(cluster.max() + 1) + cluster.astype(np.uint64)
    keys = (group << np.uint64(32)) | near
    order = sorted_by(keys, np.arange(n), numbers)
    drawn = sampling.draw(
        "coordinated", law, s, order=order, rng=np.random.default_rng(0), numbers=numbers
    )
    sampling.training_weights(drawn.weights, np.zeros(s, dtype=bool), rows=n, exponent=0.5)
    sampling.certify(scores, law, s, additive=float(constant * distance.sum()), delta=0.05)


def _select(
    problem: Problem,
    rows: Rows,
    space: str,
    seed: int,
    size: dict[str, Any],
    **options: Any,
) -> curation.Selection:
    """Select from some rows, in the order given; their ids are their numbers."""
    labels = problem.labels if problem.labels is not None else problem.target
    return curation.select(
        problem.embeddings[rows],
        problem.score[rows],
        labels=None if labels is None else labels[rows],
        ids=rows,
        space=space,
        seed=seed,
        **size,
        **options,
    )


def _chances(selection: curation.Selection) -> NDArray[np.float64]:
    state = selection._state
    return sampling.inclusion_probabilities(state.law, state.budget)


def _draw_totals(
    problem: Problem, selection: curation.Selection, tally: Tally, s: int, fit: tuple[int, int]
) -> None:
    """Draw as often as the second number of `fit` says."""
    state, score = selection._state, problem.score
    tally.start()
    for d in range(fit[1]):
        drawn = redraw(selection, state.design, state.law, s, (fit[0], d))
        tally.add(sampling.estimate_total(score[drawn.indices], drawn), float(score.sum()))


def _elsewhere(what: str, threads: int, *arguments: str) -> Any:
    """Run a function of this module in a process of its own, with so many threads."""
    names = ("CURATION_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    run = subprocess.run(
        [sys.executable, "-m", "bench.parts", what, *arguments],
        env=os.environ | dict.fromkeys(names, str(threads)) | {"OMP_WAIT_POLICY": "PASSIVE"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"{what} with {threads} threads: {run.stderr.strip()[-500:]}")
    return json.loads(run.stdout.splitlines()[-1])


if __name__ == "__main__":
    answer = ids(*sys.argv[2:]) if sys.argv[1] == "ids" else seconds()
    print(json.dumps(answer))
