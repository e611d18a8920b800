"""The pages of docs/results on texts: measured, kept as JSON, filled in and drawn.

``python -m bench.pages r8`` (or ``r52``, ``questions``, ``reviews``, ``fine-tuning``, ``noise``)
measures what is not there yet under data/bench, writes every seed of it to docs/results/NAME.json,
and fills docs/results/NAME.md and draws its plot from that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import finetuning, noise, texts, training
from bench.experiment import METRICS, Cells, interval, keep, kept, load
from bench.harness import RESULTS, machine
from bench.show import Grid, fill

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results"
IMAGES = DOCS.parent / "images"
COSTS = ("rows", "evaluations", "choose_seconds", "choose_mib")
WORDS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "worst_class": "worst class",
    "marked": "share of chosen rows",
    "marked_weight": "share of weight",
}
ALL = "all rows"
DIGITS = 4
OURS = ("ours", "recipe", "by-gradient", "tilted")

Columns = dict[str, dict[str, list[float]]]  # strategy -> metric -> one number for each seed
Results = dict[str, Any]


def pack(seeds: dict[str, dict[str, Any]]) -> Columns:
    """Turn cells by seed and strategy into lists of numbers.

    A strategy that most seeds lack goes, as a run that was stopped leaves it behind; then seeds go
    that lack one of the others.
    """
    known = Counter(name for cell in seeds.values() for name in cell)
    names = [name for name, number in known.items() if 2 * number > len(seeds)]
    whole = [seeds[s] for s in sorted(seeds, key=int) if all(n in seeds[s] for n in names)]
    keys = (*METRICS, "marked", "marked_weight", *COSTS, "train_seconds")
    return {
        name: {
            key: [round(float(cell[name][key]), DIGITS) for cell in whole]
            for key in keys
            if whole and all(key in cell[name] for cell in whole)
        }
        for name in names
    }


def gain(columns: Columns, name: str, metric: str, against: str = "uniform") -> dict[str, float]:
    """Return the paired difference to a strategy: mean and 95% t-interval."""
    own, base = columns[name][metric], columns[against][metric]
    return interval([a - b for a, b in zip(own, base, strict=True)])


def mean(columns: Columns, name: str, metric: str) -> float:
    """Return a strategy's mean over seeds."""
    return float(np.mean(columns[name][metric]))


def compared(
    columns: Columns,
    title: str,
    *,
    beside: dict[str, float] | None = None,
    metrics: tuple[str, ...] = METRICS,
) -> Grid:
    """Return a table of strategies, the best macro-F1 first.

    A gain over uniform rows whose interval lies above 0 is bold, one below 0 is in italics.
    """
    rows = []
    if beside is not None:
        rows.append((f"*{ALL}*", *(f"{beside[m]:.3f}" for m in metrics), "", ""))
    for name in sorted(columns, key=lambda n: -mean(columns, n, "macro_f1")):
        told = [_told(columns, name, metric) for metric in metrics]
        asked = float(np.median(columns[name]["evaluations"]))
        seconds = float(np.median(columns[name]["choose_seconds"]))
        rows.append((name, *told, f"{asked:,.0f}", f"{seconds:.2f}"))
    head = ("strategy", *(WORDS[m] for m in metrics), "rows asked about", "processor s")
    return Grid(title, head, rows)


def _told(columns: Columns, name: str, metric: str) -> str:
    value = f"{mean(columns, name, metric):.3f}"
    if name == "uniform" or metric.startswith("marked"):
        return value
    found = gain(columns, name, metric)
    if not np.isfinite(found["low"]):
        return value
    half = 100.0 * (found["high"] - found["low"]) / 2.0
    text = f"{value} ({100.0 * found['mean']:+.1f} ± {half:.1f})"
    if found["low"] > 0.0:
        return f"**{text}**"
    return f"*{text}*" if found["high"] < 0.0 else text


def gather(task: str) -> Results:
    """Return what was measured of a task on embeddings, on validation rows and on the holdout."""
    cells: Cells = kept(RESULTS / "training" / task)
    found: Results = {
        "machine": machine(),
        "budgets": {b: pack(one) for b, one in cells.items()},
        "all rows": texts.reference(task),
    }
    searched = RESULTS / "recipes" / f"{task}.json"
    if searched.is_file():
        (seeds,) = json.loads(searched.read_text()).values()
        found["validation"] = {
            name: {
                m: [round(seeds[s][name][m], DIGITS) for s in seeds if name in seeds[s]]
                for m in METRICS
            }
            for name in dict.fromkeys(name for cell in seeds.values() for name in cell)
        }
    elif "validation" in (before := published(task)):
        found["validation"] = before["validation"]
    return found


