"""Shards that are replaced, grow, vanish or can't be read while a run reads them."""

from __future__ import annotations

import os
import shutil

import pytest
from fault_ground import SHARDS, Ground, check_store, pausing, rows_of, write_shard
from helpers import vectors

OTHER = 77  # seed of the rows that take a shard's place


def replaced_rows(shard: str):
    return vectors(120, seed=OTHER) if shard == "day-1" else rows_of(shard)


@pytest.fixture(scope="module")
def replaced(tmp_path_factory) -> Ground:
    """A clean store that saw the shard as it is in the end."""
    ground = Ground(tmp_path_factory.mktemp("replaced")).fill_source()
    vectors(120, seed=OTHER).write_parquet(ground.source / "day-1.parquet")
    assert ground.run().success
    return ground


@pytest.mark.parametrize("how", ["renamed over", "written in place"])
def test_replaced_while_it_is_read(ground: Ground, replaced: Ground, row, how):
    line = row(f"F a shard is {how} while it is read", "read again; as a store that saw the last")
    path = ground.source / "day-1.parquet"
    with pausing(ground, "block:day-1") as running:
        if how == "renamed over":
            vectors(120, seed=OTHER).write_parquet(ground.source / "new.tmp")
            (ground.source / "new.tmp").replace(path)
        else:
            vectors(120, seed=OTHER).write_parquet(path)
        ended = running.go()
    assert ended.success, ended.said
    assert not ended.told["failed_shards"]
    assert ground.published() == replaced.published()
    assert ground.run().computed["raw"] == 0
    assert ground.published() == replaced.published()
    check_store(ground, rows=replaced_rows)
    line.seen = "equal in the same run; the next run has nothing to do"


def test_a_file_that_grows_all_the_time(tmp_path, row):
    line = row(
        "F a file grows whenever it is read",
        "shard named, the others go on; when it is over: as a store that saw it later",
    )
    changes = {"source": {"folder": str(tmp_path / "g" / "source"), "pattern": "*.jsonl"}}
    ground = Ground(tmp_path / "g", changes=changes).fill_source(ending="jsonl")
    pattern = {"folder": str(tmp_path / "clean" / "source"), "pattern": "*.jsonl"}
    clean = Ground(tmp_path / "clean", changes={"source": pattern})
    assert clean.fill_source((SHARDS[0], SHARDS[2]), ending="jsonl").run().success
    assert clean.fill_source(ending="jsonl").run().success
    path = ground.source / "day-1.jsonl"
    ended = ground.run("grow:block:day-1:0", CURATION_FAULT_GROWS=str(path))
    assert ended.success, ended.said
    why = ended.told["failed_shards"]["day-1"]
    assert why.startswith(f"clouds: shard day-1: {path} changed while it was read")
    assert "rename them when they are complete" in why
    write_shard(ground.source, "day-1", "jsonl")
    again = ground.run()
    assert again.success, again.said
    assert ground.published() == clean.published()
    check_store(ground)
    line.seen = "equal; the message says to write under another name and rename"


def test_deleted_between_listing_and_reading(ground: Ground, without: Ground, row):
    line = row(
        "G a shard is deleted between listing and reading",
        "named, the others go on; when it is back: as a store that saw it later",
    )
    with pausing(ground, "listed:source") as running:
        (ground.source / "day-1.parquet").unlink()
        ended = running.go()
    assert "data set clouds: the source has no shard 'day-1'" in ended.said
    assert ended.success, ended.said
    again = ground.fill_source().run()
    assert again.success, again.said
    assert ground.published() == without.published()
    check_store(ground)
    line.seen = "equal"


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_the_folder_is_not_there(tmp_path, first: Ground, row, how):
    line = row(f"G the source folder is {how} (not mounted)", "said; the store is untouched")
    ground = Ground(tmp_path / "ground").copy_of(first)
    before = ground.state()
    ground.source.rename(ground.root / "elsewhere")
    if how == "empty":
        ground.source.mkdir()
    ended = ground.run()
    assert not ended.success
    assert "clouds" in ended.said
    wanted = "there is no folder" if how == "missing" else "the source has no shard"
    assert wanted in ended.said, ended.said
    assert ground.state() == before
    shutil.rmtree(ground.source, ignore_errors=True)
    (ground.root / "elsewhere").rename(ground.source)
    again = ground.run()
    assert again.success, again.said
    assert sum(again.computed.values()) == 0
    assert ground.published() == first.published()
    check_store(ground)
    line.seen = "not a byte changed; when it is back, nothing is computed again"


def test_permission_denied(ground: Ground, without: Ground, row):
    line = row(
        "G permission denied for one shard",
        "shard named, the others go on; when it is over: as a store that saw it later",
    )
    path = ground.source / "day-1.parquet"
    path.chmod(0)
    ended = ground.run(no_capabilities=os.geteuid() == 0)
    assert ended.success, ended.said
    why = ended.told["failed_shards"]["day-1"]
    assert why.startswith(f"clouds: shard day-1: cannot read {path}")
    assert "Permission denied" in why
    assert "Let the user that runs this read it" in why
    path.chmod(0o644)
    again = ground.run()
    assert again.success, again.said
    assert ground.published() == without.published()
    assert tuple(SHARDS) == tuple(ground.store.shards("clouds", "raw"))
    check_store(ground)
    line.seen = "equal; the message names data set, shard, file and what to do"
