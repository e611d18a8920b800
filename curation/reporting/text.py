"""Text that came from data, made safe to show, and the one statistic shown next to it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

# Characters that reorder what a reader sees (bidirectional controls) or are not seen at all.
_INVISIBLE = re.compile("[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_ESCAPES = str.maketrans(
    {
        **{mark: "\\" + mark for mark in r"\*_{}[]()#!~$"},
        **{"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;"},
    }
)
# The start of a list, a rule, an underline or an ordinal; not that of a number such as -0.5 or 1.5.
_LEADING = re.compile(r"^(?:[-+=:](?![\d.])|\d+(?=\.(?:\s|$)))")
# Renderers with GitHub's extension turn these into links after escapes were undone, so that only
# an invisible break inside the address stops them.
_AUTOLINK = re.compile(r"(?i)(:(?=//)|www(?=\.)|@)")
_BREAK = "\u200b"
_NUMBER = re.compile(r"[+\u2212-]?\d[\d,]*(\.\d+)? ?%?")


def plain(text: object, *, limit: int | None = None) -> str:
    """Fold data text to one printable line.

    Parameters
    ----------
    text
        Anything; turned into a string.
    limit
        Longest result in characters, the ellipsis included; None for no limit.

    Returns
    -------
    str
        White space folded; control characters, bidirectional controls and lone surrogates gone.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 character, got {limit}")
    folded = " ".join(_INVISIBLE.sub("", str(text)).split())
    folded = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in folded)
    if limit is not None and len(folded) > limit:
        folded = folded[: limit - 1].rstrip() + "…"
    return folded


def escape_markdown(text: str, *, limit: int = 200) -> str:
    """Make data text inert inside Markdown.

    No HTML, link (bare addresses and e-mail addresses included), image, code, emphasis, heading,
    list or table cell can come out of it. ``< > & |`` and backticks become character references,
    the other marks get a backslash.

    Parameters
    ----------
    text
        The text; newlines are folded to spaces.
    limit
        Longest visible text in characters; a longer one ends in an ellipsis.

    Returns
    -------
    str
        One line of Markdown that shows the text.
    """
    line = plain(text, limit=limit).translate(_ESCAPES)
    line = _LEADING.sub(
        lambda m: m.group() + "\\" if m.group().isdigit() else "\\" + m.group(), line
    )
    return _AUTOLINK.sub(lambda m: m.group() + _BREAK, line)


def cell_text(value: object) -> str:
    """Return what a table shows for a value: four digits of a float, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """Return a short duration: 0.42 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def is_number(value: object) -> bool:
    """Whether a cell holds a number, or text that is one, with or without a per cent sign."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def numeric_columns(rows: Sequence[Sequence[object]], width: int) -> list[bool]:
    """Return, per column, whether every cell that is filled holds a number."""
    columns = [[row[i] for row in rows if row[i] is not None] for i in range(width)]
    return [bool(cells) and all(is_number(c) for c in cells) for cells in columns]


def check_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """Return the rows as lists.

    Raises
    ------
    ValueError
        When there is no column, or a row has another number of cells than the headers.
    """
    if not headers:
        raise ValueError("a table needs at least one header")
    table = [list(row) for row in rows]
    for number, row in enumerate(table):
        if len(row) != len(headers):
            raise ValueError(
                f"table row {number} has {len(row)} cells, but there are {len(headers)} headers"
            )
    return table


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table in which every cell is escaped.

    Parameters
    ----------
    headers
        Column names.
    rows
        One sequence of cells per row; columns of numbers are aligned to the right.

    Raises
    ------
    ValueError
        When a row has another number of cells than the headers.
    """
    table = check_table(headers, rows)
    marks = ["---:" if right else "---" for right in numeric_columns(table, len(headers))]
    lines = [[escape_markdown(h) for h in headers], marks]
    lines += [[escape_markdown(cell_text(cell)) for cell in row] for row in table]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def t_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's t confidence interval.

    ``mean ± t((1 + level) / 2, n - 1) * s / sqrt(n)`` with s the sample standard deviation.

    Parameters
    ----------
    values
        At least one finite number.
    level
        Confidence level, between 0 and 1.

    Returns
    -------
    tuple[float, float, float]
        Mean, low, high. One value says nothing about its spread: low and high are then NaN.

    Raises
    ------
    ValueError
        When there is no value, one is not finite, or the level is not between 0 and 1.
    """
    x = [float(v) for v in values]
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if not x:
        raise ValueError("t_interval needs at least one value")
    if not all(map(math.isfinite, x)):
        raise ValueError("t_interval: every value must be finite")
    n = len(x)
    mean = math.fsum(x) / n
    if n == 1:
        return mean, math.nan, math.nan
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / (n - 1))
    half = float(stdtrit(n - 1, (1.0 + level) / 2.0)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half
