"""A prefix of an object store whose objects, or whose folders of objects, are shards."""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from curation.config import Source
from curation.sources.base import SourceError, digest
from curation.sources.folder import has_arrived
from curation.sources.formats import FORMATS, Format
from curation.sources.secrets import redact, remember
from curation.sources.units import File, Unit, UnitSource, file_units, keyed

T = TypeVar("T")

SPOOL = "CURATION_SPOOL"
"""Environment variable: the folder objects are copied to while they are read."""

DELAYS = (0.5, 2.0, 5.0)
"""Seconds before a request that failed is made again."""

_CHUNK = 8 * 2**20
_EXTRAS = {"s3": ("s3", "s3fs"), "gs": ("gs", "gcsfs"), "az": ("az", "adlfs")}
# Values of these are no secrets even if they come out of a variable.
_PLAIN = frozenset(["endpoint_url", "region", "region_name", "anon", "use_ssl", "project"])
_FINAL = (FileNotFoundError, PermissionError, ValueError, TypeError, ImportError, SourceError)
_MD5 = re.compile("[0-9a-f]{32}")


class _CutShortError(OSError):
    """Fewer bytes came than were asked for, or others than were stored."""


def glob_matches(relative: str, pattern: str) -> bool:
    """Whether a path matches a glob as `pathlib.Path.glob` would; ``**`` is any folders."""
    return _parts_match(relative.split("/"), pattern.split("/"))


