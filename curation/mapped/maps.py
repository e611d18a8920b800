"""Arrays that lie in memory maps: read ahead, and let go of what was read.

A page of a mapped file that was touched counts as memory of the process until it is let go, so that
reading a large file once through would look like holding all of it.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED = ("r", "r+", "w+")  # of a private copy ("c") changed pages would be lost
AT_A_TIME = 16  # rows taken here and there before the pages around them are let go


def owner_of(array: Any) -> Any:
    """Return the array that an array is a view of, after all; itself where it is none."""
    owner = array
    while isinstance(owner, np.ndarray) and isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner


@dataclass(frozen=True)
class Mapped:
    """A memory map that an array lies in.

    Attributes
    ----------
    file
        The map.
    start
        Its address.
    path
        Of the file; empty where it is not known, or may be written to.
    offset
        Where in the file the map begins, in bytes.
    """

    file: mmap.mmap
    start: int
    path: str = ""
    offset: int = 0

    @classmethod
    def behind(cls, array: Any) -> Mapped | None:
        """Return the map behind an array; None where there is none that may be let go."""
        owner = owner_of(array)
        if not isinstance(owner, np.memmap) or owner.mode not in SHARED:
            return None
        if not isinstance(owner.base, mmap.mmap) or not hasattr(owner.base, "madvise"):
            return None
        return cls(
            owner.base,
            np.frombuffer(owner.base, dtype=np.uint8).ctypes.data,
            str(owner.filename) if owner.filename and owner.mode == "r" else "",
            owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY,
        )

    def want(self, part: NDArray[Any]) -> None:
        """Have the system begin to read the pages of a part of the array."""
        self._advise("MADV_WILLNEED", part)

    def let_go(self, part: NDArray[Any]) -> None:
        """Take the pages of a part out of this process; they stay in the system's cache."""
        self._advise("MADV_DONTNEED", part)

    def take(self, array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of the (n, ...) array that lies in the map, increasing, as a copy."""
        found = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
        for begin in range(0, len(rows), AT_A_TIME):
            some = rows[begin : begin + AT_A_TIME]
            if array.flags.c_contiguous:
                for row in some.tolist():  # all at once: one after the other would wait for each
                    self.want(array[row : row + 1])
            found[begin : begin + AT_A_TIME] = array[some]
            self.let_go(array)  # all of it: pages beside those that were looked at came along
        return found

    def _advise(self, name: str, part: NDArray[Any]) -> None:
        advice = getattr(mmap, name, None)
        if advice is None or not part.size:
            return
        low, high = np.lib.array_utils.byte_bounds(part)
        first = (low - self.start) // mmap.PAGESIZE * mmap.PAGESIZE
        self.file.madvise(advice, first, min(high - self.start, len(self.file)) - first)
