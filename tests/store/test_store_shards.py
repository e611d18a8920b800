"""Shards that are renamed, marked as failed, or left behind by processes that died."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from stored import AT, RECIPE, shard, write

from curation.store import Recipe, Store, files

INDEXED = {"index": True, "keep": 1}


def test_a_renamed_shard_takes_over_what_there_is(store):
    made = write(store, at=shard("old"), **INDEXED)
    found = store.adopt(shard("new"), RECIPE)
    assert found.manifest.shard == "new"
    for same in ("content_hash", "row_count", "schema", "figures", "files", "fingerprint"):
        assert getattr(found.manifest, same) == getattr(made.manifest, same)
    read = store.need(shard("new"))
    assert read.manifest == found.manifest
    for name in ("rows.txt", "view-rows.png"):  # the pictures as well
        assert read.path(name).samefile(made.path(name))
    shutil.rmtree(store.folder(shard("old")))
    assert store.need(shard("new")).path("rows.txt").read_text() == "hello"
    assert store.shards("demo", "raw") == ["new"]
    assert store.adopt(shard("newer"), RECIPE) is not None  # the note follows


def test_a_shard_takes_its_own_former_version(store):
    """A shard that changed and changed back."""
    made = write(store, **INDEXED)
    write(store, "other", Recipe("2", "", {}), **INDEXED)
    assert store.adopt(AT, RECIPE).manifest == made.manifest
    assert store.need(AT).manifest == made.manifest


def test_files_are_copied_where_they_cannot_be_linked(store, monkeypatch):
    made = write(store, at=shard("old"), **INDEXED)

    def refused(*arguments):
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", refused)
    store.adopt(shard("new"), RECIPE)
    read = store.need(shard("new"))
    assert read.path("rows.txt").read_text() == "hello"
    assert not read.path("rows.txt").samefile(made.path("rows.txt"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: (s.folder(shard("old")) / "current").parent.rename(s.root / "gone"),
        lambda s: s.need(shard("old")).path("rows.txt").write_text("hellO"),
        lambda s: next((s.root / "demo/raw/.recipes").iterdir()).write_text("../../etc"),
        lambda s: next((s.root / "demo/raw/.recipes").iterdir()).write_bytes(b"\xff"),
    ],
)
def test_notes_that_are_out_of_date_are_ignored(store, spoil):
    write(store, at=shard("old"), **INDEXED)
    spoil(store)
    assert store.adopt(shard("new"), RECIPE) is None
    assert store.adopt(shard("new"), RECIPE) is None
    assert "new" not in store.shards("demo", "raw")


def test_only_an_equal_recipe_is_taken_over(store):
    write(store, at=shard("old"), **INDEXED)
    assert store.adopt(shard("new"), Recipe("2", "c", {"source": "x"}, seed=0)) is None
    write(store, "unindexed", Recipe("3", "", {}), at=shard("other"))
    assert store.adopt(shard("new"), Recipe("3", "", {})) is None
    notes = store.root / "demo/raw/.recipes"
    (notes / Recipe("4", "", {}).fingerprint).write_bytes(next(notes.iterdir()).read_bytes())
    assert store.adopt(shard("new"), Recipe("4", "", {})) is None
    assert len(list(notes.iterdir())) == 1  # the note that was wrong is gone


def test_hidden_folders_and_leftovers_are_no_shards_and_no_versions(store):
    made = write(store, **INDEXED)
    for name in (".recipes", ".tmp-1-abcdef12", ".hidden"):
        for folder in (store.root / "demo/raw" / name, store.folder(AT) / name):
            shutil.copytree(made.folder, folder, dirs_exist_ok=True)
            (folder / "current").write_text("x\n")
            (folder / "failed.json").write_text("{}")
    (store.root / "demo/raw/file").write_text("x")
    assert store.shards("demo", "raw") == ["s1"]
    assert [m.version for m in store.versions(AT)] == [made.manifest.version]
    assert store.failed("demo", "raw") == {}


def test_failed_shards_are_remembered(store):
    store.mark_failed(shard("bad"), reason="line 3: [/red] no JSON", stamp="f1")
    write(store)
    store.mark_failed(AT, reason="truncated", stamp="f2")
    again = Store(store.root)
    found = again.failed("demo", "raw")
    assert {k: (f.reason, f.stamp) for k, f in found.items()} == {
        "bad": ("line 3: [/red] no JSON", "f1"),
        "s1": ("truncated", "f2"),
    }
    assert found["bad"].when.startswith("20")
    assert again.shards("demo", "raw") == ["s1"]  # it has a version; the other never had one
    assert again.current(shard("bad")) is None
    for _ in range(2):
        again.clear_failed(shard("bad"))
    assert list(again.failed("demo", "raw")) == ["s1"]
    assert again.need(AT).path("rows.txt").read_text() == "hello"


def test_a_damaged_mark_is_still_a_mark(store):
    store.mark_failed(AT, reason="x", stamp="f")
    (store.folder(AT) / "failed.json").write_bytes(b"\xff{")
    found = store.failed("demo", "raw")["s1"]
    assert found.reason.startswith("unknown")
    assert found.stamp == ""
    store.mark_failed(AT, reason="y", stamp="g")
    assert store.failed("demo", "raw")["s1"].reason == "y"


def test_a_good_version_survives_a_rename_that_fails(store, monkeypatch):
    """The version is written anew in place of itself, and the second rename fails."""
    made = write(store)
    second = write(store, "other", Recipe("2", "", {}))
    original, calls = Path.rename, []

    def failing(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="input/output"):
        write(store)
    monkeypatch.undo()
    assert store.open(AT, made.manifest.version).path("rows.txt").read_text() == "hello"
    assert store.need(AT).manifest == second.manifest
    assert not list(store.folder(AT).glob(".tmp-*"))


def test_a_current_version_is_not_moved_for_its_like(store, monkeypatch):
    made = write(store)
    monkeypatch.setattr(files, "put_in_place", lambda *a: pytest.fail("replaced"))
    assert write(store).manifest == made.manifest
    assert not list(store.folder(AT).glob(".tmp-*"))


def ended() -> int:
    """Return the id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_only_are_removed(store):
    """By process id, start and host; names of earlier versions are understood."""
    folder = store.folder(AT)
    folder.mkdir(parents=True)
    host, _, start, _ = files.temporary_path(folder).name.removeprefix(".tmp-").split("-")
    me, dead = os.getpid(), ended()
    zombie = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    while files._stat(zombie.pid)[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    gone = [
        f".tmp-{dead}-abcdef12",
        f".tmp-{host}-{dead}-{start}-abcdef12",
        f".tmp-{host}-{me}-beef.1-abcdef12",  # the id was used again
        f".tmp-{zombie.pid}-abcdef12",
    ]
    stay = [
        f".tmp-{me}-abcdef12",
        f".tmp-{host}-{me}-{start}-abcdef12",
        f".tmp-{host}-{me}-unknown-abcdef12",
        f".tmp-00000000-{dead}-{start}-abcdef12",  # another host's
        ".tmp-something",
    ]
    for name in (*gone, *stay):
        (folder / name).mkdir()
        (folder / name / "rows.txt").write_text("x")
    write(store)
    zombie.wait()
    assert {p.name for p in folder.glob(".tmp-*")} == set(stay)
