"""Plots of rows themselves: a map of the embeddings and a grid of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation.reporting import canvas as c

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FIT_ROWS = 5000
_FIT_CELLS = 2_000_000  # keeps the decomposition to about a second at any width
_BLOCK = 65536
_DRAWN = 8000
_DRAWN_SELECTED = 2000
_IMAGES = 40


def project_2d(X: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """Project embeddings onto their first two principal components.

    Singular value decomposition of the centred rows; of a sample of at most 5,000 rows when there
    are more. Signs are fixed (the largest loading is positive), so that a map keeps its sides.

    Parameters
    ----------
    X
        Embeddings, (n, d) float32; may be memory-mapped, and is read in blocks.
    seed
        Chooses the sample.

    Returns
    -------
    NDArray[np.float32]
        (n, 2). The second column is zero where there is no second direction.

    Raises
    ------
    ValueError
        When X is not a matrix, or a row holds a value that is not finite.
    """
    if X.ndim != 2:
        raise ValueError(f"project_2d needs a matrix (n, d), got shape {X.shape}")
    n, d = X.shape
    points = np.zeros((n, 2), dtype=np.float32)
    if n == 0 or d == 0:
        return points
    most = min(_FIT_ROWS, max(256, _FIT_CELLS // d))
    rows = np.arange(n)
    if n > most:
        rows = np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    sample = np.asarray(X[rows], dtype=np.float64)
    _all_finite(sample, rows)
    centre = sample.mean(axis=0)
    axes = _first_axes(sample - centre)
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(axes.shape[0]), largest])[:, None]
    for start in range(0, n, _BLOCK):
        block = np.asarray(X[start : start + _BLOCK], dtype=np.float64)
        _all_finite(block, np.arange(start, start + block.shape[0]))
        points[start : start + _BLOCK, : axes.shape[0]] = (block - centre) @ axes.T
    return points


def _first_axes(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first two (or fewer) right singular vectors, as rows."""
    if min(centred.shape) < 64 or not centred.any():
        return np.linalg.svd(centred, full_matrices=False)[2][:2]
    # Two of hundreds: a Krylov method finds them in a tenth of the time. Its start is fixed, so
    # that the same rows give the same map.
    from scipy.sparse.linalg import svds

    _, values, axes = svds(centred, k=2, v0=np.ones(min(centred.shape)))
    return axes[np.argsort(-values)]


def embedding_map(
    points: ArrayLike,
    *,
    colors: Sequence[object] | None = None,
    title: str,
    selected: ArrayLike | None = None,
) -> bytes:
    """Draw rows as dots in the plane, the selected ones on top.

    Parameters
    ----------
    points
        Coordinates, (n, 2), e.g. of :func:`project_2d`.
    colors
        A label per row (n): the eight most frequent get a colour, the others are grey.
    title
        The finding.
    selected
        Mask of the selected rows, (n,) bool.

    Returns
    -------
    bytes
        A PNG of at most 8,000 rows and 2,000 selected rows, chosen evenly over the row order.

    Raises
    ------
    ValueError
        When lengths differ or points are not pairs.
    """
    xy = np.asarray(points, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise ValueError(f"embedding_map needs points of shape (n, 2), got {xy.shape}")
    n = xy.shape[0]
    chosen = np.zeros(n, bool) if selected is None else np.asarray(selected, dtype=bool).ravel()
    names = [""] * n if colors is None else [str(v) for v in colors]
    c.same_length(points=xy, selected=chosen, colors=names)
    usable = np.isfinite(xy).all(axis=1)
    if not usable.any():
        return c.nothing(title)
    others = _thin(np.flatnonzero(usable & ~chosen), _DRAWN)
    drawn = _thin(np.flatnonzero(usable & chosen), _DRAWN_SELECTED)
    caption = c.plural(n, "row")
    if selected is not None:
        caption += f", {c.count(chosen.sum())} selected ({chosen.mean():.1%})"
    if others.size + drawn.size < n:
        caption += f"; {c.count(others.size)} and {c.count(drawn.size)} of them drawn"
    figure, (ax,) = c.sheet(title, caption + ".", height=400)
    top = [] if colors is None else [name for name, _ in Counter(names).most_common(len(c.LABELS))]
    color_of = dict(zip(top, c.LABELS, strict=False))
    shade = np.array([color_of.get(name, c.GREY) for name in names])
    size = float(np.clip(6000 / max(others.size, 1), 4, 22))
    ax.scatter(xy[others, 0], xy[others, 1], s=size, c=shade[others], alpha=0.4, linewidths=0)
    strong = c.BLUE if colors is None else shade[drawn]
    size = float(np.clip(6000 / max(drawn.size, 1), 7, 34))
    ax.scatter(xy[drawn, 0], xy[drawn, 1], s=size, c=strong, linewidths=0.5, edgecolors=c.INK)
    rest = 0 if colors is None else len(set(names)) - len(top)
    _legend(ax, color_of, rest=rest, chosen=bool(chosen.any()))
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.04)
    c.number_axis(ax, "x")
    c.number_axis(ax, "y")
    c.axis_label(ax, x="first component (embedding units)", y="second component")
    return c.png(figure)


