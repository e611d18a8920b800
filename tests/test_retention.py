"""What retention would remove, and that it removes nothing else."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from curation import retention
from curation.locks import LockTimeout, dataset_lock
from curation.retention import apply, plan
from curation.store import Address, Draft, Recipe, Store, StoreError

NOW = dt.datetime(2026, 6, 30, tzinfo=dt.UTC)


@dataclass
class Demo:
    store: Store
    name: str = "demo"

    def write(self, asset: str, text: str, *, shard=None, upstream=None, **how):
        def fill(draft: Draft) -> None:
            (draft.folder / "data.txt").write_text(text)
            draft.row_count = len(text)

        at = Address(self.name, asset, shard)
        return self.store.write(at, Recipe(text, "", upstream or {}), fill, **how)

    def plan(self, *, versions=1, days=None, present=None, now=NOW):
        return plan(self, versions=versions, days=days, present=present, now=now)

    def planned(self, **how) -> set[str]:
        """What would go, by its path in the data set's folder."""
        folder = self.store.root.resolve() / self.name
        return {str(r.path.relative_to(folder)) for r in self.plan(**how)}

    def files(self) -> dict[str, bytes]:
        return {
            str(p.relative_to(self.store.root)): p.read_bytes()
            for p in self.store.root.rglob("*")
            if p.is_file() and p.name != ".lock"
        }


def name(artifact) -> str:
    return f"{artifact.manifest.asset}/{artifact.manifest.version}"


@pytest.fixture
def demo(tmp_path):
    return Demo(Store(tmp_path / "store"))


@pytest.fixture
def subsets(demo):
    return [demo.write("selected_subset", f"subset {i}") for i in range(5)]


def test_the_newest_subsets_stay(demo, subsets):
    assert demo.planned(versions=2) == {name(s) for s in subsets[:3]}
    assert demo.planned(versions=5) == set()
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            demo.plan(versions=wrong)


def test_a_plan_changes_nothing_and_its_execution_only_what_it_says(demo, subsets):
    before = demo.files()
    removals = demo.plan(versions=2)
    assert demo.files() == before
    size = sum(
        len(content)
        for path, content in before.items()
        if any(name(s) in path for s in subsets[:3])
    )
    assert apply(removals) == size == sum(r.bytes for r in removals)
    gone = {path for path in before if any(name(s) in path for s in subsets[:3])}
    assert demo.files() == {p: c for p, c in before.items() if p not in gone}
    assert demo.planned(versions=2) == set()
    log = demo.store.published(Address("demo", "selected_subset"))
    assert [p.sequence for p in log] == [1, 2, 3, 4, 5]  # that they were there is still known
    assert apply(removals) == 0  # once more does no harm


def test_newest_is_by_sequence_not_by_clock(demo, subsets):
    """Times that run backwards; then an old version is published again."""
    log = demo.store.folder(Address("demo", "selected_subset")) / "published.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        line["published"] = f"2026-01-{28 - line['sequence']}T00:00:00+00:00"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert demo.planned(versions=2) == {name(s) for s in subsets[:3]}
    demo.store.publish(Address("demo", "selected_subset"), subsets[0].manifest.version)
    assert demo.planned(versions=2) == {name(s) for s in subsets[1:4]}


def test_young_subsets_stay_whatever_their_number(demo, subsets):
    written = dt.datetime.fromisoformat(
        demo.store.published(Address("demo", "selected_subset"))[0].published
    )
    for later, gone in ((6, 0), (8, 4)):
        now = written + dt.timedelta(days=later)
        assert len(demo.planned(versions=1, days=7, now=now)) == gone
    past = written - dt.timedelta(days=400)  # the clock went back: they are from the future
    assert demo.planned(versions=1, days=7, now=past) == set()


