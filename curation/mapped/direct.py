"""A file read past the system's cache, into memory that is used again and again."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.mapped.maps import Mapped

ALIGNED = 4096  # bytes: no device asks for more of where a reading begins and ends
ROOMS = 3  # one is worked on, one is read, and who works has not yet let go of the one before
_FREE = 2  # references to a room that nobody looks into: the list, and the question
_ADDRESSES = Path("/proc/self/maps")


class Direct:
    """Reads parts of a mapped array from the file behind the map.

    The file is opened when the first part is read, and closed at the end of a `with` block.

    Parameters
    ----------
    mapped
        The map, of a file that is only read.
    """

    def __init__(self, mapped: Mapped) -> None:
        self._mapped = mapped
        self._rooms: list[NDArray[np.uint8]] = []
        self._file: int | None = None
        self._possible = hasattr(os, "O_DIRECT") and bool(mapped.path)

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *error: object) -> None:
        self._possible = False
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def rest(self) -> None:
        """Give the memory back."""
        self._rooms = []

    def read(self, part: NDArray[Any]) -> NDArray[Any] | None:
        """Return what a contiguous part of the array holds; None where the system can't.

        The array returned is overwritten once nobody refers to it any more.
        """
        if not self._possible or not part.flags.c_contiguous:
            return None
        if self._file is None:
            self._file = self._opened()
        if self._file is None:
            self._possible = False
            return None
        first = self._mapped.offset + np.lib.array_utils.byte_bounds(part)[0] - self._mapped.start
        begin = first - first % ALIGNED
        size = first - begin + part.nbytes
        room = self._room(-(-size // ALIGNED) * ALIGNED)
        done = 0
        try:
            while done < size:
                got = os.preadv(self._file, [room[done:].data], begin + done)
                done += got
                if not got or (done < size and done % ALIGNED):
                    return None  # cut off meanwhile, or a device that wants it otherwise
        except OSError:
            return None
        return room[first - begin : size].view(part.dtype).reshape(part.shape)

    def _room(self, size: int) -> NDArray[np.uint8]:
        """Return aligned memory that nobody refers to."""
        free = [n for n in range(len(self._rooms)) if sys.getrefcount(self._rooms[n]) <= _FREE]
        fitting = [n for n in free if len(self._rooms[n]) >= size + ALIGNED]
        if fitting:
            room = self._rooms[fitting[0]]
        else:
            kept = [r for n, r in enumerate(self._rooms) if n not in free]
            # a page more: a part of the same size that begins within a page takes one more
            room = np.empty(size + 2 * ALIGNED, np.uint8)
            self._rooms = [*kept, room][-ROOMS:]
        gap = -room.ctypes.data % ALIGNED
        return room[gap : gap + size]

    def _opened(self) -> int | None:
        """Open the file; None where that can't be done, or it is not the one behind the map."""
        with suppress(OSError, ValueError):
            file = os.open(self._mapped.path, os.O_RDONLY | os.O_DIRECT)
            same = False
            try:
                same = self._same(os.fstat(file))
            finally:
                if not same:
                    os.close(file)
            return file if same else None
        return None

    def _same(self, found: os.stat_result) -> bool:
        """Return whether a file is the one behind the map: another may have taken its name."""
        with _ADDRESSES.open("rb") as lines:
            for line in lines:
                addresses, _, _, device, inode, *_ = line.split(maxsplit=5)
                low, high = (int(text, 16) for text in addresses.split(b"-"))
                if low <= self._mapped.start < high:
                    major, minor = (int(text, 16) for text in device.split(b":"))
                    return (major, minor, int(inode)) == (
                        os.major(found.st_dev), os.minor(found.st_dev), found.st_ino,
                    )  # fmt: skip
        return False
