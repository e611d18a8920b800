"""What every source shares: the shard, its key, its fingerprint and the one error."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

UNPARSED = "_unparsed"
"""Column with the reason why a row could not be parsed; null on the others."""

UNPARSED_VALUE = "_unparsed_value"
"""Column with the beginning of such a row's text, where it has one; null on the others."""

_MOST_KEY = 150

VALUE_LENGTH = 200
"""How much of a rejected value is kept, in characters."""

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def readable(text: str) -> str:
    """Return `text` as it can be written: what is no Unicode character is written as its code."""
    return text.encode("utf-8", "backslashreplace").decode()


class SourceError(Exception):
    """Data cannot be found or read; the message says where it was looked for and what to do."""

    def __init__(self, message: str) -> None:
        # Names of files may be no text; a message must be, wherever it is written to. What it
        # repeats of a file must not control a terminal, nor turn the direction of the rest.
        super().__init__(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], readable(message)))


class ShardChanged(SourceError):  # noqa: N818 says what happened, not that something is wrong
    """A shard changed while it was read; what was read of it must not be used."""


@dataclass(frozen=True)
class Shard:
    """One piece of a data set that arrives, and is processed, on its own.

    Attributes
    ----------
    key : str
        Name within the data set; matches ``^[A-Za-z0-9][A-Za-z0-9._=-]*$``.
    fingerprint : str
        SHA-256 (hex) that is cheap and changes whenever the shard's content may have changed. It
        is taken from sizes, times and inode numbers, or from what an object store tells: only
        `ShardSource.content` says whether the content did change.
    origin : str
        Where the rows come from, for people.
    """

    key: str
    fingerprint: str
    origin: str


class ShardSource(Protocol):
    """Something that lists shards and reads one of them.

    It is a view of one moment: `content` and `blocks` speak of the shards as `shards` last listed
    them, and raise `ShardChanged` where that is no longer what is there.
    """

    def shards(self) -> list[Shard]:
        """Return the shards that have arrived, sorted by key; every call lists anew.

        Raises
        ------
        SourceError
            If the folder, package or file is missing.
        """

    def content(self, key: str) -> str:
        """Return a hash (hex) of what a shard holds, which does not depend on its name.

        Raises
        ------
        SourceError
            If there is no such shard, or it cannot be read.
        ShardChanged
            If it is not the one that was listed any more.
        """

    def blocks(self, key: str) -> Iterator[pl.DataFrame]:
        """Return the raw columns of one shard, about `block_mib` MiB at a time.

        All blocks have the same schema, and there is at least one. Rows that could not be parsed
        have their reason in the column `UNPARSED` and nulls in all others but `UNPARSED_VALUE`.

        Raises
        ------
        SourceError
            If there is no such shard, or it cannot be read; perhaps only after some blocks.
        ShardChanged
            After the last block, if the shard changed while it was read.
        """

    def read(self, key: str) -> pl.DataFrame:
        """Return the raw columns of one shard at once: all blocks, read again if it changes.

        Raises
        ------
        SourceError
            If there is no such shard, or it cannot be read.
        """


def safe_key(text: str) -> str:
    """Return `text` as a shard key: other characters become ``-``, a key starts alphanumerically.

    A text without a single usable character is named by its hash, so that it still has a stable
    key of its own; one too long for the name of a file ends in its hash.
    """
    key = re.sub(r"[^A-Za-z0-9._=-]", "-", text)
    cleaned = re.sub(r"^[^A-Za-z0-9]+", "", key)
    hashed = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    if len(cleaned) > _MOST_KEY:
        return f"{cleaned[: _MOST_KEY - 17]}-{hashed[:16]}"
    return cleaned or f"x{hashed[:8]}"


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
