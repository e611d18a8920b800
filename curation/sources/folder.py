"""A folder whose files, or whose folders, are shards."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from curation.config import Source
from curation.sources.base import SourceError
from curation.sources.formats import FORMATS
from curation.sources.units import File, Unit, UnitSource, file_units, keyed

EVERYTHING = "**/*"
_UNFINISHED = (".tmp", ".part")
# A file younger than this may change once more without its times changing.
_SETTLED_NS = 2 * 10**9


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


def has_arrived(relative: str) -> bool:
    """Whether a path is visible, and its name not that of something unfinished."""
    *_, name = parts = relative.split("/")
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return not hidden and not name.lower().endswith(_UNFINISHED)


def list_files(folder: Path, *, pattern: str, dataset: str) -> list[File]:
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
    if pattern == EVERYTHING:
        return sorted(_walk(folder, folder, dataset=dataset), key=lambda file: file.relative)
    try:
        paths = sorted(set(folder.glob(pattern)))
    except (ValueError, NotImplementedError) as error:
        raise SourceError(
            f"{dataset}: source.pattern {pattern!r} is not a glob relative to {folder}: {error}."
        ) from error
    found = (_found(path, folder=folder, dataset=dataset) for path in paths)
    return [file for file in found if file is not None]


def _walk(inside: Path, folder: Path, *, dataset: str) -> Iterator[File]:
    """Return what ``**/*`` finds, at a system call per file; links to folders are not followed."""
    try:
        with os.scandir(inside) as listed:
            entries = list(listed)
        for entry in entries:
            path = inside / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, folder, dataset=dataset)
            elif entry.is_symlink():
                file = _found(path, folder=folder, dataset=dataset)
                if file is not None:
                    yield file
            elif has_arrived(entry.name) and entry.is_file(follow_symlinks=False):
                yield _file(path, folder=folder, state=entry.stat(follow_symlinks=False))
    except FileNotFoundError:  # removed while the folder was being listed
        return
    except OSError as error:
        raise _unreadable(inside, error, dataset) from error


def _unreadable(path: Path, error: OSError, where: str) -> SourceError:
    return SourceError(
        f"{where}: cannot look at {path}: {error}. Let the user that runs this read it."
    )


def _file(path: Path, *, folder: Path, state: os.stat_result) -> File:
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    return File(str(path), relative.as_posix(), stamp)


def _found(path: Path, *, folder: Path, dataset: str) -> File | None:
    relative = path.relative_to(folder) if path.is_relative_to(folder) else path
    if not has_arrived(relative.as_posix()):
        return None
    try:
        state = path.stat()
        real = path.resolve()
    except FileNotFoundError:  # removed while the folder was being listed
        return None
    except (OSError, RuntimeError) as error:  # e.g. a link to itself
        raise _unreadable(path, OSError(str(error)), dataset) from error
    if not stat.S_ISREG(state.st_mode):
        return None
    if not real.is_relative_to(folder.resolve()):
        raise SourceError(
            f"{dataset}: {path} leads to {real}, outside the folder {folder}. "
            "Copy the file into the folder, or make its own folder the source."
        )
    return _file(path, folder=folder, state=state)


def hash_file(file: File, *, where: str) -> str:
    """Return the SHA-256 (hex) of a file, from memory if it has not changed since.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    settled = max(int(n) for n in file.state[1:3]) < time.time_ns() - _SETTLED_NS
    try:
        return (_hash if settled else _hash.__wrapped__)(file.place, file.state)
    except OSError as error:
        raise SourceError(
            f"{where}: cannot read {file.place}: {error}. "
            "Let the user that runs this read it, or remove it."
        ) from error


@lru_cache(maxsize=4096)
def _hash(place: str, state: tuple[int | str, ...]) -> str:
    with Path(place).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class FolderSource(UnitSource):
    """Files in a folder, or folders in it, each one a shard (`ShardSource`)."""

    def __init__(self, config: Source, dataset: str, root: Path) -> None:
        super().__init__(config, dataset)
        self.root = root

    def _folder(self) -> Path:
        return expand(self.config.folder or "", root=self.root, dataset=self.dataset)

    def _name(self) -> str:
        return f"the folder {self._folder()}"

    def _list(self) -> dict[str, Unit]:
        folder, config, dataset = self._folder(), self.config, self.dataset
        format = FORMATS.get(config.format)
        if format is not None and format.folders:
            found = format.load().shard_folders(folder, pattern=config.pattern, dataset=dataset)
            units = (
                Unit(path.relative_to(folder).as_posix(), str(path), format, self._inside(path))
                for path in found
            )
            return keyed(units, config=config, dataset=dataset)

        def beside(file: File, relative: str) -> File | None:
            return _found(folder / relative, folder=folder, dataset=dataset)

        files = list_files(folder, pattern=config.pattern, dataset=dataset)
        return file_units(files, config=config, dataset=dataset, beside=beside)

    def _inside(self, shard: Path) -> tuple[File, ...]:
        """Return every file of a shard that is a folder, sorted by path."""
        folder = self._folder()
        found: list[File] = []
        for inside, folders, names in os.walk(shard, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(inside, name)
                if name.startswith("."):
                    continue
                try:
                    found.append(_file(path, folder=folder, state=path.stat()))
                except FileNotFoundError:  # a link to nothing, or removed just now
                    found.append(File(str(path), path.relative_to(folder).as_posix(), (-1, 0, 0)))
                except OSError as error:
                    raise _unreadable(path, error, self.dataset) from error
        return tuple(sorted(found, key=lambda file: file.relative))

    def _refuse(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(Path(str(error.filename)), error, self.dataset) from error

    def _again(self, unit: Unit, where: str) -> tuple[File, ...]:
        if unit.format.folders:
            return self._inside(Path(unit.place))
        folder = self._folder()
        stem = Path(unit.place).parent / unit.relative.rsplit("/", 1)[-1]
        paths = [Path(unit.place), *(Path(f"{stem}{end}") for end in unit.format.beside)]
        found = [_found(path, folder=folder, dataset=where) for path in paths]
        return tuple(file for file in found if file is not None)

    def _hashes(self, unit: Unit, where: str) -> list[str]:
        with self._unchanged(unit, where):
            return ["" if f.state[0] == -1 else hash_file(f, where=where) for f in unit.files]

    @contextmanager
    def _opened(self, unit: Unit, where: str) -> Iterator[Path]:
        yield Path(unit.place)
