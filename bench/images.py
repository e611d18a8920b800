"""The page of docs/results on images: Fashion-MNIST at five budgets, against every baseline.

``python -m bench.images`` measures what is not there yet under data/bench, writes every seed of it
to docs/results/images.json, and fills docs/results/images.md and draws its plot from that.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench import training
from bench.pages import DOCS, IMAGES, Columns, Results, compared, gain, gather, restore
from bench.show import Grid, fill

OURS = ("ours", "ours-by-label", "ours-by-label-coordinated", "ours-tilted")
RIVALS = ("uniform", "class-stratified", "margin", "entropy", "k-center", "badge")
DEFAULT = "ours-by-label-coordinated"  # space and design are the pipeline's
DRAWN = {
    DEFAULT: ("#0b6e4f", "o", 2.4),
    "ours": ("#35a77c", "s", 1.4),
    "published": ("#8d6cab", "v", 1.2),
    "gradient-norm-sampled": ("#c98500", "^", 1.2),
    "class-stratified": ("#7d8597", ".", 1.2),
    "badge": ("#b33951", "D", 1.2),
    "margin": ("#3066be", "x", 1.2),
    "k-center": ("#59405c", "+", 1.2),
}
TARGETS = {"1000": 0.3, "4000": 0.9}
"""Points over uniform rows that are to be reached at a budget."""


def tables(results: Results) -> dict[str, Grid]:
    """Return a table for each budget, and how ours compares with the rivals."""
    made = {
        f"budget-{budget}": compared(
            columns,
            f"{int(budget):,} rows",
            beside=results["all rows"],
            metrics=("accuracy", "macro_f1", "worst_class"),
        )
        for budget, columns in results["budgets"].items()
    }
    return made | {"duel": duel(results["budgets"]), "costs": costs(results["budgets"])}


def duel(budgets: dict[str, Columns]) -> Grid:
    """Return by how many points of accuracy ours is above others, paired by seed."""
    rows = []
    for budget, columns in budgets.items():
        for own in OURS[:3]:
            told = [_points(gain(columns, own, "accuracy", other)) for other in RIVALS]
            rows.append((f"{int(budget):,}", own, *told))
    return Grid("Points of accuracy above others", ("rows", "", *RIVALS), rows, left=2)


def _points(found: dict[str, float]) -> str:
    mid, half = 100.0 * found["mean"], 50.0 * (found["high"] - found["low"])
    text = f"{mid:+.1f} ± {half:.1f}"
    if mid - half > 0.0:
        return f"**{text}**"
    return f"*{text}*" if mid + half < 0.0 else text


def costs(budgets: dict[str, Columns]) -> Grid:
    """Return what choosing costs at the largest budget."""
    budget, columns = list(budgets.items())[-1]
    rows = []
    for name, found in sorted(columns.items(), key=lambda one: np.median(one[1]["choose_seconds"])):
        told = (np.median(found[key]) for key in ("evaluations", "choose_seconds", "choose_mib"))
        asked, seconds, mib = told
        rows.append((name, f"{asked:,.0f}", f"{seconds:.2f}", f"{mib:,.0f}"))
    head = ("strategy", "rows the model was asked about", "processor seconds", "MiB")
    return Grid(f"Cost at {int(budget):,} rows", head, rows)


def targets(budgets: dict[str, Columns]) -> list[tuple[str, bool]]:
    """Return what is to be reached, in words with the figures, and whether it is."""
    found = []
    for budget, least in TARGETS.items():
        if budget not in budgets:
            continue
        columns = budgets[budget]
        over = gain(columns, DEFAULT, "accuracy")
        met = over["low"] > 0.0 and 100.0 * over["mean"] >= least
        said = f"over uniform at {int(budget):,} rows: {_points(over)} (at least {least:+.1f})"
        found.append((said.replace("*", ""), met))
        for other in ("margin", "entropy", "k-center", "badge"):
            one = gain(columns, DEFAULT, "accuracy", other)
            said = f"over {other} at {int(budget):,} rows: {_points(one)} (not below)"
            found.append((said.replace("*", ""), one["high"] >= 0.0))
    return found


def plot(budgets: dict[str, Columns], path: Path) -> None:
    """Draw accuracy over uniform against the budget, with 95% intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.0, 4.4))
    sizes = [int(b) for b in budgets]
    for i, (name, (colour, marker, width)) in enumerate(DRAWN.items()):
        found = [gain(columns, name, "accuracy") for columns in budgets.values()]
        at = np.array(sizes) * 1.012 ** (i - len(DRAWN) / 2)  # so that bars do not cover each other
        axes.errorbar(
            at, [100.0 * f["mean"] for f in found],
            yerr=[50.0 * (f["high"] - f["low"]) for f in found],
            label=name, color=colour, marker=marker, linewidth=width, markersize=5, capsize=2,
        )  # fmt: skip
    axes.axhline(0.0, color="k", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{b:,}" for b in sizes])
    axes.minorticks_off()
    axes.set_xlabel("rows trained on, of 60,000")
    axes.set_ylabel("points of accuracy over uniform rows")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    seeds = min(len(c["uniform"]["accuracy"]) for c in budgets.values())
    axes.set_title(f"Fashion-MNIST, {seeds} seeds, 95% intervals", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Measure, gather, fill and draw; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gather", action="store_true", help="measure nothing")
    parser.add_argument("--show", action="store_true", help="measure nothing, keep the JSON")
    parser.add_argument("--extend", action="store_true", help="measure what the page lacks")
    options = parser.parse_args(arguments)
    if options.extend:
        restore("images")
    path = DOCS / "images.json"
    if not (options.gather or options.show):
        training.main(["images"])
    if not options.show:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(gather("images"), separators=(",", ":")) + "\n")
    results: dict[str, Any] = json.loads(path.read_text())
    made = tables(results)
    for grid in made.values():
        print(f"\n{grid.title}\n\n{grid.markdown()}")
    page = DOCS / "images.md"
    page.write_text(fill(page.read_text(), made))
    plot(results["budgets"], IMAGES / "results-images.png")
    told = targets(results["budgets"])
    for said, met in told:
        print(f"{DEFAULT} {said}: {'met' if met else 'MISSED'}")
    return int(any(not met for _, met in told))


if __name__ == "__main__":
    sys.exit(main())
