"""What an artifact says of itself: address, recipe and manifest."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
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
    """What a version says of itself.

    `ordinal` counts the versions of an address in the order they were written; `created` comes from
    a clock, which may go backwards, and is for display. `seconds` and `peak_mib` are what writing
    it took: time, and the most memory the process held.
    """

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
    ordinal: int = 0  # versions from before it was counted are the oldest
    peak_mib: float = 0.0  # 0: not measured


@dataclass
class Draft:
    """A version being written; `peak_mib` is the most memory the process held meanwhile."""

    folder: Path
    row_count: int = 0
    schema: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    peak_mib: float = 0.0


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(at: Address, recipe: Recipe, draft: Draft, *, seconds: float) -> Manifest:
    """Describe what was written into a draft's folder."""
    files = {
        str(p.relative_to(draft.folder)): {"bytes": p.stat().st_size, "sha256": file_hash(p)}
        for p in sorted(draft.folder.rglob("*"))
        if p.is_file()
    }
    content_hash = digest(
        {n: entry["sha256"] for n, entry in files.items() if not n.startswith(VIEW_PREFIX)}
    )
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
        created=utc_now(),
        seconds=round(seconds, 3),
        peak_mib=draft.peak_mib,
    )


def utc_now() -> str:
    """Return the clock's time (UTC, ISO 8601)."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=65536)
def _hash_of(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once per process and state; size and time only serve as the cache's key."""
    return file_hash(Path(path))


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Refuse a version whose files are not those of its manifest."""
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


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a version's folder."""
    try:
        raw = json.loads((folder / MANIFEST).read_text())
        known = [f.name for f in fields(Manifest) if f.name in raw or f.default is MISSING]
        return Manifest(**{name: raw[name] for name in known})
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
