"""Versions of artifacts: written whole, published, read back."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.store.files import fsync, remove_abandoned
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
    verify_files,
)

CURRENT = "current"


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
        found = [read_manifest(p.parent) for p in folder.glob(f"*/{MANIFEST}")]
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
        remove_abandoned(folder)
        began = dt.datetime.now(dt.UTC)
        temporary = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            draft = Draft(temporary)
            fill(draft)
            manifest = describe(at, recipe, draft, began)
            (temporary / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n")
            for path in temporary.rglob("*"):
                if path.is_file():
                    path.chmod(0o644)  # safetensors writes 0600: a store is shared
                fsync(path)
            fsync(temporary)
            final = folder / manifest.version
            if final.exists():
                shutil.rmtree(final)  # the same recipe and content, or a damaged copy of it
            temporary.rename(final)
            fsync(folder)
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
        fsync(pointer)
        pointer.replace(folder / CURRENT)
        fsync(folder)
        if keep is not None:
            older = [m.version for m in self.versions(at) if m.version != version]
            for name in older[: max(len(older) - keep, 0)]:
                shutil.rmtree(folder / name)
