"""Folders of picture files; each folder is one shard."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curation.config import Source
from curation.sources.base import SourceError
from curation.sources.pictures import (
    ENDINGS,
    MOST_BYTES,
    PictureError,
    decode,
    in_blocks,
    lists,
    need_pillow,
    readable,
    some_usable,
)
from curation.sources.tables import UNPARSED


@dataclass(frozen=True)
class _Row:
    name: str
    label: str
    pixels: NDArray[np.uint8] | None
    fault: str | None

    @property
    def size(self) -> int:
        return 200 + (0 if self.pixels is None else self.pixels.nbytes)


def shard_folders(folder: Path, *, pattern: str, dataset: str) -> list[Path]:
    """Return the folders directly below `folder` that match, each one a shard, sorted.

    Parameters
    ----------
    folder : Path
        The source's folder.
    pattern : str
        A glob relative to it; ``**/*`` matches every folder. Hidden folders never match.
    dataset : str
        Name of the data set, for error messages.

    Raises
    ------
    SourceError
        If the folder is missing, the glob is not valid, or a shard's folder lies outside.
    """
    return [
        path
        for path in matching_folders(folder, pattern=pattern, dataset=dataset)
        if path.parent == folder
    ]


def matching_folders(folder: Path, *, pattern: str, dataset: str) -> list[Path]:
    """Return the visible folders below `folder`, at any depth, that match a glob, sorted.

    Raises
    ------
    SourceError
        If the folder is missing, the glob is not valid, or a folder that matches lies outside.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{dataset}: there is no folder {folder}. Create it, or correct `folder` of the source "
            "(relative folders are taken from the project's folder)."
        )
    try:
        found = sorted(path for path in set(folder.glob(pattern)) if path.is_dir())
    except (ValueError, NotImplementedError) as error:
        raise SourceError(
            f"{dataset}: source.pattern {pattern!r} is not a glob relative to {folder}: {error}."
        ) from error
    inside, kept = folder.resolve(), []
    for path in found:
        relative = path.relative_to(folder).parts
        if any(part.startswith(".") and part != ".." for part in relative):
            continue
        if not path.resolve().is_relative_to(inside):
            raise SourceError(
                f"{dataset}: {path} leads to {path.resolve()}, outside the folder {folder}. "
                "Copy it into the folder, or make its own folder the source."
            )
        kept.append(path)
    return kept


def blocks(path: Path, *, config: Source, where: str) -> Iterator[pl.DataFrame]:
    """Read the pictures of one folder.

    They lie in it as ``<label>/<name>.png``, at any depth below the label, or directly in it: then
    the label is the name of the shard's folder. Files that do not end like a picture, and hidden
    ones, are ignored. Every folder is read in the order of its names.

    Parameters
    ----------
    path : Path
        The shard's folder.
    config : Source
        `image_mode`, `image_size` and `block_mib`.
    where : str
        Data set and shard, the beginning of an error's message.

    Yields
    ------
    pl.DataFrame
        `id` (String, the path below the shard), `image` (List of UInt8: H*W values row by row, or
        H*W*3), `width` and `height` (UInt32), `label` (String), ``_unparsed`` (String): why a file
        cannot be used, null where it can. Without `image_size`, pictures keep their own sizes.

    Raises
    ------
    SourceError
        If Pillow is missing, a file cannot be read, or no file is a picture.
    """
    need_pillow(where)
    if not path.is_dir():
        raise SourceError(f"{where}: there is no folder {path}. Put the shard's pictures there.")
    rows = _rows(path, config=config, where=where)
    gathered = in_blocks(rows, size=lambda row: row.size, config=config)
    yield from some_usable(map(_frame, gathered), path=path, where=where)


def _frame(rows: list[_Row]) -> pl.DataFrame:
    pixels = [row.pixels for row in rows]
    good = [row if row.fault is None else None for row in rows]
    return pl.DataFrame(
        [
            pl.Series("id", [row and row.name for row in good], dtype=pl.String),
            lists("image", pixels, inner=pl.UInt8),
            pl.Series("width", [p if p is None else p.shape[1] for p in pixels], dtype=pl.UInt32),
            pl.Series("height", [p if p is None else p.shape[0] for p in pixels], dtype=pl.UInt32),
            pl.Series("label", [row and row.label for row in good], dtype=pl.String),
            pl.Series(UNPARSED, [row.fault for row in rows], dtype=pl.String),
        ]
    )


def _rows(shard: Path, *, config: Source, where: str) -> Iterator[_Row]:
    inside = shard.resolve()
    for file in _files(shard, where=where):
        relative = file.relative_to(shard)
        name = readable(relative.as_posix())
        label = readable(relative.parts[0] if len(relative.parts) > 1 else shard.name)
        try:
            pixels = decode(_content(file, inside=inside, where=where), config=config)
            yield _Row(name, label, pixels, None)
        except PictureError as error:
            yield _Row(name, label, None, f"{name}: {error}")


def _files(folder: Path, *, where: str) -> Iterator[Path]:
    """Return picture files and linked folders; holds the names of one folder at a time."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error, where=where) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder / entry.name, where=where)
            continue
        path = folder / entry.name
        if path.suffix[1:].lower() in ENDINGS or (path.is_symlink() and path.is_dir()):
            yield path


def _content(file: Path, *, inside: Path, where: str) -> bytes:
    """Return a file's bytes; links are followed within the shard, and only to files."""
    try:
        if not Path(os.path.realpath(file)).is_relative_to(inside):
            raise PictureError("leads outside the folder")
        if file.is_symlink() and not file.exists():
            raise PictureError("leads to nothing")
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for without end
            raise PictureError("not a file (links to folders are not followed)")
        if state.st_size > MOST_BYTES:
            raise PictureError(f"larger than {MOST_BYTES // 2**20} MiB")
        return file.read_bytes()
    except OSError as error:
        # Not the row's fault, and perhaps gone tomorrow: the shard fails, and can be tried again.
        raise _unreadable(file, error, where=where) from error


def _unreadable(path: Path, error: OSError, *, where: str) -> SourceError:
    return SourceError(
        f"{where}: cannot read {path}: {error}. Let the user that runs this read it, or remove it."
    )
