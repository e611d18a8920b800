"""Does it help? Every strategy on images and texts, with paired seeds.

``python -m bench.training images`` (or ``r8``, ``r52``, ``questions``, ``reviews``) measures what
is not there yet and prints the tables; ``bench.pages`` and ``bench.images`` write the pages.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from bench.experiment import METRICS, Cells, kept, run, say, summary
from bench.harness import RESULTS
from bench.recipes import strategies_of
from bench.show import Grid
from bench.tasks import TASKS
from curation import baselines
from curation.baselines import sampled
from curation.progress import LogListener, listen

SEEDS = 20
BUDGETS = {
    "images": (500, 1000, 2000, 4000, 8000),
    "r8": (274, 548),
    "r52": (653,),
    "questions": (646,),
    "reviews": (688,),
}
TILTED = {
    "ours-tilted": partial(sampled.ours_by_label, tilt="classes"),
    "ours-by-label-coordinated": partial(sampled.ours_by_label, design="coordinated"),
}
WORDS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "worst_class": "worst class"}


def strategies(task: str) -> dict[str, baselines.Strategy]:
    """Return what is compared; ``recipe`` is what was found for a task on validation rows."""
    return {**strategies_of(task), **TILTED}


def tables(cells: Cells) -> dict[str, Grid]:
    """Return a table for each metric: rows are strategies, columns budgets."""
    found = summary(cells)
    budgets = sorted(found, key=int)
    made = {}
    for metric in METRICS:
        rows = []
        names = {name for one in found.values() for name in one}
        top = budgets[-1]
        for name in sorted(names, key=lambda n: -found[top].get(n, _NONE)[metric]["mean"]):
            rows.append((name, *(_cell(found[b].get(name), metric, name) for b in budgets)))
        head = ("strategy", *(f"{int(b):,} rows" for b in budgets))
        made[metric] = Grid(WORDS[metric], head, rows)
    rows = []
    for name in sorted({name for one in found.values() for name in one}):
        line = found[budgets[-1]].get(name)
        if line is not None:
            rows.append(
                (name, f"{line['evaluations']:,.0f}", f"{line['choose_seconds']:.2f}",
                 f"{line['choose_mib']:,.0f}", f"{line['rows']:,.0f}", str(line["seeds"]))
            )  # fmt: skip
    head = (
        "strategy", "rows the model was asked about", "processor seconds", "MiB", "distinct rows",
        "seeds",
    )  # fmt: skip
    made["cost"] = Grid(f"Cost at {int(budgets[-1]):,} rows", head, rows)
    return made


_NONE: dict[str, Any] = {metric: {"mean": float("-inf")} for metric in METRICS}


def _cell(line: dict[str, Any] | None, metric: str, name: str) -> str:
    if line is None:
        return "-"
    mean = f"{line[metric]['mean']:.3f}"
    if name == "uniform":
        return mean
    gain = line[f"{metric}_gain"]
    half = 100.0 * (gain["high"] - gain["low"]) / 2.0
    text = f"{mean} ({100.0 * gain['mean']:+.1f} ± {half:.1f})"
    return f"**{text}**" if gain["low"] > 0.0 else text


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budgets", type=int, nargs="+")
    parser.add_argument("--strategies", nargs="+", help="left out: all")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    name = options.task
    folder = RESULTS / "training" / name
    wanted = strategies(name)
    if options.strategies:
        wanted = {n: wanted[n] for n in options.strategies}
    if options.show:
        cells: Cells = kept(folder)
    else:
        with listen(LogListener(say, seconds=60.0)):
            cells = run(
                TASKS[name](),
                budgets=options.budgets or BUDGETS[name],
                seeds=options.seeds,
                strategies=wanted,
                folder=folder,
            )
    made = tables(cells)
    for grid in made.values():
        print(f"\n{grid.title}\n\n{grid.markdown()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
