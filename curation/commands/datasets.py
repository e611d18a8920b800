"""``curation list``, ``check`` and ``ui``: the data sets that are defined."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command()
@click.argument("dataset", required=False)
def check(dataset: str | None) -> None:
    """Check the YAML of DATASET, or of every data set: errors name file, line and field."""
    from curation.registry import RegistryError, dataset_files, load_config
    from curation.terminal import visible

    broken = 0
    for name in [dataset] if dataset else list(dataset_files()):
        try:
            load_config(name)
        except RegistryError as error:
            broken += 1
            click.echo(visible(error, keep="\n"), err=True)
        else:
            click.echo(f"{name}: fine")
    if broken:
        sys.exit(1)


@click.command("list")
def list_datasets() -> None:
    """List the data sets that are defined, and what of each is published."""
    from rich.console import Console
    from rich.table import Table

    from curation.pipeline.dataset import SELECTED_SUBSET, store_root
    from curation.registry import RegistryError, dataset_files, read_config
    from curation.store import Address, Store, StoreError
    from curation.terminal import said

    store = Store(store_root())
    table = Table()
    for column in ("data set", "description", "shards", "published subset"):
        table.add_column(column)
    for name, path in dataset_files().items():
        try:
            config = read_config(path)
        except RegistryError as error:
            table.add_row(said(name), said(f"broken: {error}", style="red"), "", "")
            continue
        shards = len(store.shards(config.name, "raw"))
        try:
            subset = store.current(Address(config.name, SELECTED_SUBSET))
            told = "none yet" if subset is None else f"{subset.manifest.row_count:,} rows"
        except StoreError as error:
            told = f"damaged: {error}"
        table.add_row(said(name), said(config.description), f"{shards:,}", said(told))
    Console().print(table)


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The webserver has no login: read docs/security.md before changing this.",
)
@click.option("--port", default=3000, show_default=True, type=int)
def ui(host: str, port: int) -> None:
    """Start Dagster's webserver and daemon over the runs and artifacts made so far."""
    from curation.pipeline.dataset import project_root
    from curation.pipeline.local import instance, know_pools
    from curation.registry import dataset_files

    with instance() as dagster_instance:
        know_pools(dagster_instance, dataset_files())
    workspace = project_root() / "workspace.yaml"
    # beside this interpreter: the environment need not be activated
    dagster = Path(sys.executable).with_name("dagster")
    os.environ["PATH"] = f"{dagster.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.chdir(project_root())
    click.echo(f"http://{host}:{port}")
    command = [str(dagster), "dev", "-w", str(workspace), "-h", host, "-p", str(port)]
    os.execv(command[0], command)  # noqa: S606  our own interpreter's dagster