def _parts_match(parts: list[str], globs: list[str]) -> bool:
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_parts_match(parts[i:], globs[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _parts_match(parts[1:], globs[1:])


def resolve_options(config: Source, *, dataset: str) -> dict[str, Any]:
    """Return the options with the values of the environment variables they name.

    Raises
    ------
    SourceError
        If a variable is not set.
    """
    found: dict[str, Any] = {}
    for name, value in config.options.items():
        if isinstance(value, str) and value.startswith("$"):
            variable = value[1:].strip("{}")
            if variable not in os.environ:
                raise SourceError(
                    f"{dataset}: source.options.{name}: the environment variable {variable} is not "
                    "set. Set it where the code location runs."
                )
            value = os.environ[variable]
            if name not in _PLAIN:
                remember(value)
        found[name] = value
    return found


def client(config: Source, *, dataset: str) -> Any:
    """Return the fsspec file system of the source's store.

    Raises
    ------
    SourceError
        If its package is not installed, a variable is not set, or an option is not known.
    """
    scheme = (config.url or "").split("://")[0]
    extra, package = _EXTRAS[scheme]
    options = resolve_options(config, dataset=dataset)
    try:
        import fsspec

        if scheme == "s3":
            options = _s3(options)
        system = fsspec.filesystem(
            scheme, skip_instance_cache=True, use_listings_cache=False, **options
        )
    except ImportError:
        raise SourceError(
            f"{dataset}: {config.url} is read with the package {package}, which is not installed. "
            f"Install it: pip install 'curation[{extra}]'."
        ) from None
    except Exception as error:  # each store's client has errors of its own, perhaps with secrets
        raise SourceError(
            f"{dataset}: cannot set up the client for {config.url}: {redact(str(error))}. "
            "Correct `options` of the source."
        ) from None
    if scheme == "s3":
        system.retries = 1  # requests are repeated here, with a message in the end
    return system


def _s3(options: dict[str, Any]) -> dict[str, Any]:
    """Put settings where s3fs has them."""
    settings = {
        "connect_timeout": options.pop("connect_timeout", 10),
        "read_timeout": options.pop("read_timeout", 60),
        "retries": {"total_max_attempts": 1},
    }
    region = options.pop("region", options.pop("region_name", None))
    inner = {"region_name": region} if region else {}
    return {**options, "config_kwargs": settings, "client_kwargs": inner}


def object_file(info: dict[str, Any], *, root: str, scheme: str) -> File:
    """Return what a listing tells of an object.

    Its state is the size, what identifies the content as far as the store knows, and everything
    that changes when it is written anew.
    """
    inner = info.get("content_settings") or {}
    md5 = _hex(info.get("md5Hash") or inner.get("content_md5"))
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    content = md5 or (etag if scheme == "s3" else "") or str(info.get("crc32c") or "") or etag
    written = str(info.get("LastModified") or info.get("last_modified") or info.get("updated"))
    stamp = [etag, str(info.get("generation") or ""), content]
    state = (int(info["size"] or 0), content or written, digest(stamp if any(stamp) else written))
    return File(f"{scheme}://{info['name']}", info["name"][len(root) :].lstrip("/"), state)


def _hex(md5: object) -> str:
    """Return an MD5 as a store tells it, in bytes or base64, in hex."""
    if isinstance(md5, (bytes, bytearray)):
        return bytes(md5).hex()
    try:
        return base64.b64decode(md5, validate=True).hex() if isinstance(md5, str) else ""
    except binascii.Error:
        return ""


class RemoteSource(UnitSource):
    """Objects below a prefix, or folders of them, each one a shard (`ShardSource`).

    An object is copied to a temporary folder when it is read: below ``$CURATION_SPOOL``, or where
    the system has temporary files.

    Parameters
    ----------
    config : Source
        With `url`.
    dataset : str
        Name of the data set, for error messages.
    delays : sequence of float
        Seconds before each further attempt of a request that failed.
    """

    def __init__(
        self, config: Source, dataset: str, *, delays: tuple[float, ...] | None = None
    ) -> None:
        super().__init__(config, dataset)
        self._delays = DELAYS if delays is None else delays
        self._scheme, _, root = (config.url or "").partition("://")
        self._root = root.strip("/")

    @cached_property
    def _system(self) -> Any:
        return client(self.config, dataset=self.dataset)

    def _name(self) -> str:
        return redact(self.config.url or "")

    def _list(self) -> dict[str, Unit]:
        config, dataset = self.config, self.dataset
        system = self._system
        found = self._tried(
            lambda: system.find(self._root, detail=True), self.dataset, f"list {self._name()}"
        )
        listed = (
            object_file(info, root=self._root, scheme=self._scheme)
            for info in found.values()
            if info.get("type") != "directory" and not str(info["name"]).endswith("/")
        )
        files = {f.relative: f for f in listed if f.relative and has_arrived(f.relative)}
        format = FORMATS.get(config.format)
        if format is not None and format.folders:
            return keyed(self._folders(files, format), config=config, dataset=dataset)
        matching = [f for name, f in sorted(files.items()) if glob_matches(name, config.pattern)]
        return file_units(
            matching, config=config, dataset=dataset, beside=lambda _, name: files.get(name)
        )

    def _folders(self, files: dict[str, File], format: Format) -> Iterator[Unit]:
        """Return the folders that the names of objects make up, as the format knows them."""
        inside: dict[str, list[File]] = {}
        for name, file in sorted(files.items()):
            if {"", ".", ".."}.intersection(name.split("/")) or "\\" in name or "\0" in name:
                raise SourceError(
                    f"{self.dataset}: {file.place} has a name that is no path within a folder. "
                    "Rename or remove the object."
                )
            parts = name.split("/")
            depths = [1] if format.name == "images" else range(1, len(parts))
            for depth in depths:
                if depth < len(parts):
                    inside.setdefault("/".join(parts[:depth]), []).append(file)
        for folder, held in inside.items():
            names = {file.relative[len(folder) + 1 :] for file in held}
            is_one = format.name != "huggingface" or {"state.json", "dataset_info.json"} <= names
            if is_one and glob_matches(folder, self.config.pattern):
                place = f"{self._scheme}://{self._root}/{folder}"
                yield Unit(folder, place, format, tuple(held))

    def _again(self, unit: Unit, where: str) -> tuple[File, ...]:
        found = (self._look(file, where) for file in unit.files)
        return tuple(file for file in found if file is not None)

    def _look(self, file: File, where: str) -> File | None:
        def ask() -> File | None:
            try:
                info = self._system.info(self._path(file))
            except FileNotFoundError:
                return None
            return object_file(info, root=self._root, scheme=self._scheme)

        return self._tried(ask, where, f"look at {redact(file.place)}")

    def _path(self, file: File) -> str:
        return file.place.partition("://")[2]

    def _hashes(self, unit: Unit, where: str) -> list[str]:
        return [digest(file.state[0], file.state[1]) for file in unit.files]

    @contextmanager
    def _opened(self, unit: Unit, where: str) -> Iterator[Path]:
        spool = os.environ.get(SPOOL)
        try:
            copied = tempfile.TemporaryDirectory(prefix="curation-", dir=spool)
        except OSError as error:
            raise self._no_room(error, where) from None
        with copied as folder:
            path, targets = self._targets(unit, Path(folder))
            for file, target in zip(unit.files, targets, strict=True):
                self._copy(file, target, where)
            try:
                yield path
            except SourceError as error:
                told = str(error).replace(str(path), unit.place).replace(folder, unit.place)
                raise SourceError(redact(told)) from None

    def _targets(self, unit: Unit, folder: Path) -> tuple[Path, list[Path]]:
        """Return where a unit is to be copied to: as a whole, and each of its files."""
        if not unit.format.folders:
            ends = [file.relative[len(unit.relative) :] for file in unit.files]
            paths = [folder / f"shard{end}" for end in ends]
            return paths[0], paths
        path = folder / unit.relative.rsplit("/", 1)[-1]
        return path, [path / file.relative[len(unit.relative) + 1 :] for file in unit.files]

    def _no_room(self, error: OSError, where: str) -> SourceError:
        place = os.environ.get(SPOOL) or tempfile.gettempdir()
        return SourceError(
            f"{where}: cannot write to {place}: {error.strerror or error}. Make room there, or let "
            f"the environment variable {SPOOL} name a folder with room for a shard."
        )

    def _copy(self, file: File, target: Path, where: str) -> None:
        what = f"read {redact(file.place)}"
        for attempt in range(2):
            hashed = hashlib.md5(usedforsecurity=False)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    for start in range(0, int(file.state[0]), _CHUNK):
                        data = self._tried(partial(self._range, file, start), where, what)
                        hashed.update(data)
                        copy.write(data)
            except OSError as error:
                raise self._no_room(error, where) from None
            stated = str(file.state[1])
            if not _MD5.fullmatch(stated) or stated == hashed.hexdigest():
                return
            if attempt == 0 and self._is_encrypted(file):
                return
        raise SourceError(
            f"{where}: {redact(file.place)} came with other bytes than are stored (MD5), twice. "
            "Look for what changes them on the way, such as a proxy."
        )

    def _range(self, file: File, start: int) -> bytes:
        stop = min(start + _CHUNK, int(file.state[0]))
        data: bytes = self._system.cat_file(self._path(file), start=start, end=stop)
        if len(data) != stop - start:
            raise _CutShortError(f"{len(data)} bytes came of {stop - start}")
        return data

    def _is_encrypted(self, file: File) -> bool:
        """Whether the tag of an S3 object, though it looks so, is no MD5 of its content."""
        if self._scheme != "s3":
            return False
        bucket, _, key = self._path(file).partition("/")
        try:
            told = self._system.call_s3("head_object", Bucket=bucket, Key=key)
        except Exception:  # then the difference stands as it is
            return False
        kind = str(told.get("ServerSideEncryption") or "")
        return kind.startswith("aws:kms") or bool(told.get("SSECustomerAlgorithm"))

    def _tried(self, call: Callable[[], T], where: str, what: str) -> T:
        """Return what `call` does; try again after errors that may pass."""
        for delay in (*self._delays, None):
            try:
                return call()
            except Exception as error:  # each store's client has errors of its own
                final = isinstance(error, _FINAL) or type(error).__name__ == "NoCredentialsError"
                if delay is None or final:
                    tried = "" if final else f" ({len(self._delays) + 1} attempts)"
                    raise SourceError(
                        f"{where}: cannot {what}{tried}: {_reason(error)}. {_remedy(error)}"
                    ) from None
            time.sleep(delay)
        raise AssertionError("unreachable")


def _reason(error: Exception) -> str:
    text = redact(str(error)).split("\n")[0].rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _remedy(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) == errno.ENOENT:
        return "Create it, or correct `url` of the source."
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return "Give credentials that may list and read it, in the environment or by `options`."
    if isinstance(error, (ValueError, TypeError)):
        return "Correct `url` and `options` of the source."
    return "Check that the store can be reached, then run it again."
