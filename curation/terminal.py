"""What the command line shows: progress bars and tables."""

from __future__ import annotations

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


class BarListener:
    """Shows every piece of long work as a bar with an ETA.

    On a terminal the bars of short work vanish when it is done. Where the output is not a terminal,
    a line is printed when a piece of work ends, so that a log stays readable.
    """

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
            disable=not console.is_terminal,
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
