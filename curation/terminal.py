"""What the command line shows: progress bars and tables."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from curation.progress import Listener, LogListener

# controls, formats (among them those that reorder a line), lone surrogates, line and paragraph ends
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: object, *, limit: int | None = None, keep: str = "") -> str:
    r"""Return text that came from data so that it can't control the terminal.

    Parameters
    ----------
    text
        Anything; turned into a string.
    limit
        Longest result in characters, the ellipsis included; None for no limit.
    keep
        Characters that stay as they are, such as the end of a line.

    Returns
    -------
    str
        The text, with control characters, and those that reorder a line, as escapes: ``\x1b``.
    """
    escaped = "".join(
        c if c in keep or unicodedata.category(c) not in HIDDEN else _escape(c) for c in str(text)
    )
    if limit is not None and len(escaped) > limit:
        return escaped[: limit - 1] + "…"
    return escaped


def said(text: object, *, limit: int | None = None, style: str = "") -> Text:
    """Return text that may hold data for rich to print: no markup in it is looked at."""
    return Text(visible(text, limit=limit, keep="\n"), style=style)


def table_of(
    title: str, columns: list[str], rows: Iterable[Iterable[object]], *, left: int = 1
) -> Table:
    """Return a table of values from data.

    Parameters
    ----------
    title, columns, rows
        Numbers are shown with separators of thousands, None as nothing.
    left
        Number of columns, from the left, that are texts; the others are aligned to the right.
    """
    table = Table(title=said(title), title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        table.add_column(said(column), justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _cell(value: object) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.2f}")
    return Text(visible(value, limit=200))


@contextmanager
def progress(console: Console) -> Iterator[Listener]:
    """Show the progress of the work in the block: bars on a terminal, else a line now and then.

    Dagster captures the standard output of every step at the level of the file descriptor. The bars
    are therefore written to a copy of it that was made before.
    """
    own = _copy_of_stdout(console)
    if own.is_terminal:
        bars = BarListener(own)
        with bars.progress:
            yield bars
    else:
        yield LogListener(lambda line: own.print(line, highlight=False))


def _copy_of_stdout(console: Console) -> Console:
    try:
        descriptor = os.dup(console.file.fileno())
    except (OSError, ValueError):  # not a file: captured by a test or a notebook
        return console
    return Console(file=os.fdopen(descriptor, "w", encoding="utf-8"), width=console.width)


class BarListener:
    """Shows every piece of long work as a bar with an ETA; it vanishes when the work is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def start(self, label: str, total: int) -> int:
        """Add a bar."""
        return self.progress.add_task(label, total=total)

    def advance(self, task: int, amount: int) -> None:
        """Move a bar."""
        self.progress.advance(task, amount)  # type: ignore[arg-type]

    def finish(self, task: int) -> None:
        """Remove a bar."""
        self.progress.remove_task(task)  # type: ignore[arg-type]

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(said(line), highlight=False)


def stage_table(rows: list[tuple[str, str, float, str]], *, title: str) -> Table:
    """Return the closing table: asset, status, seconds, what came of it."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("asset")
    table.add_column("status")
    table.add_column("seconds", justify="right")
    table.add_column("result")
    for asset, status, seconds, result in rows:
        style = {"computed": "green", "unchanged": "dim", "failed": "red"}.get(status, "")
        table.add_row(
            asset, f"[{style}]{status}[/]" if style else status, f"{seconds:,.1f}", result
        )
    return table


def result_table(kind: str, results: dict[str, Any], *, title: str) -> Table:
    """Return the comparison with uniform sampling: mean and 95% interval per strategy."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("trained on")
    metrics = list(next(iter(results.values())))
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    for name, values in results.items():
        cells = []
        for metric in metrics:
            value = values[metric]
            half = (value["high"] - value["low"]) / 2
            note = f" ± {half:.3f}" if value["n"] > 1 else ""
            cells.append(f"{value['mean']:.3f}{note}")
        table.add_row(name, *cells)
    return table
