"""Which old versions go: a plan that can be read first, and its execution.

What stays: the newest published subsets and the current one, the models and centroids they were
drawn with, and of everything else the current version. What goes besides old versions: artifacts of
shards that the source no longer has, and what crashes left behind.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from curation.locks import dataset_lock
from curation.store import CURRENT, SAFE_PART, Address, Manifest, Store, StoreError
from curation.store.adoption import RECIPES, recall
from curation.store.files import TEMPORARY, discard, is_abandoned, remove
from curation.store.manifests import read_manifest
from curation.store.publishing import LOG, pointed_at

SELECTED_SUBSET = "selected_subset"
FOREIGN_DAYS = (
    1  # another host's temporary files: whether that still writes can't be told from here
)


class Curated(Protocol):
    """A data set: its name, and the store its artifacts are in."""

    @property
    def name(self) -> str:
        """Name of the data set."""

    @property
    def store(self) -> Store:
        """Where its artifacts are."""


@dataclass(frozen=True)
class Removal:
    """Something that is to go.

    Attributes
    ----------
    path
        A version's folder, a shard's, or what a crash left behind.
    bytes
        What removing it frees; files that another artifact has too (links) free nothing.
    why
        The reason.
    root, dataset
        The store's folder and the data set: nothing outside of them is ever removed.
    """

    path: Path
    bytes: int
    why: str
    root: Path
    dataset: str


def plan(
    dataset: Curated,
    *,
    versions: int,
    days: int | None,
    present: set[str] | None,
    now: dt.datetime,
) -> list[Removal]:
    """Return what retention would remove, sorted by path; nothing is changed.

    Parameters
    ----------
    dataset
        Name and store of the data set.
    versions
        Published subsets that stay, the newest first.
    days
        Those younger than so many days stay as well; None: only the number counts.
    present
        Shards that the source has; artifacts of others go. None: not known, all stay.
    now
        The present time, with a time zone. Only ages depend on it.

    Raises
    ------
    curation.store.StoreError
        If the source has no shard at all: that is an error in its settings, not a reason to remove
        everything.
    """
    if versions < 1:
        raise ValueError(f"versions must be at least 1, got {versions}")
    if present is not None and not present:
        raise StoreError(
            f"data set {dataset.name}: the source has no shard, so that all artifacts would go; "
            "look at `source` in defs.yaml"
        )
    root = dataset.store.root.resolve()
    folder = root / dataset.name
    if folder.is_symlink():
        raise StoreError(f"{folder}: is a symbolic link; retention follows none")
    found = {
        path: why
        for asset in _folders(folder)
        for path, why in (
            *_old(asset, folder, dataset, versions, days, now),
            *_of_gone_shards(asset, present),
        )
    }
    found |= dict(_left_behind(folder, now))
    found |= dict(_stale_notes(folder, set(found)))
    inside = {p for p in found if any(parent in found for parent in p.parents)}
    return [
        Removal(path, _size(path), found[path], root, dataset.name)
        for path in sorted(set(found) - inside)
    ]


def apply(
    removals: Iterable[Removal],
    *,
    owner: str = "curation prune",
    wait_seconds: float = 3600.0,
    told: Callable[[str], None] | None = None,
) -> int:
    """Remove what was planned, under the data set's lock; return the bytes that were freed.

    A folder is renamed before it is removed: a crash leaves a temporary folder, never a version of
    which a part is missing. What has become current since it was planned stays.

    Raises
    ------
    curation.locks.LockTimeout
        If a run holds the lock for longer than `wait_seconds`.
    curation.store.StoreError
        If a path leads out of the data set's folder, or something could not be removed.
    """
    freed = 0
    failed: list[str] = []
    ordered = sorted(removals, key=lambda r: (r.root, r.dataset, r.path))
    for removal in ordered:
        _refuse_outside(removal)
    for (root, name), group in groupby(ordered, key=lambda r: (r.root, r.dataset)):
        with dataset_lock(root, name, owner=owner, wait_seconds=wait_seconds, told=told):
            for removal in group:
                _refuse_outside(removal)  # links may have been made while we waited
                if pointed_at(removal.path.parent) == removal.path.name:
                    continue
                try:
                    freed += removal.bytes if _remove(removal.path) else 0
                except OSError as error:
                    failed.append(f"{removal.path}: {error}")
    if failed:
        raise StoreError(f"{freed:,} bytes were freed; not removed: {'; '.join(failed)}")
    return freed


def _remove(path: Path) -> bool:
    if not os.path.lexists(path):
        return False
    if path.is_dir() and not path.name.startswith(TEMPORARY):
        discard(path)
    else:
        remove(path)
    return True


def _refuse_outside(removal: Removal) -> None:
    folder = removal.root / removal.dataset
    path = removal.path
    steps = [path, *path.parents]
    if (
        ".." in path.parts
        or not SAFE_PART.match(removal.dataset)
        or folder not in path.parents
        or any(p.is_symlink() for p in steps[: steps.index(removal.root)])
    ):
        raise StoreError(f"{path}: not in {folder}, or behind a symbolic link; it is left alone")


def _old(
    asset: Path,
    folder: Path,
    dataset: Curated,
    versions: int,
    days: int | None,
    now: dt.datetime,
) -> Iterator[tuple[Path, str]]:
    """Yield the versions of an asset that go."""
    at = Address(dataset.name, SELECTED_SUBSET)
    if not _is_global(asset):
        for shard in _folders(asset):
            yield from _not_current(shard, "a newer version of the shard is current", set())
        return
    kept = _kept_subsets(dataset.store, at, versions, days, now)
    if asset.name == SELECTED_SUBSET:
        for version in _folders(asset):
            if version.name not in kept:
                yield (
                    version,
                    f"neither current nor among the {versions:,} newest subsets"
                    + (f", and not younger than {days:,} days" if days else ""),
                )
    else:
        why = "a newer version is current, and no subset that stays refers to it"
        yield from _not_current(asset, why, _referred(folder, kept))


def _is_global(asset: Path) -> bool:
    return (asset / CURRENT).is_file() or (asset / LOG).is_file()


def _not_current(folder: Path, why: str, referred: set[str]) -> Iterator[tuple[Path, str]]:
    current = pointed_at(folder)
    if current is None or not (folder / current).is_dir():
        return  # nothing to fall back on: all stays
    for version in _folders(folder):
        if version.name == current:
            continue
        manifest = _manifest(version)
        if manifest is None or manifest.content_hash not in referred:
            yield version, why


def _kept_subsets(
    store: Store, at: Address, versions: int, days: int | None, now: dt.datetime
) -> set[str]:
    """Return the versions of the subset that stay."""
    there = {p.name for p in _folders(store.folder(at))}
    log = store.published(at)
    manifests = store.versions(at)
    newest = [p.version for p in reversed(log)]
    # versions from before publications were logged come after those that were
    newest += [m.version for m in reversed(manifests) if m.ordinal == 0]
    kept = set(list(dict.fromkeys(v for v in newest if v in there))[:versions])
    current = pointed_at(store.folder(at))
    if current is None:
        return there  # nothing was published: all that was held back stays
    kept.add(current)
    since = {m.version: m.created for m in manifests} | {p.version: p.published for p in log}
    if days is not None:
        kept |= {v for v, when in since.items() if _age(when, now) < dt.timedelta(days=days)}
    # held back by its checks, and not overtaken by a subset that passed them
    place = next((m.ordinal for m in manifests if m.version == current), 0)
    unpublished = (m for m in manifests if m.version not in newest)
    return kept | {m.version for m in unpublished if m.ordinal > place}


def _age(when: str, now: dt.datetime) -> dt.timedelta:
    """Return how long ago a time was; what can't be read, or lies in the future, is young."""
    try:
        return now - dt.datetime.fromisoformat(when)
    except (ValueError, TypeError):
        return dt.timedelta(0)


