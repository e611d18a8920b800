"""Points behind an interface, so that arrays, memory maps and readers of files all work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from curation.mapped import Direct, Keeping, Mapped, owner_of

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

MIB = 1 << 20
READ_AHEAD = 3  # blocks


@runtime_checkable
class BlockReader(Protocol):
    """What embeddings must offer: a shape, and rows by slice or by increasing indices.

    NumPy arrays and memory maps, h5py data sets and zarr arrays do.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows of a slice, or of an increasing array of indices, as an array."""
        ...


class Points:
    """Rows of a block reader as float32, a block at a time.

    Of a memory map, the next block is read while one is worked on, and what was read is let go, so
    that two blocks are in memory and not the file; three, where it is read past the system's cache
    (:class:`curation.mapped.Keeping`).

    Parameters
    ----------
    source
        (n, d) array, memory map or reader. It is never copied as a whole.
    block_mib
        Largest size of a block of float32 rows.

    Raises
    ------
    ValueError
        If the shape is not (n, d) with n, d >= 1.
    """

    def __init__(self, source: BlockReader, *, block_mib: int = 64) -> None:
        shape = tuple(getattr(source, "shape", ()))
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"expected embeddings of shape (n, d) with n, d >= 1, got {shape}")
        self.source = source
        self.n, self.d = int(shape[0]), int(shape[1])
        self.step = max(1, block_mib * MIB // (4 * self.d))
        self.mapped = Mapped.behind(source)
        # of a file, rows are read faster in their order
        self._in_memory = type(source) is np.ndarray and type(owner_of(source)) is np.ndarray
        self._keeping = Keeping(-(-self.n // self.step))
        self._ones = np.ones(self.d, dtype=np.float32)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n

    def blocks(self, *, backwards: bool = False) -> Iterator[tuple[slice, Vectors]]:
        """Yield consecutive blocks with the rows they hold.

        Parameters
        ----------
        backwards
            The last block first. A file that does not fit into the system's cache is then found
            there in part when it is read a second time.
        """
        places = [
            slice(start, min(start + self.step, self.n)) for start in range(0, self.n, self.step)
        ]
        if backwards:
            places.reverse()
        if self.mapped is None:
            for place in places:
                yield place, self._block(place)
            return
        yield from self._read_ahead(places, self.mapped, backwards)

    def take(self, rows: Rows) -> Vectors:
        """Return rows in any order, as (m, d) float32."""
        if self._in_memory:
            return self._finite(self.source[rows], rows)
        increasing, back = np.unique(rows, return_inverse=True)
        if self.mapped is None:
            raw = self.source[increasing]
        else:
            raw = self.mapped.take(self.source, increasing)  # type: ignore[arg-type]
        return self._finite(raw, increasing)[back]

    def _read_ahead(
        self, places: list[slice], mapped: Mapped, backwards: bool
    ) -> Iterator[tuple[slice, Vectors]]:
        with Direct(mapped) as direct, ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._timed, places[0], direct)
            for number, place in enumerate(places):
                block, seconds, stayed = following.result()
                self._keeping.took(seconds, stayed=stayed)
                if number + 1 < len(places):
                    following = reader.submit(self._timed, places[number + 1], direct)
                # The system reads further ahead than the reader, whose pages are counted: so the
                # disk has something to do while all processors have.
                soon = number + (READ_AHEAD if number else 1)
                if self._keeping.stays:
                    for later in places[soon : number + READ_AHEAD + 1]:
                        mapped.want(self.source[later])
                yield place, block
                del block  # before the next one is waited for: its memory is used again
                # With all that lies behind: pages beside those of a block came along.
                done = slice(place.start, self.n) if backwards else slice(0, place.stop)
                mapped.let_go(self.source[done])

    def _timed(self, place: slice, direct: Direct) -> tuple[Vectors, float, bool]:
        """Read a block; say how long it took, and whether it went through the system's cache."""
        began = time.perf_counter()
        if self._keeping.stays:
            direct.rest()
        else:
            found = direct.read(self.source[place])
            if found is not None:
                block = self._finite(found, np.arange(place.start, place.stop))
                return block, time.perf_counter() - began, False
            self._keeping.never()
        return self._block(place), time.perf_counter() - began, True

    def _block(self, place: slice) -> Vectors:
        return self._finite(self.source[place], np.arange(place.start, place.stop))

    def _finite(self, raw: Any, rows: Rows) -> Vectors:
        points = np.ascontiguousarray(raw, dtype=np.float32)
        if points.shape != (len(rows), self.d):
            raise ValueError(
                f"the embeddings' reader returned shape {points.shape} for {len(rows)} rows of "
                f"{self.d} coordinates"
            )
        # A row's sum is finite unless a coordinate is not, or the sum is too large: look closer.
        with np.errstate(over="ignore", invalid="ignore"):
            doubtful = np.flatnonzero(~np.isfinite(np.vecdot(points, self._ones)))
        wrong = doubtful[~np.isfinite(points[doubtful]).all(axis=1)]
        if len(wrong):
            raise ValueError(
                f"embedding of row {rows[wrong].min()} has a NaN or infinite coordinate; "
                "leave the row out, or mend its encoding"
            )
        return points
