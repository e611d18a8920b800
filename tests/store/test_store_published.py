"""What was published, in order, and what becomes of the log when a process dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from stored import AT, SUBSET, log_of, publish

from curation.store import StoreError


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
import sys, time
from pathlib import Path
import curation.store as s
import curation.store.publishing as p
store, who = s.Store(Path(sys.argv[1])), sys.argv[2]
append = p._append
def slowly(*arguments):  # leaves time for the other one between reading the log and adding to it
    time.sleep(0.01)
    return append(*arguments)
p._append = slowly
while not (store.root / "go").exists():
    time.sleep(0.001)
for i in range(20):
    def fill(draft):
        (draft.folder / "rows.txt").write_text(f"{who} {i}")
    store.write(s.Address("demo", "selected_subset"), s.Recipe(f"{who} {i}", "", {}), fill)
"""


def test_two_processes_publish_at_once(store):
    """No number twice, no line lost, no line torn; what is current is the last line's."""
    command = [sys.executable, "-c", BUSY, str(store.root)]
    processes = [subprocess.Popen([*command, who]) for who in "ab"]
    try:
        (store.root / "go").touch()
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    found = store.published(SUBSET)
    assert [p.sequence for p in found] == list(range(1, 41))
    assert len({p.version for p in found}) == 40
    assert store.need(SUBSET).manifest.version == found[-1].version