def test_the_current_subset_stays_even_if_it_is_old(demo, subsets):
    """It always is the last of the log; also if the log is lost."""
    (demo.store.folder(Address("demo", "selected_subset")) / "published.jsonl").unlink()
    assert name(subsets[4]) not in demo.planned(versions=1)
    assert demo.planned(versions=1) == {name(s) for s in subsets[:4]}


def test_a_damaged_current_subset_stays(demo, subsets):
    """It is not known to the log, and its manifest can't be read."""
    folder = demo.store.folder(Address("demo", "selected_subset"))
    (folder / "published.jsonl").unlink()
    (subsets[4].folder / "manifest.json").write_text("{")
    assert name(subsets[4]) not in demo.planned(versions=1)
    (folder / "published.jsonl").touch()
    (folder / "current").unlink()  # what was current can't be told: all stays
    assert demo.planned(versions=1) == set()


def test_subsets_from_before_the_log_count_by_age(demo, subsets):
    for i, subset in enumerate(subsets):
        path = subset.folder / "manifest.json"
        manifest = {**json.loads(path.read_text()), "created": f"2026-01-0{i + 1}T00:00:00+00:00"}
        del manifest["ordinal"]
        path.write_text(json.dumps(manifest))
    (demo.store.folder(Address("demo", "selected_subset")) / "published.jsonl").unlink()
    assert demo.planned(versions=3) == {name(s) for s in subsets[:2]}


def test_a_subset_that_was_held_back_stays_until_it_is_overtaken(demo, subsets):
    held = demo.write("selected_subset", "held back", publish=False)
    assert name(held) not in demo.planned(versions=1)
    demo.write("selected_subset", "next")
    assert name(held) in demo.planned(versions=1)
    assert name(held) not in demo.planned(versions=1, days=10**5)


def test_nothing_published_nothing_removed(demo):
    for text in ("a", "b"):
        demo.write("selected_subset", text, publish=False)
        demo.write("raw", text, shard="s1", publish=False)
        demo.write("centroids", text, publish=False)
    assert demo.planned(present={"s1"}) == set()


def test_what_a_kept_subset_was_drawn_with_stays(demo):
    """Directly, or by way of something it was drawn with."""
    pilots = [demo.write("pilot_model", f"p{i}") for i in range(3)]
    centroids = [
        demo.write("centroids", f"c{i}", upstream={"pilot_model": p.content_hash})
        for i, p in enumerate(pilots)
    ]
    reports = [demo.write("report", f"r{i}") for i in range(3)]
    for i, c in enumerate(centroids):
        demo.write("selected_subset", f"s{i}", upstream={"centroids": c.content_hash})
    assert demo.planned(versions=3) == {name(r) for r in reports[:2]}
    gone = {name(x[0]) for x in (pilots, centroids, reports)} | {name(reports[1])}
    assert demo.planned(versions=2) >= gone
    assert not demo.planned(versions=2) & {name(pilots[1]), name(centroids[1])}
    apply(demo.plan(versions=2))
    assert len(demo.store.versions(Address("demo", "pilot_model"))) == 2


def test_shards_keep_their_current_version_only(demo):
    old = demo.write("raw", "old", shard="s1")
    demo.write("raw", "new", shard="s1")
    demo.write("raw", "only", shard="s2")
    assert demo.planned() == {f"raw/s1/{old.manifest.version}"}
    # the current version is lost: what is left is not taken away as well
    pointer = demo.store.folder(Address("demo", "raw", "s1")) / "current"
    pointer.write_text("0123456789abcdef\n")
    assert demo.planned() == set()


