"""What a stage will need of memory: told before it begins, and held against its peak."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from curation.memory import MIB, Need, Plan, available, mib, peak, peak_from_now, resident
from curation.pipeline.dataset import (
    CENTROIDS,
    EMBEDDINGS,
    PILOT_MODEL,
    SELECTED_SUBSET,
    SENSITIVITY_SCORES,
    Dataset,
)
from curation.progress import say
from curation.selection import AUTO_K_MOST
from curation.store import Artifact, StoreError

REMEDY = "a smaller clusters.block_mib takes less, or fewer rows in one data set"
USED = {
    PILOT_MODEL: ("scipy", "sklearn", "faiss"),
    CENTROIDS: ("scipy", "faiss"),
    SENSITIVITY_SCORES: ("faiss",),
    SELECTED_SUBSET: ("scipy", "faiss"),
}
WORK = 112  # MiB: readers, products of matrices, what threads leave behind
BLOCKS = 4  # a block of embeddings, its points, and what is made of both
# Bytes per row at the peak, with a fifth to spare (bench.pipeline_memory): place, number and class
# of a row, and the stage's own numbers. Of scores, per row of one shard.
PER_ROW = {PILOT_MODEL: 60, CENTROIDS: 70, SENSITIVITY_SCORES: 3300, SELECTED_SUBSET: 410}
LEARNT_ON = 4000  # rows at least


@dataclass(frozen=True)
class Size:
    """How much a stage works on: rows, and the length of their embeddings."""

    rows: int
    width: int


def size_of(dataset: Dataset, shard: str | None = None) -> Size | None:
    """Return rows and width by the manifests of what is embedded; None where nothing is."""
    shards = dataset.store.shards(dataset.name, EMBEDDINGS) if shard is None else [shard]
    found = [one for name in shards if (one := _current(dataset, name)) is not None]
    rows = sum(one.manifest.row_count for one in found)
    width = max((int(one.figures["dimension"]) for one in found), default=0)
    return Size(rows, width) if rows else None


def _current(dataset: Dataset, shard: str) -> Artifact | None:
    try:
        return dataset.store.current(dataset.at(EMBEDDINGS, shard))
    except StoreError:
        return None  # damaged: the stage itself says so, or makes it again


def plan_of(dataset: Dataset, stage: str, size: Size) -> Plan:
    """Return what a stage will hold at its peak beyond what the process holds.

    Parameters
    ----------
    dataset
        The data set, whose settings count.
    stage
        A key of ``PER_ROW``.
    size
        What it works on; of scores, one shard.
    """
    config = dataset.config
    clusters = config.clusters
    k = AUTO_K_MOST if clusters.k == "auto" else int(clusters.k)
    sample = min(size.rows, max(k * clusters.sample_per_centroid, LEARNT_ON))
    block = min(clusters.block_mib * MIB, size.rows * size.width * 4)
    used = USED[stage] + (("torch",) if config.score.model in ("mlp", "transformer") else ())
    return Plan.of(
        [
            Need.libraries(*used),
            Need("work", WORK * MIB),
            Need("blocks of embeddings", BLOCKS * block, f"{BLOCKS} x {mib(block)}"),
            Need("sample", sample * size.width * 16 * (stage == CENTROIDS), f"{sample:,} rows"),
            Need.per_row("numbers of rows", size.rows, PER_ROW[stage]),
        ]
    )


@dataclass
class Watch:
    """What was planned and, once the stage is over, what was needed."""

    plan: Plan | None
    told: dict[str, Any] = field(default_factory=dict)


@contextmanager
def watched(dataset: Dataset, stage: str, shard: str | None = None) -> Iterator[Watch]:
    """Say what a stage will need, and note its peak: ``memory_planned_mib``, ``memory_peak_mib``.

    Of a shard's stage nothing is said: there may be a thousand. Where it is more than is free, a
    warning is.
    """
    size = size_of(dataset, shard)
    watch = Watch(None if size is None else plan_of(dataset, stage, size))
    if watch.plan is not None:
        free = available()
        short = free is not None and watch.plan.bytes > free
        if shard is None or short:
            say(f"memory: {stage} will need {watch.plan}")
        if short and free is not None:
            say(f"warning: memory: only {mib(free)} are free; {REMEDY}")
            watch.told["memory_warning"] = f"more than the {mib(free)} that were free; {REMEDY}"
        watch.told["memory_planned_mib"] = round(watch.plan.bytes / MIB, 1)
    before = resident()
    with peak_from_now():
        yield watch
    watch.told["memory_peak_mib"] = round(max(peak() - before, 0) / MIB, 1)


def first_told(dataset: Dataset) -> str | None:
    """Return what a run will need by what the store knows before it starts; None: nothing yet."""
    size = size_of(dataset)
    if size is None:
        return None
    stages = (PILOT_MODEL, CENTROIDS, SELECTED_SUBSET)
    plans = {stage: plan_of(dataset, stage, size) for stage in stages}
    stage = max(plans, key=lambda name: plans[name].bytes)
    return f"memory: {size.rows:,} rows are embedded; most is needed by {stage}, {plans[stage]}"
