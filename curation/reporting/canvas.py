"""What every plot shares: the sheet, its title, axes, numbers and the PNG.

Figures are drawn on matplotlib's Agg canvas directly; pyplot and its global state are not used,
so plots can be drawn from several threads and never open a window.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation.reporting.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

DPI = 100
WIDTH = 640  # pixels
HEIGHT = 360
MAX_BYTES = 60_000
TITLE_COLUMNS = 66  # characters of a title line

INK = "#1f2933"
MUTED = "#5a6776"
RULE = "#a9b4c0"
GRID = "#e6eaee"
BLUE = "#1f6fb5"
PALE_BLUE = "#9cc4e4"
ORANGE = "#d9730d"
GREY = "#8895a3"
# Told apart by readers who do not see all colours (after Okabe and Ito), plus two.
LABELS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8c564b")

Floats = NDArray[np.float64]


def shown(text: object, *, limit: int = 200) -> str:
    """Return data text as matplotlib shall draw it: one line, never a formula."""
    return plain(text, limit=limit).replace("$", r"\$")


def lines(text: str, width: int, most: int) -> list[str]:
    """Wrap text to at most `most` lines of `width` characters, of about equal length."""

    def wrap(columns: int) -> list[str]:
        return textwrap.wrap(plain(text), columns, max_lines=most, placeholder=" …")

    best = wrap(width)
    for columns in range(width - 1, width // 2, -1):
        even = wrap(columns)
        if len(even) > len(best) or (even[-1:] != [] and even[-1].endswith(" …")):
            break
        best = even
    return best


def sheet(
    title: str, caption: str = "", *, height: int = HEIGHT, panels: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Begin a figure.

    Parameters
    ----------
    title
        What the figure shows, as a finding; wrapped to two lines.
    caption
        Muted text below the title; wrapped to two lines.
    height
        Pixels.
    panels, columns
        Number of axes, and how many stand side by side; 0 panels for a bare sheet.

    Returns
    -------
    tuple
        The figure and its axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    used = header(figure, title, caption, height=height)
    figure.set_layout_engine(
        "constrained",
        rect=(0.012, 8 / height, 0.972, 1 - (used + 8) / height),
        h_pad=0.03,
        w_pad=0.04,
        wspace=0.06 if columns > 1 else 0,
    )
    rows = -(-panels // columns)
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for ax in axes:
        style(ax)
    return figure, axes


def header(figure: Figure, title: str, caption: str, *, height: int) -> int:
    """Write title and caption and return the pixels they use."""
    y = 12
    wrapped = [(t, 11.0, "bold", INK, 20) for t in lines(title, TITLE_COLUMNS, 2)]
    wrapped += [(t, 8.5, "normal", MUTED, 16) for t in lines(caption, 98, 2)]
    for text, size, weight, color, step in wrapped:
        figure.text(
            14 / WIDTH,
            1 - y / height,
            text.replace("$", r"\$"),
            fontsize=size,
            fontweight=weight,
            color=color,
            va="top",
        )
        y += step
    return y + 2


def style(ax: Axes) -> None:
    """Give axes the house look."""
    ax.set_facecolor("white")
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(RULE)
        ax.spines[side].set_linewidth(0.8)
    ax.tick_params(labelsize=8.5, colors=RULE, labelcolor=INK, length=3, width=0.8)


def axis_label(ax: Axes, *, x: str = "", y: str = "") -> None:
    """Label the axes."""
    for put, text in ((ax.set_xlabel, x), (ax.set_ylabel, y)):
        if text:
            put(shown(text, limit=80), fontsize=9, color=MUTED)


def number(value: float, _position: object = None) -> str:
    """Return a short number: 0.0031, 0.25, 1,200, 350k, 2.1M."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e15 or size < 1e-4:
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    for limit, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e5, "k")):
        if size >= limit:
            return f"{value / (1e3 if sign == 'k' else limit):.3g}{sign}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}"


def count(value: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,.0f}"


def plural(value: float, singular: str, many: str | None = None) -> str:
    """Return a count with its noun, e.g. ``1 row`` and ``2 rows``."""
    return f"{count(value)} {singular if value == 1 else many or singular + 's'}"


def number_axis(
    ax: Axes,
    which: Literal["x", "y"],
    *,
    log: bool = False,
    whole: bool = False,
    bins: int = 6,
    grid: bool = True,
    text: Callable[[float, object], str] = number,
) -> None:
    """Set the scale, the ticks and the grid of the ``x`` or ``y`` axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis = ax.xaxis if which == "x" else ax.yaxis
    if log:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        low, high = sorted(axis.get_view_interval())
        narrow = low > 0 and np.log10(high) - np.log10(low) < 2.5
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(text))
    if grid:
        ax.grid(axis=which, color=GRID, linewidth=0.8)


def named_rows(ax: Axes, names: Sequence[object], *, limit: int = 28, size: float = 8.5) -> None:
    """Make the y axis a list of names, the first on top."""
    ax.set_yticks(range(len(names)), [shown(n, limit=limit) for n in names], fontsize=size)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def finite(values: ArrayLike) -> tuple[Floats, str]:
    """Return the finite values, float64 (n,), and a sentence on those left out."""
    x = np.asarray(values, dtype=np.float64).ravel()
    keep = np.isfinite(x)
    lost = int(np.count_nonzero(~keep))
    return x[keep], f"{plural(lost, 'value')} not finite, left out. " if lost else ""


def legend_above(ax: Axes, *, columns: int) -> None:
    """Put the legend above the axes, where it cannot hide data."""
    ax.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.99),
        ncols=columns,
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
        handletextpad=0.3,
        columnspacing=1.4,
        borderaxespad=0.1,
    )


def same_length(**columns: Any) -> int:
    """Return the common length.

    Raises
    ------
    ValueError
        When the named columns differ in length; the message names them.
    """
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"plot data of different lengths: {told}")
    return next(iter(sizes.values()))


def nothing(title: str, why: str = "Nothing to show: there are no rows.") -> bytes:
    """Return a sheet that says why it is empty, so that a report never fails on it."""
    figure, _ = sheet(title, panels=0)
    figure.text(0.5, 0.45, why, ha="center", va="center", fontsize=9, color=MUTED)
    return png(figure)


def png(figure: Figure) -> bytes:
    """Draw a figure.

    Returns
    -------
    bytes
        A PNG of at most 60 kB without dates or program names: equal figures give equal bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Straight from the buffer: savefig would add the program's version to the file.
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    # 256 colours are a third of the bytes, and the mean change is below a tenth of a grey level.
    for colors in (256, 96, 32, 16):
        data = _encode(picture.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
        if len(data) <= MAX_BYTES:
            break
    while len(data) > MAX_BYTES:
        picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5))
        data = _encode(picture.quantize(16, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    return data


def _encode(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True, dpi=(DPI, DPI))
    return buffer.getvalue()
