"""Reading and writing the tables inside artifacts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.store import Draft

ROWS = "rows.parquet"
QUARANTINE = "quarantine.parquet"
EMBEDDINGS_FILE = "embeddings.arrow"
SCORES = "scores.parquet"
SUBSET = "subset.parquet"
LEFT_OUT = "left_out.parquet"


def write_parquet(draft: Draft, name: str, frame: pl.DataFrame) -> None:
    """Write a frame as zstd Parquet into a draft and note its schema."""
    frame.write_parquet(draft.folder / name, compression="zstd", statistics=True)
    draft.schema.update({column: str(dtype) for column, dtype in frame.schema.items()})


def write_vectors(
    path: Path | pa.NativeFile, columns: dict[str, Any], **vectors: NDArray[np.floating]
) -> None:
    """Write an uncompressed Arrow IPC file, so that rows can be read where they lie.

    Parameters
    ----------
    path
        The file, or one that is open for writing.
    columns
        Plain columns: pyarrow's, or anything it makes an array of.
    vectors
        (n, d) float arrays, written as FixedSizeList columns.
    """
    arrays = {
        name: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        for name, values in columns.items()
    }
    for name, matrix in vectors.items():
        flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
        # Arrow has no lists of length 0, which is what is known of a shard without rows.
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, max(matrix.shape[1], 1))
    table = pa.table(arrays)
    opened = pa.OSFile(str(path), "wb") if isinstance(path, Path) else path
    with opened as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_vectors(path: Path, column: str) -> NDArray[np.float32]:
    """Return an (n, d) float32 view of a vector column, mapped from the file.

    For the few vectors of centroids; those of rows are read with
    :class:`curation.pipeline.vectors.VectorFile`.
    """
    with pa.memory_map(str(path)) as source:
        chunks = pa.ipc.open_file(source).read_all().column(column)
    width = chunks.type.list_size
    parts = [c.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for c in chunks.chunks]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty((0, width), dtype=np.float32)


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write named arrays as safetensors."""
    from safetensors.numpy import save_file

    save_file(arrays, path)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read named arrays."""
    from safetensors.numpy import load_file

    found: dict[str, NDArray[Any]] = load_file(path)
    return found


def read_columns(path: Path, columns: list[str]) -> pl.DataFrame:
    """Return plain columns of an Arrow IPC file as a polars frame."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all().select(columns)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  a table gives a frame
    return frame


def together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Put frames below one another, also where they differ in their columns.

    A column that a frame lacks is null there. One of several types gets the type that holds all of
    them; where there is none (a list here, a number there), it becomes text, with nested values as
    JSON.
    """
    kinds: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            kinds.setdefault(name, set()).add(kind)
    mixed = [name for name, found in kinds.items() if not _go_together(found)]
    plain = [
        frame.with_columns(_as_text(frame[name]) for name in mixed if name in frame.columns)
        for frame in frames
    ]
    return pl.concat(plain, how="diagonal_relaxed")


def _go_together(kinds: set[pl.DataType]) -> bool:
    """Whether a type holds the values of all of these as they are."""
    kinds = kinds - {pl.Null()}
    if len(kinds) < 2:
        return True
    # A number among lists would become a list, and a text among bytes bytes.
    if len({type(k) if k.is_nested() or k == pl.Binary else None for k in kinds}) > 1:
        return False
    try:
        empty = [pl.Series("", [], dtype=kind).to_frame() for kind in kinds]
        pl.concat(empty, how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        return False
    return True


def _as_text(values: pl.Series) -> pl.Series:
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        return pl.Series(values.name, map(_json, values.to_list()), dtype=pl.String)
    return values.cast(pl.String)


def _json(value: Any) -> str | None:
    """Return a value as JSON; bytes, and dates within it, are texts."""
    if isinstance(value, bytes):
        return _inner(value)
    return None if value is None else json.dumps(value, ensure_ascii=False, default=_inner)


def _inner(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


class ColumnHash:
    """A SHA-256 of columns' values that does not depend on the blocks they came in."""

    def __init__(self) -> None:
        self._hashes: dict[str, Any] = {}

    def add(self, *columns: pl.Series) -> None:
        """Take in the next block of each column: texts, or lists of numbers."""
        for place, column in enumerate(columns):
            texts = column.dtype == pl.String
            if texts:
                lengths = column.str.len_bytes()
                data = "".join(column.to_list()).encode()
            else:
                lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
                lengths = lists.list.len()
                flat = lists.explode(empty_as_null=False).cast(pl.Float64)
                data = flat.to_numpy().astype("<f8", copy=False).tobytes()
            kind = "text" if texts else str(column.dtype)
            self._of(f"{place} kind {kind}")
            self._of(f"{place} lengths").update(lengths.to_numpy().astype("<u4").tobytes())
            self._of(f"{place} data").update(data)

    def _of(self, name: str) -> Any:
        return self._hashes.setdefault(name, hashlib.sha256())

    def hexdigest(self) -> str:
        """Return the hash (hex)."""
        told = {name: value.hexdigest() for name, value in self._hashes.items()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class RowWriter:
    """Writes frames of one schema as one zstd Parquet file into a draft, and notes its schema."""

    def __init__(self, draft: Draft, name: str) -> None:
        self._draft, self._path = draft, draft.folder / name
        self._writer: Any = None

    def __enter__(self) -> RowWriter:
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Write a frame as row groups."""
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._draft.schema.update({c: str(kind) for c, kind in frame.schema.items()})
        self._writer.write_table(table)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


def read_blocks(path: Path, columns: list[str], *, rows: int) -> Iterator[pl.DataFrame]:
    """Yield some columns of a Parquet file, at most so many rows at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)  # noqa: S101  a batch gives a frame
            yield frame.select(columns)


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys: equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())
