"""One run per data set at a time: a lock in the store that dies with its owner.

The lock is the kernel's (``flock``) on ``<root>/<dataset>/.lock``. It is gone as soon as the
process that holds it is, by SIGKILL as well; there is nothing to clean up, and the file is never
deleted. What stands in the file says who holds the lock, and nothing else.

The lock is the process's: who asks for it again in the same process, from whichever thread, gets it
at once, and it is released when the last of them is done. Child processes don't have it, whether
they were forked or started anew: they must not ask for it while their parent waits for them.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.store import SAFE_PART, StoreError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
TELL_SECONDS = 30.0
POLL_SECONDS = (0.02, 0.5)  # the first wait, and the longest; each is twice the one before


class LockTimeout(StoreError):  # noqa: N818  the name says what happened
    """Another process holds a data set's lock, and held it for too long."""


@dataclass
class _Held:
    descriptor: int
    count: int


_held: dict[Path, _Held] = {}
_guard = threading.Lock()


def _in_child() -> None:
    """Give up, in a forked child, what the parent holds.

    Only the child's copies of the descriptors are closed: the lock stays with the parent.
    """
    global _guard
    for held in _held.values():
        with suppress(OSError):
            os.close(held.descriptor)
    _held.clear()
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    # with the guard: no other thread is between opening the file and noting that it is open
    os.register_at_fork(
        before=lambda: _guard.acquire(),
        after_in_parent=lambda: _guard.release(),
        after_in_child=_in_child,
    )


@contextmanager
def dataset_lock(
    root: Path,
    dataset: str,
    *,
    owner: str,
    wait_seconds: float = 3600.0,
    told: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold a data set's lock in the block; wait while another process holds it.

    Parameters
    ----------
    root
        The store's folder.
    dataset
        Name of the data set.
    owner
        What the lock is held for, such as ``curation run questions``: others are told.
    wait_seconds
        How long to wait; a tenth of a second at least, as who asks for the holder is in the way for
        a moment.
    told
        Called with a sentence that names the holder when waiting begins, and every 30 seconds.

    Raises
    ------
    LockTimeout
        If another process still holds the lock after that time.
    curation.store.StoreError
        If the store can't be written to, or its file system has no locks.
    """
    path = _path(root, dataset)
    _acquire(path, dataset, owner, max(wait_seconds, 0.1), told)
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == pid:  # a child that was forked in the block leaves it too
            _release(path)


def holder(root: Path, dataset: str) -> dict[str, Any] | None:
    """Return who holds a data set's lock now, None if nobody does; doesn't wait.

    Returns
    -------
    dict or None
        ``pid``, ``host``, ``owner``, ``since`` (UTC, ISO 8601), as far as they are known.
    """
    path = _path(root, dataset)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_lock(path, error) from error
    try:
        if _try(descriptor, path, shared=True):
            return None
        return _read(path)
    finally:
        os.close(descriptor)


def _path(root: Path, dataset: str) -> Path:
    if not SAFE_PART.match(dataset):
        raise StoreError(f"{dataset!r} is not the name of a data set")
    return root.resolve() / dataset / LOCK


def _acquire(
    path: Path, dataset: str, owner: str, wait_seconds: float, told: Callable[[str], None] | None
) -> None:
    began = time.monotonic()
    pause, tell_at = POLL_SECONDS[0], began
    while not _attempt(path, owner):
        now = time.monotonic()
        if now - began >= wait_seconds:
            raise LockTimeout(
                f"data set {dataset}: {_who(_read(path))} holds its lock, waited "
                f"{now - began:,.0f} s; wait until that is done or end that process, then try again"
            )
        if told is not None and now >= tell_at:
            told(f"data set {dataset}: waiting for {_who(_read(path))}")
            tell_at = now + TELL_SECONDS
        time.sleep(min(pause, max(wait_seconds - (now - began), 0.0)))
        pause = min(2 * pause, POLL_SECONDS[1])


def _attempt(path: Path, owner: str) -> bool:
    """Take the lock, or join those of this process that have it; say whether that worked."""
    with _guard:
        held = _held.get(path)
        if held is not None:
            held.count += 1
            return True
        descriptor = _open(path)
        try:
            if not _try(descriptor, path) or not _same_file(descriptor, path):
                os.close(descriptor)
                return False
            _write(descriptor, owner)
        except BaseException:
            os.close(descriptor)
            raise
        _held[path] = _Held(descriptor, 1)
        return True


def _release(path: Path) -> None:
    with _guard:
        held = _held[path]
        held.count -= 1
        if held.count == 0:
            del _held[path]
            with suppress(OSError):
                os.ftruncate(held.descriptor, 0)
            # not by closing alone: a child that forks at this moment may have it open as well
            with suppress(OSError):
                fcntl.flock(held.descriptor, fcntl.LOCK_UN)
            os.close(held.descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise _no_lock(path, error) from error


def _try(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    if fcntl is None:
        raise _no_lock(path, OSError("this system has no flock"))
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _no_lock(path, error) from error
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked is still the one under that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False  # the data set's folder was deleted meanwhile


def _no_lock(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: the data set can't be locked ({error}); the store must be in a folder that can "
        "be written to, on a file system with flock (a local disk, NFS 4)"
    )


def _write(descriptor: int, owner: str) -> None:
    """Say who holds the lock; a full disk leaves that open, and the lock held."""
    known = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "owner": owner,
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(known) + "\n").encode(), 0)


def _read(path: Path) -> dict[str, Any]:
    """Return what the holder wrote; it may be about to."""
    for _ in range(5):
        try:
            known = json.loads(path.read_bytes())
            if isinstance(known, dict):
                return known
        except (OSError, ValueError):
            time.sleep(0.01)
    return {}


def _who(known: dict[str, Any]) -> str:
    if not known:
        return "another process"
    return (
        f"{known.get('owner')!r} (pid {known.get('pid')} on {known.get('host')}, since "
        f"{known.get('since')})"
    )
