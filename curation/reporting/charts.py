"""The drawings of the report, each for a column as narrow as a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation.reporting.svg import WIDTH, Drawing, Scale, Sheet, axis_below, axis_left, cut, span

Floats = NDArray[np.float64]

ROW = 38  # units for a name, its number, and what is drawn below them
RIGHT = WIDTH - 6
BINS = 24
POINTS = 4000  # that a map shows beside the chosen ones
CHOSEN_POINTS = 2500
STEPS = 400  # of a curve over clusters; more cannot be told apart


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: `told` is the value as text, `look` a colour."""

    name: str
    value: float
    told: str
    look: str = "blue"


@dataclass(frozen=True)
class Mean:
    """A row of a comparison: a mean with its interval, and the single runs behind it."""

    name: str
    mean: float
    low: float
    high: float
    told: str
    look: str = "blue"
    runs: Sequence[float] = field(default_factory=tuple)


def bars(rows: Sequence[Bar], label: str) -> Drawing:
    """Draw horizontal bars, each below its name and number."""
    sheet = Sheet(ROW * len(rows) + 2, label)
    most = max((bar.value for bar in rows if math.isfinite(bar.value)), default=0.0)
    scale = Scale(0.0, most or 1.0, 0.0, WIDTH)
    for place, bar in enumerate(rows):
        y = place * ROW
        _named(sheet, y, bar.name, bar.told)
        sheet.rect(0, y + 20, WIDTH, 9, "soft-grey")
        if bar.value > 0.0:
            sheet.rect(0, y + 20, scale(bar.value), 9, bar.look)
    return sheet.drawing()


def _named(sheet: Sheet, y: float, name: str, told: str) -> None:
    number = cut(told, 0.55 * WIDTH)
    sheet.text(WIDTH, y + 14, number, "strong", anchor="end")
    sheet.text(0, y + 14, cut(name, WIDTH - 7.4 * len(number) - 14), "ink")


def means(panels: Mapping[str, Sequence[Mean]], label: str) -> Drawing:
    """Draw means with their intervals, a panel for each metric, every panel with an axis."""
    sizes = [26 + ROW * len(rows) + 26 for rows in panels.values()]
    sheet = Sheet(sum(sizes), label)
    top = 0.0
    for (metric, rows), size in zip(panels.items(), sizes, strict=True):
        sheet.text(0, top + 15, metric, "muted")
        ends = [v for row in rows for v in (row.mean, row.low, row.high, *row.runs)]
        scale = Scale(*span(ends, pad=0.08), 16, WIDTH - 16)
        foot = top + 26 + ROW * len(rows)
        for value in scale.ticks():
            sheet.line(scale(value), top + 26, scale(value), foot, "grid")
            sheet.text(scale(value), foot + 15, f"{value:g}", anchor="middle")
        for place, row in enumerate(rows):
            _mean(sheet, scale, top + 26 + place * ROW, row)
        top += size
    return sheet.drawing()


def _mean(sheet: Sheet, scale: Scale, y: float, row: Mean) -> None:
    _named(sheet, y - 2, row.name, row.told)
    middle = y + 25
    sheet.line(scale.start, middle, scale.end, middle, "grid")
    for run in row.runs:
        sheet.circle(scale(run), middle, 2.5, f"soft-{row.look}")
    if row.high > row.low:
        sheet.line(scale(row.low), middle, scale(row.high), middle, f"line thick {row.look}")
        for end in (row.low, row.high):
            sheet.line(scale(end), middle - 5, scale(end), middle + 5, f"line {row.look}")
    sheet.circle(scale(row.mean), middle, 4.5, row.look)