def gather_finetuning() -> Results:
    """Return what was measured of fine-tuned models, here or before."""
    folder = RESULTS / "finetuning"
    found = {"tasks": {}, "reloaded": None} | published("fine-tuning") | {"machine": machine()}
    for own in sorted(one for one in folder.iterdir() if one.is_dir()):
        found["tasks"][own.name] = {b: pack(one) for b, one in kept(own).items()}
    again = folder / "reloaded.json"
    if again.is_file():
        found["reloaded"] = json.loads(again.read_text())
    return found


def published(name: str) -> Results:
    """Return what docs/results holds of a page; nothing where there is none."""
    return load(DOCS / f"{name}.json")


def restore(task: str) -> None:
    """Take what docs/results holds of a task as measured, where nothing is on this machine.

    So that strategies can be added to a page without measuring the others again.
    """
    for budget, columns in published(task).get("budgets", {}).items():
        path = RESULTS / "training" / task / f"{budget}.json"
        if not path.is_file():
            keep(path, texts.unpacked(columns))


def gather_noise() -> Results:
    """Return what was measured with wrong labels and a rare class."""
    files = sorted((RESULTS / "noise").glob("*.json"))
    cases = {one.stem: pack(json.loads(one.read_text())) for one in files}
    return {"machine": machine(), "cases": cases}


def task_tables(results: Results) -> dict[str, Grid]:
    """Return the tables of a task's page."""
    made = {
        f"budget-{budget}": compared(columns, f"{int(budget):,} rows", beside=results[ALL])
        for budget, columns in results["budgets"].items()
    }
    if "validation" in results:
        made["validation"] = texts.table(texts.unpacked(results["validation"]))
    first = next(iter(results["budgets"].values()))
    if "recipe" in first:
        made["targets"] = targets(results)
    return made


def targets(results: Results) -> Grid:
    """Return how the recipe compares with what is to be reached or beaten, for each budget."""
    rows = []
    for budget, columns in results["budgets"].items():
        for metric in ("accuracy", "macro_f1"):
            share = mean(columns, "recipe", metric) / results[ALL][metric]
            told = [_difference(columns, metric, other) for other in ("uniform", "class-balanced")]
            own = f"{mean(columns, 'recipe', metric):.3f}"
            rows.append((f"{int(budget):,}", WORDS[metric], own, *told, f"{share:.3f}"))
    head = ("rows", "metric", "recipe", "minus uniform", "minus class-balanced", "of all rows'")
    return Grid("The recipe", head, rows, left=2)


def _difference(columns: Columns, metric: str, against: str) -> str:
    found = gain(columns, "recipe", metric, against)
    low, high = 100.0 * found["low"], 100.0 * found["high"]
    return f"{100.0 * found['mean']:+.1f} [{low:+.1f}, {high:+.1f}]"


def finetuning_tables(results: Results) -> dict[str, Grid]:
    """Return a table for each task and budget."""
    made = {}
    for task, budgets in results["tasks"].items():
        for budget, columns in budgets.items():
            title = f"{task}, {int(budget):,} rows"
            made[f"{task}-{budget}"] = compared(columns, title)
    again = results["reloaded"]
    if again is not None:
        rows = [
            (name, f"{size:,} bytes") for name, size in again["files"].items()
        ] + [
            ("texts predicted", f"{again['predicted']:,}"),
            ("the same as before", f"{again['the same']:,}"),
            ("accuracy", f"{again['accuracy']:.3f}"),
        ]  # fmt: skip
        least = finetuning.BUDGETS[again["task"]][0]
        made["reloaded"] = Grid(
            "Saved, loaded again, used", ("", f"{again['task']}, {least:,} rows"), rows
        )
    return made


def noise_tables(results: Results) -> dict[str, Grid]:
    """Return a table for each case."""
    metrics = (*METRICS, "marked", "marked_weight")
    made = {}
    for name, columns in results["cases"].items():
        beside = {m: mean(columns, ALL, m) for m in metrics} if ALL in columns else None
        others = {n: one for n, one in columns.items() if n != ALL}
        made[name] = compared(others, name, beside=beside, metrics=metrics)
    return made


