"""What a day costs: one shard of fifty added, and a thousand shards with nothing in them to do.

``python -m bench.incremental day`` curates 49 shards of film reviews with the real encoder, lets
the fiftieth arrive, curates again, and compares with curating all fifty at once. Each is a process
of its own, as ``curation run`` is, and evaluation is off the clock: its seconds are taken out.

``python -m bench.incremental shards`` registers, senses and plans 1,000 small shards, and measures
what the pipeline costs per shard beside the work.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.real import REVIEWS

RESULTS = Path(__file__).resolve().parents[1] / "data" / "bench" / "incremental.json"
MOST_TIME, LEAST_KEPT, MOST_SECONDS = 0.06, 0.90, 60.0
ASIDE = ("evaluation_model", "report")

CHILD = """
import json, sys, time
began = time.monotonic()
from curation.threads import set_defaults
set_defaults()
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import instance, run
from curation.registry import load_config
with instance() as dagster:
    result = run(Dataset.open(load_config("reviews")), dagster)
assert result.success, [a.error for a in result.assets if a.error]
seconds = {a.asset: a.seconds for a in result.assets}
made = {a.asset: [a.computed, a.unchanged] for a in result.assets}
print("RESULT" + json.dumps({"seconds": seconds, "made": made}))
"""

YAML = """type: curation.pipeline.CuratedDataset
attributes:
  source: {{folder: {folder}, format: parquet}}
  columns: {{id: id, input: text, label: label}}
  holdout: {{fraction: 0.2}}
  encoder: {{type: text, max_length: 128}}
  selection: {{fraction: 0.1}}
  evaluation: {{probe_seeds: 2, all_rows: false, fine_tune: {{enabled: false}}}}
