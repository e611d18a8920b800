"""Shards that could not be read or computed, remembered beside what was published before."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from curation.store.files import fsync, write_atomically

FAILED = "failed.json"


@dataclass(frozen=True)
class Failed:
    """Why a shard has no artifact of its present content.

    Attributes
    ----------
    reason
        What is to be said of it.
    stamp
        What it failed with, such as the fingerprint of its file: while that is the same, trying
        again is in vain.
    when
        When it failed (UTC, ISO 8601): for display.
    """

    reason: str
    stamp: str
    when: str


def write_mark(folder: Path, *, reason: str, stamp: str) -> None:
    """Mark the shard of a folder as failed; nothing changes where it is marked so already."""
    before = read_mark(folder)
    if before is not None and (before.reason, before.stamp) == (reason, stamp):
        return
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    folder.mkdir(parents=True, exist_ok=True)
    mark = Failed(reason, stamp, now)
    write_atomically(folder / FAILED, json.dumps(asdict(mark), indent=1) + "\n")


def read_mark(folder: Path) -> Failed | None:
    """Return why the shard of a folder failed, None if it did not."""
    try:
        raw = json.loads((folder / FAILED).read_bytes())
        return Failed(str(raw["reason"]), str(raw["stamp"]), str(raw["when"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        # it failed, all else is lost: with a stamp like no other it is tried again
        return Failed(f"unknown: {folder / FAILED} can't be read", "", "")


def remove_mark(folder: Path) -> None:
    """Take back that the shard of a folder failed."""
    try:
        (folder / FAILED).unlink()
    except FileNotFoundError:
        return
    fsync(folder)
