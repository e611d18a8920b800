"""``curation export``, ``explain`` and ``report``: what was chosen, and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from curation.commands.common import failure, open_dataset


@click.command()
@click.argument("dataset")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "jsonl", "huggingface", "webdataset"]),
    help="Left out: that of the file's ending. The last two are folders.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file or folder to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace a folder that holds something.")
def export(dataset: str, kind: str | None, out: Path, overwrite: bool) -> None:
    """Write the published subset of DATASET with its weights and a data card, for a trainer."""
    from curation.exports import ExportError
    from curation.exports import export as write
    from curation.store import StoreError

    config = open_dataset(dataset).config
    try:
        rows, card = write(config, out, format=kind, overwrite=overwrite)
    except (StoreError, ExportError, ValueError, OSError) as error:
        raise failure(error) from None
    click.echo(f"{rows:,} rows written to {out}")
    click.echo(f"data card: {card}")


@click.command()
@click.argument("dataset")
@click.argument("row_id")
def explain(dataset: str, row_id: str) -> None:
    """Say why the row ROW_ID of DATASET was chosen and what it stands for, or why it was not."""
    from curation.store import StoreError
    from curation.subset import explain as look_up
    from curation.terminal import visible

    open_dataset(dataset)
    try:
        row = look_up(dataset, row_id)
    except (StoreError, KeyError) as error:
        raise failure(error.args[0]) from None
    why = {
        "pilot": "part of the uniform pilot; stands for itself",
        "take-all": "its score is so large that every draw takes it; stands for itself",
        "drawn": f"drawn; stands for {row.get('weight', 0.0):.1f} rows",
        "not drawn": "was up for drawing and not drawn; other rows of its kind stand for it",
        "holdout": "in the holdout; never selected",
        "not scored": "not up for drawing: its shard came after the last draw, or the holdout has "
        "the same id",
    }[row["reason"]]
    for name, value in row.items():
        click.echo(f"{visible(name):>22}  {visible(value)}")
    click.echo(f"{'why':>22}  {why}")


@click.command()
@click.argument("dataset")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Copy it here.")
def report(dataset: str, out: Path | None) -> None:
    """Print where the report of DATASET lies, or copy it."""
    from curation.pipeline.dataset import REPORT
    from curation.store import StoreError

    bound = open_dataset(dataset)
    try:
        page = bound.store.need(bound.at(REPORT)).path("report.html")
    except StoreError as error:
        raise failure(error) from None
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, out)
    click.echo(str(out or page))
