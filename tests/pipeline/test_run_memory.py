"""What the pipeline holds in memory: little for each row, and the same rows as ever are chosen."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import vector_config, vectors

from curation.config import Columns
from curation.pipeline import needs
from curation.pipeline.dataset import Dataset
from curation.pipeline.ingest import make_embeddings, make_raw
from curation.pipeline.pilot import make_pilot_model
from curation.pipeline.population import population
from curation.pipeline.score import make_centroids, make_sensitivity_scores
from curation.pipeline.subset import make_selected_subset
from curation.pipeline.tables import LEFT_OUT, SUBSET
from curation.progress import LogListener, listen
from curation.store import Store

# Made before ids were kept as numbers: who is drawn depends on id and seed alone, for ever.
FROZEN = {
    "numbers": "d2aef2ebb9a319f0",
    "left_out": "d36a3a4f9c7817a9",
    "hashed ids": "38e59f6354704dd3",
    "subset": "ab94cd776fc727d3",
}
COLUMNS = ("id", "shard", "row", "reason", "weight", "training_weight")


def odd_ids(folder: Path) -> None:
    """Write five shards whose ids are of several lengths and alphabets, some of them repeated."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    for index in range(5):
        frame = vectors(120, seed=index)
        ids = [f"r{index}-{i}" for i in range(120)]
        ids[:20] = [f"Straße {i} für {index} \N{GRINNING FACE}" for i in range(20)]
        ids[20:40] = [hashlib.sha256(f"{index} {i}".encode()).hexdigest() for i in range(20)]
        if index:
            again = rng.choice(120, 15, replace=False)
            earlier = pl.read_parquet(folder / f"s{index - 1}.parquet")["key"].to_list()
            for place, row in enumerate(again):
                ids[60 + place] = earlier[row]
        ids = [one if ids.index(one) == place else f"{one}'" for place, one in enumerate(ids)]
        frame = frame.with_columns(
            pl.Series("key", ids), pl.Series("held", rng.choice(["test", "no"], 120, p=[0.2, 0.8]))
        )
        frame.write_parquet(folder / f"s{index}.parquet")


def up_to_scores(dataset: Dataset) -> None:
    shards = [s.key for s in dataset.source().shards()]
    for shard in shards:
        make_raw(dataset, shard)
        make_embeddings(dataset, shard)
    make_pilot_model(dataset)
    make_centroids(dataset)
    for shard in shards:
        make_sensitivity_scores(dataset, shard)


def hashed(*columns: object) -> str:
    """Return a hash of columns: numbers by their bytes, all else as text."""
    told = hashlib.sha256()
    for column in columns:
        values = np.asarray(column)
        if values.dtype.kind != "f":
            told.update("\n".join(map(str, values.tolist())).encode())
        else:
            told.update(values.astype("<f8").tobytes())
    return told.hexdigest()[:16]


@pytest.fixture
def odd(tmp_path) -> Dataset:
    odd_ids(tmp_path / "source")
    config = vector_config(
        tmp_path / "source",
        holdout={"column": "held"},
        # drawn by the rows' numbers alone: clusters may become better, these rows stay
        selection={"budget": 80, "seed": 3, "design": "uniform"},
    )
    return Dataset(config, Store(tmp_path / "store"), tmp_path)


def test_the_same_rows_are_chosen_as_before_ids_were_numbers(odd, tmp_path):
    up_to_scores(odd)
    people = population(odd)
    numbers = people.numbers(3)
    found = {"numbers": hashed(people.ids, numbers.tags(), numbers.of("draw"))}
    subset = make_selected_subset(odd)[0].artifact
    left_out = pl.read_parquet(subset.path(LEFT_OUT))
    assert {"the holdout has the same id"} < set(left_out["reason"])
    found["left_out"] = hashed(*left_out)
    frame = pl.read_parquet(subset.path(SUBSET))
    found["subset"] = hashed(*(frame[c] for c in COLUMNS))
    columns = {"input": "vector", "label": "label"}
    config = odd.config.model_copy(update={"name": "hashed", "columns": Columns(**columns)})
    plain = Dataset(config, Store(tmp_path / "store"), tmp_path)
    up_to_scores(plain)
    frame = pl.read_parquet(make_selected_subset(plain)[0].artifact.path(SUBSET))
    found["hashed ids"] = hashed(*(frame[c] for c in COLUMNS))
    assert found == FROZEN


CHILD = """
import json, sys
from pathlib import Path
from bench import pipeline_memory as bench
folder = Path(sys.argv[2])
from curation.pipeline.ingest import make_embeddings, make_raw
dataset = bench.dataset_of(folder)
if sys.argv[3] == "embeddings":
    for shard in dataset.source().shards():
        make_raw(dataset, shard.key)
        make_embeddings(dataset, shard.key)
    print("{}")
else:
    print(json.dumps(bench.run_stage(folder, sys.argv[3])))
"""


@pytest.mark.long
def test_what_was_planned_is_kept(tmp_path):
    """Each stage in a process of its own: the peak is within the plan, and above half of it."""
    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root))
    from bench.pipeline_memory import write_source

    write_source(tmp_path / "source", 200_000)
    for stage in (
        "embeddings",
        "pilot_model",
        "centroids",
        "sensitivity_scores",
        "selected_subset",
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", CHILD, str(root), str(tmp_path), stage],
            env={**os.environ, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        if "memory_planned_mib" in found:
            grew = found["peak_mib"] - found["before_mib"]
            assert found["memory_peak_mib"] == pytest.approx(grew, abs=5.0)
            assert 0.5 * found["memory_planned_mib"] <= grew <= found["memory_planned_mib"], stage
        else:
            assert stage in ("embeddings", "pilot_model", "sensitivity_scores")


def test_a_warning_names_the_remedy(odd, monkeypatch):
    for shard in odd.source().shards():
        make_raw(odd, shard.key)
        make_embeddings(odd, shard.key)
    said: list[str] = []
    with listen(LogListener(said.append)):
        with needs.watched(odd, "centroids") as watch:
            pass
        assert said == [f"memory: centroids will need {watch.plan}"]
        assert watch.plan is not None
        monkeypatch.setattr(needs, "available", lambda: watch.plan.bytes - 1)
        with needs.watched(odd, "centroids") as watch:
            pass
    assert needs.REMEDY in said[-1]
    assert watch.told["memory_planned_mib"] > 0.0
    assert needs.REMEDY in watch.told["memory_warning"]
    assert "600 rows" in str(needs.first_told(odd))
