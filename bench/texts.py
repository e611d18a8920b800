"""Which recipe for which texts? Searched on rows split off from the training rows.

``python -m bench.texts r8`` (or ``r52``, ``questions``, ``reviews``) tries every recipe of ``grid``
on four splits and the best six on twelve, and prints them. ``bench.recipes`` holds what was taken
from it; ``bench.training`` measures that on the holdout, which is not looked at here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.experiment import (
    METRICS,
    PILOT_SHARE,
    Cells,
    Task,
    all_weights,
    interval,
    keep,
    load,
    say,
)
from bench.harness import RESULTS
from bench.recipes import Recipe, follow, temper
from bench.show import Grid
from bench.tasks import TASKS
from curation import baselines
from curation.baselines import Choice, Pool
from curation.progress import LogListener, listen, track

HELD_SHARE = 0.2
FIRST = 4  # splits that every recipe is tried on, and
SPLITS = 12  # that the best are tried on
FINALISTS = 6
BUDGETS = {"r8": 274, "r52": 653, "questions": 646, "reviews": 688}
EXPONENTS = (0.0, 0.25, 0.5, 1.0)
BESIDE = ("uniform", "class-balanced", "class-stratified", "margin")
SPACES = ("embedding", "embedding+label", "gradient")


def split(task: Task, seed: int) -> Task:
    """Return the task with a fifth of its training rows as holdout; the real one is left out."""
    order = np.random.default_rng([seed, 0x76616C]).permutation(len(task.x))
    held = round(HELD_SHARE * len(order))
    held_rows, rows = np.sort(order[:held]), np.sort(order[held:])
    return replace(
        task, x=task.x[rows], y=task.y[rows], held_x=task.x[held_rows], held_y=task.y[held_rows]
    )


def grid(task: str) -> list[Recipe]:
    """Return the recipes that are tried, without their exponents.

    Reviews have two classes of one size: there is nothing to tilt.
    """
    both = [(space, value) for space in SPACES for value in ("loss", "gradient_norm")]
    if task == "reviews":
        mixes: tuple[float | str, ...] = (0.1, "auto", 0.5)
        return [Recipe(s, v, tilt=None, mix=mix) for s, v in both for mix in mixes]
    tried = [Recipe(s, v, tilt) for s, v in both for tilt in (None, "classes", 0.5, 0.7, 0.85)]
    tried += [Recipe(tilt="classes", mix="auto"), Recipe(tilt="classes", mix=0.3)]
    tried += [Recipe(tilt="classes", k=k) for k in (50, 100)]
    tried += [Recipe(tilt=0.7, mix=mix) for mix in (0.5, 1.0)]
    tried += [Recipe(tilt=tilt, mix="auto") for tilt in (0.5, 0.6, 0.7)]
    return tried


def search(name: str, *, splits: int, finalists: int, path: Path) -> Cells:
    """Try every recipe on a few splits and the best of them on all; keep what each gave.

    Parameters
    ----------
    name
        Of the task.
    splits
        How many in all.
    finalists
        How many recipes go on after ``FIRST`` splits.
    path
        Of the JSON file, laid out as :data:`bench.experiment.Cells`.
    """
    whole, budget = TASKS[name](), BUDGETS[name]
    cells: Cells = load(path)
    with track(f"recipes for {name}", splits) as advance:
        for seed in range(splits):
            cell = cells.setdefault(str(budget), {}).setdefault(str(seed), {})
            tried = grid(name) if seed < FIRST else best(name, cells[str(budget)], finalists)
            for recipe, found in _one_split(whole, budget, seed, tried, cell):
                cell[recipe] = found
            keep(path, cells)
            advance(1)
    return cells


def best(task: str, seeds: dict[str, dict[str, Any]], finalists: int) -> list[Recipe]:
    """Return the recipes whose best exponent had most of accuracy plus macro-F1 at first."""
    first = [seeds[str(seed)] for seed in range(FIRST)]

    def worth(recipe: Recipe) -> float:
        names = [str(replace(recipe, exponent=e)) for e in EXPONENTS]
        return max(
            float(np.mean([one[name]["accuracy"] + one[name]["macro_f1"] for one in first]))
            for name in names
        )

    return sorted(grid(task), key=worth, reverse=True)[:finalists]


def _one_split(
    whole: Task, budget: int, seed: int, tried: list[Recipe], there: dict[str, Any]
) -> Iterator[tuple[str, dict[str, float]]]:
    names = [str(replace(one, exponent=e)) for one in tried for e in EXPONENTS]
    if all(name in there for name in (*names, *BESIDE, "all rows")):
        return
    task = split(whole, seed)
    rng = np.random.default_rng([seed, budget])
    pilot = np.sort(rng.choice(len(task.x), round(PILOT_SHARE * budget), replace=False))
    pool = Pool(task.x, task.y, pilot, task.fit(pilot, None, seed), value=task.value)
    if "all rows" not in there:
        everything = np.arange(len(task.x))
        yield "all rows", task.measure(task.fit(everything, None, seed + 1000))
    for name in BESIDE:
        if name not in there:
            chosen = baselines.choose(name, pool, budget - len(pilot), seed=seed)
            yield name, _trained(task, pool, chosen, seed)
    for recipe in tried:
        variants = [replace(recipe, exponent=e) for e in EXPONENTS]
        if all(str(one) in there for one in variants):
            continue
        strategy = partial(follow, recipe=replace(recipe, exponent=1.0))
        chosen = baselines.apply(strategy, pool, budget - len(pilot), seed=seed)
        for one in variants:
            yield str(one), _trained(task, pool, temper(chosen, one.exponent), seed)


def _trained(task: Task, pool: Pool, chosen: Choice, seed: int) -> dict[str, float]:
    rows = np.concatenate([pool.pilot, chosen.rows])
    return task.measure(task.fit(rows, all_weights(pool, chosen), seed + 1000))


def table(seeds: dict[str, dict[str, Any]], *, most: int = 15) -> Grid:
    """Return the recipes with most of accuracy plus macro-F1, the others below them."""
    splits = max(len([1 for cell in seeds.values() if name in cell]) for name in _names(seeds))
    lines = []
    for name in _names(seeds):
        own = {s: cell for s, cell in seeds.items() if name in cell}
        if len(own) < splits:
            continue
        means = {m: float(np.mean([cell[name][m] for cell in own.values()])) for m in METRICS}
        gains = {
            m: interval([cell[name][m] - cell["uniform"][m] for cell in own.values()])
            for m in METRICS
        }
        told = [f"{means[m]:.3f} ({100.0 * gains[m]['mean']:+.1f})" for m in METRICS]
        lines.append((means["accuracy"] + means["macro_f1"], (name, *told, str(len(own)))))
    lines.sort(key=lambda line: -line[0])
    beside = (*BESIDE, "all rows")
    kept = [row for at, (_, row) in enumerate(lines) if at < most or row[0] in beside]
    head = ("recipe", "accuracy", "macro-F1", "worst class", "splits")
    return Grid("On validation rows", head, kept)


def _names(seeds: dict[str, dict[str, Any]]) -> list[str]:
    return sorted({name for cell in seeds.values() for name in cell})


def unpacked(columns: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Turn lists of numbers, one for each split or seed, into cells by split and strategy."""
    cells: dict[str, dict[str, Any]] = {}
    for name, metrics in columns.items():
        for at in range(len(metrics[METRICS[0]])):
            told = {key: values[at] for key, values in metrics.items() if values}
            cells.setdefault(str(at), {})[name] = told
    return cells


def reference(name: str) -> dict[str, float]:
    """Return what the model gives on the holdout when it is trained on all rows."""
    path = RESULTS / "reference" / f"{name}.json"
    if not path.is_file():
        task = TASKS[name]()
        found = task.measure(task.fit(np.arange(len(task.x)), None, 0))
        keep(path, found)
    return load(path)


def main(arguments: Iterable[str] | None = None) -> int:
    """Search and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=sorted(BUDGETS))
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--finalists", type=int, default=FINALISTS)
    parser.add_argument("--show", action="store_true", help="try nothing")
    options = parser.parse_args(None if arguments is None else list(arguments))
    path = RESULTS / "recipes" / f"{options.task}.json"
    if options.show:
        cells: Cells = load(path)
    else:
        with listen(LogListener(say, seconds=60.0)):
            cells = search(
                options.task, splits=options.splits, finalists=options.finalists, path=path
            )
    made = table(cells[str(BUDGETS[options.task])])
    print(f"{made.title}\n\n{made.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
