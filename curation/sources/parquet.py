"""Parquet files, some pages at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import Source
from curation.sources.text import check_names, reading

_MOST_ROWS = 8192
_PROBE = 64


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the columns of one file, about ``config.block_mib`` MiB at a time.

    Parameters
    ----------
    path : Path
        The file; neither glob signs in its name nor columns in its folders' names mean anything.
    config : Source
        `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        The file's columns.

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    size = config.block_mib * 2**20
    # Not mapped into memory: if the file were cut meanwhile, the process would be killed.
    with (
        reading(path, format="parquet", where=where),
        pa.OSFile(str(path)) as raw,
        pq.ParquetFile(raw, buffer_size=2**20) as file,
    ):
        check_names(file.schema_arrow.names)
        rows = _step(file, size)
        for table in gathered(file.iter_batches(rows), file.schema_arrow, size=size):
            yield as_frame(table)


def _step(file: pq.ParquetFile, size: int) -> int:
    """Return how many rows are decoded at a time.

    What the file states of its size says nothing where values are stored once and repeated, so the
    first rows are looked at as well.
    """
    groups = range(file.metadata.num_row_groups)
    stated = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    per_row = stated // max(1, file.metadata.num_rows)
    for first in file.iter_batches(_PROBE):
        per_row = max(per_row, first.nbytes // max(1, first.num_rows))
        break
    return max(1, min(_MOST_ROWS, size // (4 * max(1, per_row))))


def gathered(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, *, size: int
) -> Iterator[pa.Table]:
    """Join small batches to tables of about `size` bytes; without any, return an empty one.

    Every batch is checked: polars trusts what it is handed, and anyone may have written the file.
    """
    held: list[pa.RecordBatch] = []
    length, any_yet = 0, False
    for batch in batches:
        batch.validate(full=True)
        if held and length + batch.nbytes > size:
            yield pa.Table.from_batches(held, schema=schema)
            held, length, any_yet = [], 0, True
        held.append(batch)
        length += batch.nbytes
    if held or not any_yet:
        yield pa.Table.from_batches(held, schema=schema)


def as_frame(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table as a frame, also one without columns."""
    frame = pl.from_arrow(table)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError(f"expected a table, got {type(frame).__name__}")
    return frame
