"""From outcomes to Dagster events: materializations with data versions, metadata and checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.events import (
    DagsterEvent,
    DagsterEventBatchMetadata,
    generate_event_batch_id,
)

from curation.pipeline.alone import alone
from curation.pipeline.dataset import (
    CODE_VERSIONS,
    PER_SHARD,
    SENSITIVITY_SCORES,
    Dataset,
    NotThere,
    Outcome,
)
from curation.pipeline.findings import CHECKS, Finding, failed_shard
from curation.pipeline.views import TITLES, views_of
from curation.progress import LogListener, listen, listener
from curation.reporting.plots import markdown_image

DATA_VERSION = "dagster/data_version"

# Dagster records no materialization for an output that carries this; what an observable source
# asset yields does, whose events are its own as well.
RECORDS_NOTHING = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
TOLD_EVERY_SECONDS = 1.0

# What each asset reads, in the graph that users see.
UPSTREAM: dict[str, tuple[str, ...]] = {
    "raw": (),
    "embeddings": ("raw",),
    "pilot_model": ("embeddings",),
    "centroids": ("embeddings", "pilot_model"),
    "sensitivity_scores": ("embeddings", "centroids"),
    "selected_subset": ("sensitivity_scores", "pilot_model"),
    "evaluation_model": ("selected_subset",),
    "report": ("centroids", "selected_subset", "evaluation_model"),
}

MakeShard = Callable[[Dataset, str], tuple[Outcome, list[Finding]]]
Make = Callable[[Dataset], tuple[Outcome, list[Finding]]]


def key(dataset: Dataset, asset: str) -> dg.AssetKey:
    """Return the asset's key: data set, then asset."""
    return dg.AssetKey([dataset.name, asset])


def metadata_of(outcome: Outcome) -> dict[str, Any]:
    """Return what the UI shows of an artifact: figures, pictures, where it lies."""
    manifest = outcome.artifact.manifest
    shown: dict[str, Any] = {
        "status": "unchanged: nothing was written" if outcome.unchanged else "computed",
        "dagster/row_count": manifest.row_count,
        "seconds": round(outcome.seconds, 3),
    }
    for name, value in {**manifest.figures, **outcome.told}.items():
        if name.endswith("_hash"):
            continue
        if isinstance(value, dict):
            shown[name] = dg.MetadataValue.json(value)
        elif isinstance(value, list):
            shown[name] = ", ".join(map(str, value)) or "none"
        else:
            shown[name] = value
    for name, png in views_of(outcome.artifact).items():
        title = TITLES.get(name, name)
        shown[title] = dg.MetadataValue.md(markdown_image(png, title))
    shown["content_hash"] = manifest.content_hash
    shown["folder"] = dg.MetadataValue.path(str(outcome.artifact.folder))
    return shown


def check_results(asset_key: dg.AssetKey, findings: list[Finding]) -> list[dg.AssetCheckResult]:
    """Turn findings into check results."""
    return [
        dg.AssetCheckResult(
            asset_key=asset_key,
            check_name=f.name,
            passed=f.passed,
            severity=severity_of(f),
            description=f.description,
            metadata={**f.metadata},
        )
        for f in findings
    ]


def severity_of(finding: Finding) -> dg.AssetCheckSeverity:
    """Return the severity a finding that did not pass is shown with."""
    return dg.AssetCheckSeverity.WARN if finding.warning else dg.AssetCheckSeverity.ERROR


def _listen(context: dg.AssetExecutionContext) -> Any:
    """Send progress to the run's log, unless a terminal shows it already."""
    current = listener()
    return listen(current if current is not None else LogListener(context.log.info))


def unpartitioned_events(
    context: dg.AssetExecutionContext, dataset: Dataset, asset: str, make: Make
) -> Iterator[Any]:
    """Make a global asset and yield its events; a failed check of a subset fails the step.

    Raises
    ------
    dagster.Failure
        When a subset does not pass its checks: it was not published, and what comes after it must
        not run.
    """
    asset_key = key(dataset, asset)
    with alone(context, dataset), _listen(context):
        outcome, findings = make(dataset)
    results = check_results(asset_key, findings)
    failed = [f for f in findings if f.blocks]
    if asset == "selected_subset" and failed:
        yield from results
        raise dg.Failure(
            description=f"data set {dataset.name}: the subset was not published, the one before "
            f"stays current. {'; '.join(f'{f.name}: {f.description}' for f in failed)}",
            allow_retries=False,
        )
    context.log.info(f"{asset}: {'unchanged' if outcome.unchanged else 'computed'}")
    yield dg.MaterializeResult(
        asset_key=asset_key,
        metadata=metadata_of(outcome),
        data_version=dg.DataVersion(outcome.artifact.content_hash),
        check_results=results,
    )


