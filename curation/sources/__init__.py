"""Shards of a user's data, and their rows as one validated table."""

from __future__ import annotations

from pathlib import Path

from curation.config import Source
from curation.sources.base import Shard, ShardChanged, ShardSource, SourceError
from curation.sources.folder import FolderSource
from curation.sources.idx import IdxSource
from curation.sources.package import PackageSource
from curation.sources.remote import RemoteSource
from curation.sources.rows import RowReader, Rows, stored_columns, stored_name, to_rows

__all__ = [
    "RowReader",
    "Rows",
    "Shard",
    "ShardChanged",
    "ShardSource",
    "SourceError",
    "open_source",
    "stored_columns",
    "stored_name",
    "to_rows",
]


def open_source(config: Source, *, dataset: str, root: Path) -> ShardSource:
    """Return the source a data set's configuration describes.

    Nothing is looked up yet, so that a data set whose data is not there can still be loaded.

    Parameters
    ----------
    config : Source
        Where the rows come from.
    dataset : str
        Name of the data set, for error messages.
    root : Path
        The folder relative folders are resolved against.
    """
    if config.package is not None:
        return PackageSource(config, dataset)
    if config.format == "idx":
        return IdxSource(config, dataset, root)
    if config.url is not None:
        return RemoteSource(config, dataset)
    return FolderSource(config, dataset, root)
