"""What docs/results/regression.md shows: tables and plots of what `bench.regression` kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.plots import save_all
from bench.show import Grid, fill

DOCS = Path(__file__).resolve().parents[1] / "docs" / "results"
TITLES = {
    "casp": "CASP",
    "law": "law school",
    "casp-quadratic": "CASP, products of two",
    "casp-fourier-300": "CASP, Fourier features",
    "casp-fourier-500": "CASP, Fourier features",
}
WORDS = {
    "uniform": "uniform",
    "row_norm": "row norms",
    "leverage": "exact leverage",
    "ridge_leverage": "ridge leverage",
    "sketched leverage": "sketched leverage",
    "leverage by Gram matrix": "exact leverage, by the Gram matrix",
    "mix": "**ours**",
    "mix, clusters of features": "ours, clusters of the features alone",
}
COLOURS = {
    "uniform": "#7d8597",
    "row_norm": "#c9a227",
    "leverage": "#c8553d",
    "ridge_leverage": "#3d5a80",
    "mix": "#0b6e4f",
}
TARGETS = {100: 0.95, 300: 0.95, 1000: 0.82}  # of the median excess risk to exact leverage's
WIDE_COLUMNS = 300  # from here on ours must take less time than exact leverage

Results = dict[str, Any]


def grids(kept: Results) -> dict[str, Grid]:
    """Return every table of the page, by its name."""
    made = {
        "targets": targets(kept),
        "time": _time(kept),
        "clusters": _clusters(kept),
        "machine": _machine(kept),
        "wide": _wide(kept),
    }
    for problem in ("casp", "law"):
        for design in ("iid", "systematic"):
            made[f"{problem}-{design}"] = _risks(kept, problem, design)
    return {name: grid for name, grid in made.items() if grid.rows}


def report(kept: Results) -> None:
    """Print all tables, the targets last."""
    found = grids(kept)
    for name in [name for name in found if name != "targets"] + ["targets"]:
        print(f"\n{found[name].title}\n\n{found[name].markdown()}")


def write(kept: Results, folder: Path = DOCS) -> None:
    """Fill the page's tables, draw its plots, and lay the figures beside it."""
    page = folder / "regression.md"
    text = fill(page.read_text(), grids(kept))
    save_all(PLOTS, kept, folder.parent / "images", prefix="regression")
    (folder / "regression.json").write_text(json.dumps(kept, indent=1) + "\n")
    page.write_text(text)


def budgets_of(kept: Results, problem: str, design: str) -> list[int]:
    """Return the budgets that were measured."""
    keys = [key.split() for key in kept["cells"]]
    return sorted(int(b) for p, d, b in keys if (p, d) == (problem, design))


def laws_at(kept: Results, problem: str, design: str, budget: int) -> Results:
    """Return what each law gave."""
    found: Results = kept["cells"][f"{problem} {design} {budget}"]["laws"]
    return found


def _ratio(one: Results) -> str:
    """Return a ratio to leverage and its interval; in bold where the interval is below 1."""
    text = f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    return f"**{text}**" if one["high"] < 1.0 else text


def _risk(one: Results, law: str) -> str:
    number = f"{one['median']:.3g}"
    return number if law == "leverage" else f"{number}: {_ratio(one['to_leverage'])}"


def _risks(kept: Results, problem: str, design: str) -> Grid:
    """Median excess risk of every law and budget, and its ratio to leverage's."""
    budgets = budgets_of(kept, problem, design)
    names = list(laws_at(kept, problem, design, budgets[0])) if budgets else []
    rows = [
        (WORDS[n], *(_risk(laws_at(kept, problem, design, b)[n], n) for b in budgets))
        for n in names
    ]
    head = ("law", *(f"{b:,} rows" for b in budgets))
    return Grid(f"{TITLES[problem]}, {design}", head, rows)


def _wide(kept: Results) -> Grid:
    """Wide features, in one table."""
    rows = []
    for problem in kept["shapes"]:
        budgets = budgets_of(kept, problem, "iid") if problem not in ("casp", "law") else []
        found = [laws_at(kept, problem, "iid", b) for b in budgets]
        for name in found[0] if found else ():
            told = (_risk(one[name], name) for one in found)
            columns = str(kept["shapes"][problem][1])
            rows.append((TITLES[problem], WORDS[name], columns, *told))
    return Grid("Wide features, iid", ("features", "law", "columns", "1,000 rows", "3,000 rows"),
                rows, left=2)  # fmt: skip


def seconds_ratio(kept: Results, problem: str, above: str, below: str) -> tuple[float, str]:
    """Return the ratio of median processor seconds, and those of single rounds as text."""
    one, other = kept["seconds"][problem][above], kept["seconds"][problem][below]
    each = [a / b for a, b in zip(one, other, strict=True)]
    ratio = statistics.median(one) / statistics.median(other)
    return ratio, f"{ratio:.2f} ({min(each):.2f} to {max(each):.2f})"


