"""Rows that several shards hold: which one stays, and which are left out.

Rows with the same id have the same number (see :mod:`curation.pipeline.numbers`). The others can
have it by chance, so that rows with one number are compared by their ids before one is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.pipeline.dataset import Dataset
from curation.pipeline.stored import ID, open_vectors, raw_rows_at

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

AT_A_TIME = 1 << 20  # rows whose ids are compared, or written, at a time


@dataclass(frozen=True)
class LeftOut:
    """Rows that are left out because an earlier row, or the holdout, has the same id.

    Attributes
    ----------
    dataset, shards
        The data set, and the names of its shards.
    shard, position
        (m,) int32 place of each row's shard, and its position among the accepted rows.
    first
        (m,) int32 place of the shard whose row stays; -1: it is in the holdout.
    """

    dataset: Dataset
    shards: tuple[str, ...]
    shard: NDArray[np.int32]
    position: NDArray[np.int32]
    first: NDArray[np.int32]

    @classmethod
    def none(cls, dataset: Dataset) -> LeftOut:
        """Return no rows."""
        empty = np.empty(0, dtype=np.int32)
        return cls(dataset, (), empty, empty, empty)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.shard)

    def write(self, path: Path) -> None:
        """Write ``shard, row, field, reason, value`` as Parquet, some rows at a time."""
        with pq.ParquetWriter(path, _described(self, slice(0)).schema, compression="zstd") as out:
            for start in range(0, len(self), AT_A_TIME):
                out.write_table(_described(self, slice(start, start + AT_A_TIME)))


def _described(left_out: LeftOut, part: slice) -> Any:
    """Return rows that are left out with the reason."""
    shard, position, first = (
        column[part] for column in (left_out.shard, left_out.position, left_out.first)
    )
    told = [
        "the holdout has the same id" if i < 0 else f"same id as a row of shard {name}"
        for i, name in ((i, left_out.shards[i]) for i in first.tolist())
    ]
    ids, numbers = [pl.Series(ID, [], dtype=pl.String)], [pl.Series("row", [], dtype=pl.UInt32)]
    for index in np.unique(shard):
        name, own = left_out.shards[index], position[shard == index]
        with open_vectors(left_out.dataset, name) as file:
            ids.append(file.take_ids(own))
        numbers.append(raw_rows_at(left_out.dataset, name, own, ["row"])["row"])
    names = pl.Series("shard", list(left_out.shards), dtype=pl.String)
    frame = pl.DataFrame(
        {
            "shard": names.gather(shard) if len(shard) else names.head(0),
            "row": pl.concat(numbers),
            "field": pl.Series([ID] * len(shard), dtype=pl.String),
            "reason": pl.Series(told, dtype=pl.String),
            "value": pl.concat(ids),
        }
    )
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


@dataclass(frozen=True)
class Every:
    """The rows of all shards before repeats are left out.

    Attributes
    ----------
    dataset, shards
        The data set, and the names of its S shards.
    starts
        (S + 1,) int64 where the rows of each shard begin.
    tags
        (N,) float64 numbers that stand for the ids.
    own
        (N,) whether a row is of the split that is asked for.
    """

    dataset: Dataset
    shards: tuple[str, ...]
    starts: Rows
    tags: Floats
    own: Mask

    def place(self, rows: Rows) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the (m,) places of the rows' shards, and positions in these."""
        shard = np.searchsorted(self.starts, rows, side="right") - 1
        return shard.astype(np.int32), (rows - self.starts[shard]).astype(np.int32)

    def ids(self, rows: Rows) -> pl.Series:
        """Return the (m,) ids of ascending rows."""
        shard, position = self.place(rows)
        parts = [pl.Series(ID, [], dtype=pl.String)]
        for index in np.unique(shard):
            with open_vectors(self.dataset, self.shards[index]) as file:
                parts.append(file.take_ids(position[shard == index]))
        return pl.concat(parts)


def first_of_each(every: Every, *, apart: bool) -> tuple[Mask, LeftOut]:
    """Return which rows of the split stay, and those that are left out.

    Of rows with one id the first stays; with `apart`, none where a row of the other split has it:
    what is held out must never be trained on.
    """
    keep, gone, firsts = every.own.copy(), [], []
    for rows in _suspects(every, apart=apart):
        table = pl.DataFrame({ID: every.ids(rows), "_row": rows, "_own": every.own[rows]})
        own = table.filter("_own")
        stays = own.unique(subset=ID, keep="first", maintain_order=True)
        if apart:
            held = table.filter(~pl.col("_own")).select(ID)
            stays = stays.join(held, on=ID, how="anti", maintain_order="left")
        out = own.join(stays.select("_row"), on="_row", how="anti", maintain_order="left")
        first = stays.select(ID, pl.col("_row").alias("_first"))
        out = out.join(first, on=ID, how="left", maintain_order="left")
        gone.append(out["_row"].to_numpy())
        firsts.append(out["_first"].fill_null(-1).to_numpy())
    if not gone:
        return keep, LeftOut.none(every.dataset)
    out_rows, first_rows = np.concatenate(gone), np.concatenate(firsts)
    keep[out_rows] = False
    order = np.argsort(out_rows, kind="stable")
    shard, position = every.place(out_rows[order])
    of_first = np.where(first_rows >= 0, every.place(first_rows)[0], -1).astype(np.int32)[order]
    return keep, LeftOut(every.dataset, every.shards, shard, position, of_first)


def _suspects(every: Every, *, apart: bool) -> Iterator[Rows]:
    """Yield ascending rows whose numbers are not theirs alone, all with one number together."""
    line = np.sort(every.tags if apart else every.tags[every.own])
    twice = np.unique(line[1:][line[1:] == line[:-1]])
    if not len(twice):
        return
    times = np.searchsorted(line, twice, "right") - np.searchsorted(line, twice, "left")
    del line
    part = np.cumsum(times) // AT_A_TIME
    for number in np.unique(part):
        wanted = twice[part == number]
        found = []
        for start in range(0, len(every.tags), AT_A_TIME):
            block = every.tags[start : start + AT_A_TIME]
            place = np.minimum(np.searchsorted(wanted, block), len(wanted) - 1)
            found.append(start + np.flatnonzero(wanted[place] == block))
        yield np.concatenate(found)
