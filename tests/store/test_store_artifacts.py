"""Artifacts: whole or not at all, and refused when they differ from their manifest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap

import pytest
from stored import AT, RECIPE, write

from curation.store import Address, Draft, Recipe, StoreError


def test_what_is_written_is_read(store):
    made = write(store)
    found = store.need(AT)
    assert found.manifest == made.manifest
    assert found.path("rows.txt").read_text() == "hello"
    assert found.figures == {"letters": 5}
    assert store.shards("demo", "raw") == ["s1"]


def test_content_hash_is_of_the_data_not_of_the_pictures(store):
    first = write(store)
    second = write(store, recipe=Recipe("1", "other", {}, None))
    assert first.content_hash == second.content_hash
    assert first.manifest.version != second.manifest.version
    assert write(store, "other").content_hash != first.content_hash


def test_equal_recipe_is_unchanged_and_any_difference_is_not(store):
    write(store)
    assert store.unchanged(AT, Recipe("1", "c", {"source": "x"}, seed=0)) is not None
    for other in (
        Recipe("2", "c", {"source": "x"}, 0),
        Recipe("1", "d", {"source": "x"}, 0),
        Recipe("1", "c", {"source": "y"}, 0),
        Recipe("1", "c", {"source": "x"}, 1),
    ):
        assert store.unchanged(AT, other) is None


def test_missing_artifact_names_data_set_shard_and_remedy(store):
    with pytest.raises(StoreError, match=r"data set demo: no raw of shard s1 .*curation run demo"):
        store.need(AT)


@pytest.mark.parametrize("field", ["dataset", "asset", "shard", "version"])
def test_manifest_of_something_else_is_refused_by_field(store, field):
    made = write(store)
    path = made.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[field] = "other"
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=f"field '{field}' is 'other'"):
        store.current(AT)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_text("hellO"), "sha256 is"),
        (lambda p: p.write_text("hell"), "bytes is 4, its manifest says 5"),
        (lambda p: p.unlink(), "'rows.txt' of its manifest is missing"),
    ],
)
def test_damaged_files_are_refused_and_written_again(store, damage, message):
    made = write(store)
    damage(made.folder / "rows.txt")
    with pytest.raises(StoreError, match=message):
        store.current(AT)
    assert store.unchanged(AT, RECIPE) is None
    write(store)
    assert store.need(AT).path("rows.txt").read_text() == "hello"


def test_broken_manifest_is_refused(store):
    made = write(store)
    (made.folder / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="not a manifest"):
        store.current(AT)


def test_wrong_upstream_is_refused_with_the_remedy(store):
    made = write(store)
    made.require(upstream={"source": "x"}, remedy="-")
    with pytest.raises(StoreError, match=r"demo/raw/s1.*'source' is x, expected y; do this"):
        made.require(upstream={"source": "y"}, remedy="do this")


@pytest.mark.parametrize("part", ["..", "a/b", "", "/etc", ".hidden", "a\0b"])
def test_paths_stay_under_the_root(store, part):
    with pytest.raises(StoreError, match="can't be part of an artifact's path"):
        Address("demo", "raw", part)


def test_a_failed_write_leaves_nothing(store):
    write(store)

    def fill(draft: Draft) -> None:
        (draft.folder / "rows.txt").write_text("half")
        raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        store.write(AT, Recipe("2", "", {}), fill)
    assert store.need(AT).path("rows.txt").read_text() == "hello"
    assert not list(store.folder(AT).glob(".tmp-*"))


def test_older_versions_are_kept_as_asked(store):
    for number in range(5):
        write(store, f"text {number}", Recipe(str(number), "", {}), keep=1)
    assert len(store.versions(AT)) == 2
    subset = Address("demo", "selected_subset")
    for number in range(3):
        write(store, f"text {number}", Recipe(str(number), "", {}), at=subset)
    assert len(store.versions(subset)) == 3


def test_unpublished_versions_are_not_read(store):
    first = write(store)
    second = write(store, "new", Recipe("2", "", {}), publish=False)
    assert store.need(AT).content_hash == first.content_hash
    store.publish(AT, second.manifest.version)
    assert store.need(AT).content_hash == second.content_hash


KILLED = """
import os, signal, sys
from pathlib import Path
import curation.store as s
import curation.store.files as files

calls = 0
def die_at(name, module=files):
    original = getattr(module, name)
    def wrapped(*a, **k):
        global calls
        calls += 1
        if calls == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*a, **k)
    setattr(module, name, wrapped)
die_at("fsync")
store = s.Store(Path({root!r}))
def fill(draft):
    (draft.folder / "rows.txt").write_text("new")
    draft.row_count = 1
store.write(s.Address("demo", "raw", "s1"), s.Recipe("2", "", {{}}), fill)
"""


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7])
def test_sigkill_at_every_step_leaves_old_or_new(store, at):
    """A write has six fsyncs (data, manifest, folder, parent, pointer, parent): die before each.

    `at` = 7 is past the end: the control, which must not die.
    """
    write(store)
    code = textwrap.dedent(KILLED.format(at=at, root=str(store.root)))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode == -signal.SIGKILL) == (at < 7), ended.stderr
    expected = "new" if at >= 6 else "hello"
    assert store.need(AT).path("rows.txt").read_text() == expected
    write(store, "again", Recipe("3", "", {}))
    assert store.need(AT).path("rows.txt").read_text() == "again"
    assert not list(store.folder(AT).glob(".tmp-*"))
