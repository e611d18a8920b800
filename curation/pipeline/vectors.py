"""Files of ids and vectors, read in pieces: what is not asked for is never in memory.

Pages of a mapped file count as memory of the process that touches them, and rows taken here and
there touch nearly all. The pieces are therefore read into memory of their own.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from curation.pipeline.tables import write_vectors
from curation.store import StoreError

Rows = NDArray[np.int64]

ID = "id"
IDS_AT_A_TIME = 1 << 15
GAP = 1 << 14  # bytes between two rows that are read along: cheaper than a further call
PIECE = 1 << 22  # bytes read at a time


@dataclass(frozen=True)
class _Batch:
    """Where a record batch lies in its file: its first row, its end, and offsets in bytes."""

    first: int
    end: int
    vectors: int
    offsets: int
    text: int
    wide: bool


class VectorFile:
    """An Arrow IPC file of :class:`VectorWriter`, opened for reading in pieces.

    Parameters
    ----------
    path
        The file, uncompressed.
    column
        The vector column.

    Attributes
    ----------
    width
        Length of a vector.
    """

    def __init__(self, path: Path, column: str = "embedding") -> None:
        self._path = path
        self._file: IO[bytes] = path.open("rb", buffering=0)
        self._batches: list[_Batch] = []
        self.width = 0
        self._rows = 0
        with pa.memory_map(str(path)) as source:
            whole = source.read_buffer()
            reader = pa.ipc.open_file(pa.BufferReader(whole))
            self.width = int(reader.schema.field(column).type.list_size)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                if batch.num_rows:
                    self._note(batch, column, whole.address)

    def _note(self, batch: pa.RecordBatch, column: str, base: int) -> None:
        values = batch.column(column)
        _, offsets, text = batch.column(ID).buffers()
        first = self._rows
        self._rows += batch.num_rows
        self._batches.append(
            _Batch(
                first,
                self._rows,
                values.values.buffers()[1].address - base,
                offsets.address - base,
                (text.address if text is not None else base) - base,
                pa.types.is_large_string(batch.column(ID).type),
            )
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def vectors(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the (stop - start, d) float32 vectors of neighbouring rows."""
        found = np.empty((stop - start, self.width), dtype=np.float32)
        for batch, low, high in self._parts(start, stop):
            at = batch.vectors + 4 * self.width * (low - batch.first)
            self._read(at, found[low - start : high - start])
        return found

    def take(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return the (m, d) float32 vectors of rows in any order."""
        found = np.empty((len(rows), self.width), dtype=np.float32)
        line, places = _sorted(rows)
        size = 4 * max(self.width, 1)
        for low, high in _runs(line, GAP // size, max(1, PIECE // size)):
            first = int(line[low])
            piece = self.vectors(first, int(line[high - 1]) + 1)
            here = slice(low, high) if places is None else places[low:high]
            found[here] = piece[line[low:high] - first]
        return found

    def ids(self, start: int, stop: int) -> pa.Array:
        """Return the ids of neighbouring rows."""
        parts = [
            self._ids(batch, low - batch.first, high - batch.first)
            for batch, low, high in self._parts(start, stop)
        ]
        if len(parts) == 1:
            return parts[0]
        return pa.concat_arrays(parts) if parts else pa.array([], type=pa.string())

    def take_ids(self, rows: NDArray[Any]) -> pl.Series:
        """Return the ids of rows in any order."""
        line, places = _sorted(rows)
        parts = []
        for low, high in _runs(line, 256, IDS_AT_A_TIME):
            first = int(line[low])
            piece = _series(self.ids(first, int(line[high - 1]) + 1))
            parts.append(piece[line[low:high] - first])
        if not parts:
            return pl.Series(ID, [], dtype=pl.String)
        found = pl.concat(parts)
        return found if places is None else found[np.argsort(places, kind="stable")]

    def id_blocks(self, rows: int = IDS_AT_A_TIME) -> Iterator[tuple[int, pa.Array]]:
        """Yield the first row and the ids of each block of rows, in order."""
        for start in range(0, len(self), rows):
            yield start, self.ids(start, min(start + rows, len(self)))

    def _ids(self, batch: _Batch, low: int, high: int) -> pa.Array:
        kind = np.dtype("<i8" if batch.wide else "<i4")
        offsets = np.empty(high - low + 1, dtype=kind)
        self._read(batch.offsets + kind.itemsize * low, offsets)
        text = np.empty(int(offsets[-1] - offsets[0]), dtype=np.uint8)
        self._read(batch.text + int(offsets[0]), text)
        offsets -= offsets[0].copy()
        make = pa.LargeStringArray if batch.wide else pa.StringArray
        return make.from_buffers(high - low, pa.py_buffer(offsets), pa.py_buffer(text))

    def _parts(self, start: int, stop: int) -> Iterator[tuple[_Batch, int, int]]:
        """Yield the batches that rows lie in, with the first row in each and the one after."""
        if not 0 <= start <= stop <= self._rows:
            raise IndexError(f"rows {start} to {stop} of {self._rows} in {self._path}")
        for batch in self._batches:
            low, high = max(start, batch.first), min(stop, batch.end)
            if low < high:
                yield batch, low, high

    def _read(self, offset: int, into: NDArray[Any]) -> None:
        view = memoryview(into.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        self._file.seek(offset)
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not got:
                raise StoreError(f"{self._path} ends too early: it was cut off")
            done += got


def _series(ids: pa.Array) -> pl.Series:
    found = pl.from_arrow(ids)
    assert isinstance(found, pl.Series)  # noqa: S101  an array gives a series
    return found.alias(ID)


def _sorted(rows: NDArray[Any]) -> tuple[NDArray[Any], Rows | None]:
    """Return rows in ascending order, and which each was; None where they were in order."""
    if len(rows) < 2 or np.all(rows[1:] >= rows[:-1]):
        return rows, None
    places = np.argsort(rows, kind="stable")
    return rows[places], places


def _runs(line: NDArray[Any], gap: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield places of ascending rows that are read in one go: near each other, and not too many."""
    if not len(line):
        return
    parted = (np.diff(line) > gap + 1) | (np.diff(line // most) > 0)
    ends = [*(np.flatnonzero(parted) + 1).tolist(), len(line)]
    low = 0
    for high in ends:
        yield low, high
        low = high


def id_texts(ids: pa.Array) -> NDArray[np.str_]:
    """Return ids as numpy's fixed-width texts; where they are ASCII, without an object for each.

    As everywhere in numpy, NULs at the end of an id are no part of it.
    """
    if not len(ids):
        return np.empty(0, dtype=np.str_)
    ends = _ends(ids)
    codes = np.frombuffer(ids.buffers()[2] or b"", dtype=np.uint8)[ends[0] : ends[-1]]
    if len(codes) and codes.max() >= 128:
        return np.array(ids.to_pylist(), dtype=np.str_)
    lengths = np.diff(ends)
    width = int(lengths.max(initial=1)) or 1
    wide = np.zeros((len(ids), width), dtype=np.uint32)
    if np.all(lengths == width):
        wide[:] = codes.reshape(-1, width)
    else:
        wide[np.arange(width) < lengths[:, None]] = codes
    return wide.view(f"<U{width}").reshape(-1)


def longest(ids: pa.Array) -> int:
    """Return the bytes of the longest id."""
    return int(np.diff(_ends(ids)).max(initial=0)) if len(ids) else 0


def _ends(ids: pa.Array) -> NDArray[np.int64]:
    """Return (m + 1,) where each id begins, and the last one ends, among all their bytes."""
    kind = np.dtype("<i8" if pa.types.is_large_string(ids.type) else "<i4")
    return np.frombuffer(ids.buffers()[1], dtype=kind)[ids.offset : ids.offset + len(ids) + 1]


class VectorWriter:
    """Writes an Arrow IPC file of ids and vectors, some rows at a time.

    The vectors go to a file first and are written from there: a reader is to find them in one
    piece. Of a shard, its ids are held.

    Attributes
    ----------
    rows, width
        Vectors written, and their length.
    norms
        Sum of their norms.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.rows, self.width, self.norms = 0, 0, 0.0
        self._path, self._column = path, column
        self._flat = path.with_name(path.name + ".flat")
        self._ids: list[pa.Array] = []
        self._file: Any = None

    def __enter__(self) -> VectorWriter:
        self._file = self._flat.open("wb")
        return self

    def write(self, ids: pl.Series, matrix: NDArray[np.float32]) -> None:
        """Write rows."""
        if len(matrix):
            self.width = matrix.shape[1]
        self.rows += len(matrix)
        self.norms += float(np.linalg.norm(matrix, axis=1).sum(dtype=np.float64))
        self._ids.append(pa.array(ids.to_list(), type=pa.string()))
        self._file.write(np.ascontiguousarray(matrix, dtype="<f4").data)

    def __exit__(self, error: object, *more: object) -> None:
        self._file.close()
        try:
            if error is None:
                self._finish()
        finally:
            self._flat.unlink()

    def _finish(self) -> None:
        ids = pa.chunked_array(self._ids, type=pa.string())
        if ids.nbytes < 2**31:  # else the offsets of one piece could not count that far
            ids = ids.combine_chunks()
        if not self.rows:
            none = np.empty((0, self.width), dtype=np.float32)
            write_vectors(self._path, {ID: ids}, **{self._column: none})
            return
        with self._flat.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            matrix = np.frombuffer(pages, dtype="<f4").reshape(self.rows, self.width)
            with self._path.open("wb") as out:
                sink = pa.PythonFile(_Releasing(out, pages), mode="w")
                write_vectors(sink, {ID: ids}, **{self._column: matrix})


class _Releasing:
    """A file that lets go of a mapping's pages while it is written from them."""

    closed = False

    def __init__(self, file: IO[bytes], pages: mmap.mmap) -> None:
        self._file, self._pages = file, pages

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE):
            self._file.write(view[start : start + PIECE])
            if hasattr(mmap, "MADV_DONTNEED"):
                self._pages.madvise(mmap.MADV_DONTNEED)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave the file to whoever opened it."""

    def tell(self) -> int:
        return self._file.tell()
