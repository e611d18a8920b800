"""A file read past the system's cache, into memory that is used again and again."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.clustering.mapped import Mapped

ALIGNED = 4096  # bytes: no device asks for more of where a reading begins and ends
ROOMS = 3  # one is worked on, one is read, and who works has not yet let go of the one before
_FREE = 2  # references to a room that nobody looks into: the list, and the question
_ADDRESSES = Path("/proc/self/maps")


class Direct:
    """Reads parts of a mapped array from the file behind the map.

    Parameters
    ----------
    mapped
        The map, of a file that is only read.
    """

    def __init__(self, mapped: Mapped) -> None:
        self._mapped = mapped
        self._rooms: list[NDArray[np.uint8]] = []
        self._file: int | None = None
        if hasattr(os, "O_DIRECT") and mapped.path:
            with suppress(OSError):
                self._file = os.open(mapped.path, os.O_RDONLY | os.O_DIRECT)
                if not self._same(self._file):
                    self.close()

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
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
        if self._file is None or not part.flags.c_contiguous:
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
            room = np.empty(size + ALIGNED, np.uint8)
            self._rooms = [*kept, room][-ROOMS:]
        gap = -room.ctypes.data % ALIGNED
        return room[gap : gap + size]

    def _same(self, file: int) -> bool:
        """Return whether a file is the one behind the map: another may have taken its name."""
        found = os.fstat(file)
        for line in _ADDRESSES.read_text().splitlines():
            addresses, _, _, device, inode, *_ = line.split(maxsplit=5)
            low, high = (int(text, 16) for text in addresses.split("-"))
            if low <= self._mapped.start < high:
                major, minor = (int(text, 16) for text in device.split(":"))
                return (major, minor, int(inode)) == (
                    os.major(found.st_dev), os.minor(found.st_dev), found.st_ino,
                )  # fmt: skip
        return False
