"""Reading and writing the tables inside artifacts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from curation.store import Draft

ROWS = "rows.parquet"
QUARANTINE = "quarantine.parquet"
EMBEDDINGS_FILE = "embeddings.arrow"
SCORES = "scores.parquet"
SUBSET = "subset.parquet"


def write_parquet(draft: Draft, name: str, frame: pl.DataFrame) -> None:
    """Write a frame as zstd Parquet into a draft and note its schema."""
    frame.write_parquet(draft.folder / name, compression="zstd", statistics=True)
    draft.schema.update({column: str(dtype) for column, dtype in frame.schema.items()})


def write_vectors(path: Path, columns: dict[str, Any], **vectors: NDArray[np.floating]) -> None:
    """Write an uncompressed Arrow IPC file, so that readers can map it into memory.

    Parameters
    ----------
    path
        The file.
    columns
        Plain columns: anything pyarrow makes an array of.
    vectors
        (n, d) float arrays, written as FixedSizeList columns.
    """
    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name, matrix in vectors.items():
        flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).ravel())
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    table = pa.table(arrays)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def read_vectors(path: Path, column: str) -> NDArray[np.float32]:
    """Return an (n, d) float32 view of a vector column, mapped from the file."""
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


def series_hash(*series: pl.Series) -> str:
    """Return a SHA-256 (hex) of columns' values, the same for equal values of equal type."""
    sink = pa.BufferOutputStream()
    table = pl.DataFrame(list(series)).rechunk().to_arrow()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys: equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())
