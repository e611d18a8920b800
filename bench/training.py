"""Does it help? Every strategy on images and texts, with paired seeds.

``python -m bench.training images`` (or ``r8``, ``r52``, ``questions``, ``reviews``) measures what
is not there yet and prints the tables. ``--write`` fills docs/results/TASK.md and draws its plot.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from bench.experiment import METRICS, Cells, kept, run, summary
from bench.harness import RESULTS
from bench.recipes import strategies_of
from bench.show import Grid, fill
from bench.tasks import TASKS
from curation import baselines
from curation.baselines import sampled
from curation.progress import LogListener, listen

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results"
SEEDS = 20
BUDGETS = {
    "images": (500, 1000, 2000, 4000, 8000),
    "r8": (274, 548),
    "r52": (653,),
    "questions": (646,),
    "reviews": (500, 1000, 2000),
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


def plot(cells: Cells, path: Path) -> None:
    """Draw the gain over uniform against the budget, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = summary(cells)
    budgets = sorted(found, key=int)
    figure, axes = plt.subplots(figsize=(9.0, 5.0))
    names = sorted({n for one in found.values() for n in one} - {"uniform"})
    for i, name in enumerate(names):
        own = name.startswith("ours")
        gains = [found[b][name]["accuracy_gain"] for b in budgets if name in found[b]]
        at = [int(b) * 1.02 ** (i - len(names) / 2) for b in budgets if name in found[b]]
        means = [100.0 * g["mean"] for g in gains]
        spread = [100.0 * (g["high"] - g["low"]) / 2.0 for g in gains]
        axes.errorbar(
            at, means, yerr=spread, label=name, marker="o" if own else ".", capsize=2,
            linewidth=2.0 if own else 0.8, color=None if own else plt.cm.tab20(i % 20),
        )  # fmt: skip
    axes.axhline(0.0, color="k", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([int(b) for b in budgets], [f"{int(b):,}" for b in budgets])
    axes.set_xlabel("rows")
    axes.set_ylabel("accuracy over uniform (points)")
    axes.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budgets", type=int, nargs="+")
    parser.add_argument("--strategies", nargs="+", help="left out: all")
    parser.add_argument("--tempered", type=float, default=1.0, help="exponent of the weights")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    parser.add_argument("--write", action="store_true", help="fill the page and draw its plot")
    options = parser.parse_args(arguments)
    name = options.task
    own = name if options.tempered == 1.0 else f"{name}-tempered-{options.tempered:g}"
    folder = RESULTS / "training" / own
    wanted = strategies(name)
    if options.strategies:
        wanted = {n: wanted[n] for n in options.strategies}
    if options.show:
        cells: Cells = kept(folder)
    else:
        with listen(LogListener(_say, seconds=60.0)):
            cells = run(
                TASKS[name](),
                budgets=options.budgets or BUDGETS[name],
                seeds=options.seeds,
                strategies=wanted,
                folder=folder,
                tempered=options.tempered,
            )
    made = tables(cells)
    for grid in made.values():
        print(f"\n{grid.title}\n\n{grid.markdown()}")
    if options.write:
        cells = kept(folder)
        page = DOCS / f"{name}.md"
        page.write_text(fill(page.read_text(), made))
        plot(cells, DOCS.parent / "images" / f"training-{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
