"""Artifacts: whole or not at all, and refused when they differ from their manifest."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pytest
from safetensors.numpy import save_file

from curation.store import Address, Draft, Recipe, Store, StoreError, files

AT = Address("demo", "raw", "s1")
RECIPE = Recipe("1", "c", {"source": "x"}, seed=0)


def write(store: Store, text: str = "hello", recipe: Recipe = RECIPE, at: Address = AT, **how):
    def fill(draft: Draft) -> None:
        (draft.folder / "rows.txt").write_text(text)
        (draft.folder / "view-rows.png").write_bytes(os.urandom(8))
        draft.row_count = len(text)
        draft.figures["letters"] = len(text)

    return store.write(at, recipe, fill, **how)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


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


SUBSET = Address("demo", "selected_subset")


def publish(store: Store, text: str, **how):
    """Write and publish a version of an asset without shards."""
    return write(store, text, Recipe(text, "", {}), at=SUBSET, **how)


def log_of(store: Store) -> list[tuple[int, str]]:
    return [(p.sequence, p.version) for p in store.published(SUBSET)]


def test_publications_are_logged_in_order(store):
    assert store.published(SUBSET) == []
    made = [publish(store, text) for text in ("a", "bb", "ccc")]
    versions = [m.manifest.version for m in made]
    assert log_of(store) == list(zip((1, 2, 3), versions, strict=True))
    last = store.published(SUBSET)[-1]
    assert (last.content_hash, last.row_count) == (made[2].content_hash, 3)
    assert last.published.startswith("20")
    store.publish(SUBSET, versions[0])  # back to the first
    assert log_of(store)[-1] == (4, versions[0])
    with pytest.raises(StoreError, match="not logged"):
        store.published(AT)


def test_publishing_what_is_current_adds_nothing(store):
    made = publish(store, "a")
    before = {p: p.stat().st_mtime_ns for p in store.folder(SUBSET).iterdir()}
    store.publish(SUBSET, made.manifest.version)
    assert {p: p.stat().st_mtime_ns for p in store.folder(SUBSET).iterdir()} == before
    assert len(log_of(store)) == 1


def test_only_what_is_there_can_be_published(store):
    made = publish(store, "a")
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        store.publish(SUBSET, "0123456789abcdef")
    assert log_of(store) == [(1, made.manifest.version)]
    assert store.need(SUBSET).manifest == made.manifest


def test_a_clock_that_goes_backwards_changes_no_order(store, monkeypatch):
    """Each version is from an earlier day than the one before it."""
    days = iter(f"2026-01-{day:02}T00:00:00+00:00" for day in range(28, 0, -1))
    monkeypatch.setattr("curation.store.manifests.utc_now", lambda: next(days))
    monkeypatch.setattr("curation.store.artifacts.utc_now", lambda: next(days))
    made = [publish(store, text).manifest for text in ("a", "b", "c", "d")]
    assert [m.created for m in made] == sorted((m.created for m in made), reverse=True)
    assert [m.version for m in store.versions(SUBSET)] == [m.version for m in made]
    assert [version for _, version in log_of(store)] == [m.version for m in made]
    publish(store, "e", keep=1)
    kept = [m.version for m in store.versions(SUBSET)]
    assert len(kept) == 2
    assert kept[0] == made[3].version


def test_what_was_current_is_the_last_to_go(store):
    """Readers may have it open, however old it is."""
    first = publish(store, "a")
    publish(store, "b", publish=False)
    last = publish(store, "c", keep=1)
    kept = [m.version for m in store.versions(SUBSET)]
    assert kept == [first.manifest.version, last.manifest.version]


def test_versions_from_before_the_log_are_the_oldest(store):
    """Manifests without an ordinal are read; what is current is in the log all the same."""
    made = publish(store, "a")
    path = made.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["ordinal"]
    path.write_text(json.dumps(manifest))
    (store.folder(SUBSET) / "published.jsonl").unlink()
    assert log_of(store) == [(1, made.manifest.version)]
    second = publish(store, "b")
    assert second.manifest.ordinal == 1
    assert log_of(store) == [(1, made.manifest.version), (2, second.manifest.version)]


DIES = """
import os, signal, sys
from pathlib import Path
import curation.store as s
import curation.store.publishing as p

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
def torn(descriptor, line):
    write(descriptor, line[: len(line) // 2] if sys.argv[2] == "torn" else line[:-1])
    die()
write = os.write
if sys.argv[2] == "before":
    p._append = die
else:
    p.os.write = torn
store = s.Store(Path(sys.argv[1]))
def fill(draft):
    (draft.folder / "rows.txt").write_text("killed")
    draft.row_count = 7
store.write(s.Address("demo", "selected_subset"), s.Recipe("killed", "", {}), fill)
"""


@pytest.mark.parametrize("where", ["before", "torn", "newline"])
@pytest.mark.parametrize("again", [True, False])
def test_a_log_that_a_crash_cut_short_is_made_whole(store, where, again):
    """Killed between pointer and log, or in the middle of the line; then read, then published."""
    first = publish(store, "a")
    code = [sys.executable, "-c", DIES, str(store.root), where]
    assert subprocess.run(code).returncode == -signal.SIGKILL
    log = store.folder(SUBSET) / "published.jsonl"
    assert (log.read_text()[-1] == "\n") == (where == "before")
    killed = store.need(SUBSET)
    expected = [(1, first.manifest.version), (2, killed.manifest.version)]
    assert killed.manifest.row_count == 7
    assert log_of(store) == expected
    before = store.published(SUBSET)
    if again:  # the run that was killed is run again
        store.publish(SUBSET, killed.manifest.version)
        assert store.published(SUBSET) == before
    third = publish(store, "c")
    assert log_of(store) == [*expected, (3, third.manifest.version)]
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_damaged_line_hides_no_other(store):
    made = [publish(store, text).manifest.version for text in ("a", "b", "c")]
    log = store.folder(SUBSET) / "published.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b'{"sequence": 2\n' + lines[2])
    assert log_of(store) == [(1, made[0]), (3, made[2])]
    publish(store, "d")
    assert [number for number, _ in log_of(store)] == [1, 3, 4]


BUSY = """
import sys
from pathlib import Path
import curation.store as s
store, who = s.Store(Path(sys.argv[1])), sys.argv[2]
for i in range(20):
    def fill(draft):
        (draft.folder / "rows.txt").write_text(f"{who} {i}")
    store.write(s.Address("demo", "selected_subset"), s.Recipe(f"{who} {i}", "", {}), fill)
"""


def test_two_processes_publish_at_once(store):
    """No number twice, no line lost, no line torn; what is current is the last line's."""
    command = [sys.executable, "-c", BUSY, str(store.root)]
    for process in [subprocess.Popen([*command, who]) for who in "ab"]:
        assert process.wait(60) == 0
    found = store.published(SUBSET)
    assert [p.sequence for p in found] == list(range(1, 41))
    assert len({p.version for p in found}) == 40
    assert store.need(SUBSET).manifest.version == found[-1].version


INDEXED = {"index": True, "keep": 1}


def shard(name: str) -> Address:
    return Address("demo", "raw", name)


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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


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
