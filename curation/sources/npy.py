"""Arrays in numpy's own format, with a table of the same name beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Source
from curation.sources.base import SourceError
from curation.sources.tables import read_table

COLUMN = "embedding"
SIDECARS = (".parquet", ".csv", ".jsonl")

_MAGIC = b"\x93NUMPY"
_PICKLED = "Pickled arrays are never loaded: save the rows as a float array with numpy.save."


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read one array of shape (n, d), a block of rows at a time.

    Beside ``x.npy``, one of ``x.parquet``, ``x.csv`` and ``x.jsonl`` may give further columns; its
    row `i` belongs to row `i` of the array. It is read whole: it holds what describes the rows.

    Parameters
    ----------
    path : Path
        The array: floats, integers or booleans, of two dimensions or more. Further dimensions are
        flattened, row by row.
    config : Source
        `block_mib`; `encoding` for a CSV beside it.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        `embedding` (List of Float32), then the columns of the table beside it. There is no id.
        NaN and infinities stay, and a number beyond float32 becomes one; they are validated later.

    Raises
    ------
    SourceError
        If the file is damaged, pickled, not numeric or without rows, or if the table beside it has
        another number of rows.
    """
    array = _open(path, where=where)
    beside = _sidecar(path, len(array), config=config, where=where)
    width = array[0].size
    step = max(1, config.block_mib * 2**20 // (4 * width))
    for start in range(0, len(array), step):
        # Copied out of the file here, block by block; an infinity from the cast is meant.
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.array(array[start : start + step], dtype=np.float32).reshape(-1, width)
        rows = pl.Series(COLUMN, part, dtype=pl.Array(pl.Float32, width)).arr.to_list()
        columns = [] if beside is None else beside.slice(start, step).get_columns()
        yield pl.DataFrame([rows, *columns])


def _open(path: Path, *, where: str) -> NDArray[np.generic]:
    """Return the array, mapped from the file: nothing of it has been read yet."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
        if start != _MAGIC:
            raise SourceError(f"{where}: {_foreign(path, start)}")
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (MemoryError, SourceError):
        raise
    except Exception as error:  # hostile headers make numpy raise nearly anything
        reason = str(error).split("\n")[0] or type(error).__name__
        # numpy's words for an array of objects, whose values can only be pickled
        if "Python objects" in reason or "Object arrays" in reason:
            raise SourceError(f"{where}: {path} holds Python objects. {_PICKLED}") from error
        raise SourceError(
            f"{where}: cannot read {path}: {reason}. "
            "It is damaged or was not written to its end; save it again with numpy.save."
        ) from error
    if array.dtype.kind not in "fiub":
        raise SourceError(
            f"{where}: {path} holds {array.dtype}, no numbers of one part. "
            "Save the rows as a float array."
        )
    if array.ndim < 2:
        raise SourceError(
            f"{where}: {path} has the shape {array.shape}, expected (rows, values per row). "
            "Save array.reshape(1, -1) if it is one row, array.reshape(-1, 1) if each is a row."
        )
    if array.size == 0:
        raise SourceError(
            f"{where}: {path} has the shape {array.shape}, no values at all. "
            "Remove the file, or save it again."
        )
    return array


def _foreign(path: Path, start: bytes) -> str:
    if start[:1] == b"\x80":
        return f"{path} is a pickle. {_PICKLED}"
    if start[:2] == b"PK":
        return f"{path} is an archive of arrays (npz). Save each array as a file of its own."
    return f"{path} is not in numpy's format (npy). Save the array with numpy.save."


def _sidecar(path: Path, rows: int, *, config: Source, where: str) -> pl.DataFrame | None:
    found = [p for p in (path.with_suffix(end) for end in SIDECARS) if p.exists()]
    if not found:
        return None
    if len(found) > 1:
        raise SourceError(
            f"{where}: {path} has more than one table beside it, "
            f"{' and '.join(p.name for p in found)}. Keep one of them."
        )
    (file,) = found
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise SourceError(
            f"{where}: {file} leads to {file.resolve()}, outside the folder. Copy it into the "
            "folder."
        )
    table = read_table(file, config=config.model_copy(update={"format": "auto"}), where=where)
    if table.height != rows:
        raise SourceError(
            f"{where}: {path} has {rows} rows, but {file.name} beside it has {table.height}. "
            "Save both again, with the same rows in the same order."
        )
    if COLUMN in table.columns:
        raise SourceError(
            f"{where}: {file} has a column {COLUMN!r}, which is the name of the array's rows. "
            "Rename the column."
        )
    return table
