"""What the pipeline costs beside the work: ``curation run`` against the same functions in a loop.

``python -m bench.overhead`` curates fifty shards of film reviews twice in every round, each time in
a process and a store of its own: once as ``curation run`` does, once by calling the stages'
functions in a plain loop, without a Dagster run. The same is done with fifty shards of ten vectors
each, where there is next to nothing to do: of those, milliseconds per shard are told. Times are
those of the whole process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.harness import REPEATS, Ratio, Timings, finish, in_turn, machine
from bench.incremental import reviews, small_shards

SHARDS = 50
MOST = 1.25
SIDES = ("curation run", "plain loop")

OPEN = """
import os
os.environ.setdefault("HF_HUB_OFFLINE", "1")
from curation.threads import set_defaults
set_defaults()
from curation.pipeline.dataset import Dataset
from curation.registry import load_config
dataset = Dataset.open(load_config("measured"))
"""

RUN = """
from curation.pipeline.local import instance, run
with instance() as dagster:
    result = run(dataset, dagster)
assert result.success, [a.error for a in result.assets if a.error]
"""

LOOP = """
from curation.pipeline import evaluate, pilot, report, score, subset
from curation.pipeline.shards import MAKERS
shards = [shard.key for shard in dataset.source().shards()]
def each(asset):
    make = MAKERS[asset]()
    for shard in shards:
        make(dataset, shard)
each("raw")
each("embeddings")
pilot.make_pilot_model(dataset)
score.make_centroids(dataset)
each("sensitivity_scores")
subset.make_selected_subset(dataset)
evaluate.make_evaluation_model(dataset)
report.make_report(dataset)
"""

YAML = """type: curation.pipeline.CuratedDataset
attributes:
  source: {{folder: {folder}, format: parquet}}
  columns: {{id: {id}, input: {input}, label: label}}
  holdout: {{fraction: 0.2}}
  encoder: {{type: {encoder}}}
  selection: {{{size}}}
  evaluation: {{probe_seeds: 2, all_rows: false, fine_tune: {{enabled: false}}}}
"""


def define(root: Path, **settings: str) -> None:
    """Write the YAML of the data set that is measured."""
    folder = root / "defs" / "measured"
    folder.mkdir(parents=True)
    text = YAML.format(folder=root / "source", **settings)
    (folder / "defs.yaml").write_text(text)


def text_shards(root: Path, rows: int) -> None:
    """Make fifty shards of film reviews."""
    table = reviews(rows)
    cuts = np.linspace(0, len(table), SHARDS + 1).astype(int)
    (root / "source").mkdir(parents=True)
    for i in range(SHARDS):
        table[cuts[i] : cuts[i + 1]].write_parquet(root / "source" / f"day-{i:03d}.parquet")
    define(root, id="id", input="text", encoder="text, max_length: 128", size="fraction: 0.1")


def tiny_shards(root: Path) -> None:
    """Make fifty shards of ten vectors."""
    small_shards(root, SHARDS)
    define(root, id="key", input="vector", encoder="precomputed", size="budget: 200")


def process(root: Path, code: str, *, pictures: bool, again: bool = False) -> Callable[[], None]:
    """Return what curates in a process of its own, in a new store, or in the one of before."""

    def run(store: str) -> None:
        env = {
            **os.environ,
            "CURATION_DEFS": str(root / "defs"),
            "CURATION_STORE": store,
            "DAGSTER_HOME": str(Path(store) / ".dagster"),
            "CURATION_PICTURES": str(int(pictures)),
        }
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", OPEN + code],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise SystemExit(ended.stderr[-3000:])

    def once() -> None:
        with tempfile.TemporaryDirectory(dir=root) as store:
            run(store)

    if not again:
        return once
    kept = tempfile.mkdtemp(dir=root)
    run(kept)
    return lambda: run(kept)


def compare(root: Path, *, pictures: bool, again: bool, repeats: int) -> Timings:
    """Time both ways in turn."""
    sides = {
        name: process(root, code, pictures=pictures, again=again)
        for name, code in zip(SIDES, (RUN, LOOP), strict=True)
    }
    return in_turn(sides, repeats=repeats, warm_up=False)


def each_shard(found: Timings) -> float:
    """Return what a shard costs more in the pipeline, in milliseconds."""
    return round(1000 * (found.median(SIDES[0]) - found.median(SIDES[1])) / SHARDS, 1)


def main() -> int:
    """Measure, keep the figures, and return the exit status."""
    before = machine()
    rows = int(os.environ.get("BENCH_ROWS", str(170 * SHARDS)))
    repeats = int(os.environ.get("BENCH_REPEATS", str(REPEATS)))
    wanted = sys.argv[1:] or ["text", "tiny"]
    timings: dict[str, Timings] = {}
    ratios = []
    with tempfile.TemporaryDirectory(prefix="curation-bench-") as folder:
        if "tiny" in wanted:
            root = Path(folder) / "tiny"
            tiny_shards(root)
            for name, again in (("tiny shards", False), ("tiny shards, unchanged", True)):
                timings[name] = compare(root, pictures=False, again=again, repeats=repeats)
        if "text" in wanted:
            root = Path(folder) / "text"
            text_shards(root, rows)
            timings["text"] = found = compare(root, pictures=True, again=False, repeats=repeats)
            name = f"{SHARDS} shards of {rows // SHARDS} texts: curation run / plain loop"
            spread = found.spread(*SIDES)
            ratios.append(Ratio(name, found.ratio(*SIDES), MOST, at_least=False, note=spread))
    more = {f"ms more per shard, {name}": each_shard(found) for name, found in timings.items()}
    figures = {"rows": rows, "shards": SHARDS, **more}
    return finish("overhead", ratios, timings=timings, figures=figures, before=before)


if __name__ == "__main__":
    sys.exit(main())
