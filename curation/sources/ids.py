"""Ids of rows: a hash of their content, and which of them were seen before."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import polars as pl
from numpy.typing import NDArray

_Level = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint32]]


def content_ids(
    content: pl.Series,
    label: pl.Series | None,
    target: pl.Series | None,
    *,
    good: NDArray[np.bool_],
) -> pl.Series:
    """Return the ids of the good rows, null elsewhere.

    Each part is preceded by its length, or by -1 if it is not configured, so that no two contents
    are written alike. Lists are written as float64: a shard that happens to hold whole numbers only
    gives the same ids as one with fractions. Adding 0.0 makes -0.0 the same as 0.0.
    """
    rows = np.flatnonzero(good)
    ids: list[str | None] = [None] * len(good)
    if rows.size == 0:
        return pl.Series("id", ids, dtype=pl.String)
    if content.dtype == pl.String:
        inputs = [text.encode() for text in content[rows]]
    else:
        flat = content[rows].explode().cast(pl.Float64).to_numpy()
        matrix = (flat + 0.0).astype("<f8", copy=False).reshape(rows.size, -1)
        inputs = [vector.tobytes() for vector in matrix]
    absent: list[bytes | None] = [None] * rows.size
    labels = absent if label is None else [text.encode() for text in label[rows]]
    targets = absent if target is None else [struct.pack("<d", x + 0.0) for x in target[rows]]
    for row, parts in zip(rows.tolist(), zip(inputs, labels, targets, strict=True), strict=True):
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(struct.pack("<q", -1 if part is None else len(part)))
            hashed.update(part or b"")
        ids[row] = hashed.hexdigest()[:32]
    return pl.Series("id", ids, dtype=pl.String)


def hashes(ids: list[str], *, are_hex: bool) -> NDArray[np.uint64]:
    """Return 128 bits of each id, of shape (n, 2); ids that are their hex form are taken as such.

    The hash is a cryptographic one: ids of other people's making must not collide.
    """
    if are_hex:
        data = bytes.fromhex("".join(ids))
    else:
        blake = hashlib.blake2b
        data = b"".join([blake(i.encode(), digest_size=16).digest() for i in ids])
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2)


class Seen:
    """The ids of a shard's rows so far, in 20 bytes each.

    They are held in sorted runs; a run is merged into the one before it unless that is much
    longer, so that there are few runs and each id is moved few times.
    """

    def __init__(self) -> None:
        self._levels: list[_Level] = []

    def add(self, ids: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take note of rows.

        Parameters
        ----------
        ids : ndarray
            As `hashes` gives them, uint64 of shape (n, 2).
        rows : ndarray
            Numbers of the rows in the shard, increasing.

        Returns
        -------
        ndarray
            int64 of shape (n,): the number of the first row with the same id, or -1 if it is this.
        """
        if not len(rows):
            return np.empty(0, dtype=np.int64)
        order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: of equal ids the first row is first
        high, low, numbers = ids[order, 0], ids[order, 1], rows[order]
        new = np.ones(len(rows), dtype=np.bool_)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        known = self._known(high[new], low[new])
        fresh = known < 0
        run = (high[new][fresh], low[new][fresh], numbers[new][fresh].astype(np.uint32))
        self._keep(run)
        group = np.cumsum(new) - 1
        first = np.where(fresh, numbers[new], known)[group]
        earlier = np.full(len(rows), -1, dtype=np.int64)
        earlier[order] = np.where(first == numbers, -1, first)
        return earlier

    def _known(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        found = np.full(len(high), -1, dtype=np.int64)
        for highs, lows, rows in self._levels:
            at = np.searchsorted(highs, high)
            wanted = np.arange(len(high))
            while wanted.size:  # once, unless the upper halves of two ids are equal
                place = at[wanted]
                inside = place < len(highs)
                wanted, place = wanted[inside], place[inside]
                equal = highs[place] == high[wanted]
                wanted, place = wanted[equal], place[equal]
                hit = lows[place] == low[wanted]
                found[wanted[hit]] = rows[place[hit]]
                wanted = wanted[~hit]
                at[wanted] += 1
        return found

    def _keep(self, run: _Level) -> None:
        while self._levels and len(self._levels[-1][0]) < 2 * len(run[0]):
            last = self._levels.pop()
            order = np.argsort(np.concatenate((last[0], run[0])), kind="stable")
            run = (
                np.concatenate((last[0], run[0]))[order],
                np.concatenate((last[1], run[1]))[order],
                np.concatenate((last[2], run[2]))[order],
            )
        if len(run[0]):
            self._levels.append(run)
