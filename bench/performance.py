"""What docs/performance.md shows of the parts' results: its tables and its plots."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import three_digits
from bench.plots import save_all
from bench.show import Grid, fill

PARTS = {
    "encode": "texts to vectors, against sentence-transformers",
    "cluster": "k-means, against faiss and scikit-learn",
    "select": "1,000 of 50,000 rows, against other selectors",
    "scale": "ten million rows on disk",
    "overhead": "what the pipeline adds to the work itself",
}
MET, MISSED = "#0b6e4f", "#c8553d"
FROM_MACHINE = ("date", "processor", "processors", "threads", "memory_gib", "load_before", "python")

Results = dict[str, dict[str, Any]]


def grids(results: Results) -> dict[str, Grid]:
    """Return every table that there are figures for, by the name it has on the page."""
    made = {name: make(results) for name, make in GRIDS.items()}
    return {name: grid for name, grid in made.items() if grid.rows}


def write(results: Results, page: Path) -> None:
    """Fill the page's tables and draw its plots next to it, in ``images``."""
    text = fill(page.read_text(), grids(results))
    draw_all(results, page.parent / "images")
    page.write_text(text)


def _ratios(results: Results) -> Grid:
    rows = []
    for name in PARTS:
        for one in results.get(name, {}).get("ratios", []):
            verdict = "met" if one["met"] else "**missed**"
            told = (_bound(one), verdict) if _wanted(one) else ("-", "told")
            words = (f"`{name}`", _cell(one["name"]), _cell(one["note"]))
            rows.append((*words, three_digits(one["value"]), *told))
    head = ("part", "ratio", "", "measured", "target", "")
    return Grid("Ratios", head, rows, left=3)


def _wanted(ratio: dict[str, Any]) -> bool:
    """Return whether a ratio has a target, or is only told."""
    return 0.0 < ratio["bound"] < float("inf")


def _bound(ratio: dict[str, Any]) -> str:
    return f"{'≥' if ratio['at_least'] else '≤'} {ratio['bound']:g}"


def _machines(results: Results) -> Grid:
    """One column for each part: they may have run on different days."""
    parts = [name for name in PARTS if name in results]
    found = [results[name]["machine"] for name in parts]
    keys = dict.fromkeys((*FROM_MACHINE, *(key for one in found for key in one)))
    rows = [(key, *(str(one.get(key, "-")) for one in found)) for key in keys]
    return Grid("Machine", ("", *(f"`{name}`" for name in parts)), rows if parts else [])


def _selectors(results: Results) -> Grid:
    figures = results.get("select", {}).get("figures", {})
    product = figures.get("product_seconds", float("nan"))
    rows = []
    for row in figures.get("selectors", []):
        if "seconds" not in row:
            continue
        seconds, ours = statistics.median(row["seconds"]), statistics.median(row["ours"])
        rows.append(
            (
                row["title"],
                f"{row['package']} {row['version']}",
                f"{row['rows']:,}",
                str(len(row["seconds"])),
                f"{seconds:.3g}",
                f"{row['cpu']:.3g}",
                f"{row['mib']:,.0f}",
                f"{seconds / product:.3g}",
                "1" if row["name"] == "ours" else f"{seconds / ours:.3g}",
                f"{row['distance']:.3f}",
                f"{100 * row['error']:.2g}% ({row['draws']})",
            )
        )
    head = ("selector", "package", "rows", "rounds", "seconds", "CPU seconds", "MiB", "products")
    return Grid("Selectors", (*head, "times ours", "distance", "error (draws)"), rows, left=2)


def _unable(results: Results) -> Grid:
    figures = results.get("select", {}).get("figures", {})
    rows = [
        (row["title"], row["package"], _cell(why))
        for row in figures.get("selectors", [])
        for why in row["reasons"]
    ]
    return Grid("What did not run", ("selector", "package", "why"), rows, left=3)


def _timings(results: Results) -> Grid:
    """Seconds of all sides of every part that keeps them round by round."""
    rows = []
    for name in PARTS:
        for what, sides in results.get(name, {}).get("seconds", {}).items():
            for side, seconds in sides.items():
                low, high = min(seconds), max(seconds)
                median = statistics.median(seconds)
                words = (f"`{name}`", _cell(what), _cell(side), str(len(seconds)))
                rows.append((*words, f"{median:.3g}", f"{low:.3g} to {high:.3g}"))
    head = ("part", "what", "side", "rounds", "seconds, median", "range")
    return Grid("Seconds", head, rows, left=3)


