"""Token ids of many texts, and batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts, one after the other.

    Attributes
    ----------
    ids : numpy.ndarray
        (t,) int32: the ids of all texts.
    begins : numpy.ndarray
        (n + 1,) int64: text i has ``ids[begins[i]:begins[i + 1]]``.
    """

    ids: NDArray[np.int32]
    begins: NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[list[int]]) -> Tokens:
        """Return the tokens of texts given as lists of ids."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        begins = np.concatenate(([0], np.cumsum(lengths)))
        ids = np.empty(int(begins[-1]), dtype=np.int32)
        for begin, row in zip(begins, rows, strict=False):
            ids[begin : begin + len(row)] = row
        return cls(ids, begins)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each text."""
        return np.diff(self.begins)

    def take(self, rows: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some texts, in the order asked for."""
        lengths = self.lengths[rows]
        begins = np.concatenate(([0], np.cumsum(lengths)))
        # Where each token comes from: its place among the taken, moved to where its text begins.
        at = np.arange(begins[-1]) + np.repeat(self.begins[rows] - begins[:-1], lengths)
        return Tokens(self.ids[at], begins)

    def padded(self, fill: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (n, longest) ids, filled up at the end, and the mask: 1 where there is a token."""
        lengths = self.lengths
        mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
        ids = np.full(mask.shape, fill, dtype=np.int64)
        ids[mask] = self.ids
        return ids, mask.astype(np.int64)


def length_batches(lengths: NDArray[np.int64], *, budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers in batches of similar length.

    Parameters
    ----------
    lengths : numpy.ndarray
        (n,) tokens of each row.
    budget : int
        Most tokens in a batch, counted as rows times its longest row; a single row may exceed it.

    Yields
    ------
    numpy.ndarray
        Row numbers; every row once, shortest first, equal lengths in their own order.
    """
    order = np.argsort(lengths, kind="stable")
    ascending, begin = lengths[order], 0
    while begin < len(order):
        end = fill(ascending, begin, budget=budget)
        yield order[begin:end]
        begin = end


def fill(lengths: NDArray[np.int64], begin: int, *, budget: int) -> int:
    """Return where the batch that starts at `begin` ends, for (n,) ascending `lengths`."""
    # A batch of `budget` rows at most: rows without tokens count as one token.
    widths = np.maximum(lengths[begin : begin + budget], 1)
    sizes = np.arange(1, len(widths) + 1) * widths
    return begin + max(1, int(np.searchsorted(sizes, budget, side="right")))
