"""Points behind an interface, so that arrays, memory maps and readers of files all work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

MIB = 1 << 20


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

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n

    def blocks(self) -> Iterator[tuple[slice, Vectors]]:
        """Yield consecutive blocks with the rows they hold."""
        for start in range(0, self.n, self.step):
            rows = slice(start, min(start + self.step, self.n))
            yield rows, self._finite(self.source[rows], np.arange(rows.start, rows.stop))

    def take(self, rows: Rows) -> Vectors:
        """Return rows in any order, as (m, d) float32."""
        increasing, back = np.unique(rows, return_inverse=True)
        return self._finite(self.source[increasing], increasing)[back]

    def _finite(self, raw: Any, rows: Rows) -> Vectors:
        points = np.ascontiguousarray(raw, dtype=np.float32)
        if points.shape != (len(rows), self.d):
            raise ValueError(
                f"the embeddings' reader returned shape {points.shape} for {len(rows)} rows of "
                f"{self.d} coordinates"
            )
        # the sum of a row is finite unless a coordinate is not (or the row overflows float32)
        if not np.isfinite(points.sum(axis=1, dtype=np.float64)).all():
            row = rows[int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])]
            raise ValueError(
                f"embedding of row {row} has a NaN or infinite coordinate; "
                "leave the row out, or mend its encoding"
            )
        return points