def test_artifacts_of_gone_shards_go(demo, subsets):
    for shard in ("here", "gone"):
        demo.write("raw", shard, shard=shard)
        demo.write("embeddings", shard, shard=shard, index=True)
    demo.store.mark_failed(Address("demo", "raw", "failed"), reason="x", stamp="y")
    demo.store.mark_failed(Address("demo", "raw", "here"), reason="x", stamp="y")
    (note,) = (
        f"embeddings/.recipes/{p.name}"
        for p in (demo.store.root / "demo/embeddings/.recipes").iterdir()
        if p.read_text().startswith("gone/")
    )
    assert demo.planned(versions=5, present={"here", "other"}) == {
        "raw/gone",
        "raw/failed",
        "embeddings/gone",
        note,
    }
    assert demo.planned(versions=5, present=None) == set()
    with pytest.raises(StoreError, match=r"has no shard.*all artifacts would go"):
        demo.plan(present=set())
    apply(demo.plan(versions=5, present={"here"}))
    assert demo.store.shards("demo", "raw") == demo.store.shards("demo", "embeddings") == ["here"]
    assert list(demo.store.failed("demo", "raw")) == ["here"]


def test_linked_files_free_nothing(demo):
    demo.write("embeddings", "x" * 1000, shard="old", index=True)
    alone = demo.plan(present={"new"})
    demo.store.adopt(Address("demo", "embeddings", "new"), Recipe("x" * 1000, "", {}))
    linked = [r for r in demo.plan(present={"new"}) if r.path.name == "old"]
    assert alone[1].bytes - linked[0].bytes == 1000
    apply(linked)
    read = demo.store.need(Address("demo", "embeddings", "new"))
    assert read.path("data.txt").read_text() == "x" * 1000


def test_what_crashes_left_behind_goes(demo, subsets):
    dead = subprocess.Popen(["true"])
    dead.wait()
    demo.write("raw", "x", shard="s1", index=True)
    places = ["", "raw", "raw/s1", "raw/.recipes", "selected_subset"]
    names = {"dead": f".tmp-{dead.pid}-abcdef12", "alive": f".tmp-{os.getpid()}-abcdef12"}
    names["foreign"] = ".tmp-00000000-1-x.1-abcdef12"
    for place in places:
        for text in names.values():
            path = demo.store.root / "demo" / place / text
            path.mkdir()
            (path / "manifest.json").write_text("{}")
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=20)
    expected = {str(Path(p) / names["dead"]) for p in places}
    assert demo.planned(versions=5, now=later) == expected
    later += dt.timedelta(hours=10)
    expected |= {str(Path(p) / names["foreign"]) for p in places}
    assert demo.planned(versions=5, now=later) == expected
    apply(demo.plan(versions=5, now=later))
    left = {p.name for p in demo.store.root.rglob(".tmp-*")}
    assert left == {names["alive"]}


def test_notes_of_what_is_gone_go(demo):
    demo.write("embeddings", "x", shard="s1", index=True)
    notes = demo.store.root / "demo/embeddings/.recipes"
    for number, text in enumerate(["s2/0123456789abcdef", "../..", "", "s1/0123456789abcdef"]):
        (notes / f"bad{number}").write_text(text)
    assert demo.planned() == {f"embeddings/.recipes/bad{i}" for i in range(4)}
    assert len(list(notes.iterdir())) == 5
    apply(demo.plan())
    assert len(list(notes.iterdir())) == 1


def test_links_are_not_followed(demo, subsets, tmp_path):
    """As version, as asset, as leftover and as the data set's folder."""
    precious = tmp_path / "precious"
    shutil.copytree(demo.store.root / "demo", precious)
    folder = demo.store.root / "demo"
    (folder / "linked").symlink_to(precious / "selected_subset")
    (folder / "selected_subset" / "0123456789abcdef").symlink_to(precious)
    (folder / ".tmp-999999999-abcdef12").symlink_to(precious)
    before = sorted(precious.rglob("*"))
    assert demo.planned(versions=1) == {name(s) for s in subsets[:4]}
    apply(demo.plan(versions=1))
    assert sorted(precious.rglob("*")) == before
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="symbolic link"):
        demo.plan()