def panels(
    parts: dict[str, Columns], path: Path, *, metrics: tuple[str, ...] = ("accuracy", "macro_f1")
) -> None:
    """Draw gains over uniform rows with intervals, a line of panels for each part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    most = max(len(one) for one in parts.values())
    size = (4.6 * len(metrics), (1.0 + 0.22 * most) * len(parts))
    figure, grid = plt.subplots(len(parts), len(metrics), figsize=size, squeeze=False)
    for line, (title, columns) in zip(grid, parts.items(), strict=True):
        names = [n for n in columns if n not in ("uniform", ALL)]
        names.sort(key=lambda n: gain(columns, n, "macro_f1")["mean"])
        for axes, metric in zip(line, metrics, strict=True):
            found = [gain(columns, name, metric) for name in names]
            means = [100.0 * one["mean"] for one in found]
            spread = [50.0 * (one["high"] - one["low"]) for one in found]
            ours = [n.startswith(OURS) for n in names]
            for at, own in enumerate(ours):
                axes.errorbar(
                    means[at], at, xerr=spread[at], marker="o", markersize=4, capsize=2,
                    color="#0b6e4f" if own else "#7d8597",
                )  # fmt: skip
            axes.axvline(0.0, color="k", linewidth=0.8)
            axes.set_yticks(range(len(names)), names if axes is line[0] else [""] * len(names))
            axes.tick_params(labelsize=7)
            axes.set_title(f"{title}: {WORDS[metric]}", fontsize=9)
            axes.set_xlabel("points over uniform rows", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def task_parts(results: Results) -> dict[str, Columns]:
    """Return what a task's plot shows."""
    return {f"{int(b):,} rows": columns for b, columns in results["budgets"].items()}


def finetuning_parts(results: Results) -> dict[str, Columns]:
    """Return what the plot of fine-tuned models shows."""
    return {
        f"{task}, {int(budget):,} rows": columns
        for task, budgets in results["tasks"].items()
        for budget, columns in budgets.items()
    }


def noise_parts(results: Results) -> dict[str, Columns]:
    """Return what the plot of spoilt rows shows."""
    found: dict[str, Columns] = results["cases"]
    return found


def measure_task(task: str) -> None:
    """Search recipes on validation rows, and measure every strategy on the holdout."""
    texts.main([task])
    training.main([task])


def measure_finetuning() -> None:
    """Fine-tune on every task, and load a saved model again."""
    for task in finetuning.BUDGETS:
        finetuning.main([task])
    finetuning.main(["questions", "--reload"])


def measure_noise() -> None:
    """Measure every case of spoilt rows."""
    for case in noise.CASES:
        noise.main([case])


@dataclass(frozen=True)
class Page:
    """How a page is made: measured, gathered, told and drawn."""

    measure: Callable[[], None]
    gather: Callable[[], Results]
    tables: Callable[[Results], dict[str, Grid]]
    parts: Callable[[Results], dict[str, Columns]]


PAGES = {
    **{
        name: Page(partial(measure_task, name), partial(gather, name), task_tables, task_parts)
        for name in ("questions", "reviews", "r8", "r52")
    },
    "fine-tuning": Page(measure_finetuning, gather_finetuning, finetuning_tables, finetuning_parts),
    "noise": Page(measure_noise, gather_noise, noise_tables, noise_parts),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, gather, fill and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", choices=sorted(PAGES))
    parser.add_argument("--gather", action="store_true", help="measure nothing")
    parser.add_argument("--show", action="store_true", help="measure nothing, keep the JSON")
    parser.add_argument("--extend", action="store_true", help="measure what the page lacks")
    options = parser.parse_args(arguments)
    name = options.page
    if options.extend:
        restore(name)
    page = PAGES[name]
    path = DOCS / f"{name}.json"
    if not (options.gather or options.show):
        page.measure()
    if not options.show:
        path.write_text(json.dumps(page.gather(), separators=(",", ":")) + "\n")
    results = json.loads(path.read_text())
    made = page.tables(results)
    for grid in made.values():
        print(f"\n{grid.title}\n\n{grid.markdown()}")
    text = (DOCS / f"{name}.md").read_text()
    (DOCS / f"{name}.md").write_text(fill(text, made))
    panels(page.parts(results), IMAGES / f"results-{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