def shard_events(
    context: dg.AssetExecutionContext, dataset: Dataset, asset: str, make: MakeShard
) -> Iterator[Any]:
    """Make a per-shard asset for every shard of the run and yield its events.

    Dagster gives all partitions of one output the same data version. So:

    - one shard: an ordinary result;
    - several: each shard is recorded by a materialization event of its own, with its own content
      hash, soon after it is done. The output, without which Dagster would skip what reads this
      asset in the same run, silently, records nothing.

    A shard that can't be read or embedded does not stop the others, nor what comes after them: it
    is marked as failed in the store, its check fails, and what is made of the shards names it. No
    event says that it was made.
    Where no shard is left, or scores can't be computed, the step fails.
    """
    shards = list(context.partition_keys)
    asset_key = key(dataset, asset)
    failures: dict[str, Exception] = {}
    made = _Made(context)
    unchanged = 0
    with alone(context, dataset), _listen(context):
        for shard in shards:
            try:
                outcome, findings = make(dataset, shard)
            except Exception as error:
                told = failed(dataset, asset, shard, error)
                if len(shards) == 1:
                    raise
                context.log.error(f"{asset} of shard {shard} failed: {error}")
                failures[shard] = error
                yield from _evaluations(asset_key, shard, told)
                continue
            unchanged += outcome.unchanged
            if len(shards) == 1:
                context.log.info(f"{shard}: {'unchanged' if outcome.unchanged else 'computed'}")
                yield dg.MaterializeResult(
                    asset_key=asset_key,
                    metadata=metadata_of(outcome),
                    data_version=dg.DataVersion(outcome.artifact.content_hash),
                    check_results=check_results(asset_key, findings),
                )
                return
            # what passed when a shard was computed stands
            stands = outcome.unchanged and all(f.passed for f in findings)
            yield from made.add(
                _materialization(dataset, asset, shard, outcome),
                _evaluations(asset_key, shard, [] if stands else findings),
            )
    yield from made.all()
    context.log.info(f"{len(shards)} shards: {unchanged} unchanged, {len(failures)} failed")
    left_behind = [s for s, error in failures.items() if not isinstance(error, NotThere)]
    fatal = len(failures) == len(shards) or (asset == SENSITIVITY_SCORES and left_behind)
    if fatal:
        raise _failure(dataset, asset, len(shards), failures)
    yield dg.MaterializeResult(asset_key=asset_key, metadata=RECORDS_NOTHING)
    for name in CHECKS.get(asset, {}):
        # the evaluations above are the shards'; the step also owes one output per check
        yield dg.Output(
            None,
            output_name=context.assets_def.get_output_name_for_asset_check_key(
                dg.AssetCheckKey(asset_key, name)
            ),
        )


class _Made:
    """What a step made of its shards, told to Dagster together, once a second."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.step = context.get_step_execution_context()
        self.made: list[dg.AssetMaterialization] = []
        self.checked: list[dg.AssetCheckEvaluation] = []
        self.last = time.monotonic()

    def add(
        self, made: dg.AssetMaterialization, checked: Iterable[dg.AssetCheckEvaluation]
    ) -> Iterator[Any]:
        """Take in a shard; yield what has waited for long enough."""
        self.made.append(made)
        self.checked.extend(checked)
        if time.monotonic() - self.last >= TOLD_EVERY_SECONDS:
            yield from self.all()

    def all(self) -> Iterator[Any]:
        """Yield all that waits, checks after what was checked: else Dagster calls them old."""
        batch = generate_event_batch_id()
        for i, one in enumerate(self.made, start=1):
            # those before the last are stored with it
            end = DagsterEventBatchMetadata(batch, i == len(self.made))
            yield DagsterEvent.asset_materialization(self.step, one, end)
        yield from self.checked
        self.made, self.checked, self.last = [], [], time.monotonic()


def failed(dataset: Dataset, asset: str, shard: str, error: Exception) -> list[Finding]:
    """Mark a shard as failed in the store and return what its checks say."""
    if asset == SENSITIVITY_SCORES or isinstance(error, NotThere):
        return []
    stamp = getattr(error, "stamp", "")
    dataset.store.mark_failed(dataset.at(asset, shard), reason=str(error), stamp=stamp)
    return failed_shard(asset, str(error))


def _materialization(
    dataset: Dataset, asset: str, shard: str, outcome: Outcome
) -> dg.AssetMaterialization:
    tags = {
        DATA_VERSION: outcome.artifact.content_hash,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": CODE_VERSIONS[asset],
    }
    for upstream in UPSTREAM[asset]:
        at = dataset.at(upstream, shard if upstream in PER_SHARD else None)
        found = dataset.store.current(at)
        if found is not None:
            name = key(dataset, upstream).to_user_string()
            tags[f"dagster/input_data_version/{name}"] = found.content_hash
            tags[f"dagster/input_event_pointer/{name}"] = "NULL"
    return dg.AssetMaterialization(
        asset_key=key(dataset, asset),
        partition=shard,
        metadata=metadata_of(outcome),
        tags=tags,
    )


def _evaluations(
    asset_key: dg.AssetKey, shard: str, findings: list[Finding]
) -> Iterator[dg.AssetCheckEvaluation]:
    for finding in findings:
        yield dg.AssetCheckEvaluation(
            asset_key=asset_key,
            check_name=finding.name,
            passed=finding.passed,
            severity=severity_of(finding),
            description=finding.description,
            metadata={**finding.metadata},
            partition=shard,
        )


def _failure(dataset: Dataset, asset: str, of: int, failures: dict[str, Exception]) -> dg.Failure:
    lines = "\n".join(f"- {shard}: {error}" for shard, error in failures.items())
    return dg.Failure(
        description=f"data set {dataset.name}: {asset} of {len(failures)} of {of} shards failed; "
        f"the others are done.\n{lines}",
        allow_retries=False,
    )
