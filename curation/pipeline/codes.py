"""Classes and groups of rows: a small number for each row, and what the numbers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Codes:
    """Texts of which few differ.

    Attributes
    ----------
    names
        (C,) sorted texts, each of at least one row.
    codes
        (n,) int32 place of each row's text in `names`.
    """

    names: NDArray[np.str_]
    codes: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.codes)

    def __getitem__(self, rows: Rows | slice) -> NDArray[np.str_]:
        """Return the (m,) texts of rows."""
        return self.names[self.codes[rows]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The texts, sorted."""
        return tuple(self.names.tolist())

    def counts(self) -> Rows:
        """Return (C,) how many rows have each text."""
        return np.bincount(self.codes, minlength=len(self.names))

    def only(self, rows: Rows) -> Codes:
        """Return some of the rows, and the texts that they have."""
        codes = self.codes[rows]
        there = np.flatnonzero(np.bincount(codes, minlength=len(self.names)))
        new = np.zeros(len(self.names), dtype=np.int32)
        new[there] = np.arange(len(there), dtype=np.int32)
        return Codes(self.names[there], new[codes])


class CodesBuilder:
    """Makes :class:`Codes` of texts that come block by block."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._blocks: list[NDArray[np.int32]] = []

    def add(self, texts: pl.Series) -> None:
        """Take in the texts of further rows; none may be null."""
        found: Any = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
        own = [self._known.setdefault(t, len(self._known)) for t in found.dictionary.to_pylist()]
        places = found.indices.to_numpy(zero_copy_only=False)
        self._blocks.append(np.array(own, dtype=np.int32)[places])

    def finish(self, keep: NDArray[np.bool_]) -> Codes:
        """Return the rows that are kept."""
        codes = np.concatenate(self._blocks) if self._blocks else np.empty(0, dtype=np.int32)
        if not self._known:
            return Codes(np.empty(0, dtype=np.str_), codes)
        # numpy's texts end before trailing NULs: two texts may be one
        names, place = np.unique(np.array(list(self._known), dtype=np.str_), return_inverse=True)
        return Codes(names, place.astype(np.int32)[codes]).only(np.flatnonzero(keep))
