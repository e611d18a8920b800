"""Small drawings as inline SVG: they take the page's colours, light or dark, and its text size.

A drawing is 400 units wide, the width of a column of the report: text of 12 units is as large as
the page's small print, and still legible where a phone makes the column narrower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from curation.reporting.canvas import number
from curation.reporting.text import plain

WIDTH = 400
LETTER = 6.4  # units that a letter of the small print takes, on average
CLASSES = {
    "blue", "orange", "grey", "ink", "soft-blue", "soft-orange", "soft-grey", "grid", "axis",
    "muted", "strong", "small", "ring", "thick", "dash", "line",
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """An SVG that was made here: its text is escaped, and it refers to nothing outside."""

    markup: Markup


class Sheet:
    """Collects the marks of a drawing.

    Parameters
    ----------
    height
        Units.
    label
        What the drawing shows, for readers who do not see it.
    """

    def __init__(self, height: float, label: str) -> None:
        self.height = height
        self.label = label
        self._parts: list[Markup] = []

    def rect(self, x: float, y: float, width: float, height: float, look: str) -> None:
        """Draw a bar; one that is too thin to be seen is half a unit wide."""
        shape = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" class="{}"/>')
        self._parts.append(
            shape.format(_at(x), _at(y), _at(max(width, 0.5)), _at(height), _look(look))
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, look: str) -> None:
        """Draw a straight line."""
        shape = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>')
        self._parts.append(shape.format(_at(x1), _at(y1), _at(x2), _at(y2), _look(look)))

    def circle(self, x: float, y: float, radius: float, look: str) -> None:
        """Draw a dot."""
        shape = Markup('<circle cx="{}" cy="{}" r="{}" class="{}"/>')
        self._parts.append(shape.format(_at(x), _at(y), _at(radius), _look(look)))

    def path(self, points: Iterable[Sequence[float]], look: str, *, closed: bool = False) -> None:
        """Draw a line through points, or the area inside of it."""
        walk = "L".join(f"{_at(x)} {_at(y)}" for x, y in points)
        if walk:
            shape = Markup('<path d="M{}{}" class="{}"/>')
            self._parts.append(shape.format(walk, "Z" if closed else "", _look(look)))

    def dots(self, points: ArrayLike, size: float, look: str) -> None:
        """Draw many dots as one element: lines of no length with round ends."""
        spots = "".join(f"M{_at(x)} {_at(y)}h0" for x, y in np.asarray(points))
        if spots:
            shape = Markup('<path d="{}" stroke-width="{}" class="spots {}"/>')
            self._parts.append(shape.format(spots, _at(size), _look(look)))

    def text(
        self, x: float, y: float, text: object, look: str = "muted", *, anchor: str = "start"
    ) -> None:
        """Write a line of data text or of ours."""
        shape = Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>')
        self._parts.append(shape.format(_at(x), _at(y), anchor, _look(look), escape(plain(text))))

    def drawing(self) -> Drawing:
        """Return what was drawn."""
        whole = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
        body = Markup("").join(self._parts)
        return Drawing(whole.format(WIDTH, _at(self.height), plain(self.label), body))


def _at(value: float) -> str:
    """Return a coordinate: tenths of a unit are finer than any screen."""
    return f"{value + 0.0:.1f}".removesuffix(".0")


def _look(look: str) -> str:
    unknown = set(look.split()) - CLASSES
    if unknown:
        raise ValueError(f"no such look: {', '.join(sorted(unknown))}")
    return look


@dataclass(frozen=True)
class Scale:
    """From values to places.

    Attributes
    ----------
    low, high
        Values at both ends.
    start, end
        Their places.
    log
        Whether equal factors are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; beyond the ends that of the end."""
        low, high, own = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, own = (float(np.log(max(v, 1e-300))) for v in (low, high, own))
        share = (own - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return at most that many round values inside."""
        return _powers(self.low, self.high, most) if self.log else _steps(self.low, self.high, most)


def _steps(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most - 1, 1)
    if not np.isfinite(rough) or rough <= 0.0:
        return [low]
    size = 10.0 ** np.floor(np.log10(rough))
    for step in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0):
        first = np.ceil(low / (step * size) - 1e-9)
        found = np.arange(first, np.floor(high / (step * size) + 1e-9) + 1.0) * step * size
        if len(found) <= most:
            break
    return [float(f"{value:.12g}") for value in found]


def _powers(low: float, high: float, most: int) -> list[float]:
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1.0)
    for factors in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [f * 10.0**e for e in exponents for f in factors]
        inside = [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]


def axis_below(
    sheet: Sheet, scale: Scale, y: float, *, top: float, title: str, percent: bool = False
) -> None:
    """Draw a horizontal axis with its numbers and a grid up to `top`."""
    for value in scale.ticks():
        x = scale(value)
        sheet.line(x, top, x, y, "grid")
        sheet.text(x, y + 15, told(value, percent), anchor="middle")
    sheet.line(scale.start, y, scale.end, y, "axis")
    sheet.text((scale.start + scale.end) / 2, y + 32, title, anchor="middle")


def axis_left(sheet: Sheet, scale: Scale, x: float, *, right: float, percent: bool = False) -> None:
    """Draw a vertical axis with its numbers and a grid as far as `right`."""
    for value in scale.ticks():
        y = scale(value)
        sheet.line(x, y, right, y, "grid")
        sheet.text(x - 5, y + 4, told(value, percent), anchor="end")


def told(value: float, percent: bool = False) -> str:
    """Return a short number, or a share as per cent."""
    value += 0.0  # not "-0"
    return f"{100 * value:.3g}%" if percent else number(value)


def cut(text: object, room: float) -> str:
    """Return text that fits into so many units."""
    return plain(text, limit=max(int(room / LETTER), 1))


def span(values: ArrayLike, *, pad: float = 0.06) -> tuple[float, float]:
    """Return the ends of an axis that holds all finite values, with a little room."""
    own: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    own = own[np.isfinite(own)]
    if own.size == 0:
        return 0.0, 1.0
    low, high = float(own.min()), float(own.max())
    room = pad * (high - low) or max(abs(high) * 0.05, 0.01)
    return low - room, high + room
