"""Jobs, the schedule and the sensor of a data set."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import dagster as dg

from curation.pipeline.assets import partitions_of
from curation.pipeline.dataset import Dataset
from curation.pipeline.events import key
from curation.pipeline.listing import Listing
from curation.sources import SourceError
from curation.store import StoreError, digest

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
CHANGES = "curation/changes"
ATTEMPTS = 3  # runs the sensor starts for the same changes
HASHING_SECONDS = 20.0  # of a sensor's 60; what is left to hash counts as changed, the run decides


@dataclass(frozen=True)
class Shards:
    """What a comparison of the source with Dagster's partitions found."""

    known: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


def compare(instance: dg.DagsterInstance, dataset: Dataset) -> Shards:
    """Compare the source's shards with the registered partitions."""
    return _against(instance, dataset, [shard.key for shard in dataset.source().shards()])


def _against(instance: dg.DagsterInstance, dataset: Dataset, present: list[str]) -> Shards:
    here = set(present)
    known = instance.get_dynamic_partitions(f"{dataset.name}_shards")
    registered = set(known)
    return Shards(
        known=tuple(known),
        new=tuple(k for k in present if k not in registered),
        gone=tuple(k for k in known if k not in here),
    )


def register(instance: dg.DagsterInstance, dataset: Dataset) -> Shards:
    """Make the partitions those of the source: add new shards, remove those that are gone."""
    found = compare(instance, dataset)
    name = f"{dataset.name}_shards"
    if found.new:
        instance.add_dynamic_partitions(name, list(found.new))
    for shard in found.gone:
        instance.delete_dynamic_partition(name, shard)
    return found


def range_tags(shards: list[str]) -> dict[str, str]:
    """Return the run tags that make one run cover all partitions from the first to the last."""
    return {RANGE_START: shards[0], RANGE_END: shards[-1]}


def curation_job(dataset: Dataset) -> dg.UnresolvedAssetJobDefinition:
    """Return the job that brings the whole graph up to date."""
    return dg.define_asset_job(
        f"{dataset.name}_curation",
        selection=dg.AssetSelection.groups(dataset.name),
        description=f"Bring every asset of {dataset.name} up to date, all shards in one run.",
        tags={"curation/dataset": dataset.name},
    )


def ingest_job(dataset: Dataset) -> dg.UnresolvedAssetJobDefinition:
    """Return the job that reads and embeds shards."""
    return dg.define_asset_job(
        f"{dataset.name}_ingest",
        selection=dg.AssetSelection.assets(key(dataset, "raw"), key(dataset, "embeddings")),
        description=f"Read and embed shards of {dataset.name}.",
        tags={"curation/dataset": dataset.name},
    )