def _referred(folder: Path, kept: set[str]) -> set[str]:
    """Return the content hashes that subsets refer to, and those that these refer to in turn."""
    subsets = [_manifest(folder / SELECTED_SUBSET / version) for version in kept]
    others = [_manifest(v) for a in _folders(folder) if _is_global(a) for v in _folders(a)]
    referred: set[str] = set()
    fresh = {h for m in subsets if m is not None for h in _upstream(m)}
    while fresh - referred:
        referred |= fresh
        reached = [m for m in others if m is not None and m.content_hash in referred]
        fresh = {h for m in reached for h in _upstream(m)}
    return referred


def _upstream(manifest: Manifest) -> list[str]:
    return [str(value) for value in manifest.recipe.get("upstream", {}).values()]


def _manifest(version: Path) -> Manifest | None:
    try:
        return read_manifest(version)
    except StoreError:
        return None


def _of_gone_shards(asset: Path, present: set[str] | None) -> Iterator[tuple[Path, str]]:
    if present is None or _is_global(asset):
        return
    for shard in _folders(asset):
        # a global asset of which nothing was published yet has versions here, not shards
        if shard.name not in present and _manifest(shard) is None:
            yield shard, "the source no longer has this shard"


def _left_behind(folder: Path, now: dt.datetime) -> Iterator[tuple[Path, str]]:
    """Yield temporary files and folders of the data set, its assets and its shards."""
    assets = _folders(folder)
    places = [folder, *assets, *(p for a in assets for p in _folders(a))]
    for place in [*places, *(a / RECIPES for a in assets if _is_real(a / RECIPES))]:
        for path in sorted(place.glob(f"{TEMPORARY}*")):
            if path.is_symlink():
                continue
            dead = is_abandoned(path.name)
            if dead:
                yield path, "left behind by a process that is dead"
            elif dead is None and _days_untouched(path, now) > FOREIGN_DAYS:
                yield path, "left behind, by another host or container, for more than a day"


def _days_untouched(path: Path, now: dt.datetime) -> float:
    return (now.timestamp() - path.lstat().st_mtime) / 86_400


def _stale_notes(folder: Path, going: set[Path]) -> Iterator[tuple[Path, str]]:
    """Yield notes of artifacts that are gone, or go."""
    for asset in _folders(folder):
        if not _is_real(asset / RECIPES):
            continue
        for note in sorted((asset / RECIPES).iterdir()):
            if note.name.startswith(TEMPORARY) or note.is_symlink():
                continue
            noted = recall(asset, note.name)
            version = asset.joinpath(*noted) if noted else None
            if version is None or {version, version.parent} & going or not version.is_dir():
                yield note, "notes an artifact that is gone"


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that may be assets, shards or versions; links are none."""
    if not _is_real(folder):
        return []
    return sorted(p for p in folder.iterdir() if SAFE_PART.match(p.name) and _is_real(p))


def _is_real(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(path: Path) -> int:
    """Return the bytes of files that nothing else links to."""
    if not _is_real(path):
        paths = [path]
    else:
        paths = [Path(f, name) for f, _, names in os.walk(path) for name in names]
    stats = [p.lstat() for p in paths]
    return sum(s.st_size for s in stats if s.st_nlink == 1)
