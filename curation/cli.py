"""The command line: ``curation run | export | explain | report | ui | list``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curation import __version__
from curation.threads import set_defaults

if TYPE_CHECKING:
    from rich.console import Console

    from curation.pipeline.dataset import Dataset
    from curation.pipeline.local import RunResult


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Choose, weight and certify the rows a model should be trained on.

    A data set is one YAML file, curation/defs/NAME/defs.yaml. What a run leaves behind lies in
    data/ (or in CURATION_STORE); Dagster's run history in data/.dagster (or in DAGSTER_HOME).
    """
    set_defaults()


@main.command()
@click.argument("dataset")
def run(dataset: str) -> None:
    """Bring every asset of DATASET up to date, in this process.

    Reads new shards, embeds them, clusters, scores, draws, evaluates and writes the report. What
    did not change since the last run is not computed again. The run appears in the UI as well.
    """
    from rich.console import Console

    console = Console()
    bound = _dataset(dataset)
    from curation.pipeline.local import instance
    from curation.pipeline.local import run as curate
    from curation.progress import listen
    from curation.sources import SourceError
    from curation.terminal import progress

    console.print(f"[bold]{dataset}[/]  {bound.config.description}")
    try:
        with instance() as dagster, progress(console) as shown, listen(shown):
            result = curate(bound, dagster)
    except SourceError as error:
        raise click.ClickException(str(error)) from None
    if any("Interrupted" in asset.error for asset in result.assets):
        console.print(f"interrupted; what was finished stays. Go on: {_own_name()} run {dataset}")
        sys.exit(130)
    _show(console, bound, result)
    if not result.success:
        sys.exit(1)


@main.command()
@click.argument("dataset", required=False)
def check(dataset: str | None) -> None:
    """Check the YAML of DATASET, or of every data set: errors name file, line and field."""
    from curation.registry import RegistryError, dataset_files, load_config

    broken = 0
    for name in [dataset] if dataset else list(dataset_files()):
        try:
            load_config(name)
        except RegistryError as error:
            broken += 1
            click.echo(str(error), err=True)
        else:
            click.echo(f"{name}: fine")
    if broken:
        sys.exit(1)


