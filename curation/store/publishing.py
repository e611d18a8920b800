"""Which version readers get, and the log of all that were published before it.

The log is a line of JSON per publication, ``published.jsonl``. Its order is that of the lines, and
no clock has a say in it. The pointer is replaced first and the line appended after that; what a
crash in between leaves out is made up for from the pointer, by readers as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from curation.store.files import flocked, fsync, write_atomically
from curation.store.manifests import SAFE_PART, Manifest, StoreError, read_manifest

CURRENT = "current"
LOG = "published.jsonl"


@dataclass(frozen=True)
class Published:
    """One publication.

    Attributes
    ----------
    sequence
        Its number, from 1 on; later is larger whatever the clock said.
    version
        What was published.
    published
        When, by the clock of the host that did it (UTC, ISO 8601): for display.
    content_hash, row_count
        Those of the version, which retention may have removed since.
    """

    sequence: int
    version: str
    published: str
    content_hash: str
    row_count: int


def pointed_at(folder: Path) -> str | None:
    """Return the version that an address' pointer names, None where nothing was published."""
    try:
        return (folder / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def point_at(folder: Path, version: str) -> None:
    """Make a version the one that readers get."""
    write_atomically(folder / CURRENT, version + "\n")


def read_log(folder: Path) -> list[Published]:
    """Return all publications, oldest first, the one that a crash kept from the log included."""
    found, _ = _lines(folder)
    missing = _missing(folder, found)
    return [*found, missing] if missing else found


@contextmanager
def logged(folder: Path, manifest: Manifest, *, now: str) -> Iterator[bool]:
    """Put the log in order, then note a publication that is made in the block.

    Yields
    ------
    bool
        Whether the version is to be published; it isn't if it is the current one already.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(folder / LOG, flags, 0o644)
    try:
        with flocked(descriptor):  # two publications at once get different numbers
            found, whole = _lines(folder)
            if os.fstat(descriptor).st_size > whole:
                os.ftruncate(descriptor, whole)  # a line that a crash cut short
            missing = _missing(folder, found)
            if missing is not None:
                _append(descriptor, missing)
                found.append(missing)
            new = pointed_at(folder) != manifest.version
            yield new
            if new:
                _append(descriptor, _entry(_next(found), manifest, now))
        fsync(folder)
    finally:
        os.close(descriptor)


def _lines(folder: Path) -> tuple[list[Published], int]:
    """Return the entries that can be read, and the bytes up to the end of the last of them."""
    try:
        content = (folder / LOG).read_bytes()
    except FileNotFoundError:
        return [], 0
    found, whole, place = [], 0, 0
    for line in content.splitlines(keepends=True):
        place += len(line)
        entry = _parse(line)
        if entry is not None:
            found.append(entry)
            whole = place
    return sorted(found, key=lambda e: e.sequence), whole


def _parse(line: bytes) -> Published | None:
    """Read a line; None if it is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        raw = json.loads(line)
        entry = Published(**{f.name: raw[f.name] for f in fields(Published)})
    except (ValueError, KeyError, TypeError):
        return None
    return entry if isinstance(entry.sequence, int) and isinstance(entry.version, str) else None


def _missing(folder: Path, found: list[Published]) -> Published | None:
    """Return the entry of the current version if the log does not end with it."""
    version = pointed_at(folder)
    if version is None or not SAFE_PART.match(version):
        return None
    if found and found[-1].version == version:
        return None
    try:
        manifest = read_manifest(folder / version)
    except StoreError:
        return None  # nothing is known of it; opening it says what is wrong
    # when it was made, as nobody noted when it was published: every reader says the same
    return _entry(_next(found), manifest, manifest.created)


def _next(found: list[Published]) -> int:
    return found[-1].sequence + 1 if found else 1


def _entry(sequence: int, manifest: Manifest, when: str) -> Published:
    return Published(sequence, manifest.version, when, manifest.content_hash, manifest.row_count)


def _append(descriptor: int, entry: Published) -> None:
    line = (json.dumps(asdict(entry)) + "\n").encode()
    before = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
        if written < len(line):  # the disk filled up in the middle; asking again says so
            os.write(descriptor, line[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
