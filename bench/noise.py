"""Wrong labels and rare classes: what does each strategy choose, and what does a model make of it?

``flipped``: a tenth of the training rows has another label than it should. ``imbalanced``: one of
two classes is thinned to a fiftieth of the other. The holdout is as it was. Labels are flipped and
classes thinned anew for every seed. ``python -m bench.noise r8-flipped`` (or another of ``CASES``)
measures what is not there yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.experiment import PILOT_SHARE, Task, all_weights, keep, load, say
from bench.harness import RESULTS
from bench.recipes import TILTED, follow, strategies_of
from bench.tasks import TASKS
from curation import baselines
from curation.progress import LogListener, listen, track

SEEDS = 20
FLIPPED = 0.1
IMBALANCE = 50
ALL = "all rows"
FOLDER = RESULTS / "noise"

Marked = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """What is done to the training rows of a task, and how many are chosen.

    Attributes
    ----------
    task
        Name of the task.
    spoil
        Returns the spoilt task and which of its rows are marked: flipped, or of the rare class.
    budget
        Rows, pilot included.
    """

    task: str
    spoil: Callable[[Task, np.random.Generator], tuple[Task, Marked]]
    budget: int


def flip(task: Task, rng: np.random.Generator) -> tuple[Task, Marked]:
    """Give a tenth of the rows another class; every other class is as probable."""
    names, numbers = np.unique(task.y, return_inverse=True)
    wrong = np.zeros(len(task.y), dtype=bool)
    wrong[rng.permutation(len(task.y))[: round(FLIPPED * len(task.y))]] = True
    numbers = numbers.copy()
    numbers[wrong] += rng.integers(1, len(names), size=int(wrong.sum()))
    return replace(task, y=names[numbers % len(names)]), wrong


def thin(task: Task, rng: np.random.Generator) -> tuple[Task, Marked]:
    """Leave a fiftieth as many rows of the last class as there are of the first."""
    names = np.unique(task.y)
    rare = np.flatnonzero(task.y == names[-1])
    others = np.flatnonzero(task.y != names[-1])
    kept = rng.choice(rare, round(len(others) / IMBALANCE), replace=False)
    rows = np.sort(np.concatenate([others, kept]))
    return replace(task, x=task.x[rows], y=task.y[rows]), task.y[rows] == names[-1]


CASES = {
    "r8-flipped": Case("r8", flip, 548),
    "reviews-flipped": Case("reviews", flip, 688),
    "reviews-imbalanced": Case("reviews", thin, 500),
}


def run(
    name: str, *, seeds: int, folder: Path, strategies: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Measure what is not there yet, and keep it after every seed; return cells by seed.

    Parameters
    ----------
    name
        One of ``CASES``.
    seeds
        Seeds from 0.
    folder
        Of a JSON file for every case.
    strategies
        Names; left out, all.
    """
    case = CASES[name]
    whole = TASKS[case.task]()
    path = folder / f"{name}.json"
    cells: dict[str, dict[str, Any]] = load(path)
    wanted: dict[str, baselines.Strategy | None] = {
        **strategies_of(case.task),
        "tilted": partial(follow, recipe=TILTED),
        "tilted-weighted": partial(follow, recipe=replace(TILTED, exponent=1.0)),
        ALL: None,
    }
    if strategies is not None:
        wanted = {name: wanted[name] for name in strategies}
    with track(name, seeds * len(wanted)) as advance:
        for seed in range(seeds):
            cell = cells.setdefault(str(seed), {})
            missing = {n: one for n, one in wanted.items() if n not in cell}
            advance(len(wanted) - len(missing))
            if not missing:
                continue
            for strategy, found in _one_seed(whole, case, seed, missing):
                cell[strategy] = found
                advance(1)
            keep(path, cells)
    return cells


def _one_seed(
    whole: Task, case: Case, seed: int, missing: dict[str, baselines.Strategy | None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    rng = np.random.default_rng([seed, case.budget])
    task, marked = case.spoil(whole, rng)
    pilot = np.sort(rng.choice(len(task.x), round(PILOT_SHARE * case.budget), replace=False))
    model = task.fit(pilot, None, seed)
    for name, strategy in missing.items():
        pool = baselines.Pool(task.x, task.y, pilot, model, value=task.value)
        if strategy is None:
            chosen = baselines.Choice(pool.rest)
        else:
            chosen = baselines.apply(strategy, pool, case.budget - len(pilot), seed=seed)
        rows = np.concatenate([pilot, chosen.rows])
        weights = all_weights(pool, chosen)
        counted = np.ones(len(rows)) if weights is None else weights
        yield (
            name,
            {
                **task.measure(task.fit(rows, weights, seed + 1000)),
                "marked": float(marked[rows].mean()),
                "marked_weight": float(counted[marked[rows]].sum() / counted.sum()),
                "rows": len(rows),
                "evaluations": chosen.evaluations,
                "choose_seconds": round(chosen.seconds, 3),
                "choose_mib": round(chosen.mib, 1),
            },
        )


def main(arguments: list[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--strategies", nargs="+", help="left out: all")
    options = parser.parse_args(arguments)
    with listen(LogListener(say, seconds=60.0)):
        run(options.case, seeds=options.seeds, folder=FOLDER, strategies=options.strategies)
    return 0


if __name__ == "__main__":
    sys.exit(main())
