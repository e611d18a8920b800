"""Plots of what came out: class shares, comparisons, estimates and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from curation.reporting import canvas as c
from curation.reporting.text import t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def class_shares(
    classes: Sequence[object],
    all_rows: ArrayLike,
    subset: ArrayLike,
    uniform: ArrayLike | None = None,
    *,
    title: str,
    top: int = 25,
) -> bytes:
    """Draw the share of every class among all rows, in the subset and in a uniform draw.

    Parameters
    ----------
    classes
        Class names, n of them.
    all_rows, subset, uniform
        Rows (or any other mass) per class, (n,) each; turned into per cent. `uniform` may be None.
    title
        The finding.
    top
        Number of classes, the most frequent first; the caption counts the others.

    Returns
    -------
    bytes
        A PNG; the axis is logarithmic when shares span more than a factor of 20, and a class
        that is missing from a draw is then a cross at the left edge.
    """
    given = {"all rows": all_rows, "uniform": uniform, "subset": subset}
    columns = {k: _per_cent(v) for k, v in given.items() if v is not None}
    if c.same_length(classes=classes, **columns) == 0:
        return c.nothing(title)
    order = np.argsort(-columns["all rows"], kind="stable")
    first, rest = order[:top], order[top:]
    table = np.stack([columns[k][first] for k in columns])
    present = table[table > 0]
    log = bool(present.size) and present.max() > 20 * present.min()
    missing = log and bool((table == 0).any())
    caption = "Share of each class." + (" A cross: no row of that class." if missing else "")
    if rest.size:
        share = columns["all rows"][rest].sum()
        further = c.plural(rest.size, "rarer class", "rarer classes")
        caption += f" {further} ({share:.1f}% of all rows) not shown."
    figure, (ax,) = c.sheet(title, caption, height=max(c.HEIGHT, 136 + 18 * first.size))
    edge = float(present.min()) / 1.6 if log else 0.0
    _share_dots(ax, list(columns), table, np.where(table > 0, table, edge), crosses=log)
    c.named_rows(ax, [classes[i] for i in first])
    if log:
        ax.set_xlim(edge / 1.15, float(present.max()) * 1.3)
    else:
        ax.set_xlim(-0.02 * max(table.max(), 1e-9), 1.08 * max(table.max(), 1e-9))
    c.number_axis(ax, "x", log=log)
    c.axis_label(ax, x="share of rows (%" + (", log scale)" if log else ")"))
    c.legend_above(ax, columns=3)
    return c.png(figure)


def comparison(
    results: Mapping[str, Mapping[str, Sequence[float]]], *, metrics: Sequence[str], title: str
) -> bytes:
    """Draw models trained on several sets of rows next to each other.

    Parameters
    ----------
    results
        ``{"subset": {"accuracy": [one value per seed], ...}, "uniform": ..., "all rows": ...}``.
        The first entry is emphasised. A metric may be missing from an entry.
    metrics
        Metrics to draw, one panel each.
    title
        The finding.

    Returns
    -------
    bytes
        A PNG: a dot per seed, and the mean with its 95% t-interval.
    """
    if not results or not metrics:
        return c.nothing(title, "Nothing to show: there are no results.")
    seeds = max((len(v) for r in results.values() for v in r.values()), default=0)
    caption = (
        f"A dot is one seed (up to {seeds}); the line is the mean, the bar its 95% t-interval."
        if seeds > 1
        else "One run each: nothing is known about the spread between seeds."
    )
    across = min(len(metrics), 3)
    down = -(-len(metrics) // across)
    height = max(c.HEIGHT, 110 + down * (60 + 50 * len(results)))
    figure, axes = c.sheet(title, caption, height=height, panels=len(metrics), columns=across)
    for i, (metric, ax) in enumerate(zip(metrics, axes, strict=True)):
        for y, (name, values) in enumerate(results.items()):
            color = {"all rows": c.GREY}.get(name, c.BLUE if y == 0 else c.ORANGE)
            _seeds(ax, y, [v for v in values.get(metric, []) if np.isfinite(v)], color)
        c.named_rows(ax, list(results), limit=22, size=9)
        ax.set_ylim(len(results) - 0.45, -0.55)
        if i % across:
            ax.set_yticklabels([])
        low, high = ax.dataLim.intervalx
        pad = max(0.18 * (high - low), 1e-3 * max(abs(low), abs(high)), 1e-9)
        if np.isfinite([low, high]).all():
            ax.set_xlim(low - pad, high + pad)
        c.number_axis(ax, "x", bins=6 if across == 1 else 4)
        c.axis_label(ax, x=metric.replace("_", " "))
    return c.png(figure)


def estimate_errors(
    names: Sequence[object],
    estimate: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    truth: float | Sequence[float | None] | None = None,
    unit: str,
    title: str,
) -> bytes:
    """Draw estimates with their intervals, and the true total where it is known.

    Parameters
    ----------
    names
        What or how is estimated, n of them, e.g. one per estimator.
    estimate, low, high
        The estimates and the ends of their intervals, (n,) each, in `unit`.
    truth
        The true value: one for all, or one (or None) per estimate; None when unknown.
    unit
        What the values are, e.g. ``total loss (nats)``.
    title
        The finding.

    Returns
    -------
    bytes
        A PNG. Estimates that differ by more than a factor of 8 are drawn as deviations in per cent.
    """
    values = [np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (estimate, low, high)]
    n = c.same_length(names=names, estimate=values[0], low=values[1], high=values[2])
    if n == 0:
        return c.nothing(title, "Nothing to show: there are no estimates.")
    one = truth is None or np.ndim(truth) == 0  # type: ignore[arg-type]
    per_row = [truth] * n if one else list(truth)  # type: ignore[arg-type]
    c.same_length(names=names, truth=per_row)
    true = np.array([np.nan if t is None else t for t in per_row], dtype=np.float64)
    known = np.isfinite(true)
    caption = "A dot is the estimate, the bar its interval."
    if known.any():
        inside = known & (true >= values[1]) & (true <= values[2])
        caption += f" {inside.sum()} of {known.sum()} intervals hold the true value."
    figure, (ax,) = c.sheet(title, caption, height=250 if n == 1 else max(c.HEIGHT, 140 + 30 * n))
    size = np.abs(values[0])
    relative = bool(size.min() > 0 and size.max() / 8 > size.min())
    _intervals(ax, values, true, line=one, relative=relative)
    c.named_rows(ax, names)
    ax.set_ylim(n - 0.4, -0.75)
    ax.margins(x=0.22)
    c.number_axis(ax, "x")
    c.axis_label(ax, x=f"deviation from the estimate (%) of the {unit}" if relative else unit)
    if known.any():
        c.legend_above(ax, columns=2)
    return c.png(figure)


def _share_dots(
    ax: Axes, names: Sequence[str], shares: c.Floats, at: c.Floats, *, crosses: bool
) -> None:
    """Draw a row of marks per class; `shares` and `at`, where they stand, are (series, class)."""
    y = np.arange(at.shape[1])
    ax.hlines(y, at.min(axis=0), at.max(axis=0), color=c.GRID, lw=3.5, zorder=1)
    looks: dict[str, dict[str, Any]] = {
        "all rows": {"marker": "|", "ms": 9, "mfc": c.INK, "mec": c.INK},
        "uniform": {"marker": "o", "ms": 5.5, "mfc": "none", "mec": c.ORANGE},
        "subset": {"marker": "o", "ms": 6, "mfc": c.BLUE, "mec": c.BLUE},
    }
    for name, place, share in zip(names, at, shares, strict=True):
        look = {"ls": "", "mew": 1.6, "zorder": 3, **looks[name]}
        has = (share > 0) | (not crosses)
        ax.plot(place[has], y[has], label=name, **look)
        ax.plot(place[~has], y[~has], **{**look, "marker": "x", "ms": 5})


def _intervals(
    ax: Axes, values: Sequence[c.Floats], true: c.Floats, *, line: bool, relative: bool
) -> None:
    """Draw estimates (the first of `values`) with low and high ends and what is true."""
    centre = values[0]

    def place(x: c.Floats) -> c.Floats:
        return 100 * (x - centre) / np.abs(centre) if relative else x

    y, known = np.arange(centre.size), np.isfinite(true)
    at, mark = place(centre), place(true)
    ax.hlines(y, place(values[1]), place(values[2]), color=c.PALE_BLUE, lw=6)
    ax.plot(at, y, ls="", marker="o", ms=7, color=c.BLUE, label="estimate")
    if line and known.any() and not relative:
        ax.axvline(float(mark[0]), color=c.ORANGE, lw=1.6, label="true value", zorder=1)
    elif known.any():
        look: dict[str, Any] = {"marker": "D", "mfc": "white", "mec": c.ORANGE, "mew": 1.6}
        ax.plot(mark[known], y[known], ls="", ms=6, label="true value", **look)
    for row, (middle, low, high) in enumerate(zip(*values, strict=True)):
        text = f"{c.number(middle)}  [{c.number(low)}, {c.number(high)}]"
        ax.annotate(
            text + (f", true {c.number(true[row])}" if known[row] else ""),
            (at[row], row),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=c.MUTED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )


def _per_cent(values: ArrayLike) -> c.Floats:
    x = np.asarray(values, dtype=np.float64).ravel()
    total = x.sum()
    return 100 * x / total if total > 0 else np.zeros_like(x)


def _seeds(ax: Axes, y: int, values: Sequence[float], color: str) -> None:
    """Draw one row of a comparison."""
    if not values:
        ax.annotate(
            "not measured",
            (0.5, y),
            xycoords=("axes fraction", "data"),
            ha="center",
            va="center",
            fontsize=8,
            color=c.MUTED,
        )
        return
    mean, low, high = t_interval(values)
    if len(values) > 1:
        spread = 0.24 + np.linspace(-0.06, 0.06, len(values))
        ax.plot(values, y + spread, ls="", marker="o", ms=4, mfc=color, mec="none", alpha=0.55)
    text = f"{mean:.3f}" if abs(mean) < 100 else c.number(mean)
    if np.isfinite(low):
        ax.plot([low, high], [y, y], color=color, lw=7, alpha=0.4, solid_capstyle="butt")
        text += (
            f" ± {(high - low) / 2:.3f}" if abs(mean) < 100 else f" ± {c.number((high - low) / 2)}"
        )
    ax.plot([mean], [y], marker="|", ms=13, mec=color, mew=2.2)
    ax.annotate(
        text,
        (mean, y),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color=c.INK,
    )
