"""Sources whose shards are files, objects or folders of them: what is common to all places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from curation.config import Source, matches
from curation.sources.base import (
    Shard,
    ShardChanged,
    SourceError,
    digest,
    readable,
    safe_key,
    some,
)
from curation.sources.formats import Format, open_blocks, recognise

_ATTEMPTS = 3


@dataclass(frozen=True)
class File:
    """A file or an object.

    Attributes
    ----------
    place : str
        Its absolute path, or its address in the store.
    relative : str
        Its path below the source's folder or prefix.
    state : tuple
        What changes whenever its content may have changed; the size comes first.
    """

    place: str
    relative: str
    state: tuple[int | str, ...]


@dataclass(frozen=True)
class Unit:
    """What one shard is made of: a file and those beside it, or the files of a folder.

    `relative` is the path of the file or folder below the source's, `place` where it is.
    """

    relative: str
    place: str
    format: Format
    files: tuple[File, ...]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the content of a file may have changed."""
        return digest([[file.relative, *file.state] for file in self.files])

    def content(self, hashes: list[str]) -> str:
        """Return the hash of the content, given those of the files.

        It depends on no name, but for what a name means: how a file is read, where files lie in a
        folder, and a folder's own name where its pictures take their label from that.
        """
        if not self.format.folders:
            names = [f.relative[len(self.relative) :] for f in self.files[1:]]
            return digest(self.format.name, ["", *names], hashes)
        names = [f.relative[len(self.relative) + 1 :] for f in self.files]
        labelled = self.format.name == "images" and any("/" not in name for name in names)
        own = self.relative.rsplit("/", 1)[-1] if labelled else ""
        return digest(self.format.name, own, sorted(zip(names, hashes, strict=True)))


def file_units(
    files: Iterable[File],
    *,
    config: Source,
    dataset: str,
    beside: Callable[[File, str], File | None],
) -> dict[str, Unit]:
    """Return the shards that files are, by key, sorted.

    Parameters
    ----------
    files : iterable of File
        Those that match the source's pattern.
    config : Source
        `format` and `include`.
    dataset : str
        For error messages.
    beside : callable
        Returns the file that has another ending instead, if there is one.

    Raises
    ------
    SourceError
        If two files have the same key.
    """
    units: list[Unit] = []
    for file in files:
        known = recognise(file.relative, format=config.format)
        if known is None:
            continue
        format, end = known
        stem = file.relative[: -len(end)]
        others = [beside(file, f"{stem}{other}") for other in format.beside]
        belonging = tuple(other for other in others if other is not None)
        units.append(Unit(stem, file.place, format, (file, *belonging)))
    owned = {other.place for unit in units for other in unit.files[1:]}
    return keyed((u for u in units if u.place not in owned), config=config, dataset=dataset)


def keyed(units: Iterable[Unit], *, config: Source, dataset: str) -> dict[str, Unit]:
    """Return the units that have arrived by their keys, sorted.

    Raises
    ------
    SourceError
        If two have the same key.
    """
    found: dict[str, Unit] = {}
    for unit in units:
        key = safe_key(unit.relative)
        if key in found:
            raise SourceError(
                f"{dataset}: shard {key}: two files have this key, "
                f"{found[key].place} and {unit.place}. Rename one of them."
            )
        found[key] = unit
    return {key: found[key] for key in sorted(found) if matches(key, config.include)}


def unknown_shard(key: str, *, known: list[str], dataset: str, place: str) -> SourceError:
    """Return the error for a key that no shard has."""
    return SourceError(
        f"{dataset}: shard {key}: not found in {place}. Known shards: {some(known)}. "
        "Use one of them, or widen `include` and `pattern` of the source."
    )


def refuse_cutting(config: Source, *, dataset: str, place: str) -> None:
    """Refuse fields that cut a package's file and would do nothing here.

    Raises
    ------
    SourceError
        If one of them is set.
    """
    names = ("shard_by", "deduplicate", "shards", "rows_per_shard")
    default = type(config).model_fields
    unused = [name for name in names if getattr(config, name) != default[name].default]
    if unused:
        raise SourceError(
            f"{dataset}: source: {', '.join(unused)} cut the file of a package, while "
            f"each file of {place} is a shard. Remove these fields."
        )


class UnitSource(ABC):
    """A source of units (`ShardSource`); where they are is up to the class below."""

    def __init__(self, config: Source, dataset: str) -> None:
        self.config = config
        self.dataset = dataset
        self._units: dict[str, Unit] | None = None

    @abstractmethod
    def _list(self) -> dict[str, Unit]:
        """Return the units there are now, by key."""

    @abstractmethod
    def _again(self, unit: Unit, where: str) -> tuple[File, ...]:
        """Return the files of a unit as they are now; none for those that are gone."""

    @abstractmethod
    def _hashes(self, unit: Unit, where: str) -> list[str]:
        """Return the hash of each file's content; raise `ShardChanged` if it is another one."""

    @abstractmethod
    def _opened(self, unit: Unit, where: str) -> AbstractContextManager[Path]:
        """Return the unit as a file or folder on this machine, for as long as it is read."""

    @abstractmethod
    def _name(self) -> str:
        """Return the folder or prefix, for error messages."""

    def shards(self) -> list[Shard]:
        """Return the shards there are now, sorted by key."""
        refuse_cutting(self.config, dataset=self.dataset, place=self._name())
        self._units = self._list()
        return [
            Shard(key, unit.fingerprint, readable(unit.place)) for key, unit in self._units.items()
        ]

    def content(self, key: str) -> str:
        """Return a hash of what a shard holds, whatever its files are called."""
        unit, where = self._unit(key), f"{self.dataset}: shard {key}"
        return unit.content(self._hashes(unit, where))

    def blocks(self, key: str) -> Iterator[pl.DataFrame]:
        """Return the columns of one shard, about ``block_mib`` MiB at a time."""
        unit, where = self._unit(key), f"{self.dataset}: shard {key}"
        config = self.config.model_copy(update={"format": unit.format.name})
        with self._unchanged(unit, where), self._opened(unit, where) as path:
            yield from open_blocks(path, config=config, where=where)

    def read(self, key: str) -> pl.DataFrame:
        """Return the columns of one shard, read again if it changes meanwhile."""
        for attempt in range(_ATTEMPTS):
            try:
                return pl.concat(self.blocks(key), rechunk=False)
            except ShardChanged:
                if attempt == _ATTEMPTS - 1:
                    raise
                self.shards()
        raise AssertionError("unreachable")

    def _unit(self, key: str) -> Unit:
        if self._units is None or key not in self._units:
            self.shards()
        units = self._units or {}
        if key not in units:
            raise unknown_shard(key, known=list(units), dataset=self.dataset, place=self._name())
        return units[key]

    def _unchanged(self, unit: Unit, where: str) -> _Unchanged:
        return _Unchanged(lambda: self._again(unit, where) == unit.files, unit.place, where)


class _Unchanged:
    """Compares what was listed with what is there, before and after.

    If there was a change, an error within is taken for its fault. A reader that stops early learns
    nothing.
    """

    def __init__(self, same: Callable[[], bool], place: str, where: str) -> None:
        self._same, self._place, self._where = same, place, where

    def __enter__(self) -> None:
        self._check()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, SourceError):
            self._check()

    def _check(self) -> None:
        if not self._same():
            raise ShardChanged(
                f"{self._where}: {self._place} changed while it was read. "
                "It will be read again by the next run; write shards under another name, ending "
                "in .tmp, and rename them when they are complete."
            )
