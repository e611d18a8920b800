"""The rows that are up for selection, and what is held of each: a place, a number, a class.

Of a row's id only a number made of it is kept (see :mod:`curation.sampling.random_numbers`); the
ids themselves stay in the store, where rows that seem to have equal ones are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.pipeline.codes import Codes
from curation.pipeline.dataset import Dataset
from curation.pipeline.numbers import StoredNumbers, number_ids
from curation.pipeline.repeats import LeftOut
from curation.pipeline.stored import ID, open_vectors, raw_rows_at
from curation.pipeline.tables import together
from curation.selection import Numbers

Rows = NDArray[np.int64]

MIB = 2**20
ROWS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Population:
    """Rows of one split over all shards, ordered by shard and row, repeats left out.

    Attributes
    ----------
    dataset
        The data set.
    shards
        Names of the S shards, sorted.
    starts
        (S + 1,) int64 where the rows of each shard begin, and n.
    position
        (n,) int32 position of the row among the shard's accepted rows.
    tags
        (n,) float64 numbers that stand for the rows' ids.
    labels
        (n,) classes, targets as float64, or None.
    groups
        (n,) groups where the settings need them, else None.
    left_out
        Rows that are not in it because an earlier shard, or the holdout, has the same id.
    missing
        Shards the source has whose rows are not there, each with the reason.
    stale
        Shards that have changed and could not be read again, each with the reason: the rows of
        their last good version are used.
    encoder
        What made the embeddings.
    hashes
        By shard: hash of its rows and their embeddings.
    content_hash
        Hash of what the rows and their embeddings are.
    """

    dataset: Dataset
    shards: tuple[str, ...]
    starts: Rows
    position: NDArray[np.int32]
    tags: NDArray[np.float64]
    labels: Codes | NDArray[np.float64] | None
    groups: Codes | None
    left_out: LeftOut
    missing: Mapping[str, str]
    stale: Mapping[str, str]
    encoder: str
    hashes: Mapping[str, str]
    content_hash: str

    def __len__(self) -> int:
        return len(self.position)

    @property
    def repeats(self) -> int:
        """Rows left out because an earlier shard, or the holdout, has the same id."""
        return len(self.left_out)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted; empty without class labels."""
        if self.dataset.columns.label is None or not isinstance(self.labels, Codes):
            return ()
        return self.labels.classes

    @property
    def ids(self) -> pl.Series:
        """(n,) the ids. All of them are read: no stage needs them at once."""
        return self.ids_of(np.arange(len(self)))

    def numbers(self, seed: int) -> Numbers:
        """Return the rows' permanent random numbers, which depend on id and seed alone."""
        return StoredNumbers.over(self, seed)

    def span(self, index: int) -> tuple[int, int]:
        """Return the first row of a shard, given by its place, and the one after its last."""
        return int(self.starts[index]), int(self.starts[index + 1])

    def shard_of(self, rows: Rows) -> Rows:
        """Return the (m,) places in `shards` of rows."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def by_shard(self, rows: Rows) -> Iterator[tuple[str, Rows, NDArray[np.int32]]]:
        """Yield for each shard that rows are of: which of them, and their positions in it."""
        own = self.shard_of(rows)
        for index in np.unique(own):
            here = np.flatnonzero(own == index)
            yield self.shards[index], here, self.position[rows[here]]

    def blocks(self, mib: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the embeddings in order, at most `mib` MiB at a time, with where they belong."""
        for index, shard in enumerate(self.shards):
            start, stop = self.span(index)
            if start == stop:
                continue
            with open_vectors(self.dataset, shard) as file:
                step = max(1, mib * MIB // max(file.width * 4, 1))
                for first in range(start, stop, step):
                    rows = slice(first, min(first + step, stop))
                    yield rows, file.take(self.position[rows])

    def id_blocks(self) -> Iterator[tuple[slice, Any]]:
        """Yield the ids in order, some at a time, as pyarrow arrays, with where they belong."""
        for index, shard in enumerate(self.shards):
            start, stop = self.span(index)
            own = self.position[start:stop]
            if start == stop:
                continue
            with open_vectors(self.dataset, shard) as file:
                for first, ids in file.id_blocks():
                    low, high = np.searchsorted(own, [first, first + len(ids)])
                    if high - low < len(ids):
                        ids = ids.take(own[low:high] - first)
                    yield slice(start + int(low), start + int(high)), ids

    def embeddings(self, rows: Rows) -> NDArray[np.float32]:
        """Return the (m, d) embeddings of chosen rows, in their order."""
        found: NDArray[np.float32] | None = None
        for shard, here, position in self.by_shard(rows):
            with open_vectors(self.dataset, shard) as file:
                if found is None:
                    found = np.empty((len(rows), file.width), dtype=np.float32)
                found[here] = file.take(position)
        return found if found is not None else np.empty((0, 0), dtype=np.float32)

    def ids_of(self, rows: Rows) -> pl.Series:
        """Return the (m,) ids of chosen rows, in their order."""
        parts, places = [], []
        for shard, here, position in self.by_shard(rows):
            with open_vectors(self.dataset, shard) as file:
                parts.append(file.take_ids(position))
            places.append(here)
        if not parts:
            return pl.Series(ID, [], dtype=pl.String)
        return pl.concat(parts)[np.argsort(np.concatenate(places))]

    def find(self, ids: pl.Series) -> Rows:
        """Return the (m,) rows that have these ids; -1 where none has.

        Rows are found by the numbers that stand for their ids, and compared by the ids.
        """
        wanted = np.sort(number_ids(ids.to_arrow(compat_level=pl.CompatLevel.oldest())))
        found = []
        for start in range(0, len(self) if len(wanted) else 0, ROWS_AT_A_TIME):
            block = self.tags[start : start + ROWS_AT_A_TIME]
            place = np.minimum(np.searchsorted(wanted, block), len(wanted) - 1)
            found.append(start + np.flatnonzero(wanted[place] == block))
        rows = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        index = pl.DataFrame({ID: self.ids_of(rows), "_row": rows})
        place_of = ids.alias(ID).to_frame().join(index, on=ID, how="left", maintain_order="left")
        return place_of["_row"].fill_null(-1).cast(pl.Int64).to_numpy()

    def rows(self, chosen: Rows, columns: list[str] | None = None) -> pl.DataFrame:
        """Return raw rows of chosen indices, in their order, with a `shard` column."""
        frames, places = [], []
        for shard, here, position in self.by_shard(chosen):
            rows = raw_rows_at(self.dataset, shard, position, columns)
            frames.append(rows.with_columns(pl.lit(shard).alias("shard")))
            places.append(here)
        return together(frames)[np.argsort(np.concatenate(places))]

    def only(self, rows: Rows) -> Population:
        """Return some of the rows, given in their order."""
        labels = self.labels
        if isinstance(labels, Codes):
            labels = labels.only(rows)
        elif labels is not None:
            labels = labels[rows]
        return replace(
            self,
            starts=np.searchsorted(rows, self.starts),
            position=self.position[rows],
            tags=self.tags[rows],
            labels=labels,
            groups=None if self.groups is None else self.groups.only(rows),
        )