def error_curve(
    budgets: Sequence[float],
    errors: Sequence[float],
    uniform: Sequence[float],
    *,
    here: float,
    label: str,
) -> Drawing:
    """Draw the expected error against the number of rows, beside that of uniform rows.

    Parameters
    ----------
    budgets, errors, uniform
        Numbers of rows, and the expected errors there as shares of the total.
    here
        The budget of the subset.
    label
        What it shows, for readers who do not see it.
    """
    sheet = Sheet(268, label)
    _legend(sheet, [("blue", "these draws"), ("orange", "uniform rows")])
    positive = [v for v in (*errors, *uniform) if v > 0.0] or [0.01]
    across = Scale(min(budgets), max(budgets), 46, RIGHT - 10, log=True)
    up = Scale(min(positive) / 1.15, max(positive) * 1.15, 226, 32, log=True)
    axis_left(sheet, up, across.start, right=RIGHT - 10, percent=True)
    axis_below(sheet, across, 226, top=32, title="rows chosen")
    sheet.line(across(here), 32, across(here), 226, "line ink dash")
    for values, look in ((uniform, "orange"), (errors, "blue")):
        line = [(across(x), up(y)) for x, y in zip(budgets, values, strict=True) if y > 0.0]
        sheet.path(line, f"line {look}")
        for x, y in line:
            sheet.circle(x, y, 2.6, look)
    side = "end" if across(here) > WIDTH / 2 else "start"
    shift = -5 if side == "end" else 5
    sheet.text(across(here) + shift, 218, f"this subset: {here:,.0f}", "ink", anchor=side)
    return sheet.drawing()


def _legend(sheet: Sheet, entries: Sequence[tuple[str, str]], *, y: float = 14) -> None:
    x = 0.0
    for look, name in entries:
        sheet.circle(x + 5, y - 4, 4.5, look)
        sheet.text(x + 14, y, name, "ink")
        x += 14 + 6.6 * len(name) + 16


