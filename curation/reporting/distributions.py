"""Plots of one column: counts, lengths, scores, weights and cluster sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from curation.reporting import canvas as c

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def category_counts(
    names: Sequence[object], counts: ArrayLike, *, title: str, top: int = 20
) -> bytes:
    """Draw horizontal bars of the most frequent categories.

    Parameters
    ----------
    names
        Category names, n of them.
    counts
        Rows per category, (n,).
    title
        The finding.
    top
        Number of bars; the categories beyond are summed up in the caption.

    Returns
    -------
    bytes
        A PNG.
    """
    sizes = np.asarray(counts, dtype=np.float64).ravel()
    if c.same_length(names=names, counts=sizes) == 0:
        return c.nothing(title)
    order = np.argsort(-sizes, kind="stable")
    first, rest = order[:top], order[top:]
    total = max(float(sizes.sum()), 1e-300)
    caption = f"{c.plural(sizes.sum(), 'row')} in {c.plural(sizes.size, 'class', 'classes')}"
    if rest.size:
        left = float(sizes[rest].sum())
        further = c.plural(rest.size, "further class", "further classes")
        caption += f"; {further} with {c.plural(left, 'row')} ({left / total:.1%}) not shown"
    figure, (ax,) = c.sheet(title, caption, height=max(c.HEIGHT, 120 + 18 * first.size))
    ax.barh(range(first.size), sizes[first], color=c.BLUE, height=min(0.72, 0.12 * first.size))
    c.named_rows(ax, [names[i] for i in first])
    for y, value in enumerate(sizes[first]):
        ax.annotate(
            f"{c.count(value)}  ({value / total:.1%})",
            (value, y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=c.MUTED,
        )
    ax.set_xlim(0, max(float(sizes.max()), 1e-12) * 1.2)
    c.number_axis(ax, "x", whole=True)
    c.axis_label(ax, x="rows")
    return c.png(figure)


def length_histogram(lengths: ArrayLike, *, title: str, unit: str) -> bytes:
    """Draw the distribution of row lengths with median and 95th percentile.

    Parameters
    ----------
    lengths
        Length per row, (n,), not negative.
    title
        The finding.
    unit
        What is counted, e.g. ``characters`` or ``tokens``.

    Returns
    -------
    bytes
        A PNG. When the longest row is more than twice the 99th percentile, the axis ends soon
        after that percentile and the caption counts the rows beyond it.
    """
    x, note = c.finite(lengths)
    if x.size == 0:
        return c.nothing(title)
    middle, high, most = np.quantile(x, [0.5, 0.95, 0.99])
    caption = (
        f"{note}{c.plural(x.size, 'row')}: median {c.number(middle)}, "
        f"95th percentile {c.number(high)}, longest {c.number(x.max())} {unit}."
    )
    drawn = x
    if 0 < most < x.max() / 2:
        drawn = x[x <= 1.25 * most]
        beyond = c.plural(x.size - drawn.size, "longer row")
        caption += f" {beyond} ({1 - drawn.size / x.size:.1%}) beyond the right edge."
    figure, (ax,) = c.sheet(title, caption)
    _histogram(ax, drawn, log=False)
    _mark(ax, middle, "median", log=False)
    if high > middle:
        _mark(ax, high, "95th percentile", log=False)
    c.axis_label(ax, x=unit, y="rows")
    return c.png(figure)


def score_distribution(scores: ArrayLike, *, title: str) -> bytes:
    """Draw the distribution of sensitivity scores.

    Parameters
    ----------
    scores
        Score per row, (n,).
    title
        The finding.

    Returns
    -------
    bytes
        A PNG whose caption says which share of the total the highest hundredth and tenth hold;
        the axis is logarithmic when positive scores span more than a factor of 30.
    """
    x, note = c.finite(scores)
    if x.size == 0:
        return c.nothing(title)
    positive = x[x > 0]
    log = positive.size > 1 and _wide(positive, 30)
    caption = f"{note}{c.plural(x.size, 'row')}, median {c.number(float(np.median(x)))}."
    if positive.size and x.min() >= 0:
        parts = np.sort(x / x.max())[::-1]
        held = [parts[: max(1, round(parts.size * q))].sum() / parts.sum() for q in (0.01, 0.1)]
        caption += f" The highest 1% of rows hold {held[0]:.0%} of the total,"
        caption += f" the highest 10% {held[1]:.0%}."
    if log and positive.size < x.size:
        caption += f" {c.plural(x.size - positive.size, 'row')} at or below 0 not drawn."
    figure, (ax,) = c.sheet(title, caption)
    _histogram(ax, positive if log else x, log=log)
    _mark(ax, float(np.median(x)), "median", log=log)
    c.axis_label(ax, x="score (log scale)" if log else "score", y="rows")
    return c.png(figure)


def weight_histogram(weights: ArrayLike, *, title: str) -> bytes:
    """Draw the distribution of the weights of the selected rows.

    Parameters
    ----------
    weights
        Weight per selected row, (s,), positive.
    title
        The finding.

    Returns
    -------
    bytes
        A PNG whose caption gives the effective sample size ``(sum w)^2 / sum w^2`` (Kish) and the
        share of the largest weight.
    """
    x, note = c.finite(weights)
    positive = x[x > 0]
    if positive.size == 0:
        return c.nothing(title, "Nothing to show: no row has a positive weight.")
    relative = positive / positive.max()  # squares of large weights would overflow
    size = float(relative.sum() ** 2 / np.square(relative).sum())
    caption = (
        f"{note}Effective sample size {c.count(size)} of {c.plural(x.size, 'row')} "
        f"({size / x.size:.0%}). The largest weight, {c.number(positive.max())}, "
        f"holds {1 / relative.sum():.1%} of the total."
    )
    log = _wide(positive, 30)
    figure, (ax,) = c.sheet(title, caption)
    _histogram(ax, positive, log=log)
    _mark(ax, float(np.median(positive)), "median", log=log)
    c.axis_label(
        ax, x="weight: rows one selected row stands for" + (" (log scale)" if log else ""), y="rows"
    )
    return c.png(figure)


def cluster_overview(sizes: ArrayLike, costs: ArrayLike, *, title: str) -> bytes:
    """Draw cluster sizes and how the clustering cost is spread over clusters.

    Parameters
    ----------
    sizes
        Rows per cluster, (k,).
    costs
        Clustering cost per cluster, (k,), not negative; same order.
    title
        The finding.

    Returns
    -------
    bytes
        A PNG: sizes in falling order, and the cumulative share of rows and of cost.
    """
    rows = np.asarray(sizes, dtype=np.float64).ravel()
    cost = np.asarray(costs, dtype=np.float64).ravel()
    k = c.same_length(sizes=rows, costs=cost)
    if k == 0:
        return c.nothing(title, "Nothing to show: there are no clusters.")
    rows, cost = np.sort(rows)[::-1], np.sort(cost / max(cost.max(), 1e-300))[::-1]
    tenth = max(1, round(k / 10))
    caption = (
        f"{c.plural(k, 'cluster')}, median {c.plural(float(np.median(rows)), 'row')}, smallest "
        f"{c.count(rows[-1])}, largest {c.count(rows[0])}."
    )
    if cost.sum() > 0 and k > 1:
        share = cost[:tenth].sum() / cost.sum()
        caption += f" The {c.plural(tenth, 'costliest cluster')} hold {share:.0%} of the cost."
    figure, (left, right) = c.sheet(title, caption, panels=2, columns=2)
    log = rows[-1] > 0 and rows[0] > 30 * rows[-1]
    edges = np.arange(k + 1)
    left.stairs(rows, edges, fill=True, color=c.BLUE, baseline=0.8 * rows[-1] if log else 0)
    left.set_xlim(0, k)
    left.set_ylim(0.8 * rows[-1] if log else 0, max(rows[0], 1) * (1.3 if log else 1.08))
    c.number_axis(left, "x", whole=True, grid=False)
    c.number_axis(left, "y", log=log, whole=True)
    c.axis_label(left, x="clusters, largest first", y="rows" + (" (log scale)" if log else ""))
    curves = (("cost", cost, c.ORANGE, "-"), ("rows", rows, c.BLUE, "--"))
    for name, values, color, line in curves:
        total = values.sum()
        if total > 0:
            share = np.concatenate([[0.0], 100 * np.cumsum(values) / total])
            right.plot(100 * edges / k, share, color=color, linestyle=line, lw=1.8, label=name)
    right.plot([0, 100], [0, 100], color=c.RULE, lw=0.8, label="evenly spread")
    right.set_xlim(0, 100)
    right.set_ylim(0, 103)
    c.number_axis(right, "x")
    c.number_axis(right, "y")
    c.axis_label(right, x="clusters, highest first (%)", y="share of the total (%)")
    right.legend(fontsize=8.5, frameon=False, loc="lower right", labelcolor=c.INK)
    return c.png(figure)


def _wide(positive: c.Floats, factor: float) -> bool:
    """Whether the bulk of positive values spans more than a factor (logs, as it may overflow)."""
    low, high = np.log(np.quantile(positive, [0.01, 0.99]))
    return bool(high - low > np.log(factor))


def _edges(x: c.Floats, *, log: bool) -> c.Floats:
    """Return bin edges: per whole number where few, otherwise 12 to 48 even bins."""
    low, high = float(x.min()), float(x.max())
    if low == high:
        half = max(0.5, abs(low) * 0.05)
        return np.array([low / 1.3, low * 1.3]) if log else np.array([low - half, low + half])
    bins = int(np.clip(2 * np.sqrt(x.size), 12, 48))
    if log:
        return np.geomspace(low, high, bins + 1)
    if high < 1e15 and high - low < 1e6 and np.all(x == np.round(x)):
        step = max(1, int(np.ceil((high - low + 1) / 48)))
        return np.arange(low, high + step + 0.5, step) - 0.5
    return np.linspace(low, high, bins + 1)


def _histogram(ax: Axes, x: c.Floats, *, log: bool) -> None:
    # Beyond this matplotlib's own arithmetic on the axis overflows.
    x = np.clip(x, 1e-150 if log else -1e150, 1e150)
    edges = _edges(x, log=log)
    edges[0], edges[-1] = min(edges[0], x.min()), max(edges[-1], x.max())
    counts, _ = np.histogram(x, edges)
    ax.stairs(counts, edges, fill=True, facecolor=c.BLUE, edgecolor="white", linewidth=0.6)
    ax.vlines(edges[1:-1], 0, np.minimum(counts[1:], counts[:-1]), color="white", linewidth=0.6)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(0, counts.max() * 1.14)  # room for the names of the marks
    c.number_axis(ax, "x", log=log, grid=False)
    c.number_axis(ax, "y", whole=True)


def _mark(ax: Axes, value: float, name: str, *, log: bool) -> None:
    """Draw a named vertical line, unless it lies outside of the axes."""
    low, high = ax.get_xlim()
    if not low <= value <= high:
        return
    place = np.log(value / low) / np.log(high / low) if log else (value - low) / (high - low)
    ax.axvline(value, color=c.INK, lw=1.0, linestyle=(0, (3, 2)))
    ax.annotate(
        f"{name} {c.number(value)}",
        (value, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if place > 0.7 else 4, -2),
        textcoords="offset points",
        ha="right" if place > 0.7 else "left",
        va="top",
        fontsize=8.5,
        color=c.INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
    )
