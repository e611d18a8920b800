"""Plots of the benchmark, one per question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.targets import best, coverages, ratio

Results = dict[str, Any]

SERIES = {
    "ht": ("coordinated, auto (ours)", "#0b6e4f", "o"),
    "iid": ("published algorithm (iid)", "#c8553d", "s"),
    "stratified_uniform": ("stratified uniform", "#7d8597", "^"),
}
BUDGETS = (200, 1000, 4000)
SHOWN = ("fashion-1200", "fashion-cnn-mlp-loss", "r8", "reviews", "rare-hard", "noise")


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Draw every plot there are figures for; return their files."""
    return save_all(PLOTS, results, folder, prefix="estimation")


def save_all(
    plots: dict[str, Callable[[Results], Any]], results: Results, folder: Path, *, prefix: str
) -> list[Path]:
    """Save every plot there are figures for as ``PREFIX-NAME.png``; return their files."""
    import matplotlib

    matplotlib.use("Agg")
    made = []
    for name, draw in plots.items():
        figure = draw(results)
        if figure is None:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{prefix}-{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
        made.append(path)
    return made


def _ratios(results: Results) -> Any:
    """Error over uniform's at 1,000 rows in each problem's best space."""
    problems = results.get("problems", {})
    cells = [
        (name, cell) for name, one in problems.items() if (cell := best(one, 1000)) is not None
    ]
    if not cells:
        return None
    cells.sort(key=lambda one: ratio(one[1]), reverse=True)
    figure, axes = _figure(9.0, 1.2 + 0.3 * len(cells))
    for name, (label, colour, marker) in SERIES.items():
        values = [ratio(cell, name) for _, cell in cells]
        axes.plot(values, range(len(cells)), marker, color=colour, label=label)
    spread = [1.96 * cell["estimators"]["ht"]["se"] for _, cell in cells]
    axes.errorbar(
        [ratio(cell) for _, cell in cells], range(len(cells)), xerr=spread, fmt="none", color="k"
    )
    axes.set_yticks(range(len(cells)), [f"{name} ({cell['space']})" for name, cell in cells])
    axes.axvline(1.0, color="k", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    ticks = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("RMSE of the estimated total / that of 1,000 uniform rows (bars: 95%)")
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    return figure


def _budgets(results: Results) -> Any:
    """Error against the budget, in each problem's best space at 1,000 rows."""
    problems = {n: p for n, p in results.get("problems", {}).items() if n in SHOWN}
    if not problems:
        return None
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(10.0, 6.0), squeeze=False, layout="constrained")
    for axes in grid.flat[len(problems) :]:
        axes.set_visible(False)
    for axes, (name, problem) in zip(grid.flat, problems.items(), strict=False):
        budgets = [s for s in BUDGETS if best(problem, s) is not None]
        middle = best(problem, 1000) or problem["cells"][0]
        cells = [c for c in problem["cells"] if c["space"] == middle["space"]]
        uniform = [100 * cell["uniform"] for cell in cells]
        axes.plot(budgets, uniform, "k:", label="uniform")
        for series, (label, colour, marker) in SERIES.items():
            values = [100 * cell["uniform"] * ratio(cell, series) for cell in cells]
            axes.plot(budgets, values, marker=marker, color=colour, label=label)
        axes.set(xscale="log", yscale="log", title=f"{name}\n{middle['space']}")
        axes.set_xticks(budgets, [f"{s:,}" for s in budgets])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3, which="both")
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.supxlabel("rows drawn")
    figure.supylabel("relative RMSE, %")
    return figure


def _coverage(results: Results) -> Any:
    """Coverage of every cell, by design."""
    problems = results.get("problems", {})
    kinds = {"ht": "ours", "systematic": "systematic", "iid": "iid", "uniform": "uniform"}
    found = {name: coverages(problems, name) for name in kinds}
    if not any(found.values()):
        return None
    figure, axes = _figure(8.0, 4.0)
    colours = {200: "#c8553d", 1000: "#0b6e4f", 4000: "#3d5a80"}
    for place, name in enumerate(kinds):
        for s, shift in zip(BUDGETS, (-0.22, 0.0, 0.22), strict=True):
            shares = sorted(100 * one[3] for one in found[name] if one[2] == s)
            spread = [0.08 * (i / max(len(shares) - 1, 1) - 0.5) for i in range(len(shares))]
            axes.plot(
                [place + shift + one for one in spread],
                shares,
                ".",
                color=colours[s],
                label=f"{s:,} rows" if place == 0 else None,
            )
    axes.axhspan(93, 98, color="#0b6e4f", alpha=0.10)
    axes.axhline(95, color="k", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), list(kinds.values()))
    axes.set_ylabel("coverage of nominal 95% intervals, %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _proxies(results: Results) -> Any:
    """Ratio of each single proxy and of auto, in the best space."""
    rows = [
        (name, problem["proxies"][0])
        for name, problem in results.get("problems", {}).items()
        if problem.get("proxies")
    ]
    if not rows:
        return None
    rows.sort(key=lambda one: one[1]["auto"]["ratio"], reverse=True)
    figure, axes = _figure(9.0, 1.2 + 0.3 * len(rows))
    marks = {"cluster": "s", "low_rank": "^", "regression": "D"}
    for name, marker in marks.items():
        values = [one[name]["ratio"] for _, one in rows]
        axes.plot(values, range(len(rows)), marker, fillstyle="none", label=name)
    autos = [one["auto"]["ratio"] for _, one in rows]
    axes.plot(autos, range(len(rows)), "o", color="#0b6e4f", label="auto", markersize=4)
    axes.set_yticks(range(len(rows)), [f"{name} ({one['space']})" for name, one in rows])
    axes.axvline(1.0, color="k", linewidth=0.8, linestyle=":")
    axes.set_xlabel("RMSE / that of uniform rows, 1,000 rows")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _clusters(results: Results) -> Any:
    """Error against the number of clusters."""
    found = results.get("clusters", [])
    if not found:
        return None
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["problem"] for row in found))
    figure, grid = plt.subplots(
        1, len(names), figsize=(3.6 * len(names), 3.4), squeeze=False, layout="constrained"
    )
    for axes, name in zip(grid.flat, names, strict=True):
        rows = [row for row in found if row["problem"] == name]
        numbers = [row["k"] for row in rows]
        axes.plot(numbers, [r["equal_rows"]["ratio"] for r in rows], "k-o", label="1,000 rows")
        for total in (500, 1600, 5000):
            told = [(row["k"], row["equal_evaluations"].get(str(total))) for row in rows]
            line = [(k, one["ratio"]) for k, one in told if one]
            axes.plot(*zip(*line, strict=True), "--.", label=f"{total:,} evaluations")
        axes.set(xscale="log", title=name, xlabel="clusters k")
        axes.set_xticks(numbers, [str(k) for k in numbers])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("RMSE / uniform's")
    grid[0, 0].legend(fontsize=7, frameon=False)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.grid(alpha=0.3)
    return figure, axes


PLOTS: dict[str, Callable[[Results], Any]] = {
    "ratios": _ratios,
    "budgets": _budgets,
    "coverage": _coverage,
    "proxies": _proxies,
    "clusters": _clusters,
}
