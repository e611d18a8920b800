"""Least squares on drawn rows: how far from the fit of all rows, by law, design and budget.

``python -m bench.regression`` measures what is not there yet, on CASP, law school and wide features
of CASP, and the processor time of every law; ``--write`` fills docs/results/regression.md. Fits
are unbiased for every law; what differs is how far off a draw is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bench import regression_page
from bench.harness import RESULTS, machine
from bench.regression_data import PROBLEMS, Rows
from curation.sampling import draw, law
from curation.sampling.regression import (
    REGRESSION_LAWS,
    regression_baseline,
    sketched_leverage,
    weighted_least_squares,
)
from curation.selection.inputs import Numbers, read_ids
from curation.selection.regression import clustered_law

CLUSTERS = 200
CLUSTERINGS = 5  # seeds; every one has as many draws
DRAWS = 40
BUDGETS = (30, 100, 300, 1000, 3000)
DESIGNS = ("iid", "systematic")
ALL_BUT_TARGET = "mix, clusters of features"
LAWS = (*REGRESSION_LAWS, "mix", ALL_BUT_TARGET)
NUMBERS_OF_CLUSTERS = (25, 50, 100, 400, 800)
BUDGETS_BY_CLUSTERS = (100, 1000)
WIDE = ("casp-quadratic", "casp-fourier-300")
WIDE_BUDGETS = (1000, 3000)
WIDE_LAWS = ("uniform", "leverage", "sketched leverage", "mix")
WIDE_DRAWS = 10
ROUNDS = 7  # of timing all laws in turn
RESAMPLES = 2000

Floats = NDArray[np.float64]
Law = tuple[Floats, NDArray[np.int64]]  # probabilities, and the order of a systematic draw
Results = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One thing to measure: what is drawn from, how, how many rows, by which laws."""

    problem: str
    design: str
    budget: int
    laws: tuple[str, ...]
    draws: int = DRAWS

    @property
    def key(self) -> str:
        """The name it is kept under."""
        return f"{self.problem} {self.design} {self.budget}"


class Fits:
    """Excess risks of weighted fits on a problem: all that is the same for every draw."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        # The risk depends on all rows through this triangle alone: R'R = [a b]'[a b].
        both = np.column_stack([rows.features, rows.targets])
        self.triangle = np.asarray(np.linalg.qr(both, mode="r"))
        ones = np.ones(len(self.triangle))
        a, b = self.triangle[:, :-1], self.triangle[:, -1]
        self.best = weighted_least_squares(a, b, ones)
        self.least = float(np.sum((a @ self.best - b) ** 2))

    def risk(self, chosen: NDArray[np.int64], weights: Floats) -> float:
        """Return ``(R(x) - R(x*)) / R(x*)`` of the weighted fit x, R over all rows."""
        a, b = self.rows.features[chosen], self.rows.targets[chosen]
        off = weighted_least_squares(a, b, weights) - self.best
        return float(np.sum((self.triangle[:, :-1] @ off) ** 2)) / self.least

    def risks(self, found: Law, design: str, budget: int, draws: Iterable[Any]) -> Iterator[float]:
        """Yield the excess risk of each draw; a draw is the seed of its random state."""
        for seed in draws:
            rng = np.random.default_rng(seed)
            sample = draw(design, found[0], budget, order=found[1], rng=rng)
            yield self.risk(sample.indices, sample.weights)


class Laws:
    """Laws of a problem, each computed once.

    Parameters
    ----------
    rows
        The problem.
    k
        Clusters of the mix.
    """

    def __init__(self, rows: Rows, *, k: int = CLUSTERS) -> None:
        self.rows, self.k = rows, k
        self._found: dict[tuple[str, int], Law] = {}

    def __call__(self, name: str, seed: int) -> Law:
        """Return a law, and an order along the clusters: that of the mix, for baselines too.

        A systematic draw walks along the clusters whatever the law.
        """
        if (name, seed) not in self._found:
            self._found[name, seed] = self._compute(name, seed)
        return self._found[name, seed]

    def _compute(self, name: str, seed: int) -> Law:
        a, b = self.rows.features, self.rows.targets
        numbers = Numbers(read_ids(None, len(b)), seed)
        if name in ("mix", ALL_BUT_TARGET):
            return clustered_law(a, b, self.k, numbers, by_target=name == "mix")[:2]
        order = self("mix", seed)[1]
        if name == "sketched leverage":
            return law(sketched_leverage(a, numbers.of("sketch"), seed=seed), mix=0.0), order
        return regression_baseline(name, a), order


def cells() -> list[Cell]:
    """Return what is to be measured, the most wanted first."""
    made = [
        Cell(problem, design, budget, LAWS)
        for problem in ("casp", "law")
        for design in DESIGNS
        for budget in BUDGETS
    ]
    made += [
        Cell(problem, "iid", budget, WIDE_LAWS, WIDE_DRAWS)
        for problem in WIDE
        for budget in WIDE_BUDGETS
    ]
    return made


def measure(cell: Cell, fits: Fits, laws: Callable[[str, int], Law]) -> Results:
    """Return, by law, median, interval and ratio to leverage of the excess risk."""
    risks: dict[str, list[list[float]]] = {name: [] for name in cell.laws}
    for seed in range(CLUSTERINGS):
        states = [(seed, cell.budget, i) for i in range(cell.draws)]
        for name in cell.laws:
            found = list(fits.risks(laws(name, seed), cell.design, cell.budget, states))
            risks[name].append(found)
    flat = {name: np.array(one).reshape(-1) for name, one in risks.items()}
    told = {}
    for name, values in flat.items():
        low, high = median_interval(values)
        told[name] = {
            "median": float(np.median(values)),
            "low": low,
            "high": high,
            "mean": float(values.mean()),
            "medians_by_seed": [float(np.median(one)) for one in risks[name]],
            "to_leverage": ratio_of_medians(values, flat["leverage"]),
            "to_uniform": ratio_of_medians(values, flat["uniform"]),
        }
    return {"draws": len(flat["leverage"]), "laws": told}


def median_interval(values: Floats) -> tuple[float, float]:
    """Return the 95% interval of the median, from the ranks of the ordered values."""
    ordered, m = np.sort(values), len(values)
    low = max(int(np.floor(m / 2.0 - 1.96 * np.sqrt(m) / 2.0)), 0)
    return float(ordered[low]), float(ordered[m - 1 - low])


def ratio_of_medians(above: Floats, below: Floats) -> dict[str, float]:
    """Return the ratio of two medians with its 95% bootstrap interval, resampling draws."""
    rng = np.random.default_rng(0)
    again = rng.integers(len(above), size=(RESAMPLES, len(above)))
    ratios = np.median(above[again], axis=1) / np.median(below[again], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(np.median(above) / np.median(below))
    return {"value": value, "low": float(low), "high": float(high)}


def by_clusters(fits: Fits) -> list[Results]:
    """Return the mix's ratio to leverage for several numbers of clusters, iid."""
    found: list[Results] = []
    for k in NUMBERS_OF_CLUSTERS:
        laws = Laws(fits.rows, k=k)
        for budget in BUDGETS_BY_CLUSTERS:
            both: dict[str, list[float]] = {"mix": [], "leverage": []}
            for seed in range(CLUSTERINGS):
                states = [(seed, budget, i) for i in range(DRAWS)]
                for name, values in both.items():
                    values += fits.risks(laws(name, seed), "iid", budget, states)
            ratio = ratio_of_medians(np.array(both["mix"]), np.array(both["leverage"]))
            found.append({"k": k, "budget": budget, "to_leverage": ratio})
    return found


