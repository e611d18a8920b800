"""Files of the store: temporary names, changes that survive a crash, and full disks."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

TEMPORARY = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT)
# what libraries written in other languages say, whose exceptions carry no errno
FULL_WORDS = ("no space left on device", "os error 28", "disk quota exceeded")


def temporary_path(folder: Path) -> Path:
    """Return a new temporary name in a folder, which says who writes it.

    ``.tmp-<host>-<pid>-<start>-<random>``: process ids are used again, by other hosts and after a
    while by the same one, so that host and start time of the process are part of the name.
    """
    pid = os.getpid()
    name = f"{TEMPORARY}{_host()}-{pid}-{_started(pid) or 'unknown'}-{uuid.uuid4().hex[:8]}"
    return folder / name


def is_abandoned(name: str) -> bool | None:
    """Whether the writer of a temporary name is dead; None if that can't be told from here.

    Names of an earlier version, ``.tmp-<pid>-<random>``, are understood as well.
    """
    parts = name.removeprefix(TEMPORARY).split("-")
    if len(parts) == 2 and parts[0].isdigit():
        return not _alive(int(parts[0]))
    if len(parts) != 4 or not parts[1].isdigit() or parts[0] != _host():
        return None
    pid, started = int(parts[1]), parts[2]
    if not _alive(pid):
        return True
    return started != "unknown" and _started(pid) not in (started, None)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders and files whose writer is dead."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if is_abandoned(path.name):
            with suppress(OSError):  # it is in nobody's way
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there; symbolic links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder so that at no moment a part of it looks like the whole."""
    aside = temporary_path(path.parent)
    path.rename(aside)
    fsync(path.parent)  # else the removal below could reach the disk before the new name
    remove(aside)


def write_atomically(path: Path, text: str, *, beside: Path | None = None) -> None:
    """Replace a small file by one with the given text, on the disk when this returns.

    Parameters
    ----------
    path, text
        The file, and what is to be in it.
    beside
        Folder of the temporary file, on the same file system; left out, the file's own.
    """
    temporary = temporary_path(beside or path.parent)
    try:
        temporary.write_text(text, encoding="utf-8")
        fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync(path.parent)


def bring_to_disk(folder: Path) -> None:
    """Make what lies in a folder readable by all, and bring it to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes 0600: a store is shared
        fsync(path)
    fsync(folder)


def put_in_place(temporary: Path, final: Path) -> None:
    """Rename a folder; one that is there under that name goes only if that succeeds."""
    if not os.path.lexists(final):
        temporary.rename(final)
    else:
        aside = temporary_path(final.parent)
        final.rename(aside)
        try:
            temporary.rename(final)
        except BaseException:
            aside.rename(final)
            raise
        remove(aside)
    fsync(final.parent)


def fsync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if path.is_dir() else 0)
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def flocked(descriptor: int) -> Iterator[None]:
    """Hold the lock of an open file for a moment; without effect where there are no such locks."""
    held = False
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held = True
    try:
        yield
    finally:
        if held:
            # closing would not do: a process that was forked meanwhile has the file open as well
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, is for want of space on the disk."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in FULL:
            return True
        if any(words in str(found).lower() for words in FULL_WORDS):
            return True
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return False


@lru_cache(maxsize=1)
def _host() -> str:
    """Return a hash of host and process namespace: where a process id means the same process."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115  no path: pid:[4026531836]
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()}\0{namespace}".encode()).hexdigest()[:8]


def _stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; empty if it says nothing."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name in parentheses may hold anything


def _started(pid: int) -> str | None:
    """Return when a process started: the boot, and clock ticks since then."""
    fields = _stat(pid)
    if len(fields) < 20:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        boot = ""
    return f"{boot}.{fields[19]}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return _stat(pid)[:1] not in (["Z"], ["X"])  # dead, and not yet asked for by its parent