def build_schedule(dataset: Dataset, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule that curates again, over whatever the source holds by then."""
    wanted = dataset.config.schedule

    @dg.schedule(
        name=f"{dataset.name}_schedule",
        job=job,
        cron_schedule=wanted.cron,
        execution_timezone=wanted.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING
        if wanted.enabled
        else dg.DefaultScheduleStatus.STOPPED,
        description=f"Curates {dataset.name} again; what did not change is not computed again.",
    )
    def _schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        try:
            register(context.instance, dataset)
        except SourceError as error:
            return dg.SkipReason(str(error))
        shards = list(context.instance.get_dynamic_partitions(f"{dataset.name}_shards"))
        if not shards:
            return dg.SkipReason(f"data set {dataset.name}: the source has no shard")
        return dg.RunRequest(tags=range_tags(shards))

    return _schedule


def build_sensor(
    dataset: Dataset,
    ingest: dg.UnresolvedAssetJobDefinition,
    curate: dg.UnresolvedAssetJobDefinition,
) -> dg.SensorDefinition:
    """Return the sensor that notices new, changed and deleted shards and starts their run."""
    wanted = dataset.config.automation

    @dg.sensor(
        name=f"{dataset.name}_new_shards",
        job=ingest if wanted.run == "ingest" else curate,
        minimum_interval_seconds=wanted.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING
        if wanted.watch
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks for new, changed and deleted shards of {dataset.name}; starts one run.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            seen = look(context.instance, dataset)
        except (SourceError, StoreError) as error:
            return dg.SkipReason(str(error))
        return _requests(context, dataset, seen)

    return _sensor


@dataclass(frozen=True)
class Seen:
    """What a look at the source found.

    Attributes
    ----------
    shards
        How the source compares with the registered partitions.
    changed
        Registered shards that have to be read, again or for the first time.
    stamp
        A hash of what is new and changed, with the fingerprints; of what is gone if that is all.
    """

    shards: Shards
    changed: tuple[str, ...]
    stamp: str


def look(instance: dg.DagsterInstance, dataset: Dataset) -> Seen:
    """Look for new, changed and deleted shards. Nothing is written but what fingerprints mean."""
    listing = Listing.of(dataset)
    found = _against(instance, dataset, list(listing.shards))
    gone = set(found.gone)
    deadline = time.monotonic() + HASHING_SECONDS
    changed = tuple(s for s in found.known if s not in gone and _has_changed(listing, s, deadline))
    told = [[s, listing.shards[s].fingerprint] for s in (*found.new, *changed)]
    # what is gone is deleted in the same breath, and not there to be seen the next time
    return Seen(found, changed, digest(told if told else ["gone", found.gone]))


def _has_changed(listing: Listing, shard: str, deadline: float) -> bool:
    try:
        return listing.changed(shard, hashing=time.monotonic() < deadline)
    except SourceError:
        return True  # the run will say what is wrong with it


def _requests(
    context: dg.SensorEvaluationContext, dataset: Dataset, seen: Seen
) -> dg.SensorResult | dg.SkipReason:
    """Return the partitions to add and to delete, and the run, unless it was asked for already."""
    found, wanted = seen.shards, dataset.config.automation.run
    if not (found.new or seen.changed or found.gone):
        return dg.SkipReason(f"nothing changed; {len(found.known)} shards are registered")
    cursor = json.loads(context.cursor or "{}")
    attempt = cursor.get("attempt", 1) if cursor.get("stamp") == seen.stamp else 0
    if attempt:
        run = _run_of(context.instance, cursor.get("run_key", ""))
        if run is None or not run.is_finished:
            return dg.SkipReason("the run of these changes was asked for and has not ended")
        if attempt >= ATTEMPTS:
            return dg.SkipReason(
                f"{attempt} runs did not bring these changes in (the last: {run.run_id}); look at "
                "it, and start one by hand, or mend the shards"
            )
    partitions = partitions_of(dataset)
    requests: list[Any] = []
    if found.new:
        requests.append(partitions.build_add_request(list(found.new)))
    if found.gone:
        requests.append(partitions.build_delete_request(list(found.gone)))
    # New keys are appended, so that what is to be read is one range; one run starts one encoder.
    there = [s for s in found.known if s not in set(found.gone)] + list(found.new)
    to_read = [s for s in there if s in {*found.new, *seen.changed}]
    covered = there if wanted == "curation" else to_read
    runs = []
    run_key = f"{seen.stamp[:24]}:{attempt + 1}"
    if covered:
        runs = [dg.RunRequest(run_key=run_key, tags={**range_tags(covered), CHANGES: run_key})]
    return dg.SensorResult(
        dynamic_partitions_requests=requests,
        run_requests=runs,
        cursor=json.dumps({"stamp": seen.stamp, "attempt": attempt + 1, "run_key": run_key})
        if runs
        else None,
    )


def _run_of(instance: dg.DagsterInstance, run_key: str) -> dg.DagsterRun | None:
    runs = instance.get_runs(filters=dg.RunsFilter(tags={CHANGES: run_key}), limit=1)
    return runs[0] if runs else None
