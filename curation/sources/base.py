"""What every source shares: the shard, its key, its fingerprint and the one error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl


class SourceError(Exception):
    """Data cannot be found or read; the message says where it was looked for and what to do."""


@dataclass(frozen=True)
class Shard:
    """One piece of a data set that arrives, and is processed, on its own.

    Attributes
    ----------
    key : str
        Name within the data set; matches ``^[A-Za-z0-9][A-Za-z0-9._=-]*$``.
    fingerprint : str
        SHA-256 (hex) that changes whenever the shard's content may have changed.
    origin : str
        Where the rows come from, for people.
    """

    key: str
    fingerprint: str
    origin: str


class ShardSource(Protocol):
    """Something that lists shards and reads one of them."""

    def shards(self) -> list[Shard]:
        """Return the shards that have arrived, sorted by key.

        Raises
        ------
        SourceError
            If the folder, package or file is missing.
        """

    def read(self, key: str) -> pl.DataFrame:
        """Return the raw columns of one shard.

        Raises
        ------
        SourceError
            If there is no such shard, or it cannot be read.
        """


def safe_key(text: str) -> str:
    """Return `text` as a shard key: other characters become ``-``, a key starts alphanumerically.

    A text without a single usable character is named by its hash, so that it still has a stable
    key of its own.
    """
    key = re.sub(r"[^A-Za-z0-9._=-]", "-", text)
    cleaned = re.sub(r"^[^A-Za-z0-9]+", "", key)
    return cleaned or f"x{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def digest(*parts: Any) -> str:
    """Return the SHA-256 (hex) of values that JSON can write, kept apart from one another."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def cut(rows: int, *, shards: int, rows_per_shard: int | None) -> list[tuple[int, int]]:
    """Cut ``range(rows)`` into half-open runs, by size if given, else into nearly equal ones.

    There are never more runs than rows, and none is empty.
    """
    if rows_per_shard is not None:
        return [(a, min(a + rows_per_shard, rows)) for a in range(0, rows, rows_per_shard)]
    pieces = min(shards, rows)
    return [(i * rows // pieces, (i + 1) * rows // pieces) for i in range(pieces)]


def numbered(group: str, count: int) -> list[str]:
    """Return `count` keys ``group-00``, ``group-01``, ... padded to at least two digits."""
    width = max(2, len(str(max(count - 1, 0))))
    return [f"{group}-{i:0{width}d}" for i in range(count)]


def some(names: Iterable[str], *, most: int = 20) -> str:
    """Write names for an error message, cut short when there are many."""
    listed = list(names)
    if not listed:
        return "none"
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
