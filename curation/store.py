"""Artifacts on disk: written whole or not at all, and refused when they differ.

Layout under the store's root::

    <dataset>/<asset>[/<shard>]/<version>/manifest.json and the data files
    <dataset>/<asset>[/<shard>]/current          # names the version readers get

A version is written to a temporary folder, fsynced and renamed; then ``current`` is replaced. A
process that dies at any point leaves either the old state or the new one, and at most a temporary
folder, which the next write to the same place removes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
CURRENT = "current"
VIEW_PREFIX = "view-"  # pictures of the data: kept and checked, but not part of the content hash
SAFE_PART = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._=-]*$")
LIBRARIES = ("numpy", "polars", "pyarrow", "faiss-cpu", "torch", "transformers", "scikit-learn")


class StoreError(Exception):
    """An artifact is missing, damaged, or not the one that was asked for."""


@dataclass(frozen=True)
class Address:
    """Where an artifact lives: data set, asset and, for per-shard assets, the shard."""

    dataset: str
    asset: str
    shard: str | None = None

    def __post_init__(self) -> None:
        for part in (self.dataset, self.asset, self.shard):
            if part is not None and not SAFE_PART.match(part):
                raise StoreError(
                    f"{part!r} can't be part of an artifact's path: use letters, digits and . _ = -"
                )

    def __str__(self) -> str:
        return "/".join(p for p in (self.dataset, self.asset, self.shard) if p is not None)


@dataclass(frozen=True)
class Recipe:
    """Everything an artifact's content depends on. Equal recipes give equal content.

    Attributes
    ----------
    code_version
        Version of the code that writes the asset; bumped when its output changes.
    config_hash
        Hash of the settings that the asset reads, and of no others.
    upstream
        Name of each input -> its content hash (or the source's fingerprint).
    seed
        Seed of the asset's random choices, None where it makes none.
    """

    code_version: str
    config_hash: str
    upstream: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the recipe (hex)."""
        return digest(asdict(self))


@dataclass(frozen=True)
class Manifest:
    """What a version says of itself."""

    dataset: str
    asset: str
    shard: str | None
    version: str
    recipe: dict[str, Any]
    fingerprint: str
    content_hash: str
    row_count: int
    schema: dict[str, str]
    files: dict[str, dict[str, Any]]
    figures: dict[str, Any]
    libraries: dict[str, str]
    created: str
    seconds: float


@dataclass(frozen=True)
class Artifact:
    """A published version, checked against its manifest when it was opened."""

    folder: Path
    manifest: Manifest

    @property
    def content_hash(self) -> str:
        """Hash of the data files: the Dagster data version."""
        return self.manifest.content_hash

    @property
    def figures(self) -> dict[str, Any]:
        """Figures that were noted when it was written."""
        return self.manifest.figures

    def path(self, name: str) -> Path:
        """Return the path of one of its data files."""
        if name not in self.manifest.files:
            known = ", ".join(sorted(self.manifest.files))
            raise StoreError(f"{self.folder}: no file {name!r} in this artifact (it has {known})")
        return self.folder / name

    def require(self, *, upstream: Mapping[str, str], remedy: str) -> None:
        """Refuse the artifact unless it was made from the given inputs.

        Parameters
        ----------
        upstream
            Name of an input -> the content hash it must have had.
        remedy
            What the reader of the error should do.
        """
        had = self.manifest.recipe.get("upstream", {})
        for name, wanted in upstream.items():
            if had.get(name) != wanted:
                where = "/".join(
                    p
                    for p in (self.manifest.dataset, self.manifest.asset, self.manifest.shard)
                    if p
                )
                raise StoreError(
                    f"{where}: its manifest's upstream field {name!r} is "
                    f"{str(had.get(name))[:12]}, expected {wanted[:12]}; {remedy}"
                )


@dataclass
class Draft:
    """A version being written."""

    folder: Path
    row_count: int = 0
    schema: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


class Store:
    """Versions of artifacts under one local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, at: Address) -> Path:
        """Return the folder of an address (it need not exist)."""
        parts = [p for p in (at.dataset, at.asset, at.shard) if p is not None]
        return self.root.joinpath(*parts)

    def current(self, at: Address) -> Artifact | None:
        """Return the published version, or None where nothing was published yet.

        Raises
        ------
        StoreError
            When the version does not match its manifest; the message names the field.
        """
        pointer = self.folder(at) / CURRENT
        try:
            version = pointer.read_text().strip()
        except FileNotFoundError:
            return None
        return self.open(at, version)

    def need(self, at: Address) -> Artifact:
        """Return the published version, or say which asset must be materialized first."""
        found = self.current(at)
        if found is None:
            where = f" of shard {at.shard}" if at.shard else ""
            raise StoreError(
                f"data set {at.dataset}: no {at.asset}{where} in {self.root}; "
                f"materialize {at.asset} first (curation run {at.dataset})"
            )
        return found

    def open(self, at: Address, version: str) -> Artifact:
        """Return one version after checking it against its manifest."""
        if not SAFE_PART.match(version):
            raise StoreError(f"{at}: {version!r} is not the name of a version")
        folder = self.folder(at) / version
        manifest = _read_manifest(folder)
        for name, wanted in (
            ("dataset", at.dataset),
            ("asset", at.asset),
            ("shard", at.shard),
            ("version", version),
        ):
            if getattr(manifest, name) != wanted:
                raise StoreError(
                    f"{folder}: the manifest's field {name!r} is {getattr(manifest, name)!r}, "
                    f"expected {wanted!r}; delete this folder and materialize {at.asset} again"
                )
        _verify_files(folder, manifest)
        return Artifact(folder, manifest)

    def unchanged(self, at: Address, recipe: Recipe) -> Artifact | None:
        """Return the published version if it was made by an equal recipe and is intact."""
        try:
            found = self.current(at)
        except StoreError:
            return None  # damaged: it has to be written again
        if found is not None and found.manifest.fingerprint == recipe.fingerprint:
            return found
        return None

    def shards(self, dataset: str, asset: str) -> list[str]:
        """Return the shards that have a published version of a per-shard asset, sorted."""
        folder = self.folder(Address(dataset, asset))
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if (p / CURRENT).is_file())

    def versions(self, at: Address) -> list[Manifest]:
        """Return the manifests of all versions kept, oldest first."""
        folder = self.folder(at)
        if not folder.is_dir():
            return []
        found = [_read_manifest(p.parent) for p in folder.glob(f"*/{MANIFEST}")]
        return sorted(found, key=lambda m: (m.created, m.version))

    def write(
        self,
        at: Address,
        recipe: Recipe,
        fill: Callable[[Draft], None],
        *,
        publish: bool = True,
        keep: int | None = None,
    ) -> Artifact:
        """Write a version with `fill`, then publish it.

        Parameters
        ----------
        at, recipe
            Where, and what the content depends on.
        fill
            Writes data files into ``draft.folder`` and sets row count, schema and figures.
        publish
            Whether readers get it at once; otherwise :meth:`publish` does that later.
        keep
            How many older versions stay; None keeps all.
        """
        folder = self.folder(at)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        began = dt.datetime.now(dt.UTC)
        temporary = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            draft = Draft(temporary)
            fill(draft)
            manifest = _describe(at, recipe, draft, began)
            (temporary / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n")
            for path in temporary.rglob("*"):
                if path.is_file():
                    path.chmod(0o644)  # safetensors writes 0600: a store is shared
                _fsync(path)
            _fsync(temporary)
            final = folder / manifest.version
            if final.exists():
                shutil.rmtree(final)  # the same recipe and content, or a damaged copy of it
            temporary.rename(final)
            _fsync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        artifact = Artifact(final, manifest)
        if publish:
            self.publish(at, manifest.version, keep=keep)
        return artifact

    def publish(self, at: Address, version: str, *, keep: int | None = None) -> None:
        """Make a version the one that readers get."""
        folder = self.folder(at)
        pointer = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        pointer.write_text(version + "\n")
        _fsync(pointer)
        pointer.replace(folder / CURRENT)
        _fsync(folder)
        if keep is not None:
            older = [m.version for m in self.versions(at) if m.version != version]
            for name in older[: max(len(older) - keep, 0)]:
                shutil.rmtree(folder / name)


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(at: Address, recipe: Recipe, draft: Draft, began: dt.datetime) -> Manifest:
    files = {
        str(p.relative_to(draft.folder)): {"bytes": p.stat().st_size, "sha256": file_hash(p)}
        for p in sorted(draft.folder.rglob("*"))
        if p.is_file()
    }
    content_hash = digest(
        {n: entry["sha256"] for n, entry in files.items() if not n.startswith(VIEW_PREFIX)}
    )
    now = dt.datetime.now(dt.UTC)
    return Manifest(
        dataset=at.dataset,
        asset=at.asset,
        shard=at.shard,
        version=digest([content_hash, recipe.fingerprint])[:16],
        recipe={**asdict(recipe), "upstream": dict(recipe.upstream)},
        fingerprint=recipe.fingerprint,
        content_hash=content_hash,
        row_count=draft.row_count,
        schema=draft.schema,
        files=files,
        figures=draft.figures,
        libraries=_libraries(),
        created=now.isoformat(timespec="seconds"),
        seconds=round((now - began).total_seconds(), 3),
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=65536)
def _hash_of(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once per process and state; size and time only serve as the cache's key."""
    return file_hash(Path(path))


def _verify_files(folder: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise StoreError(
                f"{folder}: the file {name!r} of its manifest is missing; "
                f"delete this folder and materialize {manifest.asset} again"
            )
        stat = path.stat()
        seen: dict[str, Any] = {"bytes": stat.st_size}
        if seen["bytes"] == entry["bytes"]:
            seen["sha256"] = _hash_of(str(path), stat.st_size, stat.st_mtime_ns)
        for what, value in seen.items():
            if value != entry[what]:
                raise StoreError(
                    f"{path}: {what} is {value}, its manifest says {entry[what]}; "
                    f"delete {folder} and materialize {manifest.asset} again"
                )


def _read_manifest(folder: Path) -> Manifest:
    try:
        raw = json.loads((folder / MANIFEST).read_text())
        return Manifest(**{f.name: raw[f.name] for f in fields(Manifest)})
    except FileNotFoundError:
        raise StoreError(f"{folder}: no {MANIFEST}; materialize it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder}/{MANIFEST}: not a manifest ({error})") from None


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _remove_abandoned(folder: Path) -> None:
    """Remove temporary folders and pointers whose writer is dead."""
    for path in folder.glob(".tmp-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not _alive(int(pid)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync(path: Path) -> None:
    flags = os.O_RDONLY | (os.O_DIRECTORY if path.is_dir() else 0)
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
