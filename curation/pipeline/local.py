"""Curating in one process, without a server: what ``curation run`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from curation.locks import dataset_lock
from curation.pipeline.automation import range_tags, register
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import ASSETS, EMBEDDINGS, RAW, Dataset, project_root, store_root
from curation.pipeline.eventlog import SETTINGS, instance_ref
from curation.pipeline.population import odd_widths

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class AssetResult:
    """What became of one asset in a run.

    Attributes
    ----------
    asset
        Its name.
    computed, unchanged
        Artifacts (shards, or one) that were written, and that were there already.
    seconds
        Wall time of its step.
    error
        Why it failed, empty otherwise.
    """

    asset: str
    computed: int
    unchanged: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class RunResult:
    """What became of a run.

    Attributes
    ----------
    success
        Whether every asset is there and up to date, those of shards that failed aside.
    run_id, seconds
        Dagster's id of the run, and its wall time.
    assets
        What became of each.
    new_shards, gone_shards
        Shards that were registered, and that were removed.
    failed_shards
        Shards that could not be read or embedded, or not as the others were, and why.
    """

    success: bool
    run_id: str
    seconds: float
    assets: list[AssetResult]
    new_shards: tuple[str, ...]
    gone_shards: tuple[str, ...]
    failed_shards: dict[str, str]


def dagster_home() -> Path:
    """Return the Dagster home: ``DAGSTER_HOME``, else ``.dagster`` in the store.

    Created on first use, with the project's recommended settings.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or store_root() / ".dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    settings, shipped = home / "dagster.yaml", project_root() / "dagster.yaml"
    if not settings.exists():
        text = shipped.read_text(encoding="utf-8") if shipped.is_file() else ""
        settings.write_text(text + SETTINGS, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def know_pools(instance: dg.DagsterInstance, names: Iterable[str]) -> None:
    """Make the pools of data sets known before a run asks for them.

    Dagster gives a pool its default limit when it first sees a run in the queue that needs it, and
    does not hold those runs to it: the first two runs of a data set would go side by side.
    """
    if instance.global_op_concurrency_default_limit is None:
        return
    for name in names:
        instance.event_log_storage.initialize_concurrency_limit_to_default(name)


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance that the UI shows too.

    A home that was set up before ``dagster.yaml`` named the event log is opened with it as well.
    """
    with dg.DagsterInstance.from_ref(instance_ref(dagster_home())) as found:
        yield found


def run(dataset: Dataset, instance: dg.DagsterInstance) -> RunResult:
    """Bring every asset of a data set up to date, in this process, with the data set's lock.

    Raises
    ------
    curation.sources.SourceError
        If the source is missing or holds no shard.
    curation.locks.LockTimeout
        If another process curates the data set for an hour.
    """
    with dataset_lock(dataset.store.root, dataset.name, owner=f"run of {dataset.name}"):
        return _run(dataset, instance)


def _run(dataset: Dataset, instance: dg.DagsterInstance) -> RunResult:
    from curation.sources import SourceError

    began = time.monotonic()
    shards = register(instance, dataset)
    keys = list(instance.get_dynamic_partitions(f"{dataset.name}_shards"))
    if not keys:
        raise SourceError(
            f"data set {dataset.name}: the source has no shard; "
            "look at source.folder, source.pattern and source.include in defs.yaml"
        )
    job = dataset_definitions(dataset).resolve_job_def(f"{dataset.name}_curation")
    result = job.execute_in_process(
        instance=instance,
        tags={**range_tags(keys), "curation/dataset": dataset.name},
        run_config=QUIET,
        raise_on_error=False,
    )
    made = [_asset_result(dataset, result, asset) for asset in ASSETS]
    return RunResult(
        # a skipped step is no failure to Dagster; here nothing may be skipped
        success=result.success and all(a.computed or a.unchanged for a in made),
        run_id=result.run_id,
        seconds=time.monotonic() - began,
        assets=made,
        new_shards=shards.new,
        gone_shards=shards.gone,
        failed_shards={
            shard: mark.reason
            for asset in (RAW, EMBEDDINGS)
            for shard, mark in dataset.store.failed(dataset.name, asset).items()
            if shard in keys
        }
        | odd_widths(dataset),
    )


def _asset_result(dataset: Dataset, result: dg.ExecuteInProcessResult, asset: str) -> AssetResult:
    step = f"{dataset.name}__{asset}"
    status: dict[str | None, bool] = {}
    error = ""
    for event in result.all_events:
        if event.step_key != step:
            continue
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            entry = materialization.metadata.get("status")
            if entry is not None:
                status[materialization.partition] = str(entry.value).startswith("unchanged")
        elif event.is_step_failure:
            error = _message(event, dataset)
    seconds = _seconds(result, step)
    unchanged = sum(status.values())
    return AssetResult(asset, len(status) - unchanged, unchanged, seconds, error)


def _seconds(result: dg.ExecuteInProcessResult, step: str) -> float:
    for event in result.all_events:
        if event.step_key == step and event.is_step_success:
            return event.step_success_data.duration_ms / 1000.0
    return 0.0


def _is_ours(message: str) -> bool:
    return message.startswith("curation.")


def _message(event: dg.DagsterEvent, dataset: Dataset) -> str:
    """Return the first cause of a step's failure, as it is told to people."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error
    # Dagster wraps what an asset raised. Of that the last is told, which knows what to do about the
    # first: "no space left" alone says neither where nor what now.
    while error is not None and error.cause is not None and not _is_ours(error.message):
        error = error.cause
    if error is None:
        return "failed"
    name, _, told = error.message.strip().partition(": ")
    # The class of an error that is ours is of no use to whoever reads it; that of others may be.
    ours = _is_ours(name) or name == "ValueError"
    text = told if ours and told else error.message.strip()
    return text if dataset.name in text else f"data set {dataset.name}: {text}"
