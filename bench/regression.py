"""Least squares on drawn rows: how far from the fit of all rows, by law and design.

CASP: 45,730 proteins, 9 standardised features and an intercept. `python -m bench.regression` prints
one table per design. Sampling is unbiased for every law; what differs is how far off a draw is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from bench.problems import CACHE, load
from curation.clustering import LabelScale, append_labels, assign, fit_centroids, summarise
from curation.sampling import draw, law
from curation.sampling.regression import (
    REGRESSION_LAWS,
    excess_risk,
    regression_baseline,
    regression_law,
    regression_scores,
    weighted_least_squares,
)

CLUSTERS = 200
SAMPLE = 10_000
BUDGETS = (100, 300, 1000)
DESIGNS = ("iid", "systematic")
REPEATS = 5  # of which the fastest is the time of a law

Floats = NDArray[np.float64]


class Clusters(TypedDict):
    """What `regression_scores` needs to know of the clusters."""

    cluster: NDArray[np.int32]
    medoid_rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    distance: Floats


@dataclass(frozen=True)
class Rows:
    """All rows, their clusters, and what the clusters cost.

    Attributes
    ----------
    features
        (n, d) float64, the last column is the intercept.
    targets
        (n,) float64.
    clusters
        Of features and target together.
    order
        (n,) int64, by cluster along the first principal axis and by distance to the medoid.
    seconds
        Time of fitting, assigning and ordering.
    """

    features: Floats
    targets: Floats
    clusters: Clusters
    order: NDArray[np.int64]
    seconds: float


def run(*, cache: Path = CACHE, draws: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Return one row per design, budget and law.

    Parameters
    ----------
    cache
        The folder of the built problems.
    draws
        Fits per row of the result.
    seed
        Of the clusters and of all draws. The i-th draw of every law starts from one random state.

    Returns
    -------
    list of dict
        ``law``, ``design``, ``budget``; ``median_excess_risk`` over the draws, with the 95%
        interval of the median ``low`` to ``high``; ``ratio_to_uniform``, of medians, in the same
        design; ``seconds`` of computing the law once the clusters are there, and
        ``clustering_seconds``, 0 for laws that need none. The systematic design walks along the
        clusters whatever the law: its baselines profit from them too.
    """
    rows = cluster_rows(cache, seed)
    laws = {name: _timed(compute) for name, compute in _laws(rows).items()}
    results = []
    for design in DESIGNS:
        for budget in BUDGETS:
            uniform = 0.0
            for name, (probabilities, seconds) in laws.items():
                risks = np.sort(list(_risks(rows, probabilities, design, budget, draws, seed)))
                median = float(np.median(risks))
                uniform = median if name == "uniform" else uniform
                low, high = _interval(risks)
                results.append(
                    {
                        "law": name,
                        "design": design,
                        "budget": budget,
                        "median_excess_risk": median,
                        "low": low,
                        "high": high,
                        "ratio_to_uniform": median / uniform,
                        "seconds": seconds,
                        "clustering_seconds": 0.0 if name in REGRESSION_LAWS else rows.seconds,
                    }
                )
    return results


def cluster_rows(cache: Path, seed: int) -> Rows:
    """Load CASP and cluster its features together with the target."""
    problem = load("casp", cache=cache)
    vectors, target = problem.embeddings, problem.target
    assert target is not None
    began = time.perf_counter()
    # As one more standardised column: as long as each of the features, not as all of them.
    scale = LabelScale((), scale=1.0, centre=float(target.mean()), spread=float(target.std()))
    points = append_labels(vectors, target, scale)
    rng = np.random.default_rng([seed, 0x636C7573])
    sample = points[rng.choice(len(points), size=min(SAMPLE, len(points)), replace=False)]
    summary = summarise([points], fit_centroids(sample, CLUSTERS, seed=seed))
    cluster, _ = assign(points, summary.centroids)
    gaps = points.astype(np.float64) - summary.medoids[cluster]
    distance = np.einsum("ij,ij->i", gaps, gaps)
    order = np.lexsort((distance, summary.rank[cluster])).astype(np.int64)
    seconds = time.perf_counter() - began
    return Rows(
        features=np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))]),
        targets=target,
        clusters={
            "cluster": cluster,
            "medoid_rows": summary.medoid_rows,
            "sizes": summary.sizes,
            "distance": distance,
        },
        order=order,
        seconds=seconds,
    )


def _laws(rows: Rows) -> dict[str, Callable[[], Floats]]:
    """Return how each law is computed; uniform first."""
    a, b = rows.features, rows.targets
    laws: dict[str, Callable[[], Floats]] = {
        kind: lambda kind=kind: regression_baseline(kind, a)  # type: ignore[misc]
        for kind in REGRESSION_LAWS
    }
    laws["score"] = lambda: law(regression_scores(a, b, **rows.clusters), mix=0.0)
    laws["mix"] = lambda: regression_law(a, b, **rows.clusters)
    return laws


def _timed(compute: Callable[[], Floats]) -> tuple[Floats, float]:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        result = compute()
        times.append(time.perf_counter() - began)
    return result, min(times)


def _risks(
    rows: Rows, probabilities: Floats, design: str, budget: int, draws: int, seed: int
) -> Iterator[float]:
    """Yield the excess risk of the weighted fit of each draw."""
    a, b = rows.features, rows.targets
    # The risk depends on all rows through this triangle alone: R'R = [a b]'[a b].
    triangle = np.asarray(np.linalg.qr(np.column_stack([a, b]), mode="r"))
    for i in range(draws):
        rng = np.random.default_rng([seed, budget, i])
        sample = draw(design, probabilities, budget, order=rows.order, rng=rng)
        x = weighted_least_squares(a[sample.indices], b[sample.indices], sample.weights)
        yield excess_risk(triangle[:, :-1], triangle[:, -1], x)


def _interval(ordered: Floats) -> tuple[float, float]:
    """Return the 95% interval of the median, from the ranks of the ordered values."""
    m = len(ordered)
    reach = 1.96 * np.sqrt(m) / 2.0
    low = max(int(np.floor(m / 2.0 - reach)), 0)
    return float(ordered[low]), float(ordered[m - 1 - low])


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as text, one table per design."""
    lines = []
    for design in DESIGNS:
        here = [row for row in results if row["design"] == design]
        head = "".join(f"{budget:>29,} rows" for budget in BUDGETS)
        lines += [
            f"{design}: median excess risk [95% interval], ratio to uniform",
            f"{'':14}{head}",
        ]
        for name in dict.fromkeys(row["law"] for row in here):
            mine = [row for row in here if row["law"] == name]
            cells = "".join(
                f"{row['median_excess_risk']:11.4f} [{row['low']:.4f}, {row['high']:.4f}]"
                f"{row['ratio_to_uniform']:6.2f}"
                for row in mine
            )
            lines.append(f"{name:14}{cells}{1000 * mine[0]['seconds']:10.1f} ms")
        lines.append("")
    clustering = max(row["clustering_seconds"] for row in results)
    lines.append(f"score and mix also need the clusters: {clustering:.2f} s")
    return "\n".join(lines)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.regression", description=__doc__)
    parser.add_argument("--draws", type=int, default=200, help="fits per cell (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"default: {CACHE}")
    options = parser.parse_args()
    print(table(run(cache=options.cache, draws=options.draws, seed=options.seed)))


if __name__ == "__main__":
    main()