"""


def reviews(rows: int) -> pl.DataFrame:
    """The first film reviews, short ones and long ones mixed as they come after shuffling."""
    from curation.sources import open_source

    source = open_source(REVIEWS, dataset="reviews", root=Path())
    table = pl.concat([source.read(s.key) for s in source.shards()])
    table = table.unique("text", keep="first", maintain_order=True).drop_nulls("text")
    order = np.random.default_rng(0).permutation(len(table))[:rows]
    return table[order].select("text", "label").with_row_index("id")


def curate(root: Path, store: str) -> dict[str, Any]:
    """Curate in a process of its own; return seconds by stage, and all without evaluation."""
    env = {
        **os.environ,
        "CURATION_DEFS": str(root / "defs"),
        "CURATION_STORE": str(root / store),
        "DAGSTER_HOME": str(root / store / ".dagster"),
        "HF_HUB_OFFLINE": "1",
    }
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True)
    wall = time.monotonic() - began
    if ended.returncode:
        raise SystemExit(ended.stderr[-3000:])
    line = next(x for x in ended.stdout.splitlines() if x.startswith("RESULT"))
    told = json.loads(line.removeprefix("RESULT"))
    told["wall"] = wall
    told["without_evaluation"] = wall - sum(told["seconds"][a] for a in ASIDE)
    return told


def subset_of(root: Path, store: str) -> pl.DataFrame:
    """The published subset."""
    from curation.subset import load_subset

    return load_subset("reviews", store=root / store)


def a_day(rows: int, shards: int, repeats: int) -> dict[str, Any]:
    """Measure one added shard against curating all of them at once."""
    table = reviews(rows)
    cuts = np.linspace(0, len(table), shards + 1).astype(int)
    with tempfile.TemporaryDirectory(prefix="curation-bench-") as folder:
        root = Path(folder)
        source = root / "source"
        source.mkdir()
        (root / "defs" / "reviews").mkdir(parents=True)
        (root / "defs" / "reviews" / "defs.yaml").write_text(YAML.format(folder=source))
        for i in range(shards - 1):
            table[cuts[i] : cuts[i + 1]].write_parquet(source / f"day-{i:03d}.parquet")
        curate(root, "daily")
        before = subset_of(root, "daily")
        added = []
        for _ in range(repeats):  # the same day again: from a copy of the store before it
            subprocess.run(["cp", "-a", root / "daily", root / "copy"], check=True)
            table[cuts[-2] :].write_parquet(source / f"day-{shards - 1:03d}.parquet")
            added.append(curate(root, "copy"))
            after = subset_of(root, "copy")
            subprocess.run(["rm", "-r", root / "copy"], check=True)
            (source / f"day-{shards - 1:03d}.parquet").unlink()
        table[cuts[-2] :].write_parquet(source / f"day-{shards - 1:03d}.parquet")
        full = curate(root, "full")
    day = statistics.median(one["without_evaluation"] for one in added)
    kept = len(set(before["id"]) & set(after["id"])) / len(before)
    return {
        "rows": len(table),
        "shards": shards,
        "full_seconds": full["without_evaluation"],
        "full": full["seconds"],
        "day_seconds": [one["without_evaluation"] for one in added],
        "day": added[-1]["seconds"],
        "made": added[-1]["made"],
        "ratio": day / full["without_evaluation"],
        "kept": kept,
    }


def small_shards(root: Path, shards: int) -> Any:
    """A data set of small shards of vectors, where there is little to do in each."""
    from curation.config import CuratedDatasetConfig
    from curation.pipeline.dataset import Dataset
    from curation.store import Store

    (root / "source").mkdir(parents=True)
    (root / "home").mkdir()
    rng = np.random.default_rng(0)
    for i in range(shards):
        points = rng.normal(size=(10, 8)).astype(np.float32)
        pl.DataFrame(
            {
                "key": [f"{i}-{j}" for j in range(10)],
                "vector": pl.Series(points.tolist(), dtype=pl.List(pl.Float32)),
                "label": rng.choice(["a", "b"], 10),
            }
        ).write_parquet(root / "source" / f"shard-{i:05d}.parquet")
    config = CuratedDatasetConfig.model_validate(
        {
            "name": "many",
            "source": {"folder": str(root / "source")},
            "columns": {"id": "key", "input": "vector", "label": "label"},
            "encoder": {"type": "precomputed"},
            "selection": {"budget": 200},
            "evaluation": {"probe_seeds": 2, "all_rows": False},
        }
    )
    return Dataset(config, Store(root / "store"), root)


def thousand(root: Path, shards: int) -> dict[str, float]:
    """Measure registering, sensing and planning: of new shards, and of shards that were read."""
    import dagster as dg

    from curation.pipeline.automation import look, register
    from curation.pipeline.component import dataset_definitions
    from curation.pipeline.ingest import make_raw
    from curation.pipeline.listing import Listing

    dataset = small_shards(root, shards)
    found: dict[str, float] = {}

    def timed(name: str, work: Any) -> Any:
        clock = time.monotonic()
        told = work()
        found[name] = round(time.monotonic() - clock, 3)
        return told

    with dg.DagsterInstance.local_temp(str(root / "home")) as instance:
        seen = timed("sensing new shards", lambda: look(instance, dataset))
        assert len(seen.shards.new) == shards
        timed("registering", lambda: register(instance, dataset))
        timed("planning", lambda: dataset_definitions(dataset).resolve_job_def("many_curation"))
        listing = Listing.of(dataset)
        timed(
            "reading (not in the sum)",
            lambda: [make_raw(dataset, s, listing) for s in listing.shards],
        )
        seen = timed("sensing that nothing changed", lambda: look(instance, dataset))
        assert not seen.shards.new
        assert not seen.changed
        for path in (root / "source").iterdir():
            os.utime(path, (1, 1))
        seen = timed("sensing that all were touched", lambda: look(instance, dataset))
        assert not seen.changed
    found["together"] = round(sum(v for k, v in found.items() if "not in" not in k), 3)
    return found


def overhead(root: Path, shards: int) -> dict[str, Any]:
    """Measure what a run costs per shard beside the work: milliseconds, by asset."""
    import dagster as dg

    from curation.pipeline.local import run

    dataset = small_shards(root, shards)
    with dg.DagsterInstance.local_temp(str(root / "home")) as instance:
        first, again = run(dataset, instance), run(dataset, instance)
    assert first.success
    assert again.success

    def per_shard(result: Any, what: str) -> dict[str, float]:
        return {
            a.asset: round(1000 * a.seconds / shards, 1)
            for a in result.assets
            if getattr(a, what) == shards
        }

    return {
        "shards": shards,
        "first run, ms per shard": per_shard(first, "computed"),
        "unchanged, ms per shard": per_shard(again, "unchanged"),
        "first run, s": round(first.seconds, 1),
        "unchanged, s": round(again.seconds, 1),
    }


def keep(name: str, figures: dict[str, Any]) -> None:
    """Keep figures beside those of other parts."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**known, name: figures}, indent=1) + "\n")


def main() -> None:
    """Run the parts that are named, both if none is; exit with 1 where a target is missed."""
    wanted = sys.argv[1:] or ["day", "shards"]
    missed = False
    if "shards" in wanted:
        os.environ["CURATION_PICTURES"] = "0"
        with tempfile.TemporaryDirectory(prefix="curation-bench-") as folder:
            found = {
                "seconds of 1,000 shards": thousand(Path(folder) / "many", 1000),
                "overhead": overhead(Path(folder) / "some", 200),
            }
        keep("shards", found)
        print(json.dumps(found, indent=1))
        together = found["seconds of 1,000 shards"]["together"]
        missed |= together > MOST_SECONDS
        print(
            f"1,000 shards registered, sensed and planned in {together:.1f} s "
            f"(target {MOST_SECONDS:.0f})"
        )
    if "day" in wanted:
        rows = int(os.environ.get("BENCH_ROWS", "33000"))
        found = a_day(rows, 50, int(os.environ.get("BENCH_REPEATS", "3")))
        keep("day", found)
        print(json.dumps(found, indent=1))
        missed |= found["ratio"] > MOST_TIME or found["kept"] < LEAST_KEPT
        print(
            f"one shard of {found['shards']}: {found['ratio']:.3f} of the full run (target "
            f"{MOST_TIME}), {found['kept']:.1%} of the subset kept (target {LEAST_KEPT:.0%})"
        )
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
