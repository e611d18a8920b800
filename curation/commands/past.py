"""``curation history`` and ``diff``: what was published, and how it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from curation.commands.common import failure, open_dataset

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from curation.history import Diff, Side


@click.command()
@click.argument("dataset")
@click.option(
    "--last",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many publications are listed, the newest ones.",
)
def history(dataset: str, last: int) -> None:
    """List the subsets of DATASET that were published, the newest last.

    Rows kept, added and removed are against the subset published before.
    """
    from rich.console import Console

    from curation.history import history as look_up
    from curation.store import StoreError
    from curation.terminal import table_of

    bound = open_dataset(dataset)
    try:
        entries = look_up(dataset, bound.store)
    except StoreError as error:
        raise failure(error) from None
    if not entries:
        click.echo(f"{dataset}: no subset was published yet")
        return
    rows = [
        (
            e.version,
            e.published,
            e.note or _why(e.reasons) or ("current" if e is entries[-1] else ""),
            str(e.sequence),
            e.rows,
            e.kept,
            e.added,
            e.removed,
        )
        for e in entries[-last:]
    ]
    columns = ["version", "published", "why", "number", "rows", "kept", "added", "removed"]
    title = f"{dataset}: {len(entries):,} published, current is {entries[-1].version}"
    Console().print(table_of(title, columns, rows, left=3))


@click.command()
@click.argument("dataset")
@click.argument("a", default="previous")
@click.argument("b", default="current")
@click.option(
    "--rows",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rows of each list, and lines of each table.",
)
def diff(dataset: str, a: str, b: str, rows: int) -> None:
    """Compare two subsets of DATASET: rows that came, left and stayed, and their weights.

    A and B are versions (four characters of one are enough), numbers as `curation history` lists
    them, `current` or `previous`. Left out: the previous subset and the current one.
    """
    from rich.console import Console

    from curation.history import diff as compare
    from curation.store import StoreError

    bound = open_dataset(dataset)
    try:
        found = compare(dataset, a, b, bound.store, label=bound.columns.label)
    except StoreError as error:
        raise failure(error) from None
    click.echo(f"a  {_told(found.a)}\nb  {_told(found.b)}")
    if found.gone:
        click.echo(f"{' and '.join(found.gone)}: deleted by retention, there is nothing to compare")
        return
    click.echo(
        f"{len(found.kept):,} rows kept, {len(found.added):,} added, {len(found.removed):,} removed"
    )
    _show(Console(), found, rows)


def _show(console: Console, found: Diff, rows: int) -> None:
    counts = ["kept", "added", "removed", "weight in a", "weight in b"]
    _table(console, "By shard", ["shard", *counts], _changed(found.by_shard), rows)
    if found.by_label is not None:
        _table(console, "By class", ["class", *counts], _changed(found.by_label), rows)
    names = ["id", "shard", *(["class"] if "class" in found.kept.columns else [])]
    left = len(names)
    changed = found.kept.filter(found.kept["change"] != 0.0)
    columns = [*names, "weight in a", "weight in b", "change"]
    _table(console, "Largest changes of weight", columns, changed, rows, left=left)
    for title, frame in (("Added", found.added), ("Removed", found.removed)):
        _table(console, title, [*names, "weight"], frame, rows, left=left)


def _changed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return groups with the most rows that came or left first."""
    import polars as pl

    return frame.sort(pl.col("added") + pl.col("removed"), descending=True, maintain_order=True)


def _table(
    console: Console,
    title: str,
    columns: list[str],
    frame: pl.DataFrame,
    rows: int,
    *,
    left: int = 1,
) -> None:
    from curation.terminal import table_of

    if frame.is_empty() or not rows:
        return
    more = f" ({rows:,} of {len(frame):,})" if len(frame) > rows else ""
    console.print(table_of(title + more, columns, frame.head(rows).iter_rows(), left=left))


def _told(side: Side) -> str:
    number = "not published" if side.sequence is None else f"number {side.sequence}"
    return f"{side.version}  {number}, {side.published}, {side.rows:,} rows"


def _why(reasons: Mapping[str, Any] | None) -> str:
    """Return why rows came and left, as it was noted when the subset was drawn."""
    parts = []
    for what in ("added", "removed"):
        noted = (reasons or {}).get(f"{what}_because")
        for why, number in noted.items() if isinstance(noted, Mapping) else ():
            parts.append(f"{number:,} {what}: {why}")
    return "; ".join(parts)
