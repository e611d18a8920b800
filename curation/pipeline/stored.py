"""Rows of one shard as they lie in the store, read by their positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.pipeline.dataset import EMBEDDINGS, RAW, Dataset
from curation.pipeline.tables import EMBEDDINGS_FILE, ROWS
from curation.pipeline.vectors import ID as ID
from curation.pipeline.vectors import VectorFile
from curation.store import Artifact


def raw_artifact(dataset: Dataset, shard: str) -> Artifact:
    """Return the raw artifact of a shard."""
    return dataset.store.need(dataset.at(RAW, shard))


def open_vectors(dataset: Dataset, shard: str) -> VectorFile:
    """Open a shard's ids and embeddings."""
    return VectorFile(dataset.store.need(dataset.at(EMBEDDINGS, shard)).path(EMBEDDINGS_FILE))


def raw_rows_at(
    dataset: Dataset, shard: str, position: NDArray[Any], columns: list[str] | None = None
) -> pl.DataFrame:
    """Return rows of a shard by their positions, in any order; a row group is held at a time."""
    path = raw_artifact(dataset, shard).path(ROWS)
    order = np.argsort(position, kind="stable")
    line = position[order]
    with pq.ParquetFile(path) as file:
        about = file.metadata
        sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    frames: list[pl.DataFrame] = []
    first = 0
    for size in sizes:
        low, high = np.searchsorted(line, [first, first + size])
        if low < high or not frames:
            group = pl.scan_parquet(path).slice(first, size)
            wanted = group if columns is None else group.select(columns)
            frames.append(wanted.collect()[line[low:high] - first])
        first += size
    found = pl.concat(frames) if frames else pl.read_parquet(path, columns=columns)
    return found[np.argsort(order, kind="stable")]