def over_clusters(
    values: ArrayLike,
    rows: ArrayLike,
    *,
    low: float,
    high: float,
    mean: float,
    title: str,
    label: str,
    good: str = "blue",
    bad: str = "orange",
    order: str = "best",
) -> Drawing:
    """Draw a number of each cluster as a falling curve, clusters as wide as their rows.

    Parameters
    ----------
    values, rows
        (k,) the number, and how many rows the cluster has.
    low, high
        Ends of the axis; what lies beyond is drawn at the end.
    mean
        Over all rows: a dashed line.
    title
        Of the vertical axis, written above it.
    label
        What it shows, for readers who do not see it.
    good, bad
        Looks above and below zero.
    order
        ``best`` or ``worst``: which clusters the largest numbers are those of.
    """
    own, size = np.asarray(values, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    line = np.argsort(-own, kind="stable")
    edges = np.concatenate([[0.0], np.cumsum(size[line])]) / max(float(size.sum()), 1e-300)
    sheet = Sheet(226, label)
    sheet.text(0, 14, title, "ink")
    across, up = Scale(0.0, 1.0, 46, RIGHT - 10), Scale(low, high, 186, 26)
    sheet.text(across.end, 14, f"dashed: all rows, {mean:.0%}", "muted", anchor="end")
    axis_left(sheet, up, across.start, right=across.end, percent=True)
    below = f"share of rows, {order} clusters first"
    axis_below(sheet, across, 186, top=26, title=below, percent=True)
    for sign, look in ((1.0, good), (-1.0, bad)):
        outline = _outline(own[line], edges, sign, across, up)
        if outline:
            sheet.path(outline, look, closed=True)
    sheet.line(across.start, up(mean), across.end, up(mean), "line ink dash")
    return sheet.drawing()


def _outline(
    falling: Floats, edges: Floats, sign: float, across: Scale, up: Scale
) -> list[tuple[float, float]]:
    """Return the outline of the part above (or below) zero of a falling curve of steps."""
    there = np.flatnonzero(sign * falling > 0.0)
    if not len(there):
        return []
    there = there[np.unique(np.linspace(0, len(there) - 1, STEPS).astype(int))]
    base = up(0.0)
    walk = [(across(edges[there[0]]), base)]
    for place, i in enumerate(there):
        end = edges[there[place + 1]] if place + 1 < len(there) else edges[i + 1]
        walk += [(across(edges[i]), up(falling[i])), (across(end), up(falling[i]))]
    return [*walk, (walk[-1][0], base)]


def histogram(values: ArrayLike, *, title: str, label: str) -> Drawing:
    """Draw how positive numbers are distributed, on an axis of factors where they span many."""
    own = np.asarray(values, dtype=np.float64)
    own = own[np.isfinite(own) & (own > 0.0)]
    sheet = Sheet(226, label)
    if not own.size:
        sheet.text(0, 14, "no numbers above 0", "muted")
        return sheet.drawing()
    low, high = float(own.min()), float(own.max())
    log = high > 8 * low
    ends = (low / 1.02, high * 1.02) if log else span(own)
    edges = np.geomspace(*ends, BINS + 1) if log else np.linspace(*ends, BINS + 1)
    counts, _ = np.histogram(own, edges)
    across = Scale(ends[0], ends[1], 46, RIGHT - 10, log=log)
    up = Scale(0.0, float(counts.max()), 186, 22)
    sheet.text(0, 14, "rows", "muted")
    axis_left(sheet, up, across.start, right=across.end)
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        if count:
            width = across(right) - across(left) - 1.5
            sheet.rect(across(left) + 0.75, up(count), width, 186 - up(count), "blue")
    axis_below(sheet, across, 186, top=186, title=title + (", by factors" if log else ""))
    return sheet.drawing()


def row_map(points: ArrayLike, chosen: ArrayLike, weight: ArrayLike, *, label: str) -> Drawing:
    """Draw rows in the plane: all of them pale, the chosen on top, larger by what they stand for.

    Parameters
    ----------
    points
        (n, 2).
    chosen
        (n,) bool.
    weight
        (n,) what a chosen row stands for; of the others it is not read.
    label
        What it shows, for readers who do not see it.
    """
    xy, mask = np.asarray(points, dtype=np.float64), np.asarray(chosen, dtype=bool)
    usable = np.asarray(np.isfinite(xy).all(axis=1))
    sheet = Sheet(352, label)
    _legend(sheet, [("grey", "not chosen"), ("blue", "chosen, larger: stands for more")])
    if not usable.any():
        return sheet.drawing()
    place = _fit(xy, usable)
    others = even(np.flatnonzero(usable & ~mask), POINTS)
    own = even(np.flatnonzero(usable & mask), CHOSEN_POINTS)
    sheet.dots(place[others], float(np.clip(9000 / max(len(others), 1), 2.2, 5.0)), "soft-grey")
    heavy = np.asarray(weight, dtype=np.float64)[own]
    borders = np.quantile(heavy, [1 / 3, 2 / 3]) if len(own) else np.zeros(2)
    group = np.searchsorted(borders, heavy, side="left")
    for size in (2, 1, 0):  # the largest first, so that none hides another
        these = place[own[group == size]]
        sheet.dots(these, 5.4 + 1.9 * size, "ring")
        sheet.dots(these, 3.8 + 1.9 * size, "blue")
    return sheet.drawing()


def _fit(xy: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Return places on the sheet, both axes by the same scale."""
    low, high = xy[usable].min(axis=0), xy[usable].max(axis=0)
    extent = np.maximum(high - low, 1e-9)
    scale = min((WIDTH - 16) / extent[0], 316 / extent[1])
    middle = (low + high) / 2
    centred = (xy - middle) * scale
    return np.column_stack([WIDTH / 2 + centred[:, 0], 190 - centred[:, 1]])


def even(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most so many of the rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]


def class_shares(
    names: Sequence[str], every: ArrayLike, subset: ArrayLike, *, label: str, most: int = 16
) -> Drawing:
    """Draw each class's share of all rows and of the subset, the most frequent first.

    Parameters
    ----------
    names
        Of the c classes.
    every, subset
        (c,) rows of each among all rows and in the subset.
    label
        What it shows, for readers who do not see it.
    most
        How many classes are drawn; the others are added up in the last row.
    """
    both = np.array([every, subset], dtype=np.float64)
    both /= np.maximum(both.sum(axis=1, keepdims=True), 1e-300)
    order = np.argsort(-both[0], kind="stable")
    shown, rest = order[:most], order[most:]
    lines = [(names[i], both[0, i], both[1, i]) for i in shown]
    if len(rest):
        lines.append((f"{len(rest):,} rarer", both[0, rest].sum(), both[1, rest].sum()))
    step, room = 17, 132
    foot = 26 + step * len(lines)
    sheet = Sheet(foot + 36, label)
    _legend(sheet, [("grey", "all rows"), ("blue", "subset")])
    scale = Scale(0.0, max((max(line[1:]) for line in lines), default=1.0), room, RIGHT - 10)
    axis_below(sheet, scale, foot, top=22, title="share of rows", percent=True)
    for place, (name, of_all, of_subset) in enumerate(lines):
        y = 26 + step * (place + 0.5)
        sheet.text(0, y + 4, cut(name, room - 8), "ink")
        sheet.line(scale(of_all), y, scale(of_subset), y, "line grid")
        sheet.circle(scale(of_all), y, 4, "grey")
        sheet.circle(scale(of_subset), y, 4, "blue")
    return sheet.drawing()
