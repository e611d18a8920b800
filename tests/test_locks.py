"""The lock of a data set: one process at a time, gone with its owner."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curation import locks
from curation.locks import LockTimeout, dataset_lock, holder
from curation.store import StoreError

HOLD = """
import sys, time
from pathlib import Path
from curation.locks import dataset_lock
with dataset_lock(Path(sys.argv[1]), "demo", owner="run [1]"):
    print("held", flush=True)
    {then}
"""
NEXT = """
import sys, time
from pathlib import Path
from curation.locks import dataset_lock
root = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(50):
    with dataset_lock(root, "demo", owner="counter"):
        number = int((root / "number").read_text())
        time.sleep(0.001)
        (root / "number").write_text(str(number + 1))
"""


def start(root: Path, then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """Start a process that holds the lock; return once it has it."""
    code = HOLD.format(then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def held(tmp_path):
    process = start(tmp_path)
    yield process
    end(process)


def take(root: Path, wait_seconds: float = 0.0, **how) -> None:
    with dataset_lock(root, "demo", owner="test", wait_seconds=wait_seconds, **how):
        pass


def test_another_process_is_waited_for_and_named(held, tmp_path):
    told = []
    with pytest.raises(LockTimeout) as caught:
        take(tmp_path, 0.5, told=told.append)
    message = str(caught.value)
    for part in (
        "data set demo",
        "'run [1]'",
        f"pid {held.pid} on",
        "since 20",
        "end that process",
    ):
        assert part in message
    assert len(told) == 1
    assert re.search(rf"demo: waiting for 'run \[1\]' \(pid {held.pid} ", told[0])


def test_who_waits_is_told_again(held, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "TELL_SECONDS", 0.2)
    told = []
    with pytest.raises(LockTimeout):
        take(tmp_path, 0.9, told=told.append)
    assert 2 <= len(told) <= 5


def test_a_killed_holder_frees_the_lock(held, tmp_path):
    assert holder(tmp_path, "demo")["pid"] == held.pid
    os.kill(held.pid, signal.SIGKILL)
    held.wait()
    assert (tmp_path / "demo" / ".lock").read_text() != ""  # what it wrote is still there
    assert holder(tmp_path, "demo") is None
    take(tmp_path)


def test_waiting_ends_when_the_holder_is_done(tmp_path):
    process = start(tmp_path, then="time.sleep(0.5)")
    began = time.monotonic()
    take(tmp_path, 20.0)
    assert time.monotonic() - began < 10.0
    end(process)


def test_holder_of_nothing_is_nobody(tmp_path):
    assert holder(tmp_path, "demo") is None
    with dataset_lock(tmp_path, "demo", owner="me"):
        known = holder(tmp_path, "demo")
        assert (known["owner"], known["pid"]) == ("me", os.getpid())
        assert holder(tmp_path, "other") is None
    assert holder(tmp_path, "demo") is None
    assert (tmp_path / "demo" / ".lock").exists()


def test_it_is_the_process_that_holds_it_from_any_thread(tmp_path):
    """Nested and from another thread at once; free only when the last is done."""
    done = []
    with dataset_lock(tmp_path, "demo", owner="outer"):
        take(tmp_path)
        assert holder(tmp_path, "demo") is not None
        thread = threading.Thread(target=lambda: (take(tmp_path), done.append(1)))
        thread.start()
        thread.join(10)
        assert done == [1]
        assert holder(tmp_path, "demo")["owner"] == "outer"
    assert holder(tmp_path, "demo") is None


def test_an_error_in_the_block_frees_the_lock(tmp_path):
    with pytest.raises(RuntimeError), dataset_lock(tmp_path, "demo", owner="me"):
        raise RuntimeError
    assert holder(tmp_path, "demo") is None


def test_two_processes_never_hold_it_together(tmp_path):
    """Each adds one to a number fifty times; without a lock additions get lost."""
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", NEXT, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.wait(60) == 0
        process.stdin.close()
        process.stdout.close()
    assert (tmp_path / "number").read_text() == "100"


FORK = """
    import os
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_forked_child_does_not_keep_it(tmp_path):
    """Forked while the lock is held, alive after the holder was killed: the lock is free."""
    process = start(tmp_path, then=FORK.strip())
    child = int(process.stdout.readline())
    try:
        end(process)
        os.kill(child, 0)  # it lives
        assert holder(tmp_path, "demo") is None
        take(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def _in_a_child(root: Path, found: multiprocessing.Queue) -> None:
    try:
        take(root, 0.2)
        found.put("taken")
    except LockTimeout:
        found.put("waited")


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_do_not_have_what_the_parent_holds(tmp_path, how):
    """And that they end leaves the parent's lock alone."""
    context = multiprocessing.get_context(how)
    found = context.Queue()
    with dataset_lock(tmp_path, "demo", owner="parent"):
        child = context.Process(target=_in_a_child, args=(tmp_path, found))
        child.start()
        assert found.get(timeout=30) == "waited"
        child.join(30)
        assert holder(tmp_path, "demo")["owner"] == "parent"


def test_a_child_that_leaves_the_block_releases_nothing(tmp_path):
    """A forked child runs to the end of the `with` block as well."""
    with dataset_lock(tmp_path, "demo", owner="parent"):
        forking = dataset_lock(tmp_path, "demo", owner="again")
        forking.__enter__()
        child = os.fork()
        if child == 0:
            try:
                forking.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        forking.__exit__(None, None, None)
        assert holder(tmp_path, "demo")["owner"] == "parent"


def test_a_deleted_file_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """Who locked a file that was deleted meanwhile tries again with the new one."""
    original, deleted = locks._try, []

    def replaced(descriptor, path, **how):
        if not deleted:
            deleted.append(path.unlink())
        return original(descriptor, path, **how)

    monkeypatch.setattr(locks, "_try", replaced)
    with dataset_lock(tmp_path, "demo", owner="me"):
        assert holder(tmp_path, "demo")["owner"] == "me"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS])
def test_no_lock_to_be_had_is_said(tmp_path, monkeypatch, code):
    def refused(*arguments):
        raise OSError(code, os.strerror(code))

    where = (locks.os, "open") if code == errno.EROFS else (locks.fcntl, "flock")
    monkeypatch.setattr(*where, refused)
    with pytest.raises(StoreError, match=r"demo/\.lock: .*can't be locked .*flock"):
        take(tmp_path)


def test_names_and_links_do_not_lead_out_of_the_store(tmp_path):
    for name in ("..", "a/b", ".hidden", ""):
        with pytest.raises(StoreError, match="not the name of a data set"):
            holder(tmp_path, name)
    (tmp_path / "demo").mkdir()
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "demo" / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="can't be locked"):
        take(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "precious"
