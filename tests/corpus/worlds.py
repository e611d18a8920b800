"""Data sets the cases of the corpus are put into, run once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from corpus_case import Case, Expected, jsonl, kept, of_world, records

from curation.config import CuratedDatasetConfig
from curation.pipeline.dataset import RAW, SELECTED_SUBSET, Dataset
from curation.pipeline.ingest import make_raw
from curation.pipeline.local import RunResult, run
from curation.pipeline.tables import ROWS, SUBSET
from curation.quarantine import quarantined
from curation.sources import SourceError
from curation.store import Store

GENTLE = {"quarantined_share": 1.0, "failed_share": 1.0}

TEXTS: dict[str, Any] = {
    "columns": {"id": "key", "input": "text", "label": "label", "group": "team"},
    "holdout": {"shards": ["held-*"]},
    "encoder": {"type": "text", "max_length": 32},
    "clusters": {"k": 10},
    "selection": {"budget": 260, "tilt": "groups"},
    "evaluation": {"probe_seeds": 2, "all_rows": False, "fine_tune": {"enabled": False}},
    "validation": GENTLE,
}


@dataclass
class World:
    """A data set in a folder of its own, with cases among sound shards, and what became of it.

    Attributes
    ----------
    dataset : Dataset
        Settings and store.
    expected : dict
        By key, what is expected of the shard.
    failures : dict
        By key, why a shard failed.
    events : list
        What Dagster recorded.
    """

    dataset: Dataset
    expected: dict[str, Expected]
    failures: dict[str, str] = field(default_factory=dict)
    result: RunResult | None = None
    events: list[Any] = field(default_factory=list)

    @property
    def shards(self) -> list[str]:
        """Keys of the shards that were read."""
        return self.dataset.store.shards(self.dataset.name, RAW)

    def rows(self, shard: str) -> pl.DataFrame:
        """Return the accepted rows of a shard."""
        return pl.read_parquet(self.dataset.store.need(self.dataset.at(RAW, shard)).path(ROWS))

    def figures(self, shard: str) -> dict[str, Any]:
        """Return what was noted of a shard's rows."""
        return dict(self.dataset.store.need(self.dataset.at(RAW, shard)).figures)

    def aside(self, shard: str) -> pl.DataFrame:
        """Return the rows of a shard that are in quarantine."""
        return quarantined(self.dataset.name, self.dataset.store, shard=shard)

    def subset(self) -> pl.DataFrame:
        """Return the published subset."""
        at = self.dataset.at(SELECTED_SUBSET)
        return pl.read_parquet(self.dataset.store.need(at).path(SUBSET))

    def assets(self) -> list[str]:
        """Return what went wrong with assets."""
        return [f"{a.asset}: {a.error}" for a in self.result.assets if a.error]


def dataset_in(root: Path, name: str, settings: dict[str, Any]) -> Dataset:
    """Return a data set over ``root/source``, with a store beside it."""
    source = {"folder": str(root / "source"), **settings.get("source", {})}
    config = CuratedDatasetConfig.model_validate({**settings, "name": name, "source": source})
    return Dataset(config, Store(root / "store"), root)


def build(
    root: Path,
    name: str,
    settings: dict[str, Any],
    good: Callable[[Path], dict[str, Expected]],
    cases: list[Case] | None = None,
) -> World:
    """Write a world's files; nothing is read yet."""
    source = root / "source"
    source.mkdir(parents=True)
    expected = good(source)
    for case in of_world(name) if cases is None else cases:
        found = case.make(source)
        expected[found.shard or case.name] = found
    return World(dataset_in(root, name, settings), expected)


def curate(world: World) -> World:
    """Run the whole pipeline over a world, as ``curation run`` does."""
    with dg.DagsterInstance.ephemeral() as instance:
        world.result = run(world.dataset, instance)
        world.failures = dict(world.result.failed_shards)
        world.events = instance.all_logs(world.result.run_id)
    return world


def ingest(world: World) -> World:
    """Read the shards of a world, and no more: what comes after knows nothing of formats."""
    for shard in [s.key for s in world.dataset.source().shards()]:
        try:
            make_raw(world.dataset, shard)
        except SourceError as error:
            world.failures[shard] = str(error)
    return world


def good_texts(folder: Path) -> dict[str, Expected]:
    """Write the sound shards of the texts, and the holdout."""
    expected = {}
    for name, rows in (("good-a", 40), ("good-b", 40), ("good-c", 40), ("held-out", 40)):
        sound = records(name, rows)
        expected[name] = Expected("accepted", kept(sound))
        frame = pl.DataFrame(sound)
        if name == "good-a":
            more = [{**row, "more": [1, 2, 3]} for row in sound]
            (folder / f"{name}.jsonl").write_text(jsonl(more))
        elif name == "good-b":
            frame.with_columns(more=pl.lit("plain")).write_csv(folder / f"{name}.csv")
        else:
            frame.write_parquet(folder / f"{name}.parquet")
    return expected
