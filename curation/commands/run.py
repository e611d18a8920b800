"""``curation run``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from curation.commands.common import failure, open_dataset, own_name

NAMED = 10  # failed shards that are named

if TYPE_CHECKING:
    from rich.console import Console

    from curation.pipeline.dataset import Dataset
    from curation.pipeline.local import RunResult


@click.command()
@click.argument("dataset")
@click.option(
    "--wait",
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another run of the data set.",
)
def run(dataset: str, wait: float) -> None:
    """Bring every asset of DATASET up to date, in this process.

    Reads new shards, embeds them, clusters, scores, draws, evaluates and writes the report. What
    did not change since the last run is not computed again. The run appears in the UI as well.
    """
    from rich.console import Console

    console = Console()
    bound = open_dataset(dataset)
    from curation.locks import dataset_lock
    from curation.pipeline.local import instance
    from curation.pipeline.local import run as curate
    from curation.pipeline.needs import first_told
    from curation.progress import listen
    from curation.sources import SourceError
    from curation.store import StoreError
    from curation.terminal import progress, said

    console.print(said(f"{dataset}  {bound.config.description}"), highlight=False)
    owner = f"curation run {dataset}"
    alone = dataset_lock(
        bound.store.root,
        dataset,
        owner=owner,
        wait_seconds=wait,
        told=lambda text: console.print(said(text), highlight=False),
    )
    expected = first_told(bound)
    if expected is not None:
        console.print(said(expected), highlight=False)
    try:
        with alone, instance() as dagster, progress(console) as shown, listen(shown):
            result = curate(bound, dagster)
    except (SourceError, StoreError) as error:
        raise failure(error) from None
    if any("Interrupted" in asset.error for asset in result.assets):
        console.print(f"interrupted; what was finished stays. Go on: {own_name()} run {dataset}")
        sys.exit(130)
    _show(console, bound, result)
    if not result.success:
        sys.exit(1)


def _show(console: Console, dataset: Dataset, result: RunResult) -> None:
    from curation.pipeline.protected import sentences
    from curation.terminal import result_table, said, stage_table

    rows = []
    for asset in result.assets:
        status = "failed" if asset.error else "computed" if asset.computed else "unchanged"
        if not asset.computed and not asset.unchanged and not asset.error:
            status = "skipped"
        rows.append((asset.asset, status, asset.seconds, _told(dataset, asset, status)))
    total = f"{dataset.name}: {result.seconds:,.1f} s"
    console.print(stage_table(rows, title=total))
    for asset in result.assets:
        if asset.error:
            console.print(f"[red]{asset.asset} failed[/]")
            console.print(said(asset.error), highlight=False)
    for shard, why in list(result.failed_shards.items())[:NAMED]:
        console.print(f"[yellow]shard {shard} is left out, or its last good rows are used[/]")
        console.print(said(why), highlight=False)
    if len(result.failed_shards) > NAMED:
        console.print(f"and {len(result.failed_shards) - NAMED:,} more shards; see `status`")
    if not result.success:
        return
    evaluation = dataset.store.need(dataset.at("evaluation_model")).figures
    held = evaluation.get("holdout", {})
    which = "open half of the holdout" if held.get("protected") else "holdout"
    for kind, title in (
        ("probe", "Probe on embeddings, {which}, {rows:,} rows (mean ± 95% over {seeds} seeds)"),
        ("fine_tune", "Fine-tuned encoder, {which}, {rows:,} rows"),
    ):
        if evaluation.get(kind):
            told = title.format(which=which, rows=held["open_rows"], seeds=evaluation["seeds"])
            console.print(result_table(kind, evaluation[kind], title=told))
    for line in sentences(held) if held else []:
        console.print(f"holdout {line}", soft_wrap=True, highlight=False)
    page = dataset.store.need(dataset.at("report")).path("report.html")
    console.print(f"report  {page}", soft_wrap=True, highlight=False)
    console.print(f"export  {own_name()} export {dataset.name} --out subset.parquet")
    console.print("look    make ui   (http://127.0.0.1:3000)")


def _changed(changes: dict[str, Any]) -> str:
    if changes["against"] is None:
        return ""
    return (
        f"; {changes['kept']:,} of the subset before stay, {changes['removed']:,} left, "
        f"{changes['added']:,} came"
    )


def _set_aside(dataset: Dataset) -> int:
    """Return how many rows of the source's shards are in quarantine."""
    found = (
        dataset.store.current(dataset.at("raw", shard.key)) for shard in dataset.source().shards()
    )
    return sum(int(a.figures["quarantined"]) for a in found if a is not None)


def _told(dataset: Dataset, asset: Any, status: str) -> str:
    if status in ("failed", "skipped"):
        return ""
    if asset.asset in ("raw", "embeddings", "sensitivity_scores"):
        told = f"{asset.computed} shards computed, {asset.unchanged} unchanged"
        aside = _set_aside(dataset) if asset.asset == "raw" else 0
        return told + (f"; {aside:,} rows set aside (see `quarantine`)" if aside else "")
    figures = dataset.store.need(dataset.at(asset.asset)).figures
    if asset.asset == "pilot_model":
        return f"trained on {figures['rows']:,} of {figures['population']:,} rows"
    if asset.asset == "centroids":
        once = "; the pilot saw every row once, for its gradient"
        return f"k = {figures['k']}, the score was asked for {figures['queries']:,} times" + (
            once if figures["space"] == "gradient" else ""
        )
    if asset.asset == "selected_subset":
        repeats = figures["repeats"]
        return (
            f"{figures['distinct_rows']:,} rows stand for {figures['rows']:,}; weights add up to "
            f"{figures['weight_total']:,.0f}, an unbiased estimate of that"
            + (f"; {repeats:,} repeated rows left out" if repeats else "")
            + (_changed(figures["changes"]) if status == "computed" else "")
        )
    if asset.asset == "evaluation_model" and "gain" in figures:
        metric, gain = next(iter(figures["gain"].items()))
        return f"{metric} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] vs uniform"
    return ""
