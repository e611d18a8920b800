"""What is known of every row, in memory or in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.mapped import Mapped

Rows = NDArray[np.int64]
Values = NDArray[Any]

AT_A_TIME = 1 << 18  # rows of columns that are worked on at a time


def pieces(rows: int) -> Iterator[slice]:
    """Yield slices of at most ``AT_A_TIME`` rows that cover all."""
    for start in range(0, rows, AT_A_TIME):
        yield slice(start, min(start + AT_A_TIME, rows))


class Column:
    """A number for every row, in a file that nobody else sees and that goes with this object.

    It is read and written by slices, and read by indices like an array; what was read is not kept
    in memory. As an array (:meth:`mapped`, or handed to numpy) it is a memory map of the file.

    Parameters
    ----------
    rows
        n.
    dtype
        Of the numbers.
    """

    def __init__(self, rows: int, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = (rows,)
        self._file = tempfile.TemporaryFile(prefix="curation-")  # noqa: SIM115  # goes with it
        self._file.truncate(max(rows, 1) * self.dtype.itemsize)
        self._map: NDArray[Any] | None = None

    def __len__(self) -> int:
        """Return n."""
        return self.shape[0]

    def __setitem__(self, place: slice, values: Values) -> None:
        """Write the values of consecutive rows."""
        data = np.ascontiguousarray(values, dtype=self.dtype).view(np.uint8).data
        at = place.start * self.dtype.itemsize
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            data, at = data[written:], at + written

    def __getitem__(self, rows: Any) -> Any:
        """Return the values of a slice, of an array of indices in any order, or of one row."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._read(start, max(stop - start, 0))
            return self[np.arange(start, stop, step)]
        if isinstance(rows, int | np.integer):
            return self.mapped()[rows]
        which, back = np.unique(np.asarray(rows), return_inverse=True)
        return self._take(which)[back]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        """Return all values in memory."""
        return self._read(0, len(self)).astype(dtype or self.dtype, copy=False)

    def mapped(self) -> Values:
        """Return all values as a memory map; its pages are read when they are looked at."""
        if self._map is None:
            self._map = np.memmap(self._file, dtype=self.dtype, mode="r+", shape=self.shape)
        return self._map

    def _read(self, start: int, count: int) -> Values:
        found = np.empty(count, dtype=self.dtype)
        data, at = found.view(np.uint8).data, start * self.dtype.itemsize
        while data:
            got = os.preadv(self._file.fileno(), [data], at)
            if not got:
                raise OSError(f"a temporary file ended before row {start + count}")
            data, at = data[got:], at + got
        return found

    def _take(self, rows: Rows) -> Values:
        """Return values of increasing rows, letting go of the pages they are on."""
        file = Mapped.behind(self.mapped())
        found = np.empty(len(rows), dtype=self.dtype)
        if file is None or not len(rows):
            found[:] = self.mapped()[rows]
            return found
        ends = np.searchsorted(rows, np.arange(AT_A_TIME, rows[-1] + 1 + AT_A_TIME, AT_A_TIME))
        start = 0
        for end in np.unique(ends).tolist():
            found[start:end] = self.mapped()[rows[start:end]]
            file.let_go(self.mapped())
            start = end
        return found


def column(rows: int, dtype: Any, *, on_disk: bool) -> Any:
    """Return room for a number per row: an array, or a :class:`Column`."""
    return Column(rows, dtype) if on_disk else np.empty(rows, dtype=dtype)
