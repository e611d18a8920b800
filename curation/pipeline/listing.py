"""The shards a source has, against those that were read: what is new, changed, failed or gone.

A shard's fingerprint is cheap and changes whenever the content may have. Where it changed, the
content is hashed: a file that was touched, copied or renamed is no change. What a fingerprint stood
for is remembered beside the shard's rows, so that a file is hashed once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from curation.pipeline.dataset import RAW, Dataset
from curation.sources import Shard, ShardSource, SourceError
from curation.sources.base import some
from curation.store.files import write_atomically

SEEN = "seen.json"


@dataclass(frozen=True, eq=False)
class Listing:
    """A source as it was listed once.

    Attributes
    ----------
    dataset
        The data set.
    source
        Its source; it speaks of the shards as they were listed.
    shards
        By key, sorted.
    """

    dataset: Dataset
    source: ShardSource
    shards: dict[str, Shard]

    @classmethod
    def of(cls, dataset: Dataset) -> Listing:
        """List the source of a data set.

        Raises
        ------
        curation.sources.SourceError
            If the source is missing.
        """
        source = dataset.source()
        return cls(dataset, source, {s.key: s for s in source.shards()})

    @cached_property
    def read(self) -> frozenset[str]:
        """Shards whose rows are in the store."""
        return frozenset(self.dataset.store.shards(self.dataset.name, RAW))

    @cached_property
    def failed(self) -> dict[str, str]:
        """Shards that could not be read, and the fingerprint they had."""
        marks = self.dataset.store.failed(self.dataset.name, RAW)
        return {key: mark.stamp for key, mark in marks.items()}

    def find(self, key: str) -> Shard:
        """Return one shard.

        Raises
        ------
        curation.sources.SourceError
            If the source has no such shard.
        """
        if key not in self.shards:
            raise SourceError(
                f"data set {self.dataset.name}: the source has no shard {key!r} (it has "
                f"{len(self.shards)}: {some(self.shards, most=10)}); check source.include in "
                f"defs.yaml, or delete the partition {key!r}"
            )
        return self.shards[key]

    def known_content(self, key: str) -> str | None:
        """Return the hash of a shard's content if its fingerprint was seen before."""
        stamp, content = self._seen(key)
        return content if stamp == self.shards[key].fingerprint else None

    def content(self, key: str) -> str:
        """Return the hash of a shard's content; it is read where its fingerprint is new."""
        return self.known_content(key) or self.source.content(key)

    def changed(self, key: str, *, hashing: bool = True) -> bool:
        """Whether a shard has to be read, again or for the first time.

        One that failed is not tried again by itself while its fingerprint is the same. Without
        hashing, one whose fingerprint is new counts as changed.
        """
        stamp = self.find(key).fingerprint
        if key in self.failed:
            return self.failed[key] != stamp
        if key not in self.read:
            return True
        had, content = self._seen(key)
        if had == stamp or not hashing:
            return had != stamp
        now = self.source.content(key)
        if now == content:
            self.note(key, now)
            return False
        return True

    def note(self, key: str, content: str) -> None:
        """Remember what a shard's fingerprint stands for."""
        stamp = self.shards[key].fingerprint
        if self._seen(key) != (stamp, content):
            told = json.dumps({"fingerprint": stamp, "content": content})
            write_atomically(self._file(key), told + "\n")

    def _file(self, key: str) -> Path:
        return self.dataset.store.folder(self.dataset.at(RAW, key)) / SEEN

    def _seen(self, key: str) -> tuple[str, str]:
        try:
            told = json.loads(self._file(key).read_bytes())
            return str(told["fingerprint"]), str(told["content"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", ""  # never read, or damaged: it is hashed again
