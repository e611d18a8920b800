"""A whole file as one table, for those that need it so."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from curation.config import Source
from curation.sources.base import UNPARSED as UNPARSED
from curation.sources.formats import open_blocks


def read_table(path: Path, *, config: Source, where: str) -> pl.DataFrame:
    """Read a whole file.

    Parameters
    ----------
    path : Path
        The file.
    config : Source
        Gives `format` (``auto`` goes by the file's ending) and what the format needs.
    where : str
        Data set and shard, the beginning of an error's message.

    Raises
    ------
    SourceError
        If the file is missing, damaged, or not what `format` says.
    """
    return pl.concat(open_blocks(path, config=config, where=where), rechunk=False)
