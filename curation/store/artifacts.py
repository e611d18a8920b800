"""Versions of artifacts: written whole, published, read back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from curation.store import adoption, files
from curation.store.failures import Failed, read_mark, remove_mark, write_mark
from curation.store.manifests import (
    MANIFEST,
    SAFE_PART,
    Address,
    Draft,
    Manifest,
    Recipe,
    StoreError,
    describe,
    read_manifest,
    utc_now,
    verify_files,
)
from curation.store.publishing import CURRENT, Published, logged, point_at, pointed_at, read_log


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
        version = pointed_at(self.folder(at))
        return None if version is None else self.open(at, version)

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
        manifest = read_manifest(folder)
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
        verify_files(folder, manifest)
        return Artifact(folder, manifest)

    def unchanged(self, at: Address, recipe: Recipe) -> Artifact | None:
        """Return the published version if it was made by an equal recipe and is intact."""
        try:
            found = self.current(at)
        except StoreError:
            return None  # damaged: it has to be written again
        if found is None or found.manifest.fingerprint != recipe.fingerprint:
            return None
        files.remove_abandoned(self.folder(at))  # there is no write that would do it
        return found

    def shards(self, dataset: str, asset: str) -> list[str]:
        """Return the shards that have a published version of a per-shard asset, sorted."""
        return [p.name for p in self._parts(dataset, asset) if (p / CURRENT).is_file()]

    def versions(self, at: Address) -> list[Manifest]:
        """Return the manifests of all versions kept, in the order they were written.

        A version whose manifest can't be read is left out; :meth:`open` says what is wrong with it.
        """
        return sorted(versions_in(self.folder(at)), key=lambda m: (m.ordinal, m.created, m.version))

    def published(self, at: Address) -> list[Published]:
        """Return all publications at an address without a shard, oldest first.

        Retention may have removed the versions of older ones.
        """
        if at.shard is not None:
            raise StoreError(f"{at}: what is published of a shard is not logged")
        return read_log(self.folder(at))

    def write(
        self,
        at: Address,
        recipe: Recipe,
        fill: Callable[[Draft], None],
        *,
        publish: bool = True,
        keep: int | None = None,
        index: bool = False,
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
        index
            Whether other shards may take it over (:meth:`adopt`).

        Raises
        ------
        StoreError
            When the disk is full. The version that was current still is.
        """

        def make(folder: Path) -> Manifest:
            began = time.monotonic()
            draft = Draft(folder)
            fill(draft)
            seconds = time.monotonic() - began
            return describe(at, recipe, draft, seconds=seconds)

        artifact = self._write(at, make)
        if publish:
            self.publish(at, artifact.manifest.version, keep=keep)
        if index:
            self._index(at, artifact.manifest)
        return artifact

    def adopt(self, at: Address, recipe: Recipe, *, keep: int | None = 1) -> Artifact | None:
        """Publish, for a shard, what another shard (or it, earlier) has of an equal recipe.

        The data files are linked, or copied where they can't be; nothing is computed.

        Parameters
        ----------
        at, recipe
            Where, and what the content depends on.
        keep
            How many older versions of the shard stay; None keeps all.

        Returns
        -------
        Artifact or None
            None if no shard has an intact version that was written with ``index=True``.
        """
        asset = self.folder(Address(at.dataset, at.asset))
        noted = None if at.shard is None else adoption.recall(asset, recipe.fingerprint)
        if noted is None:
            return None
        other = self._intact(Address(at.dataset, at.asset, noted[0]), noted[1])
        if other is None or other.manifest.fingerprint != recipe.fingerprint:
            adoption.forget(asset, recipe.fingerprint)
            return None
        artifact = other if noted[0] == at.shard else self._take_over(at, other)
        if artifact is not None:
            self.publish(at, artifact.manifest.version, keep=keep)
            self._index(at, artifact.manifest)
        return artifact

    def publish(self, at: Address, version: str, *, keep: int | None = None) -> None:
        """Make a version the one that readers get, and note that in the log.

        Parameters
        ----------
        at, version
            What is published. Nothing changes if it is the current version already.
        keep
            How many older versions stay, the one that was current first of all; None keeps all.
        """
        folder = self.folder(at)
        manifest = read_manifest(folder / version)
        before = pointed_at(folder)
        with self._told_when_full(at, "its version was not published, or not noted as such"):
            if at.shard is not None:
                if before != version:
                    point_at(folder, version)
            else:
                with logged(folder, manifest, now=utc_now()) as new:
                    if new:
                        point_at(folder, version)
        if keep is not None:
            older = [m.version for m in self.versions(at) if m.version != version]
            older.sort(key=lambda name: name == before)  # a reader may have it open
            for name in older[: max(len(older) - keep, 0)]:
                files.discard(folder / name)

    def mark_failed(self, at: Address, *, reason: str, stamp: str) -> None:
        """Remember that a shard failed, and with what; what is published of it stays."""
        if at.shard is None:
            raise StoreError(f"{at}: only shards are marked as failed")
        with self._told_when_full(at, f"it failed ({reason}), which can't be noted"):
            files.remove_abandoned(self.folder(at))
            write_mark(self.folder(at), reason=reason, stamp=stamp)

    def clear_failed(self, at: Address) -> None:
        """Forget that a shard failed."""
        remove_mark(self.folder(at))

    def failed(self, dataset: str, asset: str) -> dict[str, Failed]:
        """Return the shards of an asset that are marked as failed, and why."""
        marks = {p.name: read_mark(p) for p in self._parts(dataset, asset)}
        return {shard: mark for shard, mark in marks.items() if mark is not None}

    def _parts(self, dataset: str, asset: str) -> list[Path]:
        """Return what may be a shard's folder: temporary and hidden ones are none."""
        folder = self.folder(Address(dataset, asset))
        if not folder.is_dir():
            return []
        return sorted(p for p in folder.iterdir() if SAFE_PART.match(p.name) and p.is_dir())

    def _counted(self, at: Address, manifest: Manifest) -> Manifest:
        """Number a version after all others; one that is made again gets the same number."""
        others = (m for m in versions_in(self.folder(at)) if m.version != manifest.version)
        return replace(manifest, ordinal=max((m.ordinal for m in others), default=0) + 1)

    def _index(self, at: Address, manifest: Manifest) -> None:
        if at.shard is None:
            raise StoreError(f"{at}: only shards take artifacts over from each other")
        asset = self.folder(Address(at.dataset, at.asset))
        with self._told_when_full(at, "it was published, but other shards can't take it over"):
            adoption.note(asset, manifest.fingerprint, shard=at.shard, version=manifest.version)

    def _take_over(self, at: Address, other: Artifact) -> Artifact | None:
        def make(folder: Path) -> Manifest:
            began = time.monotonic()
            adoption.take_files(other.manifest, other.folder, folder)
            seconds = round(time.monotonic() - began, 3)
            return replace(other.manifest, shard=at.shard, created=utc_now(), seconds=seconds)

        try:
            return self._write(at, make)
        except FileNotFoundError:
            return None  # it was removed while it was being taken over

    def _write(self, at: Address, make: Callable[[Path], Manifest]) -> Artifact:
        """Make a version in a temporary folder and give it its name once it is whole."""
        folder = self.folder(at)
        with self._told_when_full(
            at, "nothing was written, what was published before stays current"
        ):
            folder.mkdir(parents=True, exist_ok=True)
            files.remove_abandoned(folder)
            temporary = files.temporary_path(folder)
            temporary.mkdir()
            try:
                manifest = self._counted(at, make(temporary))
                text = json.dumps(asdict(manifest), indent=1) + "\n"
                (temporary / MANIFEST).write_text(text, encoding="utf-8")
                files.bring_to_disk(temporary)
                final = folder / manifest.version
                if pointed_at(folder) == manifest.version:
                    intact = self._intact(at, manifest.version)
                    if intact is not None:  # not even for a moment do readers miss it
                        return intact
                files.put_in_place(temporary, final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return Artifact(final, manifest)

    def _intact(self, at: Address, version: str) -> Artifact | None:
        try:
            return self.open(at, version)
        except StoreError:
            return None

    @contextmanager
    def _told_when_full(self, at: Address, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except BaseException as error:
            if not files.is_disk_full(error):
                raise
            where = f" of shard {at.shard}" if at.shard else ""
            raise StoreError(
                f"data set {at.dataset}: the disk is full ({error}), {at.asset}{where}: {what}. "
                f"{_free(self.root)} free in {self.root}; make room "
                f"(curation prune {at.dataset} lists old versions) and run it again"
            ) from error


def versions_in(folder: Path) -> list[Manifest]:
    """Return the manifests of the versions in a folder that can be read, in no order."""
    found = []
    for path in folder.glob(f"*/{MANIFEST}"):
        try:
            manifest = read_manifest(path.parent)
        except StoreError:
            continue
        if manifest.version == path.parent.name:  # else it was not finished: a temporary folder
            found.append(manifest)
    return found


def _free(root: Path) -> str:
    try:
        return f"{shutil.disk_usage(root).free:,} bytes are"
    except OSError:
        return "an unknown number of bytes is"
