"""The eight assets of a data set.

Dagster reads the annotations of the decorated functions, so they must not be deferred here.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from curation.pipeline.dataset import ASSETS, CODE_VERSIONS, PER_SHARD, Dataset, Outcome
from curation.pipeline.events import UPSTREAM, key, shard_events, unpartitioned_events
from curation.pipeline.findings import CHECKS, Finding

# Dagster marks these features beta or preview; what we use of them is held by tests/pipeline.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
warnings.filterwarnings("ignore", category=dg.BetaWarning)

DESCRIPTIONS = {
    "raw": "The shard's rows, validated. Rejected rows are in quarantine.parquet, with the reason.",
    "embeddings": "One vector per row, from the cheap encoder.",
    "pilot_model": "A model trained on a uniform share of the budget. Its score is what is asked "
    "for at the medoids; its rows are part of the subset.",
    "centroids": "k-means over all training rows: centroids, medoids, sizes, and the pilot's score "
    "at the k medoids, which are the only rows it is asked for.",
    "sensitivity_scores": "For each training row: its cluster, the distance to the medoid, the "
    "medoid's score, and the sensitivity they add up to.",
    "selected_subset": "The rows drawn, with Horvitz-Thompson weights that make weighted totals "
    "unbiased for totals over all rows. Published only when its checks pass.",
    "evaluation_model": "Trained on the subset, held against uniform rows of the same number, on "
    "rows that are never selected.",
    "report": "One page: what was chosen, how, and whether it helped.",
}

KINDS = {
    "raw": {"polars", "parquet"},
    "embeddings": {"transformers", "arrow"},
    "pilot_model": {"torch", "safetensors"},
    "centroids": {"faiss", "arrow"},
    "sensitivity_scores": {"faiss", "parquet"},
    "selected_subset": {"numpy", "parquet"},
    "evaluation_model": {"torch", "safetensors"},
    "report": {"html"},
}


def partitions_of(dataset: Dataset) -> dg.DynamicPartitionsDefinition:
    """Return the partitions of a data set: one per shard, added as shards arrive."""
    return dg.DynamicPartitionsDefinition(name=f"{dataset.name}_shards")


def build_assets(dataset: Dataset) -> list[dg.AssetsDefinition]:
    """Build the assets of a data set."""
    return [
        _per_shard(dataset, name) if name in PER_SHARD else _global(dataset, name)
        for name in ASSETS
    ]


def _common(dataset: Dataset, name: str) -> dict[str, Any]:
    kinds = set(KINDS[name])
    if name == "embeddings" and dataset.config.encoder.type != "text":
        kinds = {"numpy" if dataset.config.encoder.type != "mlp" else "torch", "arrow"}
    return {
        "key": key(dataset, name),
        "deps": [key(dataset, upstream) for upstream in UPSTREAM[name]],
        "group_name": dataset.name,
        "kinds": kinds,
        "owners": [dataset.config.owner],
        "description": DESCRIPTIONS[name],
        "code_version": CODE_VERSIONS[name],
        "tags": {"curation/dataset": dataset.name},
        "op_tags": {"curation/dataset": dataset.name},
        "pool": dataset.name,  # with the shipped dagster.yaml: one run of a data set at a time
    }


def _per_shard(dataset: Dataset, name: str) -> dg.AssetsDefinition:
    partitions = partitions_of(dataset)

    # One process does a whole backfill: the work per shard is small next to starting a run.
    @dg.asset(
        **_common(dataset, name),
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        check_specs=[
            dg.AssetCheckSpec(
                check, asset=key(dataset, name), description=text, partitions_def=partitions
            )
            for check, text in CHECKS.get(name, {}).items()
        ],
    )
    def _asset(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from shard_events(context, dataset, name, _make_shard(name))

    return _asset


def _global(dataset: Dataset, name: str) -> dg.AssetsDefinition:
    @dg.asset(
        **_common(dataset, name),
        check_specs=[
            dg.AssetCheckSpec(check, asset=key(dataset, name), description=text)
            for check, text in CHECKS.get(name, {}).items()
        ],
    )
    def _asset(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from unpartitioned_events(context, dataset, name, _make(name))

    return _asset


def _make_shard(name: str) -> Any:
    """Return the function that makes a per-shard asset, for one step.

    Imported here and not at the top: the stages import faiss, torch and matplotlib, and a code
    location must load without them.
    """
    from curation.pipeline.shards import MAKERS

    return MAKERS[name]()


def _make(name: str) -> Any:
    """Return the function that makes a global asset (see :func:`_make_shard` on the imports)."""
    from curation.pipeline import evaluate, pilot, report, score, subset

    if name == "selected_subset":
        return subset.make_selected_subset
    if name == "evaluation_model":
        return evaluate.make_evaluation_model
    make = {
        "pilot_model": pilot.make_pilot_model,
        "centroids": score.make_centroids,
        "report": report.make_report,
    }[name]

    def run(dataset: Dataset) -> tuple[Outcome, list[Finding]]:
        return make(dataset), []

    return run
