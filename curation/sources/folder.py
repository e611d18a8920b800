"""A folder whose files are shards."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from curation.config import Source, matches
from curation.sources.base import Shard, SourceError, digest, safe_key, some
from curation.sources.tables import ending, read_table


@dataclass(frozen=True)
class Found:
    """A file in the folder, with what identifies its state."""

    path: Path
    relative: str
    size: int
    mtime_ns: int


def expand(folder: str, *, root: Path, dataset: str) -> Path:
    """Return the absolute folder: ``~`` and ``$VARIABLES`` expanded, relative ones below `root`.

    Raises
    ------
    SourceError
        If a variable is not set.
    """
    text = os.path.expandvars(folder)
    unset = re.search(r"\$(\w+|\{[^}]*\})", text)
    if unset:
        raise SourceError(
            f"{dataset}: source.folder {folder!r}: the environment variable {unset[0]} is not set. "
            "Set it where the code location runs, or write the folder out."
        )
    return Path(os.path.abspath(root / Path(text).expanduser()))  # noqa: PTH100 resolve follows links


def list_files(folder: Path, *, pattern: str, dataset: str) -> list[Found]:
    """Return the finished, visible files below `folder` that match a glob, sorted by path.

    Raises
    ------
    SourceError
        If the folder is missing, the glob is not valid, or a file lies outside the folder.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{dataset}: there is no folder {folder}. Create it, or correct `folder` of the source "
            "(relative folders are taken from the project's folder)."
        )
    try:
        paths = sorted(set(folder.glob(pattern)))
    except (ValueError, NotImplementedError) as error:
        raise SourceError(
            f"{dataset}: source.pattern {pattern!r} is not a glob relative to {folder}: {error}."
        ) from error
    found = (_found(path, folder=folder, dataset=dataset) for path in paths)
    return [file for file in found if file is not None]


def _found(path: Path, *, folder: Path, dataset: str) -> Found | None:
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    hidden = any(part.startswith(".") and part != ".." for part in relative.parts)
    if hidden or path.name.lower().endswith((".tmp", ".part")):
        return None
    try:
        if not path.is_file():
            return None
        real, stat = path.resolve(), path.stat()
    except FileNotFoundError:  # removed while the folder was being listed
        return None
    except OSError as error:
        raise SourceError(
            f"{dataset}: cannot look at {path}: {error}. Let the user that runs this read it."
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise SourceError(
            f"{dataset}: {path} leads to {real}, outside the folder {folder}. "
            "Copy the file into the folder, or make its own folder the source."
        )
    return Found(path, relative.as_posix(), stat.st_size, stat.st_mtime_ns)


def unknown_shard(key: str, *, known: list[str], dataset: str, place: str) -> SourceError:
    """Return the error for a key that no shard has."""
    return SourceError(
        f"{dataset}: shard {key}: not found in {place}. Known shards: {some(known)}. "
        "Use one of them, or widen `include` and `pattern` of the source."
    )


@dataclass(frozen=True)
class FolderSource:
    """Files in a folder, each one a shard (`ShardSource`)."""

    config: Source
    dataset: str
    root: Path

    def shards(self) -> list[Shard]:
        """Return the folder's shards, sorted by key."""
        return [shard for _, shard in self._listed()[1]]

    def read(self, key: str) -> pl.DataFrame:
        """Return the columns of one file."""
        folder, listed = self._listed()
        for file, shard in listed:
            if shard.key == key:
                where = f"{self.dataset}: shard {key}"
                return read_table(file.path, config=self.config, where=where)
        known = [shard.key for _, shard in listed]
        raise unknown_shard(key, known=known, dataset=self.dataset, place=str(folder))

    def _listed(self) -> tuple[Path, list[tuple[Found, Shard]]]:
        folder = expand(self.config.folder or "", root=self.root, dataset=self.dataset)
        self._refuse_cutting()
        files: dict[str, Found] = {}
        for file in list_files(folder, pattern=self.config.pattern, dataset=self.dataset):
            end = ending(file.path.name, format=self.config.format)
            if end is None:
                continue
            key = safe_key(file.relative[: -len(end)])
            if key in files:
                raise SourceError(
                    f"{self.dataset}: shard {key}: two files have this key, "
                    f"{files[key].path} and {file.path}. Rename one of them."
                )
            files[key] = file
        return folder, [
            (file, Shard(key, digest(file.relative, file.size, file.mtime_ns), str(file.path)))
            for key, file in sorted(files.items())
            if matches(key, self.config.include)
        ]

    def _refuse_cutting(self) -> None:
        """Fields that cut a package's file would do nothing here; say so instead."""
        unused = [
            name
            for name in ("shard_by", "deduplicate", "shards", "rows_per_shard")
            if getattr(self.config, name) != type(self.config).model_fields[name].default
        ]
        if unused:
            raise SourceError(
                f"{self.dataset}: source: {', '.join(unused)} cut the file of a package, while "
                f"each file of the folder {self.config.folder} is a shard. Remove these fields."
            )
