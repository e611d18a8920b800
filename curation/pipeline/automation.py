"""Jobs, the schedule and the sensor of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from curation.pipeline.assets import partitions_of
from curation.pipeline.dataset import Dataset
from curation.pipeline.events import key
from curation.sources import SourceError

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class Shards:
    """What a comparison of the source with Dagster's partitions found."""

    known: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


def compare(instance: dg.DagsterInstance, dataset: Dataset) -> Shards:
    """Compare the source's shards with the registered partitions."""
    present = [shard.key for shard in dataset.source().shards()]
    known = instance.get_dynamic_partitions(f"{dataset.name}_shards")
    return Shards(
        known=tuple(known),
        new=tuple(k for k in present if k not in set(known)),
        gone=tuple(k for k in known if k not in set(present)),
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


def build_sensor(dataset: Dataset, job: dg.UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Return the sensor that notices new shards, registers them and starts their run."""
    wanted = dataset.config.automation

    @dg.sensor(
        name=f"{dataset.name}_new_shards",
        job=job,
        minimum_interval_seconds=wanted.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING
        if wanted.watch
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks for new shards of {dataset.name}; reads and embeds them in one run.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            found = compare(context.instance, dataset)
        except SourceError as error:
            return dg.SkipReason(str(error))
        if not found.new:
            return dg.SkipReason(f"no new shard; {len(found.known)} are registered")
        # New keys are appended, so that they are one range; one run starts one encoder.
        return dg.SensorResult(
            dynamic_partitions_requests=[partitions_of(dataset).build_add_request(list(found.new))],
            run_requests=[
                dg.RunRequest(
                    run_key=f"{found.new[0]}:{len(found.known)}:{len(found.new)}",
                    tags=range_tags(list(found.new)),
                )
            ],
        )

    return _sensor
