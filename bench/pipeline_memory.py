"""Memory of the pipeline's stages: bytes a row adds, and what was planned against what was needed.

    python -m bench.pipeline_memory            # 200,000 and 1,000,000 rows
    python -m bench.pipeline_memory --against CHECKOUT

Rows are in 20 shards, with vectors of 64 numbers that need no encoder, ids of 64 characters, ten
classes and a tenth held out. Every stage runs in a process of its own, so that its peak is its own;
what a row adds is the difference of two sizes, which leaves out the libraries and all that does not
grow. With ``--against``, the stages of another checkout run over the same shards, in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = (200_000, 1_000_000)
SHARDS = 20
WIDTH = 64
BUDGET = 5_000
CLUSTERS = 200
BLOCK_MIB = 8
MOST_BYTES_PER_ROW = 100.0
PER_SHARD = ("raw", "embeddings", "sensitivity_scores")
GLOBAL = ("pilot_model", "centroids", "selected_subset", "evaluation_model", "report")
STAGES = (
    "raw",
    "embeddings",
    "pilot_model",
    "centroids",
    "sensitivity_scores",
    "selected_subset",
    "evaluation_model",
    "report",
)


def write_source(folder: Path, rows: int) -> None:
    """Write the shards: clouds of points, a class to each few of them."""
    import numpy as np
    import polars as pl

    folder.mkdir(parents=True)
    centres = np.random.default_rng(99).normal(size=(40, WIDTH)) * 1.5
    for index in range(SHARDS):
        rng = np.random.default_rng([rows, index])
        m = rows // SHARDS
        cloud = rng.integers(0, 40, m)
        points = (centres[cloud] + rng.normal(size=(m, WIDTH))).astype(np.float32)
        ids = [hashlib.sha256(f"{index} {i}".encode()).hexdigest() for i in range(m)]
        frame = pl.DataFrame(
            {
                "key": ids,
                "vector": pl.Series(points, dtype=pl.Array(pl.Float32, WIDTH)).arr.to_list(),
                "label": pl.Series((cloud % 10).astype(str)),
            }
        )
        frame.write_parquet(folder / f"part-{index:02d}.parquet")


def dataset_of(folder: Path) -> Any:
    """Return the data set over the shards, in a store beside them."""
    from curation.config import CuratedDatasetConfig
    from curation.pipeline.dataset import Dataset
    from curation.store import Store

    config = CuratedDatasetConfig.model_validate(
        {
            "name": "measured",
            "source": {"folder": str(folder / "source"), "pattern": "*.parquet"},
            "columns": {"id": "key", "input": "vector", "label": "label"},
            "holdout": {"fraction": 0.1},
            "encoder": {"type": "precomputed"},
            "clusters": {"k": CLUSTERS, "block_mib": BLOCK_MIB},
            "selection": {"budget": BUDGET},
            "evaluation": {"probe_seeds": 2, "all_rows": False},
        }
    )
    return Dataset(config, Store(folder / "store"), folder)


def status_kib(name: str) -> int:
    """Return a field of this process's status in KiB: ``VmRSS`` is held now, ``VmHWM`` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")


def run_stage(folder: Path, stage: str) -> dict[str, Any]:
    """Run one stage in this process and return its peak, its seconds, and what it told."""
    os.environ["CURATION_PICTURES"] = "0"
    from curation.pipeline import evaluate, pilot, report, score, shards, subset

    dataset = dataset_of(folder)
    import faiss  # noqa: F401  loaded first: libraries are no part of what a row adds

    before, began = status_kib("VmRSS"), time.perf_counter()
    told: dict[str, Any] = {}
    if stage in PER_SHARD:
        make = shards.MAKERS[stage]()
        for shard in [s.key for s in dataset.source().shards()]:
            make(dataset, shard)
    else:
        make_global: Any = {
            "pilot_model": pilot.make_pilot_model,
            "centroids": score.make_centroids,
            "selected_subset": subset.make_selected_subset,
            "evaluation_model": evaluate.make_evaluation_model,
            "report": report.make_report,
        }[stage]
        made = make_global(dataset)
        told = dict((made[0] if isinstance(made, tuple) else made).told)
    return {
        "before_mib": before / 1024.0,
        "peak_mib": status_kib("VmHWM") / 1024.0,
        "seconds": time.perf_counter() - began,
        **{name: told[name] for name in told if name.startswith("memory_")},
    }


def measure(folder: Path, checkout: Path) -> dict[str, dict[str, Any]]:
    """Run all stages over a folder's shards, each in a process of its own."""
    found = {}
    for stage in STAGES:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).resolve()), "--stage", stage, str(folder)],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=checkout,
            check=True,
            capture_output=True,
            text=True,
        )
        found[stage] = json.loads(done.stdout.splitlines()[-1])
        print(f"  {stage}: {found[stage]}", file=sys.stderr, flush=True)
    return found


def per_row(small: dict[str, Any], large: dict[str, Any], name: str, unit: float) -> float:
    """Return by how much a figure grows with a row."""
    return (large[name] - small[name]) * unit / (SIZES[1] - SIZES[0])


def main() -> int:
    """Measure, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, run over the same shards")
    parser.add_argument("--folder", type=Path, help="where shards and stores are (kept)")
    parser.add_argument("--stage", nargs=2, metavar=("STAGE", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        print(json.dumps(run_stage(Path(asked.stage[1]), asked.stage[0])))
        return 0
    from bench.harness import Ratio, finish, machine

    before = machine()
    checkouts = {"here": ROOT} | ({"before": asked.against.resolve()} if asked.against else {})
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as temporary:
        base = asked.folder or Path(temporary)
        for rows in SIZES:
            source = base / str(rows) / "source"
            if not source.exists():
                write_source(source, rows)
            for name, checkout in checkouts.items():
                folder = base / f"{rows}-{name}"
                folder.mkdir(exist_ok=True)
                if not (folder / "source").exists():
                    (folder / "source").symlink_to(source, target_is_directory=True)
                print(f"{rows:,} rows, {name}", file=sys.stderr)
                found[name][rows] = measure(folder, checkout)
    figures: dict[str, Any] = {}
    ratios = []
    for name, sizes in found.items():
        for stage in STAGES:
            small, large = sizes[SIZES[0]][stage], sizes[SIZES[1]][stage]
            own = per_row(small, large, "peak_mib", 2.0**20)
            figures[f"{name}: {stage}"] = (
                f"{own:.0f} bytes and {per_row(small, large, 'seconds', 1e6):.2f} us a row; "
                f"peak {large['peak_mib']:,.0f} MiB, {large['seconds']:.1f} s at {SIZES[1]:,}"
                + (f"; planned {large['memory_planned_mib']:,.0f} MiB over what was held"
                   if "memory_planned_mib" in large else "")
            )  # fmt: skip
            if name == "here" and stage in GLOBAL:
                what = f"bytes a row adds, {stage}"
                ratios.append(Ratio(what, own, MOST_BYTES_PER_ROW, at_least=False))
            if name == "here" and "before" in found and stage not in PER_SHARD:
                other = found["before"][SIZES[1]][stage]["seconds"]
                what = f"seconds, here / before, {stage}"
                ratios.append(Ratio(what, large["seconds"] / other, 1.1, at_least=False))
    figures["all"] = json.dumps(found)
    return finish("pipeline_memory", ratios, figures=figures, before=before)


if __name__ == "__main__":
    sys.exit(main())