def sides(rows: Rows) -> dict[str, Callable[[], Any]]:
    """Return how each law is computed from nothing: what is timed."""
    numbers = Numbers(read_ids(None, len(rows.targets)), 0)
    a, b = rows.features, rows.targets
    made: dict[str, Callable[[], Any]] = {
        name: partial(regression_baseline, name, a) for name in REGRESSION_LAWS
    }
    made["leverage by Gram matrix"] = partial(gram_leverage, a)
    made["sketched leverage"] = partial(sketched_leverage, a, numbers.of("sketch"))
    made["mix"] = partial(clustered_law, a, b, CLUSTERS, numbers)
    return made


def gram_leverage(a: Floats) -> Floats:
    """Return exact leverages the fast way: Cholesky of ``A'A``, half the digits lost."""
    root = np.linalg.cholesky(a.T @ a)
    found = np.empty(len(a))
    for start in range(0, len(a), 8192):
        image = solve_triangular(root, a[start : start + 8192].T, lower=True, check_finite=False)
        found[start : start + 8192] = np.einsum("ij,ij->j", image, image)
    return found


def timed(rows: Rows) -> dict[str, list[float]]:
    """Return processor seconds of every law in every round, all in turn."""
    made = sides(rows)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(ROUNDS + 1):
        for name in list(made) if turn % 2 else list(made)[::-1]:
            began = time.process_time()
            made[name]()
            if turn:  # the first round warms up
                seconds[name].append(time.process_time() - began)
    return seconds


class Bench:
    """Measures what is not there yet and keeps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        empty: Results = {"cells": {}, "seconds": {}, "shapes": {}}
        self.kept: Results = json.loads(path.read_text()) if path.is_file() else empty
        self._name = ""
        self._fits: Fits | None = None
        self._laws: Laws | None = None

    def problem(self, name: str) -> tuple[Fits, Laws]:
        """Return a problem and its laws; one is in memory at a time."""
        if self._name != name or self._fits is None or self._laws is None:
            self._fits = Fits(PROBLEMS[name]())
            self._name, self._laws = name, Laws(self._fits.rows, k=CLUSTERS)
        return self._fits, self._laws

    def keep(self, what: str) -> None:
        """Write what there is; nobody ever sees half of it."""
        self.kept["machine"] = machine()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.kept, indent=1))
        unfinished.replace(self.path)
        print(what, file=sys.stderr, flush=True)

    def run(self) -> Results:
        """Measure everything."""
        kept = self.kept
        for name in PROBLEMS:
            if name not in kept["seconds"]:
                rows = PROBLEMS[name]()
                kept["shapes"][name] = [*rows.features.shape, rows.about]
                kept["seconds"][name] = timed(rows)
                self.keep(f"time: {name}")
        for cell in cells():
            if cell.key not in kept["cells"]:
                kept["cells"][cell.key] = measure(cell, *self.problem(cell.problem))
                self.keep(cell.key)
        if "clusters" not in kept:
            kept["clusters"] = by_clusters(self.problem("casp")[0])
            self.keep("numbers of clusters")
        return kept


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.regression", description=__doc__)
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--write", action="store_true", help="fill the page and draw its plots")
    options = parser.parse_args(arguments)
    path = RESULTS / "regression" / "results.json"
    kept = json.loads(path.read_text()) if options.show else Bench(path).run()
    regression_page.report(kept)
    if options.write:
        regression_page.write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