@main.command("list")
def list_datasets() -> None:
    """List the data sets that are defined, and what of each is published."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from curation.pipeline.dataset import SELECTED_SUBSET, store_root
    from curation.registry import RegistryError, dataset_files, read_config
    from curation.store import Address, Store

    store = Store(store_root())
    table = Table()
    for column in ("data set", "description", "shards", "published subset"):
        table.add_column(column)
    for name, path in dataset_files().items():
        try:
            config = read_config(path)
        except RegistryError as error:
            table.add_row(name, f"[red]broken[/] {escape(str(error))}", "", "")
            continue
        subset = store.current(Address(config.name, SELECTED_SUBSET))
        shards = len(store.shards(config.name, "raw"))
        told = "none yet" if subset is None else f"{subset.manifest.row_count:,} rows"
        table.add_row(name, config.description, f"{shards:,}", told)
    Console().print(table)


@main.command()
@click.argument("dataset")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "jsonl"]),
    help="Format of the file; left out, that of its ending.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write.",
)
def export(dataset: str, kind: str | None, out: Path) -> None:
    """Write the published subset of DATASET with its weights, for a trainer."""
    from curation.store import StoreError
    from curation.subset import export as write

    _dataset(dataset)
    try:
        rows = write(dataset, out, format=kind)
    except (StoreError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{rows:,} rows written to {out}")


@main.command()
@click.argument("dataset")
@click.argument("row_id")
def explain(dataset: str, row_id: str) -> None:
    """Say why the row ROW_ID of DATASET was chosen and what it stands for, or why it was not."""
    from curation.store import StoreError
    from curation.subset import explain as look_up

    _dataset(dataset)
    try:
        row = look_up(dataset, row_id)
    except (StoreError, KeyError) as error:
        raise click.ClickException(str(error.args[0])) from None
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
        click.echo(f"{name:>22}  {value}")
    click.echo(f"{'why':>22}  {why}")


@main.command()
@click.argument("dataset")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Copy it here.")
def report(dataset: str, out: Path | None) -> None:
    """Print where the report of DATASET lies, or copy it."""
    from curation.pipeline.dataset import REPORT
    from curation.store import StoreError

    bound = _dataset(dataset)
    try:
        page = bound.store.need(bound.at(REPORT)).path("report.html")
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, out)
    click.echo(str(out or page))


@main.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The webserver has no login: read docs/operations.md before changing this.",
)
@click.option("--port", default=3000, show_default=True, type=int)
def ui(host: str, port: int) -> None:
    """Start Dagster's webserver and daemon over the runs and artifacts made so far."""
    from curation.pipeline.dataset import project_root
    from curation.pipeline.local import dagster_home

    dagster_home()
    workspace = project_root() / "workspace.yaml"
    # beside this interpreter: the environment need not be activated
    dagster = Path(sys.executable).with_name("dagster")
    os.environ["PATH"] = f"{dagster.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.chdir(project_root())
    click.echo(f"http://{host}:{port}")
    command = [str(dagster), "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execv(command[0], command)  # noqa: S606  our own interpreter's dagster


def _own_name() -> str:
    """Return how this command can be called from here."""
    if shutil.which("curation"):
        return "curation"
    return os.path.relpath(Path(sys.executable).with_name("curation"))


def _dataset(name: str) -> Dataset:
    from curation.registry import RegistryError, load_config

    try:
        config = load_config(name)
    except RegistryError as error:
        raise click.ClickException(str(error)) from None
    from curation.pipeline.dataset import Dataset

    return Dataset.open(config)


def _show(console: Console, dataset: Dataset, result: RunResult) -> None:
    from curation.terminal import result_table, stage_table

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
            console.print(f"[red]{asset.asset} failed[/]\n{asset.error}", highlight=False)
    if not result.success:
        return
    evaluation = dataset.store.need(dataset.at("evaluation_model")).figures
    for kind, title in (
        ("probe", "Probe on embeddings, holdout of {rows:,} rows (mean ± 95% over {seeds} seeds)"),
        ("fine_tune", "Fine-tuned encoder, holdout of {rows:,} rows"),
    ):
        if evaluation.get(kind):
            told = title.format(rows=evaluation["holdout_rows"], seeds=evaluation["seeds"])
            console.print(result_table(kind, evaluation[kind], title=told))
    page = dataset.store.need(dataset.at("report")).path("report.html")
    console.print(f"report  {page}", soft_wrap=True, highlight=False)
    console.print(f"export  {_own_name()} export {dataset.name} --out subset.parquet")
    console.print("look    make ui   (http://127.0.0.1:3000)")


def _set_aside(dataset: Dataset) -> int:
    """Return how many rows of all shards are in quarantine."""
    found = (
        dataset.store.current(dataset.at("raw", s))
        for s in dataset.store.shards(dataset.name, "raw")
    )
    return sum(int(a.figures["quarantined"]) for a in found if a is not None)


def _told(dataset: Dataset, asset: Any, status: str) -> str:
    if status in ("failed", "skipped"):
        return ""
    if asset.asset in ("raw", "embeddings", "sensitivity_scores"):
        told = f"{asset.computed} shards computed, {asset.unchanged} unchanged"
        aside = _set_aside(dataset) if asset.asset == "raw" else 0
        return told + (f"; {aside:,} rows set aside (quarantine.parquet)" if aside else "")
    figures = dataset.store.need(dataset.at(asset.asset)).figures
    if asset.asset == "pilot_model":
        return f"trained on {figures['rows']:,} of {figures['population']:,} rows"
    if asset.asset == "centroids":
        return f"k = {figures['k']}, the score was asked for {figures['queries']:,} times"
    if asset.asset == "selected_subset":
        repeats = figures["repeats"]
        return (
            f"{figures['distinct_rows']:,} rows stand for {figures['rows']:,}; weights add up to "
            f"{figures['weight_total']:,.0f}, an unbiased estimate of that"
            + (f"; {repeats:,} repeated rows left out" if repeats else "")
        )
    if asset.asset == "evaluation_model" and "gain" in figures:
        metric, gain = next(iter(figures["gain"].items()))
        return f"{metric} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] vs uniform"
    return ""


if __name__ == "__main__":
    main()