def _figures(results: Results) -> Grid:
    """What parts have measured besides, where it is a number or a word."""
    rows = [
        (
            f"`{name}`",
            _cell(what),
            f"{value:,.4g}" if isinstance(value, float) else _cell(f"{value}"),
        )
        for name in PARTS
        for what, value in results.get(name, {}).get("figures", {}).items()
        if isinstance(value, str | int | float)
    ]
    return Grid("Figures", ("part", "figure", ""), rows, left=2)


def _cell(text: str) -> str:
    """Return a text that does not end a table's cell, nor is read as HTML."""
    return text.replace("|", "/").replace("<", "&lt;").replace("\n", " ")


GRIDS: dict[str, Callable[[Results], Grid]] = {
    "ratios": _ratios,
    "selectors": _selectors,
    "unable": _unable,
    "timings": _timings,
    "figures": _figures,
    "machine": _machines,
}


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Draw every plot there are figures for; return their files."""
    return save_all(PLOTS, results, folder, prefix="bench")


def _draw_ratios(results: Results) -> Any:
    """Bars on a log axis from 1, with a tick where the target is."""
    bars = [(name, one) for name in PARTS for one in results.get(name, {}).get("ratios", [])]
    bars = [(name, one) for name, one in bars if one["value"] > 0 and _wanted(one)][::-1]
    if not bars:
        return None
    figure, axes = _figure(9.0, 1.2 + 0.28 * len(bars))
    values = [one["value"] for _, one in bars]
    colours = [MET if one["met"] else MISSED for _, one in bars]
    axes.barh(range(len(bars)), [v - 1.0 for v in values], left=1.0, color=colours, height=0.6)
    for at, (_, one) in enumerate(bars):
        axes.plot([one["bound"]] * 2, [at - 0.45, at + 0.45], color="k", linewidth=1.6)
        axes.annotate(
            f"{three_digits(one['value'])}  ({_bound(one)})",
            (max(one["value"], one["bound"], 1.0), at),
            xytext=(5, -3),
            textcoords="offset points",
            fontsize=7,
        )
    axes.set_yticks(range(len(bars)), [f"{name}: {one['name']}" for name, one in bars], fontsize=7)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 4.0)
    axes.axvline(1.0, color="k", linewidth=0.8, linestyle=":")
    axes.set_xlabel("ratio of medians (black tick: target; red: missed)")
    return figure


def _draw_select(results: Results) -> Any:
    """Time and memory of all selectors side by side, a line each, the fastest on top."""
    rows = results.get("select", {}).get("figures", {}).get("selectors", [])
    rows = [row for row in rows if "seconds" in row]
    if not rows:
        return None
    rows.sort(key=lambda row: statistics.median(row["seconds"]), reverse=True)
    full = max(row["rows"] for row in rows)
    figure, (time, memory) = _figure(9.0, 0.8 + 0.27 * len(rows), columns=2)
    for y, row in enumerate(rows):
        colour = MET if row["name"] == "ours" else "#7d8597"
        fill = "full" if row["rows"] == full else "none"
        time.plot(statistics.median(row["seconds"]), y, "o", color=colour, fillstyle=fill)
        memory.plot(max(row["mib"], 1.0), y, "o", color=colour, fillstyle=fill)
    time.set_yticks(range(len(rows)), [_selector(row, full) for row in rows], fontsize=7)
    time.set_xlabel(f"seconds for {full:,} rows (hollow: fewer rows)", fontsize=8)
    memory.set_xlabel("MiB on top of the rows", fontsize=8)
    for axes in (time, memory):
        axes.set_xscale("log")
        axes.grid(axis="y", linewidth=0.4)
    return figure


def _selector(row: dict[str, Any], full: int) -> str:
    """Return the name of a selector, with its rows where they are fewer."""
    if row["name"] == "ours":
        return "ours"
    fewer = "" if row["rows"] == full else f" ({row['rows']:,} rows)"
    return f"{row['package']}: {row['title']}{fewer}"


def _figure(width: float, height: float, *, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, found = plt.subplots(
        1, columns, figsize=(width, height), sharey=True, squeeze=False, layout="constrained"
    )
    for axes in found[0]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found[0][0] if columns == 1 else found[0]


PLOTS: dict[str, Callable[[Results], Any]] = {
    "ratios": _draw_ratios,
    "select": _draw_select,
}