def image_grid(
    images: NDArray[np.uint8], *, titles: Sequence[object] | None = None, title: str
) -> bytes:
    """Draw pictures in a grid, each with a short text below.

    Parameters
    ----------
    images
        (m, h, w) grey or (m, h, w, 3) colour, uint8.
    titles
        Text per picture, m of them; cut to the width of a picture.
    title
        The finding.

    Returns
    -------
    bytes
        A PNG of at most 40 pictures; the caption says so when there are more.

    Raises
    ------
    ValueError
        When the shape or the number of texts does not fit.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(f"image_grid needs (m, h, w) or (m, h, w, 3), got {images.shape}")
    texts = [""] * len(images) if titles is None else [str(t) for t in titles]
    if c.same_length(images=images, titles=texts) == 0 or 0 in images.shape:
        return c.nothing(title)
    m = min(len(images), _IMAGES)
    caption = f"The first {m} of {c.count(len(images))} pictures." if m < len(images) else ""
    top = 16 + 20 * len(c.lines(title, c.TITLE_COLUMNS, 2)) + 16 * bool(caption)
    high, wide = images.shape[1:3]
    label = 15 if any(texts) else 0
    columns, scale = _best_grid(m, wide, high, room=(c.WIDTH - 24, c.HEIGHT - top - 6), label=label)
    cell = ((c.WIDTH - 24) / columns, high * scale + label + 6)
    height = round(top + -(-m // columns) * cell[1] + 4)
    figure, _ = c.sheet(title, caption, height=height, panels=0)
    figure.set_layout_engine("none")
    # one axes in pixels for all pictures: an axes each would take most of the time
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for i in range(m):
        x = 12 + (i % columns) * cell[0] + (cell[0] - wide * scale) / 2
        y = height - top - (i // columns) * cell[1] - high * scale
        # Whole pixels keep the edges of small pictures sharp.
        box = (round(x), round(y), round(wide * scale), round(high * scale))
        extent = (box[0], box[0] + box[2], box[1], box[1] + box[3])
        ax.imshow(
            images[i],
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="auto",
            aspect="auto",
            extent=extent,
        )
        if label:
            text = c.shown(texts[i], limit=max(3, int(cell[0] / 6.0)))
            middle, foot = (x + wide * scale / 2) / c.WIDTH, (y - 3) / height
            figure.text(middle, foot, text, ha="center", va="top", fontsize=7.5, color=c.INK)
    ax.set(xlim=(0, c.WIDTH), ylim=(0, height))
    return c.png(figure)


def _best_grid(
    m: int, wide: int, high: int, *, room: tuple[int, int], label: int
) -> tuple[int, float]:
    """Return the number of columns that gives the largest pictures, and pixels per pixel."""
    best = (1, 0.0)
    for columns in range(1, m + 1):
        rows = -(-m // columns)
        scale = min((room[0] / columns - 8) / wide, (room[1] / rows - label - 6) / high)
        scale = min(scale, 160 / max(high, wide))
        scale = float(np.floor(scale)) if scale >= 2 else scale
        if scale > best[1]:
            best = (columns, scale)
    return best


def _thin(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most `most` of the rows, evenly spaced."""
    if rows.size <= most:
        return rows
    return rows[np.linspace(0, rows.size - 1, most).astype(np.intp)]


def _legend(ax: Axes, color_of: dict[str, str], *, rest: int, chosen: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [(c.shown(name, limit=18), color, "none") for name, color in color_of.items()]
    if rest > 0:
        handles.append((f"{c.count(rest)} more", c.GREY, "none"))
    if chosen:
        handles.append(("selected", "white" if color_of else c.BLUE, c.INK))
        if not color_of:
            handles.append(("not selected", c.GREY, "none"))
    if not handles:
        return
    ax.legend(
        handles=[
            Line2D([], [], ls="", marker="o", ms=5, mfc=color, mec=edge, mew=0.8, label=name)
            for name, color, edge in handles
        ],
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=8.5,
        frameon=False,
        labelcolor=c.INK,
        handletextpad=0.2,
    )


def _all_finite(block: NDArray[np.float64], rows: NDArray[np.intp]) -> None:
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise ValueError(
            f"project_2d: row {int(rows[bad[0]])} of the embeddings holds a value that is not "
            "finite; encode its shard again or drop the row"
        )
