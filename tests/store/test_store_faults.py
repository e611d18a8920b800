"""A full disk, and a process killed before each change of a file."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from safetensors.numpy import save_file
from stored import AT, RECIPE, SUBSET, log_of, publish, shard, write

from curation.store import Draft, Recipe, Store, StoreError


@pytest.fixture
def small_disk(file_system):
    """A file system of two megabytes."""
    return file_system("2m")


def with_python(draft: Draft) -> None:
    (draft.folder / "rows.bin").write_bytes(os.urandom(4 << 20))


def with_polars(draft: Draft) -> None:
    values = np.random.default_rng(0).normal(size=600_000)
    pl.DataFrame({"x": values}).write_parquet(draft.folder / "rows.parquet")


def with_arrow(draft: Draft) -> None:
    table = pa.table({"x": np.zeros(600_000)})
    path = str(draft.folder / "rows.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def with_safetensors(draft: Draft) -> None:
    save_file({"x": np.zeros(600_000)}, draft.folder / "rows.safetensors")


@pytest.mark.parametrize("fill", [with_python, with_polars, with_arrow, with_safetensors])
def test_a_full_disk_leaves_what_was_published(small_disk, fill):
    """Whichever library runs out of space; then there is space again and it goes on."""
    store = Store(small_disk)
    for at in (AT, SUBSET):
        made = write(store, at=at)
        with pytest.raises(StoreError) as caught:
            store.write(at, Recipe("2", "", {}), fill)
        for part in ("data set demo", at.asset, "disk is full", "bytes are free", "curation prune"):
            assert part in str(caught.value)
        assert ("shard s1" in str(caught.value)) == (at.shard is not None)
        assert store.need(at).manifest == made.manifest
        assert not list(store.root.rglob(".tmp-*"))
        again = write(store, "more", Recipe("2", "", {}), at=at)
        assert store.need(at).manifest == again.manifest


def fill_up(path: Path) -> None:
    path.touch()
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(path.parent).free == 0


def test_a_log_that_cannot_grow_is_made_up_for(store, monkeypatch):
    """The disk is full once the pointer is replaced: no torn line, and it is said."""
    first = publish(store, "a")
    second = publish(store, "b", publish=False)
    original, calls = os.write, []

    def half(descriptor, line):
        calls.append(line)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "no space left on device")
        return original(descriptor, line[:10])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match=r"disk is full.*not published, or not noted"):
        store.publish(SUBSET, second.manifest.version)
    monkeypatch.undo()
    assert (store.folder(SUBSET) / "published.jsonl").read_text()[-1] == "\n"
    assert store.need(SUBSET).manifest == second.manifest
    expected = [(1, first.manifest.version), (2, second.manifest.version)]
    assert log_of(store) == expected
    store.publish(SUBSET, second.manifest.version)
    assert log_of(store) == expected


def test_a_disk_without_a_byte_left(small_disk):
    """Publishing fails too, and says so; the log is whole when there is space again."""
    store = Store(small_disk)
    first = publish(store, "a")
    second = publish(store, "b", publish=False)
    fill_up(small_disk / "ballast")
    with pytest.raises(StoreError, match="disk is full"):
        store.publish(SUBSET, second.manifest.version)
    with pytest.raises(StoreError, match="disk is full"):
        store.mark_failed(AT, reason="x", stamp="y")
    assert store.need(SUBSET).manifest == first.manifest
    assert log_of(store) == [(1, first.manifest.version)]
    (small_disk / "ballast").unlink()
    store.publish(SUBSET, second.manifest.version)
    assert log_of(store) == [(1, first.manifest.version), (2, second.manifest.version)]
    assert not list(store.root.rglob(".tmp-*"))


def test_other_errors_are_not_taken_for_a_full_disk(store):
    def fill(draft: Draft) -> None:
        raise OSError(errno.EIO, "input/output error")

    with pytest.raises(OSError, match="input/output"):
        store.write(AT, RECIPE, fill)
    assert not list(store.folder(AT).glob(".tmp-*"))


SWEEP = """
import io, os, signal, sys
from pathlib import Path
import curation.store as s

what, nth, root = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
store, calls = s.Store(root), 0
def die_at(module, name, changes=lambda a, k: True):
    original = getattr(module, name)
    def wrapped(*a, **k):
        global calls
        calls += changes(a, k)
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*a, **k)
    setattr(module, name, wrapped)
for name in ("fsync", "link", "rename", "replace", "unlink", "rmdir", "write"):
    die_at(os, name)
die_at(io, "open", lambda a, k: "w" in str(a[1:2] or k.get("mode")))
recipe = s.Recipe("new", "", {})
def fill(draft):
    (draft.folder / "rows.txt").write_text("new")
    draft.row_count = 3
if what == "publish":
    store.write(s.Address("demo", "selected_subset"), recipe, fill, keep=1)
elif what == "adopt":
    assert store.adopt(s.Address("demo", "raw", "s1"), recipe)
else:
    store.mark_failed(s.Address("demo", "raw", "s1"), reason="bad", stamp="x")
"""


def state(store: Store) -> dict[str, bytes]:
    """All there is in a store, but for times: file -> content."""
    found = {}
    for path in store.root.rglob("*"):
        if path.is_file():
            content = re.sub(
                rb'"(created|when|published|seconds)": [^,\n}]+', b"", path.read_bytes()
            )
            found[str(path.relative_to(store.root))] = content
    return found


@pytest.mark.long
@pytest.mark.parametrize("what", ["publish", "adopt", "mark"])
def test_sigkill_at_every_change_of_a_file_and_again(tmp_path, what):
    """Killed before each call that changes a file, run again: the same store, byte by byte."""

    def prepared(name: str) -> Store:
        store = Store(tmp_path / name)
        for text in ("first", "second"):
            publish(store, text)
            write(store, text, Recipe(text, "", {}))
        if what == "adopt":
            write(store, "new", Recipe("new", "", {}), at=shard("s0"), index=True)
        for path in store.root.rglob("view-rows.png"):
            path.unlink()  # random bytes
        for path in store.root.rglob("manifest.json"):
            manifest = json.loads(path.read_text())
            manifest["files"].pop("view-rows.png", None)
            path.write_text(json.dumps(manifest, indent=1) + "\n")
        return store

    def run(store: Store, nth: int) -> int:
        command = [sys.executable, "-c", SWEEP, what, str(nth), str(store.root)]
        return subprocess.run(command, timeout=30).returncode

    clean = prepared("clean")
    assert run(clean, -1) == 0
    killed = 0
    for nth in range(1, 60):
        store = prepared(str(nth))
        before = store.need(SUBSET if what == "publish" else AT).path("rows.txt").read_text()
        code = run(store, nth)
        assert code in (0, -signal.SIGKILL)
        read = store.need(SUBSET if what == "publish" else AT).path("rows.txt").read_text()
        assert read in (before, "new")
        assert store.shards("demo", "raw") == clean.shards("demo", "raw")
        for at in (SUBSET, AT):  # what looks like a version is a whole one
            assert all(store.open(at, m.version) for m in store.versions(at))
        assert run(store, -1) == 0
        assert state(store) == state(clean)
        shutil.rmtree(store.root)
        if code == 0:
            break
        killed += 1
    assert killed >= 3
    assert code == 0  # all calls were tried
