"""The formats a shard can have: how their files end, and which module reads them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import polars as pl

from curation.config import Source
from curation.sources.base import SourceError


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    name : str
        As in ``source.format``.
    endings : tuple of str
        How its files end, in lower case; none for a format whose shards are folders.
    module : str
        The module with ``blocks(path, *, config, where)``; imported when a shard is read. For
        folders also ``shard_folders(folder, *, pattern, dataset)``.
    folders : bool
        Whether a shard is a folder of files.
    auto : bool
        Whether ``source.format: auto`` takes it by the ending.
    beside : tuple of str
        How a file ends that has the same name otherwise, and belongs to the shard.
    """

    name: str
    endings: tuple[str, ...]
    module: str
    folders: bool = False
    auto: bool = True
    beside: tuple[str, ...] = ()

    def load(self) -> ModuleType:
        """Import the module that reads this format."""
        return importlib.import_module(f"curation.sources.{self.module}")


def _packed(*endings: str) -> tuple[str, ...]:
    return tuple(f"{end}{packed}" for end in endings for packed in ("", ".gz", ".zst"))


FORMATS = {
    known.name: known
    for known in (
        Format("parquet", (".parquet",), "parquet"),
        Format("jsonl", _packed(".jsonl", ".ndjson"), "jsonl"),
        Format("csv", _packed(".csv"), "csvs"),
        Format("arrow", (".arrow", ".feather", ".ipc"), "arrow"),
        Format("webdataset", (".tar", ".tar.gz", ".tgz"), "webdataset"),
        Format("npy", (".npy",), "npy", beside=(".parquet", ".csv", ".jsonl")),
        Format("lines", _packed(".txt", ".log"), "lines", auto=False),
        Format("images", (), "images", folders=True, auto=False),
        Format("huggingface", (), "huggingface", folders=True, auto=False),
    )
}
"""By name; `idx` has a source of its own, since its shards are parts of files."""


def recognise(name: str, *, format: str) -> tuple[Format, str] | None:
    """Return the format by which a file is read, and its ending; None if it is no such file.

    Parameters
    ----------
    name : str
        The file's name.
    format : str
        ``source.format``; `auto` goes by the ending.
    """
    lower = name.lower()
    wanted = [f for f in FORMATS.values() if f.name == format or (format == "auto" and f.auto)]
    known = [(f, end) for f in wanted for end in f.endings if lower.endswith(end)]
    return max(known, key=lambda pair: len(pair[1])) if known else None


def open_blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read a file or folder in blocks of one schema.

    Parameters
    ----------
    path : Path
        The file or, for formats of folders, the folder.
    config : Source
        Gives `format` (``auto`` goes by the file's ending) and what the format needs.
    where : str
        Data set and shard, the beginning of an error's message.

    Raises
    ------
    SourceError
        If no format fits; when read, if the file is missing, damaged, or not what `format` says.
    """
    found = FORMATS.get(config.format)
    if config.format == "auto":
        known = recognise(path.name, format="auto")
        found = known and known[0]
    if found is None:
        endings = [end for f in FORMATS.values() if f.auto for end in f.endings]
        raise SourceError(
            f"{where}: {path} cannot be read with format `{config.format}`. Known endings are "
            f"{', '.join(endings)}; text lines need format `lines` and a `line_pattern`."
        )
    read: Iterator[pl.DataFrame] = found.load().blocks(path, config=config, where=where)
    return read