def _time(kept: Results) -> Grid:
    """Processor seconds of every law, clustering included, and ratios of ours."""
    rows = []
    for problem in kept["shapes"]:
        if problem not in kept["seconds"]:
            continue
        seconds, (n, d, _) = kept["seconds"][problem], kept["shapes"][problem]
        names = ("uniform", "row_norm", "ridge_leverage", "leverage", "leverage by Gram matrix")
        told = (f"{statistics.median(seconds[name]):.2g}" for name in (*names, "mix"))
        rows.append(
            (
                TITLES[problem],
                f"{n:,} × {d}",
                *told,
                seconds_ratio(kept, problem, "mix", "leverage")[1],
                seconds_ratio(kept, problem, "mix", "leverage by Gram matrix")[1],
            )
        )
    head = ("features", "shape", "uniform", "row norms", "ridge leverage", "leverage")
    head += ("leverage, Gram", "ours", "ours / leverage", "ours / leverage, Gram")
    return Grid("Processor seconds of a law, one thread", head, rows, left=1)


def _clusters(kept: Results) -> Grid:
    """Ours against leverage by the number of clusters."""
    found = kept.get("clusters", [])
    budgets = sorted({one["budget"] for one in found})
    rows = []
    for k in sorted({one["k"] for one in found}):
        at = {one["budget"]: one["to_leverage"] for one in found if one["k"] == k}
        rows.append((str(k), *(_ratio(at[b]) for b in budgets)))
    return Grid("Number of clusters, CASP, iid", ("k", *(f"{b:,} rows" for b in budgets)), rows)


def targets(kept: Results) -> Grid:
    """What was to be reached, and whether it was."""
    rows = []
    for budget, bound in TARGETS.items():
        for design in ("iid", "systematic"):
            if budget not in budgets_of(kept, "casp", design):
                continue
            found = laws_at(kept, "casp", design, budget)["mix"]["to_leverage"]
            what = f"CASP, {design}, {budget:,} rows: median excess risk / exact leverage's"
            told = f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
            beyond = "; its interval reaches beyond" if found["high"] > bound else ""
            verdict = _verdict(found["value"] <= bound)
            rows.append((what, f"at most {bound}", told, verdict + beyond))
    for problem, (n, d, _) in kept["shapes"].items():
        if problem not in kept["seconds"]:
            continue
        for below in ("leverage", "leverage by Gram matrix") if d >= WIDE_COLUMNS else ():
            value, told = seconds_ratio(kept, problem, "mix", below)
            what = f"{n:,} × {d}: time of ours / {WORDS[below]}"
            rows.append((what, "below 1", told, _verdict(value < 1.0)))
    return Grid("Targets", ("what", "target", "measured", ""), rows)


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _machine(kept: Results) -> Grid:
    keys = ("processor", "processors", "threads", "numpy", "python", "date")
    rows = [(key, str(kept["machine"][key])) for key in keys if key in kept["machine"]]
    return Grid("Machine", ("", ""), rows, left=2)


def _budgets(kept: Results) -> Any:
    """Excess risk against sample size, one panel for each problem and design."""
    import matplotlib.pyplot as plt

    panels = [(p, d) for p in ("casp", "law") for d in ("iid", "systematic")]
    panels = [panel for panel in panels if budgets_of(kept, *panel)]
    if not panels:
        return None
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.3 * len(panels), 3.4), squeeze=False, layout="constrained"
    )
    for axes, (problem, design) in zip(grid.flat, panels, strict=True):
        budgets = budgets_of(kept, problem, design)
        for name, colour in COLOURS.items():
            found = [laws_at(kept, problem, design, b)[name] for b in budgets]
            middle = [one["median"] for one in found]
            axes.plot(
                budgets, middle, "o-" if name == "mix" else ".-", color=colour,
                label=WORDS[name].strip("*"), linewidth=2.0 if name == "mix" else 1.0,
            )  # fmt: skip
            axes.fill_between(
                budgets, [one["low"] for one in found], [one["high"] for one in found],
                color=colour, alpha=0.15,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", title=f"{TITLES[problem]}, {design}")
        axes.set_xticks(budgets, [f"{b:,}" for b in budgets])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.supxlabel("rows drawn")
    figure.supylabel("median excess risk")
    return figure


def _seconds(kept: Results) -> Any:
    """Time against the number of columns."""
    import matplotlib.pyplot as plt

    found = sorted(
        (shape[1], kept["seconds"][name])
        for name, shape in kept["shapes"].items()
        if name.startswith("casp") and name in kept["seconds"]
    )
    if not found:
        return None
    figure, axes = plt.subplots(figsize=(5.0, 3.4), layout="constrained")
    styles = {"leverage": "-", "leverage by Gram matrix": "--", "mix": "-"}
    for name, style in styles.items():
        colour = COLOURS["mix" if name == "mix" else "leverage"]
        middle = [statistics.median(seconds[name]) for _, seconds in found]
        label = WORDS[name].strip("*")
        axes.plot([d for d, _ in found], middle, "o" + style, color=colour, label=label)
    columns = [d for d, _ in found]
    axes.set(xscale="log", yscale="log", xlabel="columns", ylabel="processor seconds, 45,730 rows")
    axes.set_xticks(columns, [str(d) for d in columns])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


PLOTS: dict[str, Callable[[Results], Any]] = {"risk": _budgets, "time": _seconds}