def test_a_link_inside_what_goes_is_removed_not_followed(demo, subsets, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_text("x" * 10_000)
    (subsets[0].folder / "linked").symlink_to(precious)
    removals = demo.plan(versions=4)
    assert removals[0].bytes < 10_000
    apply(removals)
    assert (precious / "x").exists()
    assert not subsets[0].folder.exists()


def test_nothing_outside_of_the_data_set_is_removed(demo, subsets, tmp_path):
    """Whatever a removal says: its path is looked at again before it goes."""
    good = demo.plan(versions=4)[0]
    (tmp_path / "other").mkdir()
    outside = demo.store.root / "link"
    outside.symlink_to(tmp_path / "other")
    inside = demo.store.root / "demo" / "link"
    inside.symlink_to(tmp_path)
    before = demo.files()
    for path in (
        tmp_path / "other",
        good.root,
        good.root / "demo",
        good.root / "other",
        good.path / ".." / ".." / ".." / ".." / "other",
        inside,
        inside / "other",
    ):
        with pytest.raises(StoreError, match="it is left alone"):
            apply([replace(good, path=path), good])
    assert demo.files() == before  # one that is wrong, and none is carried out
    assert (tmp_path / "other").is_dir()


def test_what_became_current_meanwhile_stays(demo, subsets):
    removals = demo.plan(versions=1)
    demo.store.publish(Address("demo", "selected_subset"), subsets[0].manifest.version)
    apply(removals)
    assert demo.store.need(Address("demo", "selected_subset")).manifest == subsets[0].manifest


def test_a_run_is_waited_for(demo, subsets):
    """Retention of a data set that is being curated by another process."""
    code = (
        "import sys, time; from pathlib import Path; from curation.locks import dataset_lock\n"
        "with dataset_lock(Path(sys.argv[1]), 'demo', owner='run'):\n"
        "    print(1, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(demo.store.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        with pytest.raises(LockTimeout, match="'run'"):
            apply(demo.plan(), wait_seconds=0.2)
        assert all(s.folder.is_dir() for s in subsets)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with dataset_lock(demo.store.root, "demo", owner="prune"):  # planned and done in one go
        apply(demo.plan(), wait_seconds=0.2)
    assert not subsets[0].folder.exists()


def test_what_cannot_be_removed_is_said_and_the_rest_goes(demo, subsets, monkeypatch):
    original = retention.discard

    def refused(path):
        if path == subsets[1].folder.resolve():
            raise PermissionError(13, "Permission denied")
        original(path)

    monkeypatch.setattr(retention, "discard", refused)
    with pytest.raises(StoreError, match=r"bytes were freed; not removed: .*Permission denied"):
        apply(demo.plan())
    assert [s.folder.exists() for s in subsets] == [False, True, False, False, True]


KILLED = """
import datetime as dt, os, shutil, signal, sys
from pathlib import Path
import curation.store.files as files
from curation.retention import apply, plan
from curation.store import Store

class Demo:
    name = "demo"
    store = Store(Path(sys.argv[1]))
removals = plan(Demo, versions=1, days=None, present=None, now=dt.datetime.now(dt.UTC))
original, nth = os.unlink, int(sys.argv[2])
calls = 0
def unlink(*a, **k):
    global calls
    calls += 1
    if calls == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*a, **k)
os.unlink = unlink
apply(removals)
"""


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
def test_killed_in_the_middle_no_half_version_is_left(demo, subsets, nth):
    """A version is whole or gone; the next plan finishes the work."""
    command = [sys.executable, "-c", KILLED, str(demo.store.root), str(nth)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    at = Address("demo", "selected_subset")
    left = [m.version for m in demo.store.versions(at)]
    for version in left:
        assert demo.store.open(at, version).path("data.txt").read_text().startswith("subset")
    folders = {p.name for p in demo.store.folder(at).iterdir() if p.is_dir()}
    assert {f for f in folders if not f.startswith(".")} == set(left)
    assert any(f.startswith(".tmp-") for f in folders)
    apply(demo.plan(versions=1))
    assert {p.name for p in demo.store.folder(at).iterdir()} == {
        "current", "published.jsonl", subsets[4].manifest.version,
    }  # fmt: skip
