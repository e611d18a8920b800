"""The sensor: new, changed and deleted shards, once each, whatever happens in between."""

from __future__ import annotations

import os

import dagster as dg
import polars as pl
import pytest
from helpers import vector_config, vectors

from curation.pipeline.automation import ATTEMPTS, CHANGES, RANGE_END, RANGE_START
from curation.pipeline.component import dataset_definitions
from curation.pipeline.dataset import Dataset
from curation.pipeline.local import run

DAYS = [f"day-{i}" for i in range(4)]


class Daemon:
    """Ticks a data set's sensor as the daemon does: cursor kept, requests carried out."""

    def __init__(self, dataset: Dataset, instance: dg.DagsterInstance) -> None:
        self.dataset, self.instance, self.cursor = dataset, instance, None
        self.asked: dict[str, dg.RunRequest] = {}

    def tick(self):
        # a new sensor each time: nothing may live in the process
        sensor = dataset_definitions(self.dataset).get_sensor_def("clouds_new_shards")
        told = sensor(dg.build_sensor_context(self.instance, cursor=self.cursor))
        if isinstance(told, dg.SkipReason):
            return told.skip_message
        self.cursor = told.cursor or self.cursor
        for request in told.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions("clouds_shards", request.partition_keys)
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition("clouds_shards", key)
        new = [r for r in told.run_requests or [] if r.run_key not in self.asked]
        self.asked |= {r.run_key: r for r in new}
        return new

    def execute(self, request: dg.RunRequest, *, job: str = "clouds_ingest") -> bool:
        found = dataset_definitions(self.dataset).resolve_job_def(job)
        return found.execute_in_process(
            instance=self.instance, tags=dict(request.tags), raise_on_error=False
        ).success


@pytest.fixture
def daemon(clouds, instance) -> Daemon:
    return Daemon(clouds, instance)


def _range(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags[RANGE_START], request.tags[RANGE_END]


def _path(daemon: Daemon, day: str):
    return daemon.dataset.root / "source" / f"{day}.parquet"


def test_new_shards_are_one_run_and_then_it_rests(daemon):
    (request,) = daemon.tick()
    assert _range(request) == ("day-0", "day-3")
    assert daemon.instance.get_dynamic_partitions("clouds_shards") == DAYS
    assert "was asked for and has not ended" in daemon.tick()
    assert daemon.execute(request)
    assert "nothing changed; 4 shards are registered" in daemon.tick()
    vectors(20, seed=9).write_parquet(_path(daemon, "day-4"))
    (request,) = daemon.tick()
    assert _range(request) == ("day-4", "day-4")
    assert daemon.execute(request)
    assert daemon.dataset.store.shards("clouds", "embeddings") == [*DAYS, "day-4"]


def test_a_changed_shard_is_read_again_and_a_touched_one_is_not(daemon):
    daemon.execute(daemon.tick()[0])
    path = _path(daemon, "day-1")
    os.utime(path, (1, 1))
    assert "nothing changed" in daemon.tick()
    # the same size and the same time, another content
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    (request,) = daemon.tick()
    assert _range(request) == ("day-1", "day-1")
    other = vectors(200, seed=51)
    other.write_parquet(path)
    (request,) = daemon.tick()
    assert daemon.execute(request)
    raw = daemon.dataset.store.need(daemon.dataset.at("raw", "day-1"))
    ids = pl.read_parquet(raw.path("rows.parquet"))["id"]
    assert set(ids) == set(other["key"])
    assert "nothing changed" in daemon.tick()


def test_a_deleted_shard_is_no_partition_any_more(daemon):
    daemon.execute(daemon.tick()[0])
    _path(daemon, "day-2").unlink()
    assert daemon.tick() == []
    assert daemon.instance.get_dynamic_partitions("clouds_shards") == ["day-0", "day-1", "day-3"]
    assert "nothing changed" in daemon.tick()


def test_a_run_of_the_whole_graph_brings_deletions_into_the_subset(folder, tmp_path, instance):
    from curation.store import Store

    config = vector_config(folder, automation={"run": "curation"})
    daemon = Daemon(Dataset(config, Store(tmp_path / "store"), tmp_path), instance)
    assert daemon.execute(daemon.tick()[0], job="clouds_curation")
    _path(daemon, "day-2").unlink()
    (request,) = daemon.tick()
    assert _range(request) == ("day-0", "day-3")
    assert daemon.execute(request, job="clouds_curation")
    subset = daemon.dataset.store.need(daemon.dataset.at("selected_subset"))
    shards = set(pl.read_parquet(subset.path("subset.parquet"))["shard"])
    assert shards == {"day-0", "day-1", "day-3"}
    assert subset.figures["changes"]["shards_gone"] == ["day-2"]


def test_a_broken_shard_is_tried_once_and_again_when_it_changes(daemon):
    _path(daemon, "day-1").write_bytes(b"PAR1 no")
    assert daemon.execute(daemon.tick()[0])
    assert "nothing changed" in daemon.tick()
    vectors(200, seed=1).write_parquet(_path(daemon, "day-1"))
    (request,) = daemon.tick()
    assert _range(request) == ("day-1", "day-1")


def test_a_run_that_fails_is_asked_for_again_but_not_for_ever(daemon, monkeypatch):
    from curation.pipeline import shards

    def broken():
        raise RuntimeError("the machine is on fire")

    monkeypatch.setitem(shards.MAKERS, "raw", broken)
    keys = []
    for _ in range(ATTEMPTS):
        (request,) = daemon.tick()
        keys.append(request.run_key)
        assert not daemon.execute(request)
    assert len(set(keys)) == ATTEMPTS
    assert "did not bring these changes in" in daemon.tick()
    monkeypatch.undo()
    vectors(20, seed=9).write_parquet(_path(daemon, "day-4"))
    (request,) = daemon.tick()
    assert request.tags[CHANGES] == request.run_key
    assert daemon.execute(request)
    assert "nothing changed" in daemon.tick()


def test_a_source_that_is_gone_deletes_nothing(daemon):
    daemon.execute(daemon.tick()[0])
    (daemon.dataset.root / "source").rename(daemon.dataset.root / "elsewhere")
    assert "source" in daemon.tick()
    assert daemon.instance.get_dynamic_partitions("clouds_shards") == DAYS
    assert not run_or_error(daemon)


def run_or_error(daemon: Daemon) -> bool:
    from curation.sources import SourceError

    try:
        return run(daemon.dataset, daemon.instance).success
    except SourceError:
        return False
