"""``curation status``, ``quarantine`` and ``prune``: what a data set is in, and its tidying up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from curation.commands.common import failure, open_dataset, own_name

if TYPE_CHECKING:
    from curation.pipeline.dataset import Dataset
    from curation.retention import Removal


@click.command()
@click.argument("dataset")
def status(dataset: str) -> None:
    """Say what of DATASET is published, which shards failed and why, and whether it is running."""
    from rich.console import Console

    from curation.locks import holder
    from curation.pipeline.dataset import PER_SHARD, SELECTED_SUBSET
    from curation.store import StoreError
    from curation.terminal import table_of, visible

    bound = open_dataset(dataset)
    console = Console()
    failed = []
    for asset in PER_SHARD:
        marks = bound.store.failed(dataset, asset)
        click.echo(
            f"{asset}: {len(bound.store.shards(dataset, asset)):,} shards, {len(marks):,} failed"
        )
        failed += [(shard, asset, mark.when, mark.reason) for shard, mark in marks.items()]
    try:
        running = holder(bound.store.root, dataset)
        subset = bound.store.current(bound.at(SELECTED_SUBSET))
    except StoreError as error:
        raise failure(error) from None
    if subset is None:
        click.echo("no subset was published yet")
    else:
        number = bound.store.published(bound.at(SELECTED_SUBSET))[-1].sequence
        click.echo(
            f"current subset: {subset.manifest.version}, number {number}, "
            f"{subset.manifest.row_count:,} rows"
        )
    if running is not None:
        who = " ".join(
            f"{k} {running[k]}" for k in ("owner", "pid", "host", "since") if k in running
        )
        click.echo(f"locked: {visible(who) or 'by another process'}")
    if failed:
        console.print(
            table_of("Failed shards", ["shard", "asset", "when", "reason"], failed, left=4)
        )


@click.command()
@click.argument("dataset")
@click.option("--shard", help="Only this shard.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all rejected rows there: .parquet, .csv or .jsonl.",
)
def quarantine(dataset: str, shard: str | None, out: Path | None) -> None:
    """List the rows of DATASET that were rejected: shard, row number, field, reason and value.

    Shown are counts by shard, field and reason with an example each; --out writes every row.
    """
    from rich.console import Console

    from curation.quarantine import counts, quarantined
    from curation.store import StoreError
    from curation.subset import format_of, save
    from curation.terminal import table_of

    bound = open_dataset(dataset)
    try:
        kind = format_of(out, known=("parquet", "csv", "jsonl")) if out is not None else ""
        rows = quarantined(dataset, bound.store, shard=shard)
        if out is not None:
            save(rows, out, kind)
            click.echo(f"{len(rows):,} rejected rows written to {out}")
            return
    except (StoreError, ValueError, OSError) as error:
        raise failure(error) from None
    if rows.is_empty():
        click.echo("no row was rejected")
        return
    columns = ["shard", "field", "reason", "example", "first row", "rows"]
    lines = counts(rows).select("shard", "field", "reason", "example", "first_row", "rows")
    title = f"{len(rows):,} rejected rows"
    Console().print(table_of(title, columns, lines.iter_rows(), left=4))


@click.command()
@click.argument("dataset")
@click.option(
    "--versions",
    type=click.IntRange(min=1),
    help="Published subsets that stay, the newest; left out, retention.versions of the YAML.",
)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    help="Those younger than this stay as well; left out, retention.days of the YAML.",
)
@click.option("--yes", is_flag=True, help="Remove it; without this, it is only listed.")
def prune(dataset: str, versions: int | None, days: int | None, yes: bool) -> None:
    """List what retention would remove of DATASET: what, how many bytes, and why.

    Old versions, artifacts of shards that the source no longer has, and what crashes left behind.
    The current subset stays, and so does what the subsets that stay were drawn with.
    """
    from curation.locks import dataset_lock
    from curation.retention import apply
    from curation.store import StoreError

    bound = open_dataset(dataset)
    try:
        if not yes:
            removals = _plan(bound, versions, days)
            _list(bound, removals)
            if removals:
                click.echo(f"nothing was removed; that does: {own_name()} prune {dataset} --yes")
            return
        owner = f"curation prune {dataset}"
        # planned under the lock as well: what a run that was waited for has made current stays
        with dataset_lock(bound.store.root, dataset, owner=owner, told=click.echo):
            removals = _plan(bound, versions, days)
            _list(bound, removals)
            freed = apply(removals, owner=owner)
    except StoreError as error:
        raise failure(error) from None
    click.echo(f"{len(removals):,} removed, {freed:,} bytes freed")


def _plan(dataset: Dataset, versions: int | None, days: int | None) -> list[Removal]:
    import datetime as dt

    from curation.retention import plan
    from curation.sources import SourceError
    from curation.terminal import visible

    told = dataset.config.retention
    try:
        present = {shard.key for shard in dataset.source().shards()}
    except (SourceError, OSError) as error:
        present = None
        click.echo(
            f"the source can't be listed, so that shards it no longer has are not looked for: "
            f"{visible(error)}",
            err=True,
        )
    return plan(
        dataset,
        versions=versions or told.versions,
        days=days or told.days,
        present=present,
        now=dt.datetime.now(dt.UTC),
    )


def _list(dataset: Dataset, removals: list[Removal]) -> None:
    from rich.console import Console

    from curation.terminal import table_of

    if not removals:
        click.echo("there is nothing to remove")
        return
    rows = [(str(r.path.relative_to(r.root / r.dataset)), r.why, r.bytes) for r in removals]
    title = f"{len(rows):,} to remove, {sum(r.bytes for r in removals):,} bytes"
    Console().print(table_of(title, ["what", "why", "bytes"], rows, left=2))
