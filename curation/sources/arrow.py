"""Arrow IPC files and streams, mapped into memory and read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from curation.config import Source
from curation.sources.parquet import as_frame, gathered
from curation.sources.text import check_names, reading

_FILE, _FEATHER_V1 = b"ARROW1", b"FEA1"


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the columns of one file, about ``config.block_mib`` MiB at a time.

    Parameters
    ----------
    path : Path
        The file format (Feather's second version), or a stream as `datasets` writes it.
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
    with reading(path, format="arrow", where=where):
        with path.open("rb") as file:
            start = file.read(len(_FILE))
        if not start:
            raise ValueError("the file is empty")
        if start.startswith(_FEATHER_V1):
            raise ValueError("it is of Feather's first version; write it again as version 2")
        with pa.memory_map(str(path)) as mapped:
            schema, batches = _open(mapped, is_file=start == _FILE)
            check_names(schema.names)
            for table in gathered(_pieces(batches, size), schema, size=size):
                yield as_frame(table)


def _open(
    mapped: pa.MemoryMappedFile, *, is_file: bool
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if is_file:
        reader = pa.ipc.open_file(mapped)
        return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    stream = pa.ipc.open_stream(mapped)
    return stream.schema, iter(stream)


def _pieces(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Cut large batches; a piece is a view into the file."""
    for batch in batches:
        batch.validate()  # the ends of its columns, which its size is taken from
        per_row = max(1, batch.nbytes // max(1, batch.num_rows))
        step = max(1, size // per_row)
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)
